//! `reinvocation: IfNeeded`: a plugin is called once more when a later one changed the spec.

use super::*;

fn again(name: &str, play: impl Fn(&Call) -> Outcome + 'static) -> Member<Play> {
    Member {
        reinvocation: Reinvocation::IfNeeded,
        ..member(name, play)
    }
}

/// Adds one to `n`, whatever it is.
fn count(call: &Call) -> Outcome {
    let n = call.spec["n"].as_i64().unwrap_or_default();
    set("/n", json!(n + 1))(call)
}

#[rstest]
#[case::later_change(vec![again("a", allow), member("b", set("/x", json!(1)))], &["a mutating", "b mutating", "a mutating"])]
#[case::own_change(vec![again("a", set("/x", json!(1))), member("b", allow)], &["a mutating", "b mutating"])]
#[case::earlier_change(vec![member("b", set("/x", json!(1))), again("a", allow)], &["b mutating", "a mutating"])]
#[case::not_wanted(vec![member("a", allow), member("b", set("/x", json!(1)))], &["a mutating", "b mutating"])]
#[case::change_of_nothing(vec![again("a", allow), member("b", set("/n", json!(0)))], &["a mutating", "b mutating"])]
#[case::before_validating(
    vec![again("a", allow), validating("v", allow), member("b", set("/x", json!(1)))],
    &["a mutating", "b mutating", "a mutating", "v validating"]
)]
#[case::one_after_the_other(
    vec![again("a", count), again("b", allow), member("c", set("/x", json!(1)))],
    &["a mutating", "b mutating", "c mutating", "a mutating", "b mutating"]
)]
#[case::because_of_the_second_call(
    vec![again("a", count), again("b", count)],
    &["a mutating", "b mutating", "a mutating", "b mutating"]
)]
fn a_plugin_is_called_once_more_when_needed(
    #[case] members: Vec<Member<Play>>,
    #[case] expected: &[&str],
) {
    assert_eq!(asked(&chain(members), r#"{"n": 0}"#), expected);
}

#[test]
fn the_second_call_sees_the_later_change_and_may_change_again() {
    let copying = |call: &Call| set("/copy", call.spec["x"].clone())(call);
    let chain = chain([again("a", copying), member("b", set("/x", json!(1)))]);
    let (decision, rounds) = play(Run::new(&chain, review(r#"{"x": 0}"#)));
    assert_eq!(rounds[2][0].1, json!({"x": 1, "copy": 0}));
    assert_eq!(*decision.spec, json!({"x": 1, "copy": 1}));
    let reinvoked: Vec<_> = decision.parts.iter().map(|part| part.reinvoked).collect();
    assert_eq!(reinvoked, [false, false, true]);
    assert!(decision.unsettled.is_empty());
}

#[test]
fn a_spec_that_still_changes_after_the_second_call_is_reported() {
    let chain = chain([again("a", count), again("b", count)]);
    let decision = decide(&chain, r#"{"n": 0}"#);
    assert_eq!(*decision.spec, json!({"n": 4}));
    assert_eq!(decision.unsettled, ["a".into()]);
    assert!(decision.allowed());
}

#[test]
fn a_denial_on_the_second_call_ends_the_chain() {
    let strict = |call: &Call| match call.spec.get("x") {
        Some(_) => deny("no x")(call),
        None => allow(call),
    };
    let chain = chain([
        again("a", strict),
        again("b", allow),
        member("c", set("/x", json!(1))),
        validating("v", allow),
    ]);
    let calls = ["a mutating", "b mutating", "c mutating", "a mutating"];
    assert_eq!(asked(&chain, "{}"), calls);
    let decision = decide(&chain, "{}");
    assert!(!decision.allowed());
    assert!(decision.unsettled.is_empty());
}

#[test]
fn a_chain_that_a_denial_ended_is_not_unsettled() {
    let chain = chain([
        again("a", allow),
        member("b", set("/x", json!(1))),
        member("c", deny("no")),
    ]);
    assert!(decide(&chain, "{}").unsettled.is_empty());
}

#[test]
fn a_plugin_that_was_skipped_is_asked_again_and_an_exempt_one_is_not() {
    let only_x = |call: &Call| match call.spec.get("x") {
        Some(_) => set("/y", json!(1))(call),
        None => Outcome::Skipped("has-x".to_owned()),
    };
    let mut chain = chain([
        again("skipped", only_x),
        again("exempt", count),
        member("b", set("/x", json!(1))),
    ]);
    chain.exempt(Exemption {
        plugins: vec!["exempt".into()],
        scope: Scope::default(),
        reason: "launch".into(),
        expires: SystemTime::UNIX_EPOCH + Duration::from_secs(2000),
    });
    assert_eq!(*decide(&chain, "{}").spec, json!({"x": 1, "y": 1}));
}

#[test]
fn a_member_of_a_group_is_called_again_for_what_the_others_changed() {
    let group = || vec![again("a", count), member("b", set("/x", json!(1)))];
    let mut chain = fan_out(group(), OnConflict::Deny);
    let calls = ["a mutating + b mutating", "a mutating"];
    assert_eq!(asked(&chain, "{}"), calls);
    chain.push(member("c", set("/y", json!(1))));
    assert_eq!(asked(&chain, "{}").len(), 3);
    assert_eq!(*decide(&chain, "{}").spec, json!({"n": 2, "x": 1, "y": 1}));
}

#[rstest]
#[case::nobody_else_changes(member("b", allow), 1)]
#[case::another_changes_the_same(member("b", set("/x", json!(1))), 1)]
#[case::another_changes_more(member("b", set("/y", json!(1))), 2)]
#[case::another_wins(member("b", set("/x", json!(2))), 2)]
fn who_finds_its_own_spec_after_a_group_is_not_called_again(
    #[case] other: Member<Play>,
    #[case] rounds: usize,
) {
    let members = vec![again("a", set("/x", json!(1))), other];
    let chain = fan_out(members, OnConflict::LastWins);
    assert_eq!(asked(&chain, "{}").len(), rounds);
}
