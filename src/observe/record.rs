//! One decision as it is recorded: an audit event after the shape of `audit.k8s.io/v1` Event, with
//! the chain's part beside it, and the log line. It holds no secret: what plugins say is redacted
//! before (`redaction`), specs and patches are redacted here.

mod changes;
pub mod event;
mod line;
mod log;
pub mod rules;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, SystemTime};

use json_patch::PatchOperation;
use serde_json::Value;

use self::event::{Event, FieldChange, ObjectRef, Plugin, ResponseStatus, User};
pub use self::log::LogLine;
pub use self::rules::{Level, LevelRule, Recording};
use crate::admission::decision::{Decision, Part, PartResult};
use crate::admission::secrets::{Known, Secrets};

/// The `apiVersion` of audit events.
pub(super) const API_VERSION: &str = "dstack-admission/v1";

/// When in a review's life an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The decision is made and its answer is about to leave.
    ResponseComplete,
    /// The monitored plugins have been asked.
    MonitorComplete,
}

/// A decision and what is known around it.
pub struct Record<'r> {
    pub decision: &'r Decision,
    pub stage: Stage,
    /// From the whole request to the decision.
    pub took: Duration,
    pub completed: SystemTime,
    /// The hash of the configuration that decided.
    pub configuration: &'r str,
    pub recording: &'r Recording,
    /// Which of the plugins' texts were redacted before.
    pub redacted: &'r [String],
    /// The review that this one seems to repeat.
    pub repeat_of: Option<&'r str>,
}

impl Record<'_> {
    /// How much of it is recorded.
    pub fn level(&self) -> Level {
        self.recording.level(&self.decision.review, self.decided())
    }

    /// How the event and the page of decisions call it.
    pub fn decided(&self) -> &'static str {
        match self.stage {
            Stage::ResponseComplete => self.decision.as_str(),
            Stage::MonitorComplete => would(self.decision),
        }
    }

    /// The audit event as one line of JSON with its line end, or nothing at the level `None`.
    /// Secrets are redacted; should that fail, the event holds nothing that has any.
    pub fn audit_line(&self) -> Option<Vec<u8>> {
        match self.level() {
            Level::None => None,
            level => Some(self.line(level, |level| self.event(level))),
        }
    }

    fn line<'e>(&self, level: Level, event: impl Fn(Level) -> Event<'e>) -> Vec<u8> {
        if let Ok(line) = catch_unwind(AssertUnwindSafe(|| line::of(&event(level)))) {
            return line;
        }
        let id = &*self.decision.review.id;
        tracing::error!(
            id,
            "an audit event could not be redacted and holds only metadata"
        );
        let mut event = self.event(Level::Metadata);
        event.redaction_failed = true;
        line::of(&event)
    }

    fn event(&self, level: Level) -> Event<'_> {
        let (decision, review) = (self.decision, &self.decision.review);
        let redaction = Redaction::new(&self.recording.secrets, decision, level);
        let mut redacted = self.redacted.to_vec();
        let parts = decision.parts.iter();
        let plugins = parts
            .map(|part| plugin(part, level, &redaction, &mut redacted))
            .collect();
        let patch = redaction.patch(&decision.patch, level, &mut redacted);
        let spec = (level >= Level::Spec && self.stage == Stage::ResponseComplete).then(|| {
            let secrets = redaction.secrets;
            let (spec, found) = secrets.redacted(review.spec.value(), &redaction.known)?;
            redacted.extend(found);
            Some(spec)
        });
        let spec = spec.flatten();
        redacted.sort_unstable();
        redacted.dedup();
        Event {
            kind: "Event",
            api_version: API_VERSION,
            level: level.as_str(),
            audit_id: &review.id,
            stage: match self.stage {
                Stage::ResponseComplete => "ResponseComplete",
                Stage::MonitorComplete => "MonitorComplete",
            },
            request_received_timestamp: timestamp(review.received),
            stage_timestamp: timestamp(self.completed),
            verb: "apply",
            user: User {
                username: &review.user,
            },
            object_ref: ObjectRef {
                api_group: "dstack.ai",
                resource: review.kind.resource(),
                namespace: &review.project,
                name: name(decision),
            },
            response_status: ResponseStatus {
                code: match self.stage == Stage::MonitorComplete || decision.allowed() {
                    true => 200,
                    false => 403,
                },
                message: decision.denial(),
            },
            decision: self.decided(),
            duration_seconds: self.took.as_secs_f64(),
            configuration: self.configuration,
            repeat_of: self.repeat_of,
            trace_id: trace_id(decision),
            plugins,
            patch,
            spec,
            unsettled: decision.unsettled.iter().map(|name| &**name).collect(),
            redacted,
            redaction_failed: false,
            annotations: annotations(decision),
        }
    }
}

/// What the spec calls itself, unless that looks like a secret.
pub(super) fn name(decision: &Decision) -> Option<String> {
    let name = decision.review.name()?;
    let redacted = Known::default().redacted(name);
    Some(redacted.unwrap_or_else(|| name.to_owned()))
}

/// The trace that the review is a part of, if its caller or this process says so.
fn trace_id(decision: &Decision) -> Option<String> {
    let trace = decision.review.trace.as_ref()?;
    Some(trace.id.to_string())
}

/// What is redacted in one event.
struct Redaction<'r> {
    secrets: &'r Secrets,
    known: Known,
}

impl<'r> Redaction<'r> {
    fn new(secrets: &'r Secrets, decision: &Decision, level: Level) -> Self {
        let parts = || decision.parts.iter().any(|part| !part.patch.is_empty());
        let patched = || !decision.patch.is_empty() || parts();
        let needed = level >= Level::Spec || level == Level::Patch && patched();
        let known = match needed {
            true => super::redaction::known(secrets, decision),
            false => Known::default(),
        };
        Self { secrets, known }
    }

    fn patch(
        &self,
        patch: &[PatchOperation],
        level: Level,
        redacted: &mut Vec<String>,
    ) -> Option<Vec<PatchOperation>> {
        if level < Level::Patch || patch.is_empty() {
            return None;
        }
        let mut copy = patch.to_vec();
        redacted.extend(self.secrets.redact_patch(&mut copy, &self.known));
        Some(copy)
    }

    fn changes(&self, part: &Part, level: Level, redacted: &mut Vec<String>) -> Vec<FieldChange> {
        let Some(change) = part.change.as_ref().filter(|_| level >= Level::Patch) else {
            return Vec::new();
        };
        let fields = changes::between(&change.before, &change.after);
        let mut clean = |path: &str, value: Option<&Value>| {
            let mut value = value.cloned()?;
            redacted.extend(self.secrets.redact_at(path, &mut value, &self.known));
            Some(value)
        };
        let field = |field: changes::Difference<'_>| FieldChange {
            was: clean(&field.path, field.was),
            now: clean(&field.path, field.now),
            path: field.path,
        };
        fields.into_iter().map(field).collect()
    }
}

fn plugin<'r>(
    part: &'r Part,
    level: Level,
    redaction: &Redaction<'_>,
    redacted: &mut Vec<String>,
) -> Plugin<'r> {
    let (messages, error_type) = match &part.result {
        PartResult::Denied(denials) => (
            denials.iter().map(|denial| &*denial.message).collect(),
            None,
        ),
        PartResult::Failed(fault) | PartResult::FailedOpen(fault) => {
            (vec![&*fault.message], Some(fault.kind.as_str()))
        }
        PartResult::Conflict { with, path } => (vec![&**with, &**path], Some("patch_conflict")),
        PartResult::Skipped(condition) => (vec![&**condition], None),
        PartResult::Exempt(reason) => (vec![&**reason], None),
        PartResult::Allowed => (Vec::new(), None),
    };
    Plugin {
        name: &part.plugin,
        phase: part.phase.as_str(),
        verdict: verdict(part),
        duration_seconds: part.took.as_secs_f64(),
        reinvoked: part.reinvoked,
        messages,
        error_type,
        exempt_until: part.exempt_until.map(timestamp),
        rules: part.fired.iter().map(ToString::to_string).collect(),
        patch: redaction.patch(&part.patch, level, redacted),
        changes: redaction.changes(part, level, redacted),
        warnings: &part.warnings,
    }
}

/// How records call what came of a plugin.
pub(super) fn verdict(part: &Part) -> &'static str {
    match &part.result {
        PartResult::Allowed if !part.patch.is_empty() => "patched",
        result => result.as_str(),
    }
}

/// The plugins' audit annotations, keys prefixed with the plugin's name as Kubernetes does.
fn annotations(decision: &Decision) -> BTreeMap<String, &str> {
    let parts = decision.parts.iter();
    parts
        .flat_map(|part| {
            part.annotations
                .iter()
                .map(|(key, value)| (format!("{}/{key}", part.plugin), &**value))
        })
        .collect()
}

/// What monitored plugins would have done to this review.
fn would(decision: &Decision) -> &'static str {
    if !decision.allowed() {
        "would_deny"
    } else if decision.parts.iter().any(|part| !part.patch.is_empty()) {
        "would_patch"
    } else {
        "would_allow"
    }
}

fn timestamp(at: SystemTime) -> String {
    humantime::format_rfc3339_micros(at).to_string()
}

#[cfg(test)]
mod tests;
