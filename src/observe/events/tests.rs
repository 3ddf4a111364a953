use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::admission::decision::{Decision, Part, PartResult};
use crate::admission::review::{Kind, Review, Spec};
use crate::admission::verdict::{Denial, Phase};
use crate::observe::record::{Level, Record, Recording, Stage};

fn line(level: Level, stage: Stage) -> Vec<u8> {
    let recording = Recording {
        level,
        ..Recording::default()
    };
    let received = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456);
    let text = br#"{"configuration": {"name": "a \"b\"", "env": {"T": "x"}, "p": 1.10}}"#;
    let review = Arc::new(Review {
        id: "01JD4X".to_owned(),
        kind: Kind::Volume,
        user: "alice".to_owned(),
        project: "main".to_owned(),
        received,
        headers: Vec::new(),
        trace: None,
        spec: Spec::parse(Bytes::from_static(text)).unwrap(),
    });
    let part = |plugin: &str, result, patch| Part {
        took: Duration::from_millis(1),
        patch: serde_json::from_value(patch).unwrap(),
        warnings: vec!["w".to_owned()],
        annotations: vec![("key".to_owned(), "value".to_owned())],
        ..Part::new(0, &plugin.into(), Phase::Mutating, result)
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
        recording: &recording,
        redacted: &[],
        repeat_of: Some("01JD4W"),
    };
    record.audit_line().unwrap()
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
