//! Traces: a span of each review, a child of it for each call of a plugin, sent to a receiver of
//! OTLP. The spans are made from what is known of a decision when it is recorded; only their names are
//! made before, since what is called has to be told them. They hold no text that a plugin or a spec
//! said.
//!
//! Without the feature `otlp` nothing is sent and no span is named: all that is taken from a
//! caller is the name of its trace, for the record.

pub mod meters;

#[cfg(feature = "otlp")]
mod otlp;
#[cfg(not(feature = "otlp"))]
mod without;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, Uri};

use crate::admission::chain::Member;
use crate::admission::decision::Decision;
use crate::admission::review::Kind;
use crate::admission::trace::{TRACEPARENT, TRACESTATE, Trace};
use crate::identity::outgoing::{ClientCert, Credentials};
use meters::TraceMeters;
#[cfg(feature = "otlp")]
use otlp::{Facts, Pipeline, Tasks};
#[cfg(not(feature = "otlp"))]
use without::{Facts, Pipeline, Tasks};

/// Whether this binary can send traces at all.
pub const BUILT_IN: bool = cfg!(feature = "otlp");

/// What is passed on of a `tracestate` at most, as W3C Trace Context allows.
const STATE_BYTES: usize = 512;

/// Where spans go, which, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The whole address, with its path.
    pub endpoint: Uri,
    pub headers: Vec<(HeaderName, Header)>,
    pub credentials: Option<Credentials>,
    /// PEM certificates to trust instead of the public ones.
    pub ca_file: Option<PathBuf>,
    pub client_cert: Option<ClientCert>,
    pub compression: Compression,
    /// For one batch, sending it again included.
    pub timeout: Duration,
    pub sampler: Sampler,
    /// Names this service; without it the environment does, or the program's name.
    pub service_name: Option<String>,
    /// More about this process, over what the environment says.
    pub resource: BTreeMap<String, String>,
    /// Spans that wait at most.
    pub queue_size: usize,
    /// Spans of one request at most.
    pub batch_max_size: usize,
    /// How long spans are gathered.
    pub batch_max_wait: Duration,
}

/// A header's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Header {
    Text(String),
    /// The text of a file.
    File(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Off,
    Gzip,
}

/// Which traces are recorded, with OpenTelemetry's names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Whether what the caller decided holds, where there is a caller's trace.
    pub parent_based: bool,
    /// The part of the other traces that is recorded, from 0 to 1.
    pub ratio: f64,
}

/// What is told of a plugin besides what the chain knows.
#[derive(Clone, Copy, Debug)]
pub struct About<'p> {
    /// Its kind's key in the configuration.
    pub kind: &'static str,
    /// Where it is called over HTTP.
    pub url: Option<&'p Uri>,
}

/// How reviews are asked for.
pub struct Site<'s> {
    /// `https` or `http`.
    pub scheme: &'static str,
    /// The path of a kind of review.
    pub path: &'s dyn Fn(Kind) -> String,
}

/// What has come of a review, as far as its span goes.
pub struct Ended<'d> {
    pub decision: &'d Decision,
    /// When its plugins' times began to run.
    pub began: SystemTime,
    pub took: Duration,
    /// The hash of the configuration that decided.
    pub configuration: &'d str,
}

/// The senders of spans of this process, those of former configurations included.
pub struct Traces {
    meters: TraceMeters,
    tasks: Tasks,
}

/// Makes spans as one configuration wants them. Dropping it lets its sender send what it has.
pub struct Tracer {
    pipeline: Option<Pipeline>,
}

impl Traces {
    pub fn new(meters: TraceMeters) -> Self {
        Self {
            meters,
            tasks: Tasks::default(),
        }
    }

    /// Begins to send as `settings` say; without them, nothing is. Reads files, opens no connection
    /// yet; needs a runtime.
    ///
    /// # Errors
    /// In words, naming the file.
    pub fn tracer<'p, P>(
        &self,
        settings: Option<&Settings>,
        site: &Site<'_>,
        members: &'p [Member<P>],
        about: impl Fn(&'p P) -> About<'p>,
    ) -> Result<Tracer, String> {
        let pipeline = match settings {
            None => None,
            Some(settings) => Some(Pipeline::start(
                settings,
                Facts::of(site, members, about),
                &self.meters,
                &self.tasks,
            )?),
        };
        Ok(Tracer { pipeline })
    }

    /// Sends what waits, for as long as `patience` lasts. What is left then is lost.
    pub async fn close(&self, patience: Duration) {
        self.tasks.close(patience).await;
    }
}

impl Tracer {
    /// The place in a trace of a request with these headers.
    pub fn place(&self, headers: &HeaderMap) -> Option<Trace> {
        let text = |name| headers.get(name)?.to_str().ok();
        // Two of them are as good as none.
        let several = headers.get_all(TRACEPARENT).iter().nth(1).is_some();
        let parent = text(TRACEPARENT).filter(|_| !several);
        let parent = parent.and_then(Trace::parse);
        let Some(pipeline) = &self.pipeline else {
            return parent;
        };
        let parent = parent.map(|parent| Trace {
            state: state(headers),
            ..parent
        });
        pipeline.name(parent)
    }

    /// Whether spans are made at all.
    pub fn is_on(&self) -> bool {
        self.pipeline.is_some()
    }

    /// Takes the spans of a decided review: its own and those of its plugins.
    pub fn decided(&self, ended: &Ended<'_>) {
        if let Some(pipeline) = &self.pipeline {
            pipeline.decided(ended);
        }
    }

    /// Takes the spans of the plugins that were asked after the answer.
    pub fn monitored(&self, ended: &Ended<'_>) {
        if let Some(pipeline) = &self.pipeline {
            pipeline.monitored(ended);
        }
    }
}

/// The members of all `tracestate` headers, in their order.
fn state(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(TRACESTATE).iter();
    let lines: Option<Vec<&str>> = lines.map(|line| line.to_str().ok()).collect();
    let joined = lines?.join(",");
    let fits = !joined.trim().is_empty() && joined.len() <= STATE_BYTES;
    fits.then_some(joined)
}
