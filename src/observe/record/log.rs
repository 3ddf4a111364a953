//! The log's lines about one decision. They hold words that are redacted already, and never a spec.

use std::borrow::Cow;

use super::{Record, Stage, name, trace_id, would};
use crate::admission::decision::PartResult;

/// The one line that says what was decided. What is owned may outlive the review: an answer that
/// waits for its record on disk is not given yet, and may become another one.
pub struct LogLine<'r> {
    stage: Stage,
    id: Cow<'r, str>,
    decision: &'static str,
    kind: &'static str,
    user: Cow<'r, str>,
    project: Cow<'r, str>,
    name: Cow<'r, str>,
    took_ms: f64,
    trace_id: Option<String>,
    why: Option<Cow<'r, str>>,
}

impl Record<'_> {
    /// Writes the log's lines about this decision.
    pub fn log(&self) {
        self.log_faults();
        self.log_line().write();
    }

    /// The line that says what was decided.
    pub fn log_line(&self) -> LogLine<'_> {
        let (decision, review) = (self.decision, &self.decision.review);
        LogLine {
            stage: self.stage,
            id: Cow::Borrowed(&review.id),
            decision: match self.stage {
                Stage::ResponseComplete => decision.as_str(),
                Stage::MonitorComplete => would(decision),
            },
            kind: review.kind.as_str(),
            user: Cow::Borrowed(&review.user),
            project: Cow::Borrowed(&review.project),
            name: Cow::Owned(name(decision).unwrap_or_default()),
            took_ms: self.took.as_micros() as f64 / 1e3,
            trace_id: trace_id(decision),
            why: decision.denial().map(Cow::Borrowed),
        }
    }

    /// Writes a line about each plugin that failed, whatever becomes of the review.
    pub fn log_faults(&self) {
        let id = &*self.decision.review.id;
        for part in &self.decision.parts {
            let (PartResult::Failed(fault) | PartResult::FailedOpen(fault)) = &part.result else {
                continue;
            };
            let (plugin, error_type, why) = (&*part.plugin, fault.kind.as_str(), &*fault.message);
            let (result, detail) = (
                part.result.as_str(),
                fault.detail.as_deref().unwrap_or_default(),
            );
            tracing::warn!(id, plugin, result, error_type, why, detail, "plugin fault");
        }
        for plugin in &self.decision.unsettled {
            tracing::warn!(
                id,
                plugin = &**plugin,
                "the spec went on changing after this plugin's second call"
            );
        }
    }
}

impl LogLine<'_> {
    pub fn into_owned(self) -> LogLine<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        LogLine {
            stage: self.stage,
            id: owned(self.id),
            decision: self.decision,
            kind: self.kind,
            user: owned(self.user),
            project: owned(self.project),
            name: owned(self.name),
            took_ms: self.took_ms,
            trace_id: self.trace_id,
            why: self.why.map(owned),
        }
    }

    pub fn write(&self) {
        let (id, decision, kind, took_ms) = (&*self.id, self.decision, self.kind, self.took_ms);
        let (user, project, name) = (&*self.user, &*self.project, &*self.name);
        let trace_id = self.trace_id.as_deref();
        match (self.stage, self.why.as_deref()) {
            (Stage::ResponseComplete, None) => tracing::info!(
                id, decision, kind, user, project, name, took_ms, trace_id, "decided"
            ),
            (Stage::ResponseComplete, Some(why)) => tracing::info!(
                id, decision, kind, user, project, name, took_ms, trace_id, why, "decided"
            ),
            (Stage::MonitorComplete, _) => {
                let would = decision;
                tracing::info!(id, would, kind, user, project, name, trace_id, "monitored");
            }
        }
    }
}
