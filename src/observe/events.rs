//! Audit events as they are read again: the reading side of what `record` writes.
//!
//! It takes what it finds. Members that it does not know are passed over, those that are not there
//! are empty, and a line that is no audit event is told as such and ends nothing. Nothing here
//! judges what an event says.

pub mod lines;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::time::SystemTime;

use json_patch::PatchOperation;
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use serde_json::Value;
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::record::API_VERSION;

/// One audit event, borrowed from its line as far as possible.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event<'l> {
    #[serde(borrow)]
    kind: Text<'l>,
    #[serde(borrow)]
    api_version: Text<'l>,
    #[serde(borrow, default)]
    pub level: Text<'l>,
    /// The decision's id.
    #[serde(rename = "auditID", borrow)]
    pub id: Text<'l>,
    #[serde(borrow)]
    pub stage: Text<'l>,
    #[serde(rename = "requestReceivedTimestamp", deserialize_with = "timestamp")]
    pub received: SystemTime,
    #[serde(borrow)]
    pub user: User<'l>,
    #[serde(borrow)]
    pub object_ref: ObjectRef<'l>,
    #[serde(borrow, default)]
    pub response_status: ResponseStatus<'l>,
    /// `allowed`, `patched` or `denied`; for what monitored plugins said `would_allow`, `would_patch`
    /// or `would_deny`.
    #[serde(borrow)]
    pub decision: Text<'l>,
    /// From the whole request to the decision, in seconds.
    #[serde(default)]
    pub duration_seconds: f64,
    /// The hash of the configuration that decided.
    #[serde(borrow, default)]
    pub configuration: Text<'l>,
    #[serde(borrow, default)]
    pub plugins: Vec<PluginEvent<'l>>,
    /// What was changed in the end. Absent when that is nothing, and below the level `Patch`.
    pub patch: Option<Vec<PatchOperation>>,
    /// The text of the spec that came, secrets redacted. Absent below the level `Spec`.
    #[serde(borrow)]
    pub spec: Option<&'l RawValue>,
    /// Plugins that would have had to be called once more.
    #[serde(borrow, default)]
    pub unsettled: Vec<Text<'l>>,
    /// Where secrets were redacted, as JSON Pointers and names of texts.
    #[serde(borrow, default)]
    pub redacted: Vec<Text<'l>>,
    /// Redacting failed, so that this event holds only metadata.
    #[serde(default)]
    pub redaction_failed: bool,
    /// The review that this one seems to repeat.
    #[serde(borrow)]
    pub repeat_of: Option<Text<'l>>,
    /// The trace that the review is a part of.
    #[serde(rename = "traceID", borrow)]
    pub trace_id: Option<Text<'l>>,
    /// What plugins annotated, keys after the plugin's name.
    #[serde(borrow, default)]
    pub annotations: BTreeMap<String, Text<'l>>,
}

/// Who applied the spec.
#[derive(Debug, Deserialize)]
pub struct User<'l> {
    #[serde(borrow)]
    pub username: Text<'l>,
}

/// What was applied.
#[derive(Debug, Deserialize)]
pub struct ObjectRef<'l> {
    /// `runs`, `fleets`, `volumes` or `gateways`.
    #[serde(borrow)]
    pub resource: Text<'l>,
    /// The project.
    #[serde(borrow)]
    pub namespace: Text<'l>,
    #[serde(borrow)]
    pub name: Option<Text<'l>>,
}

/// What was answered.
#[derive(Debug, Default, Deserialize)]
pub struct ResponseStatus<'l> {
    /// 200 or 403.
    #[serde(default)]
    pub code: u16,
    /// What the user read, when denied.
    #[serde(borrow)]
    pub message: Option<Text<'l>>,
}

/// One plugin's part.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PluginEvent<'l> {
    #[serde(borrow)]
    pub name: Text<'l>,
    #[serde(borrow, default)]
    pub phase: Text<'l>,
    #[serde(borrow)]
    pub verdict: Text<'l>,
    #[serde(default)]
    pub duration_seconds: f64,
    #[serde(default)]
    pub reinvoked: bool,
    #[serde(borrow, default)]
    pub messages: Vec<Text<'l>>,
    #[serde(borrow)]
    pub error_type: Option<Text<'l>>,
    /// When the exemption ends that kept it from this review.
    #[serde(borrow)]
    pub exempt_until: Option<Text<'l>>,
    /// The rules of a policy that denied or changed something.
    #[serde(borrow, default)]
    pub rules: Vec<Text<'l>>,
    pub patch: Option<Vec<PatchOperation>>,
    #[serde(borrow, default)]
    pub changes: Vec<FieldChange<'l>>,
    #[serde(borrow, default)]
    pub warnings: Vec<Text<'l>>,
}

/// One field that a plugin changed. `None` is absent, which null is not.
#[derive(Debug, Deserialize)]
pub struct FieldChange<'l> {
    #[serde(borrow)]
    pub path: Text<'l>,
    #[serde(default, deserialize_with = "given")]
    pub was: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    pub now: Option<Value>,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// A review's decision.
    Decision,
    /// What the monitored plugins said after it.
    Monitored,
    /// A stage that this version does not write.
    Other,
}

impl<'l> Event<'l> {
    /// Reads one line of an audit log.
    ///
    /// # Errors
    /// When the line is no JSON, or is JSON of something else.
    pub fn parse(line: &'l [u8]) -> Result<Self, Unreadable> {
        let event: Self = serde_json::from_slice(line).map_err(|e| match e.classify() {
            Category::Data => Unreadable::Foreign(e.to_string()),
            _ => Unreadable::Torn(e),
        })?;
        if &*event.kind != "Event" || &*event.api_version != API_VERSION {
            let found = format!("it is {} of {}", event.kind, event.api_version);
            return Err(Unreadable::Foreign(found));
        }
        Ok(event)
    }

    pub fn about(&self) -> About {
        match &*self.stage {
            "ResponseComplete" => About::Decision,
            "MonitorComplete" => About::Monitored,
            _ => About::Other,
        }
    }

    pub fn denied(&self) -> bool {
        &*self.decision == "denied"
    }
}

impl PluginEvent<'_> {
    /// Whether this plugin alone denied the review.
    pub fn denies(&self) -> bool {
        matches!(&*self.verdict, "denied" | "failed" | "conflict")
    }

    /// What this plugin changed, as far as the level tells.
    pub fn patch(&self) -> &[PatchOperation] {
        self.patch.as_deref().unwrap_or_default()
    }
}

/// Why a line gives no audit event.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("torn, or no JSON: {0}")]
    Torn(serde_json::Error),
    #[error("no audit event of {API_VERSION}: {0}")]
    Foreign(String),
    #[error("longer than any audit event")]
    TooLong,
    /// Nothing that follows in this file can be read.
    #[error("cannot be read from here on: {0}")]
    Broken(#[from] io::Error),
}

/// A text that is borrowed from its line, unless it has escapes in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Text<'l>(#[serde(borrow)] Cow<'l, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

fn timestamp<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
    let text = Text::deserialize(from)?;
    humantime::parse_rfc3339(&text).map_err(|e| D::Error::custom(format!("`{text}`: {e}")))
}

#[cfg(test)]
mod tests;
