//! Recorded decisions and new ones, made by hand, and what their difference is.

use bytes::Bytes;
use rstest::rstest;
use serde_json::json;

use super::*;
use crate::admission::decision::Part;
use crate::admission::review::{Review, Spec};
use crate::admission::verdict::{Denial, Fault, FaultKind, Phase};

/// What the record says of a plugin.
fn then(name: &str, verdict: &str, patch: Value) -> Value {
    let mut part = json!({"name": name, "verdict": verdict});
    if patch != json!([]) {
        part["patch"] = patch;
    }
    part
}

/// What a plugin says now.
fn now(name: &str, result: PartResult, patch: Value) -> Part {
    Part {
        patch: serde_json::from_value(patch).unwrap(),
        ..Part::new(0, &name.into(), Phase::Mutating, result)
    }
}

fn denies(name: &str) -> Part {
    let message = format!("{name} says no");
    let denial = Denial {
        message,
        reason: None,
    };
    now(name, PartResult::Denied(vec![denial]), json!([]))
}

fn fails(name: &str) -> Part {
    let fault = Fault::new(FaultKind::Rule, "it errs");
    now(name, PartResult::Failed(fault), json!([]))
}

fn patches(name: &str, patch: Value) -> Part {
    now(name, PartResult::Allowed, patch)
}

fn set(path: &str, value: Value) -> Value {
    json!([{"op": "add", "path": path, "value": value}])
}

const SPEC: &str =
    r#"{"run_name": "r", "configuration": {"price": 1, "env": {"T": "[redacted]"}}}"#;

/// Compares a record with these parts and this final patch with a decision that has these parts.
/// The plugins `quota` and `remote` are left out.
fn compared(decision: &str, recorded: Vec<Value>, patch: Value, parts: Vec<Part>) -> Outcome {
    let mut event = json!({
        "kind": "Event", "apiVersion": "dstack-admission/v1", "auditID": "1", "stage": "ResponseComplete",
        "requestReceivedTimestamp": "2026-10-01T12:00:00Z", "user": {"username": "alice"},
        "objectRef": {"resource": "runs", "namespace": "main"}, "decision": decision, "plugins": recorded,
    });
    if patch != json!([]) {
        event["patch"] = patch;
    }
    if decision == "denied" {
        event["responseStatus"] =
            json!({"message": "1 policy denies this run (decision 1):\n- then: no"});
    }
    let line = event.to_string();
    let event = Event::parse(line.as_bytes()).unwrap();
    let spec = Spec::parse(Bytes::from_static(SPEC.as_bytes())).unwrap();
    let all: Vec<_> = parts.iter().flat_map(|part| part.patch.clone()).collect();
    let after = Arc::new(patch::apply(spec.value(), &all).unwrap());
    let review = Review {
        id: "1".to_owned(),
        kind: Kind::Run,
        user: "alice".to_owned(),
        project: "main".to_owned(),
        received: event.received,
        headers: Vec::new(),
        trace: None,
        spec,
    };
    let decision = Decision::new(Arc::new(review), after, parts, Vec::new());
    compare(&event, &decision, &["quota".into(), "remote".into()])
}

/// The change, who is behind it, and in which words.
fn difference(outcome: Outcome) -> (Change, Vec<String>, String) {
    match outcome {
        Outcome::Differs(found) => (found.change, found.plugins, found.message),
        other => panic!("{other:?}"),
    }
}

#[rstest]
#[case::nothing_to_say("allowed", vec![], json!([]), vec![])]
#[case::denied_by_another("denied", vec![then("a", "denied", json!([]))], json!([]), vec![denies("b")])]
#[case::denied_by_one_left_out("denied", vec![then("quota", "denied", json!([]))], json!([]), vec![denies("b")])]
#[case::same_patch("patched", vec![], set("/configuration/x", json!(1)), vec![patches("a", set("/configuration/x", json!(1)))])]
#[case::same_spec_in_the_end(
    "patched",
    vec![],
    json!([{"op": "replace", "path": "/configuration/price", "value": 2}]),
    vec![patches("a", set("/configuration/price", json!(3))), patches("b", set("/configuration/price", json!(2)))]
)]
#[case::secret_in_the_patch(
    "patched",
    vec![],
    set("/configuration/env/KEY", json!("[redacted]")),
    vec![patches("a", set("/configuration/env/KEY", json!("s3cret")))]
)]
#[case::patched_by_one_left_out_to_no_effect(
    "patched",
    vec![then("quota", "patched", set("/configuration/x", json!(1)))],
    set("/configuration/x", json!(1)),
    vec![patches("a", set("/configuration/x", json!(1)))]
)]
fn what_comes_to_the_same_is_the_same(
    #[case] decision: &str,
    #[case] recorded: Vec<Value>,
    #[case] patch: Value,
    #[case] parts: Vec<Part>,
) {
    assert_eq!(compared(decision, recorded, patch, parts), Outcome::Same);
}

#[test]
fn a_new_denial_names_who_denies_and_who_only_fails() {
    let parts = vec![denies("a"), fails("b"), denies("a")];
    let outcome = compared("allowed", vec![], json!([]), parts);
    let Outcome::Differs(found) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!((found.change, found.in_doubt), (Change::NewlyDenied, false));
    assert_eq!(
        (&found.plugins[..], &found.failed[..]),
        (&["a".to_owned(), "b".to_owned()][..], &["b".to_owned()][..])
    );
    assert!(!found.by_failure());
    assert!(
        found.message.contains("- a: a says no"),
        "{}",
        found.message
    );
    assert_eq!(found.review.name.as_deref(), Some("r"));
}

#[test]
fn a_denial_by_failure_alone_is_one() {
    let outcome = compared("allowed", vec![], json!([]), vec![fails("b")]);
    assert!(matches!(outcome, Outcome::Differs(found) if found.by_failure()));
}

#[test]
fn a_denial_without_the_patch_of_one_left_out_is_in_doubt() {
    let patch = set("/configuration/x", json!(1));
    let recorded = vec![then("quota", "patched", patch.clone())];
    let outcome = compared("patched", recorded, patch, vec![denies("a")]);
    assert!(matches!(outcome, Outcome::Differs(found) if found.in_doubt));
}

#[test]
fn what_is_newly_allowed_names_who_denied_it() {
    let recorded = ["denied", "failed", "conflict", "allowed", "failed_open"];
    let recorded = recorded.map(|verdict| then(verdict, verdict, json!([])));
    let outcome = compared("denied", recorded.to_vec(), json!([]), vec![]);
    let (change, plugins, message) = difference(outcome);
    assert_eq!(change, Change::NewlyAllowed);
    assert_eq!(plugins, ["denied", "failed", "conflict"]);
    assert!(message.ends_with("- then: no"), "{message}");
}

#[rstest]
#[case::another_value(
    vec![then("a", "patched", set("/configuration/price", json!(2))), then("b", "patched", set("/configuration/x", json!(1)))],
    json!([{"op": "replace", "path": "/configuration/price", "value": 2}, {"op": "add", "path": "/configuration/x", "value": 1}]),
    vec![patches("a", set("/configuration/price", json!(3))), patches("b", set("/configuration/x", json!(1)))],
    &["a"],
    "/configuration/price 2 → 3"
)]
#[case::another_plugin(
    vec![then("a", "patched", set("/configuration/x", json!("one")))],
    set("/configuration/x", json!("one")),
    vec![patches("b", set("/configuration/y", json!({"k": []})))],
    &["a", "b"],
    "/configuration/x \"one\" → (absent); /configuration/y (absent) → {\"k\":[]}"
)]
#[case::nobody_any_more(
    vec![then("a", "patched", set("/configuration/x", json!(1)))],
    set("/configuration/x", json!(1)),
    vec![patches("a", json!([]))],
    &["a"],
    "/configuration/x 1 → (absent)"
)]
#[case::for_the_first_time(vec![], json!([]), vec![patches("a", set("/configuration/x", json!("x".repeat(80))))], &["a"],
    &format!("/configuration/x (absent) → \"{}…", "x".repeat(59)))]
#[case::secret_taken_out(
    vec![], json!([]), vec![patches("a", json!([{"op": "remove", "path": "/configuration/env/T"}]))], &["a"],
    "/configuration/env/T \"[redacted]\" → (absent)"
)]
#[case::in_other_order(
    vec![then("a", "patched", set("/configuration/x", json!(1))), then("b", "patched", set("/configuration/x", json!(2)))],
    set("/configuration/x", json!(2)),
    vec![patches("b", set("/configuration/x", json!(2))), patches("a", set("/configuration/x", json!(1)))],
    &["b", "a"],
    "/configuration/x 2 → 1"
)]
fn another_spec_in_the_end_names_whose_patch_changed(
    #[case] recorded: Vec<Value>,
    #[case] patch: Value,
    #[case] parts: Vec<Part>,
    #[case] plugins: &[&str],
    #[case] words: &str,
) {
    let decision = if patch == json!([]) {
        "allowed"
    } else {
        "patched"
    };
    let (change, mut by, message) = difference(compared(decision, recorded, patch, parts));
    let mut plugins = plugins.to_vec();
    plugins.sort_unstable();
    by.sort_unstable();
    assert_eq!((change, message.as_str()), (Change::Patched, words));
    assert_eq!(by, plugins);
}

#[test]
fn of_many_places_the_first_are_shown() {
    let parts = (0..8).map(|n| patches("a", set(&format!("/configuration/x{n}"), json!(n))));
    let (_, _, message) = difference(compared("allowed", vec![], json!([]), parts.collect()));
    assert_eq!(message.matches('→').count(), PLACES);
    assert!(message.ends_with("; and 3 more"), "{message}");
}

#[rstest]
#[case::denied_by_left_out(
    "denied", vec![then("a", "denied", json!([])), then("quota", "failed", json!([]))], json!([]), vec![],
    Doubt::DeniedByLeftOut(vec!["quota".to_owned()])
)]
#[case::patched_by_left_out(
    "patched", vec![then("remote", "patched", set("/configuration/x", json!(1)))], set("/configuration/x", json!(1)), vec![],
    Doubt::PatchedByLeftOut(vec!["remote".to_owned()])
)]
#[case::never_reviewed("denied", vec![], json!([]), vec![], Doubt::NotReviewed)]
fn what_left_out_plugins_did_cannot_be_compared(
    #[case] decision: &str,
    #[case] recorded: Vec<Value>,
    #[case] patch: Value,
    #[case] parts: Vec<Part>,
    #[case] doubt: Doubt,
) {
    let outcome = compared(decision, recorded, patch, parts);
    assert_eq!(outcome, Outcome::NotComparable(doubt));
}

#[test]
fn a_patch_that_is_not_recorded_is_unknown_unless_there_is_none_now() {
    let recorded = || vec![then("a", "patched", json!([]))];
    let parts = vec![patches("a", set("/configuration/x", json!(1)))];
    assert_eq!(
        compared("patched", recorded(), json!([]), parts),
        Outcome::PatchUnknown
    );
    let (change, plugins, _) = difference(compared("patched", recorded(), json!([]), vec![]));
    assert_eq!((change, plugins), (Change::Patched, vec!["a".to_owned()]));
}

#[test]
fn a_recorded_patch_that_does_not_apply_is_unknown() {
    let patch = json!([{"op": "remove", "path": "/nowhere"}]);
    assert_eq!(
        compared("patched", vec![], patch, vec![]),
        Outcome::PatchUnknown
    );
}

#[test]
fn a_message_has_an_end() {
    let word = "é".repeat(LONGEST_MESSAGE + 1);
    assert_eq!(
        shortened(&word, LONGEST_MESSAGE).chars().count(),
        LONGEST_MESSAGE + 1
    );
    assert_eq!(shortened("short", LONGEST_MESSAGE), "short");
}
