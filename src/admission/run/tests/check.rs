//! `specCheck`: the final spec is held against dstack's own models, and who broke it is named.

use super::*;

/// The member that has the models. These refuse each of `bad` that is true in the spec.
fn models(bad: &'static [&'static str]) -> Member<Play> {
    member("models", move |call| {
        if call.phase == Phase::Mutating {
            return allow(call);
        }
        let refused = bad.iter().filter(|name| call.spec[**name] == json!(true));
        let denials = refused.map(|name| Denial {
            message: format!("{name}: bad"),
            reason: None,
        });
        Outcome::Verdict(Verdict {
            denials: denials.collect(),
            ..Verdict::default()
        })
    })
}

fn ignored(member: Member<Play>) -> Member<Play> {
    Member {
        failure_policy: FailurePolicy::Ignore,
        ..member
    }
}

fn checked(members: impl IntoIterator<Item = Member<Play>>) -> Chain<Play> {
    let mut chain = chain(members);
    chain.check_final_specs("models".into());
    chain
}

fn on(name: &str, path: &str) -> Member<Play> {
    member(name, set(path, json!(true)))
}

fn off(name: &str, path: &str) -> Member<Play> {
    member(name, set(path, json!(false)))
}

const FINAL: &str = "models validating";

#[test]
fn a_spec_that_nobody_changed_is_not_checked() {
    let chain = checked([models(&["x"]), member("a", allow), validating("v", allow)]);
    let rounds = ["models mutating", "a mutating", "v validating"];
    assert_eq!(asked(&chain, r#"{"x": true}"#), rounds);
}

#[test]
fn a_good_spec_costs_one_question_before_the_validating_phase() {
    let chain = checked([
        on("a", "/y"),
        models(&["x"]),
        on("b", "/z"),
        validating("v", allow),
    ]);
    let (decision, rounds) = play(Run::new(&chain, review("{}")));
    let expected = [
        "a mutating",
        "models mutating",
        "b mutating",
        FINAL,
        "v validating",
    ];
    let names = Vec::from_iter(rounds.iter().map(|round| round[0].0.as_str()));
    assert_eq!(names, expected);
    assert_eq!(rounds[3][0].1, json!({"y": true, "z": true}));
    assert_eq!(decision.as_str(), "patched");
    assert_eq!(results(&decision)[3], "models: allowed");
}

#[rstest]
#[case::the_last(vec![on("a", "/y"), on("b", "/x")], "{}", "b")]
#[case::the_first(vec![on("a", "/x"), on("b", "/y")], "{}", "a")]
#[case::who_broke_it_again(vec![on("a", "/x"), off("b", "/x"), on("c", "/x")], "{}", "c")]
#[case::not_what_was_wrong_before(vec![on("a", "/y"), on("b", "/x")], r#"{"w": true}"#, "b")]
fn who_broke_a_spec_is_named(
    #[case] mut members: Vec<Member<Play>>,
    #[case] spec: &str,
    #[case] culprit: &str,
) {
    members.push(models(&["w", "x"]));
    members.push(validating("v", deny("not asked any more")));
    let decision = decide(&checked(members), spec);
    let part = decision.parts.iter().find(|part| part.result.denies());
    let part = part.expect("a denial");
    let PartResult::Failed(fault) = &part.result else {
        panic!("{part:?}");
    };
    assert_eq!((&*part.plugin, fault.kind), (culprit, FaultKind::Schema));
    assert_eq!(
        fault.message,
        "after its patch dstack would refuse the spec: x: bad"
    );
    assert!(part.patch.is_empty());
    assert!(decision.parts.iter().all(|part| &*part.plugin != "v"));
}

#[rstest]
#[case::from_the_beginning(vec![on("a", "/y")], r#"{"x": true}"#)]
#[case::mended(vec![on("a", "/x"), off("b", "/x")], "{}")]
#[case::broken_by_nobody(vec![off("a", "/x"), on("b", "/x")], r#"{"x": true}"#)]
fn what_nobody_broke_denies_nobody(#[case] mut members: Vec<Member<Play>>, #[case] spec: &str) {
    members.push(models(&["x"]));
    let decision = decide(&checked(members), spec);
    assert!(decision.allowed(), "{decision:?}");
}

#[test]
fn a_group_that_broke_a_spec_is_named_as_a_whole() {
    let mut chain = fan_out(
        vec![on("a", "/x"), on("b", "/y"), member("c", allow)],
        OnConflict::Deny,
    );
    chain.push(models(&["x"]));
    chain.check_final_specs("models".into());
    let decision = decide(&chain, "{}");
    assert_eq!(results(&decision), ["a: failed", "b: failed", "c: allowed"]);
    let denial = decision.denial().unwrap();
    assert!(
        denial.contains("- a: after the patches of a, b dstack would refuse"),
        "{denial}"
    );
}

#[test]
fn a_patch_that_may_fail_is_left_out_and_those_after_it_are_asked_again() {
    let count = |call: &Call| set("/n", json!(call.spec["x"] == json!(true)))(call);
    let chain = checked([
        on("a", "/y"),
        ignored(on("b", "/x")),
        member("c", count),
        models(&["x"]),
    ]);
    let (decision, rounds) = play(Run::new(&chain, review("{}")));
    assert_eq!(*decision.spec, json!({"y": true, "n": false}));
    assert_eq!(
        results(&decision),
        [
            "a: allowed",
            "b: failed_open",
            "c: allowed",
            "models: allowed",
            "models: allowed"
        ]
    );
    let check = format!("{FINAL} + {FINAL} + {FINAL}");
    let names = rounds.iter().map(|round| {
        let names = Vec::from_iter(round.iter().map(|(who, _)| who.as_str()));
        names.join(" + ")
    });
    let pass = ["c mutating", "models mutating", FINAL];
    let expected = [&["a mutating", "b mutating"], &pass[..], &[&check], &pass].concat();
    assert_eq!(Vec::from_iter(names), expected);
}

#[test]
fn two_patches_that_may_fail_are_left_out_one_after_the_other() {
    let chain = checked([
        ignored(on("a", "/w")),
        ignored(on("b", "/x")),
        on("c", "/y"),
        models(&["w", "x"]),
    ]);
    let decision = decide(&chain, "{}");
    assert_eq!(*decision.spec, json!({"y": true}));
    assert_eq!(
        results(&decision)[..3],
        ["a: failed_open", "b: failed_open", "c: allowed"]
    );
}

#[rstest]
#[case::fail(FailurePolicy::Fail, "failed", "denied")]
#[case::ignore(FailurePolicy::Ignore, "failed_open", "patched")]
fn a_check_that_cannot_be_made_falls_to_the_failure_policy_of_its_plugin(
    #[case] failure_policy: FailurePolicy,
    #[case] result: &str,
    #[case] outcome: &str,
) {
    let play = |call: &Call| match call.phase {
        Phase::Mutating => allow(call),
        Phase::Validating => fault(call),
    };
    let models = Member {
        failure_policy,
        ..member("models", play)
    };
    let decision = decide(&checked([on("a", "/x"), models]), "{}");
    assert_eq!(results(&decision)[2], format!("models: {result}"));
    assert_eq!(decision.as_str(), outcome);
    let (PartResult::Failed(fault) | PartResult::FailedOpen(fault)) = &decision.parts[2].result
    else {
        panic!("{decision:?}");
    };
    assert_eq!(
        fault.message,
        "the changed spec was not checked: it did not answer"
    );
}

#[test]
fn a_reinvoked_plugin_that_breaks_a_spec_is_named() {
    let twice = |call: &Call| match call.spec["y"] {
        Value::Null => allow(call),
        _ => set("/x", json!(true))(call),
    };
    for (policy, outcome) in [
        (FailurePolicy::Fail, "denied"),
        (FailurePolicy::Ignore, "patched"),
    ] {
        let again = Member {
            reinvocation: Reinvocation::IfNeeded,
            failure_policy: policy,
            ..member("again", twice)
        };
        let decision = decide(&checked([again, on("b", "/y"), models(&["x"])]), "{}");
        assert_eq!(decision.as_str(), outcome, "{decision:?}");
        let culprit = &decision.parts[3];
        assert_eq!((&*culprit.plugin, culprit.reinvoked), ("again", true));
        assert!(matches!(
            culprit.result,
            PartResult::Failed(_) | PartResult::FailedOpen(_)
        ));
    }
}

#[rstest]
#[case::broken_before(vec![on("a", "/x")], "{}", "a")]
#[case::broken_by_nobody(vec![on("a", "/y")], r#"{"x": true}"#, "reader")]
#[case::never_changed(vec![], r#"{"x": true}"#, "reader")]
fn who_broke_a_spec_is_named_by_whom_cannot_read_it(
    #[case] mut members: Vec<Member<Play>>,
    #[case] spec: &str,
    #[case] culprit: &str,
) {
    members.push(member("reader", |call| match call.spec["x"] {
        Value::Null => allow(call),
        _ => Outcome::Fault(Fault::new(FaultKind::Unreadable, "it does not accept x")),
    }));
    members.push(models(&["x"]));
    members.push(validating("v", deny("not asked any more")));
    let decision = decide(&checked(members), spec);
    let denying = decision.parts.iter().filter(|part| part.result.denies());
    let denying = Vec::from_iter(denying.map(|part| &*part.plugin));
    assert_eq!(denying, [culprit], "{decision:?}");
}

#[test]
fn monitored_plugins_are_not_checked() {
    let monitored = Member {
        mode: Mode::Monitor,
        ..on("m", "/x")
    };
    let chain = checked([models(&["x"]), monitored]);
    let decision = decide(&chain, "{}");
    let (shadow, rounds) = play(Run::monitored(&chain, &decision));
    assert_eq!((shadow.as_str(), rounds.len()), ("patched", 1));
}
