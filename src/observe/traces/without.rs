//! What stands in for the sender of spans in a binary that cannot send any. It cannot be made.

use std::time::Duration;

use super::meters::TraceMeters;
use super::{About, Ended, Settings, Site};
use crate::admission::chain::Member;
use crate::admission::trace::Trace;

pub(super) enum Pipeline {}

pub(super) struct Facts;

#[derive(Default)]
pub(super) struct Tasks {}

impl Facts {
    pub fn of<'p, P>(_: &Site<'_>, _: &'p [Member<P>], _: impl Fn(&'p P) -> About<'p>) -> Self {
        Self
    }
}

impl Pipeline {
    pub fn start(_: &Settings, _: Facts, _: &TraceMeters, _: &Tasks) -> Result<Self, String> {
        Err("this binary was built without the feature `otlp`, so it sends no traces".to_owned())
    }

    pub fn name(&self, _: Option<Trace>) -> Option<Trace> {
        match *self {}
    }

    pub fn decided(&self, _: &Ended<'_>) {
        match *self {}
    }

    pub fn monitored(&self, _: &Ended<'_>) {
        match *self {}
    }
}

impl Tasks {
    pub async fn close(&self, _: Duration) {}
}
