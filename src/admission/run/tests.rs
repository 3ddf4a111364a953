//! The rules of the chain, by feeding runs by hand: no runtime, no clock.

mod check;
mod monitored;
mod properties;
mod reinvocation;
mod scope;

use std::time::SystemTime;

use bytes::Bytes;
use json_patch::PatchOperation;
use rstest::rstest;
use serde_json::json;

use super::*;
use crate::admission::chain::{Exemption, Phases};
use crate::admission::decision::Overall;
use crate::admission::patch;
use crate::admission::protected::Grant;
use crate::admission::review::{Kind, Spec};
use crate::admission::scope::{Globs, Scope};
use crate::admission::verdict::{Denial, Verdict};

/// A plugin that is a function of what it is asked.
type Play = Box<dyn Fn(&Call) -> Outcome>;

fn member(name: &str, play: impl Fn(&Call) -> Outcome + 'static) -> Member<Play> {
    Member {
        name: name.into(),
        plugin: Box::new(play),
        mode: Mode::Enforce,
        phases: Phases::MUTATING,
        scope: Scope::default(),
        failure_policy: FailurePolicy::Fail,
        timeout: Duration::from_secs(2),
        reinvocation: Reinvocation::Never,
        may_patch: Vec::new(),
    }
}

fn validating(name: &str, play: impl Fn(&Call) -> Outcome + 'static) -> Member<Play> {
    Member {
        phases: Phases::VALIDATING,
        ..member(name, play)
    }
}

fn allow(_: &Call) -> Outcome {
    Outcome::Verdict(Verdict::default())
}

fn deny(message: &str) -> impl Fn(&Call) -> Outcome + use<> {
    let denial = Denial {
        message: message.to_owned(),
        reason: None,
    };
    move |_| {
        Outcome::Verdict(Verdict {
            denials: vec![denial.clone()],
            ..Verdict::default()
        })
    }
}

fn patch_with(operations: Value) -> impl Fn(&Call) -> Outcome {
    let patch: Vec<PatchOperation> = serde_json::from_value(operations).unwrap();
    move |_| {
        Outcome::Verdict(Verdict {
            patch: patch.clone(),
            ..Verdict::default()
        })
    }
}

/// Adds one member.
fn set(path: &str, value: Value) -> impl Fn(&Call) -> Outcome + use<> {
    patch_with(json!([{"op": "add", "path": path, "value": value}]))
}

fn fault(_: &Call) -> Outcome {
    Outcome::Fault(Fault::new(FaultKind::Timeout, "it did not answer"))
}

fn chain(members: impl IntoIterator<Item = Member<Play>>) -> Chain<Play> {
    let mut chain = Chain::default();
    members.into_iter().for_each(|member| chain.push(member));
    chain
}

fn fan_out(members: Vec<Member<Play>>, on_conflict: OnConflict) -> Chain<Play> {
    let mut chain = Chain::default();
    chain.push_fan_out(members, on_conflict);
    chain
}

fn review(spec: &str) -> Arc<Review> {
    Arc::new(Review {
        id: "01J".to_owned(),
        kind: Kind::Run,
        user: "alice".to_owned(),
        project: "main".to_owned(),
        received: SystemTime::UNIX_EPOCH + Duration::from_secs(1000),
        headers: Vec::new(),
        trace: None,
        spec: Spec::parse(Bytes::copy_from_slice(spec.as_bytes())).unwrap(),
    })
}

/// Plays a run to its end; also says who was asked, round by round, and on which spec.
fn play(mut run: Run<'_, Play>) -> (Decision, Vec<Vec<(String, Value)>>) {
    let mut rounds = Vec::new();
    while let Some(round) = run.next_round() {
        let seen = |ask: &Ask<'_, Play>| {
            let who = format!("{} {}", ask.member.name, ask.call.phase.as_str());
            (who, (*ask.call.spec).clone())
        };
        rounds.push(round.asks.iter().map(seen).collect());
        // From the last to the first: a reply belongs to its ask, whenever it came.
        let answers = round.asks.iter().rev().map(|ask| Reply {
            outcome: (ask.member.plugin)(&ask.call),
            began: Duration::ZERO,
            took: Duration::from_millis(1),
        });
        let mut replies: Vec<_> = answers.collect();
        replies.reverse();
        run.feed(&round, replies);
    }
    (run.finish(), rounds)
}

fn decide(chain: &Chain<Play>, spec: &str) -> Decision {
    play(Run::new(chain, review(spec))).0
}

/// Who was asked, one text a round.
fn asked(chain: &Chain<Play>, spec: &str) -> Vec<String> {
    let (_, rounds) = play(Run::new(chain, review(spec)));
    let names = |round: &Vec<(String, Value)>| {
        let names = round.iter().map(|(who, _)| who.as_str());
        names.collect::<Vec<_>>().join(" + ")
    };
    rounds.iter().map(names).collect()
}

/// Each part as `name: result`.
fn results(decision: &Decision) -> Vec<String> {
    let of = |part: &Part| format!("{}: {}", part.plugin, part.result.as_str());
    decision.parts.iter().map(of).collect()
}

#[test]
fn mutating_plugins_are_called_in_order_on_what_those_before_left() {
    let chain = chain([
        member("a", set("/x", json!(1))),
        member("b", set("/x", json!(2))),
        member("c", set("/y", json!(3))),
        validating("d", allow),
    ]);
    let (decision, rounds) = play(Run::new(&chain, review("{}")));
    let expected = [
        vec![("a mutating".to_owned(), json!({}))],
        vec![("b mutating".to_owned(), json!({"x": 1}))],
        vec![("c mutating".to_owned(), json!({"x": 2}))],
        vec![("d validating".to_owned(), json!({"x": 2, "y": 3}))],
    ];
    assert_eq!(rounds, expected);
    assert_eq!(*decision.spec, json!({"x": 2, "y": 3}));
    assert_eq!(decision.as_str(), "patched");
}

#[test]
fn the_validating_phase_asks_all_at_once_wherever_they_stand() {
    let both = Member {
        phases: Phases {
            mutating: true,
            validating: true,
        },
        ..member("both", allow)
    };
    let chain = chain([validating("a", allow), both, validating("b", allow)]);
    let expected = [
        "both mutating",
        "a validating + both validating + b validating",
    ];
    assert_eq!(asked(&chain, "{}"), expected);
}

#[test]
fn an_empty_chain_allows() {
    let decision = decide(&chain([]), "{}");
    assert_eq!((decision.as_str(), decision.parts.len()), ("allowed", 0));
}

#[rstest]
#[case::both(json!([{"op": "add", "path": "/x", "value": 1}]), json!([{"op": "add", "path": "/y", "value": 2}]), Some(json!({"l": [], "x": 1, "y": 2})))]
#[case::appends(json!([{"op": "add", "path": "/l/-", "value": 1}]), json!([{"op": "add", "path": "/l/-", "value": 2}]), Some(json!({"l": [1, 2]})))]
#[case::tests_see_the_spec_before(json!([{"op": "add", "path": "/x", "value": 1}]), json!([{"op": "test", "path": "/l", "value": []}, {"op": "add", "path": "/l/-", "value": 2}]), Some(json!({"l": [2], "x": 1})))]
#[case::conflict(json!([{"op": "add", "path": "/x", "value": 1}]), json!([{"op": "add", "path": "/x", "value": 2}]), None)]
fn a_fan_out_is_asked_at_once_and_merged(
    #[case] a: Value,
    #[case] b: Value,
    #[case] merged: Option<Value>,
) {
    let members = vec![member("a", patch_with(a)), member("b", patch_with(b))];
    let chain = fan_out(members, OnConflict::Deny);
    assert_eq!(asked(&chain, r#"{"l": []}"#)[0], "a mutating + b mutating");
    let decision = decide(&chain, r#"{"l": []}"#);
    assert_eq!(decision.allowed().then(|| (*decision.spec).clone()), merged);
}

#[test]
fn a_conflict_denies_and_names_both_and_the_place() {
    let members = vec![
        member("a", set("/x", json!(1))),
        member("b", set("/y", json!(1))),
        member("c", set("/x", json!(2))),
    ];
    let mut chain = fan_out(members, OnConflict::Deny);
    chain.push(member("after", allow));
    let decision = decide(&chain, "{}");
    assert_eq!(
        results(&decision),
        ["a: allowed", "b: allowed", "c: conflict"]
    );
    let PartResult::Conflict { with, path } = &decision.parts[2].result else {
        panic!("{:?}", decision.parts[2]);
    };
    assert_eq!((&**with, path.as_str()), ("a", "/x"));
    assert!(decision.parts.iter().all(|part| part.patch.is_empty()));
    assert!(Arc::ptr_eq(&decision.spec, decision.review.spec.value()));
}

#[test]
fn the_last_wins_where_the_group_says_so() {
    let members = vec![
        member("a", set("/x", json!(1))),
        member("b", set("/x", json!(2))),
    ];
    let decision = decide(&fan_out(members, OnConflict::LastWins), "{}");
    assert_eq!(
        (decision.as_str(), &*decision.spec),
        ("patched", &json!({"x": 2}))
    );
}

#[test]
fn a_denial_in_the_mutating_phase_ends_the_chain() {
    let chain = chain([
        member("a", deny("no")),
        member("b", allow),
        validating("c", deny("no")),
    ]);
    assert_eq!(asked(&chain, "{}"), ["a mutating"]);
    assert_eq!(results(&decide(&chain, "{}")), ["a: denied"]);
}

#[test]
fn every_denial_of_a_group_and_of_the_validating_phase_is_gathered() {
    let group = vec![
        member("a", deny("no")),
        member("b", allow),
        member("c", fault),
    ];
    let decision = decide(&fan_out(group, OnConflict::Deny), "{}");
    assert_eq!(results(&decision), ["a: denied", "b: allowed", "c: failed"]);

    let chain = chain([
        validating("a", deny("no")),
        validating("b", allow),
        validating("c", deny("nor so")),
    ]);
    let decision = decide(&chain, "{}");
    assert_eq!(results(&decision), ["a: denied", "b: allowed", "c: denied"]);
}

fn with_patch(operations: Value) -> Play {
    Box::new(patch_with(operations))
}

#[rstest]
#[case::fault(Phases::MUTATING, Box::new(fault), FaultKind::Timeout)]
#[case::validating_fault(Phases::VALIDATING, Box::new(fault), FaultKind::Timeout)]
#[case::does_not_apply(Phases::MUTATING, with_patch(json!([{"op": "remove", "path": "/x"}])), FaultKind::PatchApply)]
#[case::test_fails(Phases::MUTATING, with_patch(json!([{"op": "test", "path": "/n", "value": 0}])), FaultKind::PatchApply)]
#[case::no_object(Phases::MUTATING, with_patch(json!([{"op": "replace", "path": "", "value": 1}])), FaultKind::PatchApply)]
#[case::protected(Phases::MUTATING, with_patch(json!([{"op": "add", "path": "/run_name", "value": "b"}])), FaultKind::Protected)]
#[case::protected_from_above(Phases::MUTATING, with_patch(json!([{"op": "replace", "path": "", "value": {}}])), FaultKind::Protected)]
#[case::validating_patch(Phases::VALIDATING, with_patch(json!([{"op": "add", "path": "/x", "value": 1}])), FaultKind::PatchNotAllowed)]
fn the_failure_policy_chooses_what_a_failure_does(
    #[case] phases: Phases,
    #[case] plugin: Play,
    #[case] kind: FaultKind,
) {
    let plugin = Member {
        phases,
        plugin,
        ..member("a", allow)
    };
    let spec = r#"{"run_name": "a", "n": 1.0}"#;
    let mut chain = chain([plugin]);
    chain.push(validating("b", allow));
    let failed = decide(&chain, spec);
    let PartResult::Failed(why) = &failed.parts[0].result else {
        panic!("{:?}", failed.parts[0]);
    };
    assert_eq!(why.kind, kind);
    assert!(!failed.allowed());

    let mut ignoring = Chain::default();
    ignoring.push(Member {
        failure_policy: FailurePolicy::Ignore,
        phases,
        ..member("a", move |call| (chain.members()[0].plugin)(call))
    });
    let passed = decide(&ignoring, spec);
    let PartResult::FailedOpen(why) = &passed.parts[0].result else {
        panic!("{:?}", passed.parts[0]);
    };
    assert_eq!(why.kind, kind);
    assert!(passed.allowed() && passed.parts[0].patch.is_empty());
    assert!(Arc::ptr_eq(&passed.spec, passed.review.spec.value()));
}

#[test]
fn a_plugin_that_fails_open_leaves_the_others_their_changes() {
    let group = vec![
        member("a", set("/x", json!(1))),
        Member {
            failure_policy: FailurePolicy::Ignore,
            ..member("b", patch_with(json!([{"op": "remove", "path": "/none"}])))
        },
    ];
    let decision = decide(&fan_out(group, OnConflict::Deny), "{}");
    assert_eq!(*decision.spec, json!({"x": 1}));
    assert_eq!(results(&decision), ["a: allowed", "b: failed_open"]);
}

#[rstest]
#[case::mutating_bad_patch(Phases::MUTATING, json!([{"op": "remove", "path": "/none"}]))]
#[case::mutating_good_patch(Phases::MUTATING, json!([{"op": "add", "path": "/x", "value": 1}]))]
#[case::validating_patch(Phases::VALIDATING, json!([{"op": "add", "path": "/x", "value": 1}]))]
fn a_denial_stands_whatever_patch_comes_with_it(#[case] phases: Phases, #[case] patch: Value) {
    let patch: Vec<PatchOperation> = serde_json::from_value(patch).unwrap();
    let denying = move |call: &Call| match deny("no")(call) {
        Outcome::Verdict(verdict) => Outcome::Verdict(Verdict {
            patch: patch.clone(),
            ..verdict
        }),
        other => other,
    };
    let chain = chain([Member {
        failure_policy: FailurePolicy::Ignore,
        phases,
        ..member("a", denying)
    }]);
    let decision = decide(&chain, "{}");
    assert_eq!(results(&decision), ["a: denied"]);
    assert!(decision.patch.is_empty());
}

#[test]
fn what_may_patch_grants_is_changed_by_that_plugin_alone() {
    let granted = Member {
        may_patch: vec![Grant::parse("/run_name").unwrap()],
        ..member("a", set("/run_name", json!("b")))
    };
    let chain = chain([granted, member("b", set("/run_name", json!("c")))]);
    let decision = decide(&chain, r#"{"run_name": "a"}"#);
    assert_eq!(results(&decision), ["a: allowed", "b: failed"]);
    assert_eq!(*decision.spec, json!({"run_name": "b"}));
}

#[rstest]
#[case::no_operations(json!([]))]
#[case::same_value(json!([{"op": "replace", "path": "/n", "value": 1.10}]))]
#[case::there_and_back(json!([{"op": "move", "from": "/n", "path": "/m"}, {"op": "move", "from": "/m", "path": "/n"}]))]
#[case::a_test(json!([{"op": "test", "path": "/n", "value": 1.1}]))]
fn a_patch_that_changes_nothing_leaves_the_very_spec(#[case] patch: Value) {
    let chain = chain([member("a", patch_with(patch))]);
    let decision = decide(&chain, r#"{"n" : 1.10}"#);
    assert_eq!(
        (decision.as_str(), decision.parts[0].patch.len()),
        ("allowed", 0)
    );
    assert!(Arc::ptr_eq(&decision.spec, decision.review.spec.value()));
}

#[test]
fn a_plugin_whose_reply_is_missing_has_failed() {
    let chain = chain([validating("a", allow), validating("b", allow)]);
    let mut run = Run::new(&chain, review("{}"));
    let round = run.next_round().unwrap();
    run.feed(&round, Vec::new());
    let decision = run.finish();
    assert_eq!(results(&decision), ["a: failed", "b: failed"]);
    assert!(matches!(decision.verdict, Overall::Denied(_)));
}

#[test]
fn warnings_and_annotations_come_with_denials_too() {
    let talking = |call: &Call| match deny("no")(call) {
        Outcome::Verdict(verdict) => Outcome::Verdict(Verdict {
            warnings: vec!["old field".to_owned()],
            annotations: vec![("k".to_owned(), "v".to_owned())],
            ..verdict
        }),
        other => other,
    };
    let decision = decide(&chain([member("a", talking)]), "{}");
    assert_eq!(decision.warnings().collect::<Vec<_>>(), ["a: old field"]);
    assert_eq!(decision.parts[0].annotations[0].0, "k");
}
