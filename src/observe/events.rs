//! Audit events as they are read again: the reading side of what `record` writes.
//!
//! It takes what it finds. Members that it does not know are passed over, those that are not there
//! are empty, and a line that is no audit event is told as such and ends nothing. Nothing here
//! judges what an event says.

pub mod lines;

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::time::SystemTime;

use json_patch::PatchOperation;
use serde::Deserialize;
use serde::de::{Deserializer, Error};
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
    /// Where secrets were redacted, as JSON Pointers.
    #[serde(borrow, default)]
    pub redacted: Vec<Text<'l>>,
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
    pub patch: Option<Vec<PatchOperation>>,
    #[serde(borrow, default)]
    pub warnings: Vec<Text<'l>>,
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

fn timestamp<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
    let text = Text::deserialize(from)?;
    humantime::parse_rfc3339(&text).map_err(|e| D::Error::custom(format!("`{text}`: {e}")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::admission::decision::{Decision, Part, PartResult};
    use crate::admission::review::{Kind, Review, Spec};
    use crate::admission::verdict::{Denial, Phase};
    use crate::observe::record::{Level, Record, Stage};

    fn line(level: Level, stage: Stage) -> Vec<u8> {
        let received = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456);
        let text = br#"{"configuration": {"name": "a \"b\"", "env": {"T": "x"}, "p": 1.10}}"#;
        let review = Arc::new(Review {
            id: "01JD4X".to_owned(),
            kind: Kind::Volume,
            user: "alice".to_owned(),
            project: "main".to_owned(),
            received,
            headers: Vec::new(),
            spec: Spec::parse(Bytes::from_static(text)).unwrap(),
        });
        let part = |plugin: &str, result, patch| Part {
            member: 0,
            plugin: plugin.into(),
            phase: Phase::Mutating,
            reinvoked: false,
            took: Duration::from_millis(1),
            result,
            patch: serde_json::from_value(patch).unwrap(),
            warnings: vec!["w".to_owned()],
            annotations: vec![("key".to_owned(), "value".to_owned())],
            fired: Vec::new(),
        };
        let denial = Denial {
            message: "no".to_owned(),
            reason: None,
        };
        let patch = json!([{"op": "add", "path": "/configuration/x", "value": 1}]);
        let parts = vec![
            part("first", PartResult::Allowed, patch),
            part("second", PartResult::Denied(vec![denial]), json!([])),
        ];
        let spec = Arc::clone(review.spec.value());
        let decision = Decision::new(review, spec, parts, vec!["first".into()]);
        let record = Record {
            decision: &decision,
            stage,
            took: Duration::from_millis(2),
            completed: received + Duration::from_millis(2),
            configuration: "abc",
        };
        record.audit_line(level)
    }

    #[test]
    fn what_is_recorded_is_read_back() {
        let line = line(Level::Spec, Stage::ResponseComplete);
        let event = Event::parse(&line).unwrap();
        assert_eq!(event.about(), About::Decision);
        assert_eq!((&*event.id, &*event.user.username), ("01JD4X", "alice"));
        let micros = event.received.duration_since(SystemTime::UNIX_EPOCH);
        assert_eq!(micros.unwrap().as_micros(), 1_700_000_000_123_456);
        let object = &event.object_ref;
        assert_eq!((&*object.resource, &*object.namespace), ("volumes", "main"));
        assert_eq!(object.name.as_deref(), Some("a \"b\""));
        assert!(event.denied());
        assert!(
            event
                .response_status
                .message
                .unwrap()
                .contains("- second: no")
        );
        assert_eq!(
            (event.response_status.code, &*event.configuration),
            (403, "abc")
        );
        let verdicts = event
            .plugins
            .iter()
            .map(|part| (&*part.name, &*part.verdict));
        assert_eq!(
            Vec::from_iter(verdicts),
            [("first", "patched"), ("second", "denied")]
        );
        assert!(!event.plugins[0].denies() && event.plugins[1].denies());
        assert_eq!(event.plugins[0].patch().len(), 1);
        assert_eq!(&*event.plugins[1].messages[0], "no");
        assert_eq!(&*event.unsettled[0], "first");
        let spec = event.spec.unwrap().get();
        assert!(spec.contains("[redacted]"), "{spec}");
        assert_eq!(&*event.redacted[0], "/configuration/env/T");
        assert!(matches!(event.user.username.0, Cow::Borrowed(_)));
        assert!(matches!(event.plugins[0].name.0, Cow::Borrowed(_)));
    }

    #[rstest]
    #[case::metadata(Level::Metadata, Stage::ResponseComplete, About::Decision)]
    #[case::patch(Level::Patch, Stage::ResponseComplete, About::Decision)]
    #[case::monitored(Level::Spec, Stage::MonitorComplete, About::Monitored)]
    fn what_a_record_leaves_out_is_absent(
        #[case] level: Level,
        #[case] stage: Stage,
        #[case] about: About,
    ) {
        let line = line(level, stage);
        let event = Event::parse(&line).unwrap();
        assert_eq!((event.about(), &*event.level), (about, level.as_str()));
        assert!(event.spec.is_none() && event.patch.is_none());
    }

    fn least() -> Value {
        json!({
            "kind": "Event", "apiVersion": API_VERSION, "auditID": "1", "stage": "ResponseComplete",
            "requestReceivedTimestamp": "2026-10-01T12:00:00Z", "user": {"username": "a"},
            "objectRef": {"resource": "runs", "namespace": "main"}, "decision": "allowed",
        })
    }

    #[test]
    fn unknown_members_are_passed_over_and_others_may_be_missing() {
        let mut event = least();
        event["later"] = json!({"deep": [1]});
        event["user"]["groups"] = json!(["x"]);
        assert!(Event::parse(event.to_string().as_bytes()).is_ok());
    }

    #[rstest]
    #[case::cut_off(r#"{"kind":"Event","apiVersion":"dsta"#, "torn, or no JSON: EOF")]
    #[case::text(
        "DSTACK_PLUGIN_SERVICE_URI=https://localhost:8443",
        "torn, or no JSON: "
    )]
    #[case::log_line(r#"{"level":"INFO","message":"decided"}"#, "missing field `kind`")]
    #[case::list("[1]", "no audit event of dstack-admission/v1: ")]
    fn another_line_says_what_it_is_not(#[case] line: &str, #[case] why: &str) {
        let error = Event::parse(line.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }

    #[rstest]
    #[case("kind", "List", "it is List of dstack-admission/v1")]
    #[case("apiVersion", "audit.k8s.io/v1", "it is Event of audit.k8s.io/v1")]
    #[case("requestReceivedTimestamp", "yesterday", "`yesterday`: ")]
    fn events_of_others_are_refused(#[case] key: &str, #[case] value: &str, #[case] why: &str) {
        let mut event = least();
        event[key] = json!(value);
        let error = Event::parse(event.to_string().as_bytes()).unwrap_err();
        assert!(matches!(error, Unreadable::Foreign(_)), "{error:?}");
        assert!(error.to_string().contains(why), "{error}");
    }
}
