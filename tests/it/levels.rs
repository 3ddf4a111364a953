//! How much is recorded of which review.

use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::sidecar::{SPEC, body};
use crate::harness::{Home, Sidecar};

/// What one review leaves, as `STAGE LEVEL`.
async fn levels(user: &str, kind: &str, denied: bool) -> Vec<String> {
    let home = Home::new();
    let validations = json!([{"expression": (!denied).to_string()}]);
    let would = json!({"name": "later", "mode": "monitor", "cel": {"validations": [{"expression": "false"}]}});
    let sidecar = Sidecar::start(json!({
        "tls": "off",
        "plugins": [{"name": "judge", "cel": {"validations": validations}}, would],
        "audit": {
            "sinks": [{"file": {"path": home.path("audit.log")}}],
            "level": "Metadata",
            "rules": [
                {"level": "None", "match": {"users": ["ci-*", "!ci-admin"]}, "decisions": ["allowed"]},
                {"level": "Spec", "decisions": ["denied"]},
                {"level": "None", "match": {"kinds": ["volume"], "projects": ["m*"]}},
                {"level": "Patch", "decisions": ["would_deny"]},
            ],
        },
    }))
    .await;
    let path = format!("/apply_policies/on_{kind}_apply");
    let answer = sidecar.post(&path, body(SPEC).replace("alice", user)).await;
    assert_eq!(answer.error().is_some(), denied);
    sidecar.logged("monitored").await;
    let _stopped = sidecar.stop().await;
    let text = std::fs::read_to_string(home.path("audit.log")).unwrap();
    let told = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!(event.get("spec").is_some(), event["level"] == "Spec");
        format!("{} {}", event["stage"], event["level"]).replace('"', "")
    };
    text.lines().map(told).collect()
}

#[rstest]
#[case::no_rule_fits("alice", "run", false, &["ResponseComplete Metadata", "MonitorComplete Patch"])]
#[case::by_decision("alice", "run", true, &["ResponseComplete Spec", "MonitorComplete Patch"])]
#[case::by_user("ci-7", "run", false, &["MonitorComplete Patch"])]
#[case::the_first_rule_that_fits("ci-7", "run", true, &["ResponseComplete Spec", "MonitorComplete Patch"])]
#[case::excluded_user("ci-admin", "run", false, &["ResponseComplete Metadata", "MonitorComplete Patch"])]
#[case::by_kind_and_project("alice", "volume", false, &[])]
#[tokio::test]
async fn the_first_rule_that_fits_says_how_much_is_recorded(
    #[case] user: &str,
    #[case] kind: &str,
    #[case] denied: bool,
    #[case] expected: &[&str],
) {
    assert_eq!(levels(user, kind, denied).await, expected);
}

#[rstest]
#[case::no_pointer(json!({"redact": ["/configuration/env", "labels"]}), "audit.redact[1]: `labels` is no place in a spec")]
#[case::everything(json!({"redact": ["/*"]}), "audit.redact[0]: `/*` is no place in a spec")]
#[case::conditions(
    json!({"rules": [{"level": "None", "match": {"conditions": [{"name": "x", "expression": "true"}]}}]}),
    "audit.rules[0].match.conditions: a rule of the audit has no conditions"
)]
#[case::glob(json!({"rules": [{"level": "None", "match": {"users": ["["]}}]}), "audit.rules[0].match.users: `[` is no glob")]
#[case::level(json!({"rules": [{"level": "Request"}]}), "audit.rules[0].level: unknown value `Request`")]
#[case::no_level(json!({"rules": [{"decisions": ["denied"]}]}), "audit.rules[0].level: required, but missing")]
#[case::decision(json!({"rules": [{"level": "None", "decisions": ["deny"]}]}), "audit.rules[0].decisions[0]: unknown value `deny`")]
fn what_is_no_rule_is_refused_with_its_place(#[case] audit: Value, #[case] why: &str) {
    let (code, said) = Home::new().refused(&json!({"audit": audit}));
    assert_eq!(code, Some(2));
    assert!(said.contains(why), "{said}");
}
