//! The last few hundred decisions, for the page that shows them: who asked for what and what came
//! of it, as an audit event of the level `Metadata` tells. No spec, no patch, no secret.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use super::record::{self, Record};
use crate::admission::decision::{Decision, Part};

/// Decisions that are kept.
pub const KEPT: usize = 500;
/// Characters of a name, of a text and plugins of a decision that are kept, so that memory is
/// bounded whatever people write.
const NAME: usize = 200;
const TEXT: usize = 2000;
const PLUGINS: usize = 100;

/// One decision.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    #[serde(rename = "auditID")]
    pub id: String,
    #[serde(serialize_with = "timestamp")]
    pub received: SystemTime,
    pub kind: &'static str,
    pub user: String,
    pub project: String,
    pub name: Option<String>,
    pub decision: &'static str,
    pub duration_seconds: f64,
    /// What the user read, when denied.
    pub message: Option<String>,
    pub repeat_of: Option<String>,
    pub plugins: Vec<Asked>,
    /// What the monitored plugins would have done, once they have been asked.
    pub monitored: Option<Monitored>,
}

/// A plugin's part.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    pub name: Arc<str>,
    pub verdict: &'static str,
    pub duration_seconds: f64,
}

/// What monitored plugins said.
#[derive(Clone, Debug, Serialize)]
pub struct Monitored {
    pub decision: &'static str,
    /// Why they would deny.
    pub message: Option<String>,
    pub plugins: Vec<Asked>,
}

/// The latest decisions.
#[derive(Default)]
pub struct Recent {
    kept: Mutex<VecDeque<Arc<Entry>>>,
}

impl Entry {
    /// Of a decision whose texts are redacted already.
    pub fn new(decision: &Decision, repeat_of: Option<String>) -> Self {
        let review = &decision.review;
        Self {
            id: review.id.clone(),
            received: review.received,
            kind: review.kind.as_str(),
            user: shortened(&review.user, NAME),
            project: shortened(&review.project, NAME),
            name: record::name(decision).map(|name| shortened(&name, NAME)),
            decision: decision.as_str(),
            duration_seconds: 0.0,
            message: decision.denial().map(|message| shortened(message, TEXT)),
            repeat_of,
            plugins: asked(&decision.parts),
            monitored: None,
        }
    }
}

impl Recent {
    /// Adds a decision that took so long.
    pub fn decided(&self, entry: Entry, took: Duration) {
        let duration_seconds = took.as_secs_f64();
        let entry = Arc::new(Entry {
            duration_seconds,
            ..entry
        });
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(entry);
    }

    /// Adds to a decision what monitored plugins said, if it is still kept.
    pub fn monitored(&self, record: &Record<'_>) {
        let shadow = record.decision;
        let monitored = Monitored {
            decision: record.decided(),
            message: shadow.denial().map(|message| shortened(message, TEXT)),
            plugins: asked(&shadow.parts),
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut newest_first = kept.iter_mut().rev();
        if let Some(entry) = newest_first.find(|entry| entry.id == shadow.review.id) {
            Arc::make_mut(entry).monitored = Some(monitored);
        }
    }

    /// What is kept, the newest first.
    pub fn newest_first(&self) -> Vec<Arc<Entry>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().rev().cloned().collect()
    }
}

fn asked(parts: &[Part]) -> Vec<Asked> {
    let asked = |part: &Part| Asked {
        name: Arc::clone(&part.plugin),
        verdict: record::verdict(part),
        duration_seconds: part.took.as_secs_f64(),
    };
    parts.iter().take(PLUGINS).map(asked).collect()
}

fn shortened(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn timestamp<S: Serializer>(at: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&humantime::format_rfc3339_millis(*at))
}
