use std::sync::Arc;

use bytes::Bytes;
use rstest::rstest;
use serde_json::json;

use super::*;
use crate::admission::decision::Change;
use crate::admission::review::{Kind, Review, Spec};
use crate::admission::verdict::Phase;

/// A decision of one plugin that made `after` of `before`.
fn decision(before: &Value, after: &Value, patch: Value) -> Decision {
    let review = Arc::new(Review {
        id: "01JD4X".to_owned(),
        kind: Kind::Run,
        user: "alice".to_owned(),
        project: "main".to_owned(),
        received: SystemTime::UNIX_EPOCH,
        headers: Vec::new(),
        trace: None,
        spec: Spec::parse(Bytes::from(before.to_string())).unwrap(),
    });
    let after = Arc::new(after.clone());
    let part = Part {
        took: Duration::from_millis(1),
        patch: serde_json::from_value(patch).unwrap(),
        change: Some(Change {
            before: Arc::clone(review.spec.value()),
            after: Arc::clone(&after),
        }),
        ..Part::new(0, &"cost".into(), Phase::Mutating, PartResult::Allowed)
    };
    Decision::new(review, after, vec![part], Vec::new())
}

fn record<'r>(decision: &'r Decision, recording: &'r Recording) -> Record<'r> {
    Record {
        decision,
        stage: Stage::ResponseComplete,
        took: Duration::from_millis(2),
        completed: SystemTime::UNIX_EPOCH,
        configuration: "abc",
        recording,
        redacted: &[],
        repeat_of: None,
    }
}

fn at(level: Level, secrets: Secrets) -> Recording {
    Recording {
        level,
        rules: Vec::new(),
        secrets,
    }
}

fn event(decision: &Decision, recording: &Recording) -> Value {
    serde_json::from_slice(&record(decision, recording).audit_line().unwrap()).unwrap()
}

#[test]
fn each_field_says_what_was_there() {
    let before = json!({"configuration": {"max_price": null, "tags": {}}});
    let after = json!({"configuration": {"max_price": 2.0, "tags": {"a": "b"}}});
    let patch = json!([
        {"op": "add", "path": "/configuration/max_price", "value": 2.0},
        {"op": "add", "path": "/configuration/tags/a", "value": "b"},
    ]);
    let decision = decision(&before, &after, patch);
    let changes = json!([
        {"path": "/configuration/max_price", "was": null, "now": 2.0},
        {"path": "/configuration/tags/a", "now": "b"},
    ]);
    let patched = event(&decision, &at(Level::Patch, Secrets::default()));
    assert_eq!(patched["plugins"][0]["changes"], changes);
    let metadata = event(&decision, &at(Level::Metadata, Secrets::default()));
    assert_eq!(metadata["plugins"][0].get("changes"), None);
}

#[rstest]
#[case(Level::Metadata)]
#[case(Level::Patch)]
#[case(Level::Spec)]
fn old_values_new_values_and_copies_of_secrets_are_redacted(#[case] level: Level) {
    let before = json!({"configuration": {
        "env": {"A": "canary-old-value", "B": "canary-kept-value"},
        "commands": ["run --with canary-kept-value"], "labels": {"ticket": "canary-label-1"},
    }});
    let mut after = before.clone();
    after["configuration"]["env"]["A"] = json!("canary-new-value");
    after["configuration"]["commands"] = json!(["run canary-new-value", "canary-old-value"]);
    let patch = json!([
        {"op": "test", "path": "/configuration/env/A", "value": "canary-old-value"},
        {"op": "replace", "path": "/configuration/env/A", "value": "canary-new-value"},
        {"op": "replace", "path": "/configuration/commands", "value": ["run canary-new-value", "canary-old-value"]},
    ]);
    let decision = decision(&before, &after, patch);
    let secrets = Secrets::with_places(&["/configuration/labels/*"]).unwrap();
    let recording = at(level, secrets);
    let event = event(&decision, &recording);
    assert!(!event.to_string().contains("canary"), "{event:#}");
    let redacted = event["redacted"].as_array();
    let listed = |place: &str| redacted.is_some_and(|all| all.contains(&json!(place)));
    assert_eq!(listed("/configuration/env/A"), level >= Level::Patch);
    assert_eq!(listed("/configuration/labels/ticket"), level == Level::Spec);
}

#[test]
fn an_event_that_cannot_be_redacted_holds_only_metadata() {
    let before = json!({"configuration": {"env": {"A": "canary-old-value"}}});
    let after = json!({"configuration": {"env": {"A": "canary-new-value"}}});
    let decision = decision(&before, &after, json!([]));
    let recording = at(Level::Spec, Secrets::default());
    let record = record(&decision, &recording);
    let line = record.line(Level::Spec, |_| panic!("as a fault in an expression would"));
    let event: Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(event["level"], "Metadata");
    assert_eq!(event["redactionFailed"], true);
    assert!(!event.to_string().contains("canary"), "{event:#}");
}

#[test]
fn at_the_level_none_there_is_no_event() {
    let decision = decision(&json!({}), &json!({}), json!([]));
    let recording = at(Level::None, Secrets::default());
    assert!(record(&decision, &recording).audit_line().is_none());
}
