//! `mode: monitor`: plugins that are asked after the answer and can change nothing of it.

use super::*;

fn monitored(name: &str, play: impl Fn(&Call) -> Outcome + 'static) -> Member<Play> {
    Member {
        mode: Mode::Monitor,
        ..member(name, play)
    }
}

/// The enforced decision and what the monitored plugins make of it.
fn both(chain: &Chain<Play>, spec: &str) -> (Decision, Decision, Vec<Vec<(String, Value)>>) {
    let decision = decide(chain, spec);
    let (shadow, rounds) = play(Run::monitored(chain, &decision));
    (decision, shadow, rounds)
}

#[test]
fn an_enforced_run_asks_no_monitored_plugin() {
    let chain = chain([
        monitored("a", deny("no")),
        monitored("b", set("/x", json!(1))),
        member("c", allow),
    ]);
    assert_eq!(asked(&chain, "{}"), ["c mutating"]);
    let (decision, shadow, _) = both(&chain, "{}");
    assert!(decision.allowed() && decision.patch.is_empty());
    assert!(!shadow.allowed());
    assert_eq!(shadow.review.id, decision.review.id);
}

#[test]
fn monitored_plugins_see_the_decided_spec_and_each_others_changes() {
    let chain = chain([
        monitored("a", set("/x", json!(1))),
        member("b", set("/y", json!(2))),
        monitored("c", allow),
        Member {
            phases: Phases::VALIDATING,
            ..monitored("v", allow)
        },
    ]);
    let (decision, shadow, rounds) = both(&chain, "{}");
    let expected = [
        vec![("a mutating".to_owned(), json!({"y": 2}))],
        vec![("c mutating".to_owned(), json!({"y": 2, "x": 1}))],
        vec![("v validating".to_owned(), json!({"y": 2, "x": 1}))],
    ];
    assert_eq!(rounds, expected);
    assert_eq!(*decision.spec, json!({"y": 2}));
    assert_eq!(results(&shadow), ["a: allowed", "c: allowed", "v: allowed"]);
}

#[test]
fn a_monitored_denial_ends_nothing() {
    let chain = chain([
        monitored("a", deny("no")),
        monitored("b", fault),
        monitored("c", set("/x", json!(1))),
        Member {
            phases: Phases::VALIDATING,
            ..monitored("v", deny("nor so"))
        },
    ]);
    let (decision, shadow, _) = both(&chain, "{}");
    assert!(decision.allowed());
    let expected = ["a: denied", "b: failed", "c: allowed", "v: denied"];
    assert_eq!(results(&shadow), expected);
}

#[test]
fn a_monitored_conflict_is_reported_and_does_not_hide_the_changes() {
    let members = vec![
        monitored("a", set("/x", json!(1))),
        monitored("b", set("/x", json!(2))),
    ];
    let mut chain = fan_out(members, OnConflict::Deny);
    chain.push(monitored("c", allow));
    let (decision, shadow, rounds) = both(&chain, "{}");
    assert!(decision.allowed());
    let expected = ["a: allowed", "b: conflict", "c: allowed"];
    assert_eq!(results(&shadow), expected);
    assert_eq!(rounds[1][0].1, json!({"x": 2}));
}

#[test]
fn a_group_of_both_modes_is_two_groups() {
    let members = vec![
        member("a", set("/x", json!(1))),
        monitored("b", set("/x", json!(2))),
    ];
    let (decision, shadow, rounds) = both(&fan_out(members, OnConflict::Deny), "{}");
    assert_eq!(*decision.spec, json!({"x": 1}));
    assert_eq!(results(&shadow), ["b: allowed"]);
    assert_eq!(rounds[0][0].1, json!({"x": 1}));
}

#[test]
fn monitored_plugins_are_asked_about_denied_reviews_too() {
    let chain = chain([
        member("a", set("/x", json!(1))),
        member("b", deny("no")),
        monitored("c", allow),
    ]);
    let (_, shadow, rounds) = both(&chain, "{}");
    assert_eq!(results(&shadow), ["c: allowed"]);
    assert_eq!(rounds[0][0].1, json!({"x": 1}));
}

#[test]
fn a_monitored_plugin_is_reinvoked_exempted_and_held_to_its_grants_like_any() {
    let mut chain = chain([
        Member {
            reinvocation: Reinvocation::IfNeeded,
            ..monitored("a", allow)
        },
        monitored("b", set("/x", json!(1))),
        monitored("c", set("/run_name", json!("x"))),
        monitored("d", allow),
    ]);
    chain.exempt(Exemption {
        plugins: vec!["d".into()],
        scope: Scope::default(),
        reason: "launch".into(),
        expires: SystemTime::UNIX_EPOCH + Duration::from_secs(2000),
    });
    let (_, shadow, _) = both(&chain, r#"{"run_name": "r"}"#);
    let expected = [
        "a: allowed",
        "b: allowed",
        "c: failed",
        "d: exempt",
        "a: allowed",
    ];
    assert_eq!(results(&shadow), expected);
}
