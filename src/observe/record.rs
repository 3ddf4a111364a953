//! One decision as it is recorded: an audit event after the shape of `audit.k8s.io/v1` Event, with
//! the chain's part beside it, and the log line.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use json_patch::PatchOperation;
use serde::Serialize;
use serde_json::Value;

use crate::admission::decision::{Decision, Part, PartResult};
use crate::admission::secrets;

/// The `apiVersion` of audit events.
pub(super) const API_VERSION: &str = "dstack-admission/v1";

/// How much of a decision an audit event holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    None,
    /// Who, what, when, and each plugin's verdict.
    Metadata,
    /// And what was changed.
    Patch,
    /// And the spec that came.
    Spec,
}

impl Level {
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Patch => "Patch",
            Level::Spec => "Spec",
        }
    }
}

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
}

impl Record<'_> {
    /// The audit event as one line of JSON with its line end. Secrets are redacted.
    pub fn audit_line(&self, level: Level) -> Vec<u8> {
        let mut line = Vec::with_capacity(1024);
        // Writing texts and numbers into memory cannot fail.
        let _ = serde_json::to_writer(&mut line, &self.event(level));
        line.push(b'\n');
        line
    }

    /// Writes the log's one line about this decision.
    pub fn log(&self) {
        let review = &self.decision.review;
        let (kind, user, project) = (review.kind.as_str(), &*review.user, &*review.project);
        let name = review.name().unwrap_or_default();
        let took_ms = self.took.as_micros() as f64 / 1e3;
        let (decision, id) = (self.decision.as_str(), &*review.id);
        match self.stage {
            Stage::ResponseComplete => match self.decision.denial() {
                None => tracing::info!(id, decision, kind, user, project, name, took_ms, "decided"),
                Some(why) => tracing::info!(
                    id, decision, kind, user, project, name, took_ms, why, "decided"
                ),
            },
            Stage::MonitorComplete => {
                let would = would(self.decision);
                tracing::info!(id, would, kind, user, project, name, "monitored");
            }
        }
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

    fn event(&self, level: Level) -> Event<'_> {
        let review = &self.decision.review;
        let decision = self.decision;
        let mut redacted = Vec::new();
        let plugins = decision
            .parts
            .iter()
            .map(|part| plugin(part, level, &mut redacted))
            .collect();
        let patch = redacted_patch(&decision.patch, level, &mut redacted);
        let spec = (level >= Level::Spec && self.stage == Stage::ResponseComplete).then(|| {
            let mut spec = Value::clone(review.spec.value());
            redacted.extend(secrets::redact(&mut spec));
            spec
        });
        redacted.sort_unstable();
        redacted.dedup();
        let (decided, code) = match (self.stage, decision.allowed()) {
            (Stage::MonitorComplete, _) => (would(decision), 200),
            (Stage::ResponseComplete, true) => (decision.as_str(), 200),
            (Stage::ResponseComplete, false) => (decision.as_str(), 403),
        };
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
                name: review.name(),
            },
            response_status: ResponseStatus {
                code,
                message: decision.denial(),
            },
            decision: decided,
            duration_seconds: self.took.as_secs_f64(),
            configuration: self.configuration,
            plugins,
            patch,
            spec,
            unsettled: decision.unsettled.iter().map(|name| &**name).collect(),
            redacted,
            annotations: annotations(decision),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'r> {
    kind: &'static str,
    api_version: &'static str,
    level: &'static str,
    #[serde(rename = "auditID")]
    audit_id: &'r str,
    stage: &'static str,
    request_received_timestamp: String,
    stage_timestamp: String,
    verb: &'static str,
    user: User<'r>,
    object_ref: ObjectRef<'r>,
    response_status: ResponseStatus<'r>,
    decision: &'static str,
    duration_seconds: f64,
    configuration: &'r str,
    plugins: Vec<PluginEvent<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<Vec<PatchOperation>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unsettled: Vec<&'r str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    redacted: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, &'r str>,
}

#[derive(Serialize)]
struct User<'r> {
    username: &'r str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef<'r> {
    api_group: &'static str,
    resource: &'static str,
    namespace: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'r str>,
}

#[derive(Serialize)]
struct ResponseStatus<'r> {
    code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'r str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PluginEvent<'r> {
    name: &'r str,
    phase: &'static str,
    verdict: &'static str,
    duration_seconds: f64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    reinvoked: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    messages: Vec<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<Vec<PatchOperation>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    warnings: &'r [String],
}

fn plugin<'r>(part: &'r Part, level: Level, redacted: &mut Vec<String>) -> PluginEvent<'r> {
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
    let verdict = match &part.result {
        PartResult::Allowed if !part.patch.is_empty() => "patched",
        result => result.as_str(),
    };
    PluginEvent {
        name: &part.plugin,
        phase: part.phase.as_str(),
        verdict,
        duration_seconds: part.took.as_secs_f64(),
        reinvoked: part.reinvoked,
        messages,
        error_type,
        patch: redacted_patch(&part.patch, level, redacted),
        warnings: &part.warnings,
    }
}

fn redacted_patch(
    patch: &[PatchOperation],
    level: Level,
    redacted: &mut Vec<String>,
) -> Option<Vec<PatchOperation>> {
    if level < Level::Patch || patch.is_empty() {
        return None;
    }
    let mut copy = patch.to_vec();
    let found = secrets::redact_patch(&mut copy);
    redacted.extend(found);
    Some(copy)
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
