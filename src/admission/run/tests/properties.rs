//! What holds of any chain of plugins, whatever they answer.

use json_patch::jsonptr::{Pointer, PointerBuf};
use proptest::prelude::*;

use super::*;
use crate::admission::arbitrary::{Edit, edit, numbers, spec};
use crate::admission::text;

/// What a plugin of an arbitrary chain does.
#[derive(Clone, Debug)]
enum Does {
    /// Edits one after the other, those that do not apply left out.
    Patches(Vec<Edit>),
    /// One edit, whether it applies or not.
    PatchesBlindly(Edit),
    Denies,
    Fails,
    Skips,
}

#[derive(Clone, Debug)]
struct Plan {
    does: Does,
    failure_policy: FailurePolicy,
    reinvocation: Reinvocation,
    phases: Phases,
}

impl Plan {
    fn member(&self, name: &str) -> Member<Play> {
        let does = self.does.clone();
        let plugin = move |call: &Call| match &does {
            Does::Patches(edits) => patch_with(applying(edits, &call.spec))(call),
            Does::PatchesBlindly(edit) => patch_with(json!([edit.on(&call.spec)]))(call),
            Does::Denies => deny("no")(call),
            Does::Fails => fault(call),
            Does::Skips => Outcome::Skipped("not-this".to_owned()),
        };
        Member {
            failure_policy: self.failure_policy,
            reinvocation: self.reinvocation,
            phases: self.phases,
            ..member(name, plugin)
        }
    }
}

fn applying(edits: &[Edit], spec: &Value) -> Value {
    let (mut now, mut taken) = (spec.clone(), Vec::new());
    for edit in edits {
        let operation = edit.on(&now);
        let parsed = serde_json::from_value(operation.clone()).unwrap();
        if let Ok(after) = patch::apply(&now, &[parsed]) {
            now = after;
            taken.push(operation);
        }
    }
    Value::Array(taken)
}

fn plan() -> impl Strategy<Value = Plan> {
    let does = prop_oneof![
        8 => prop::collection::vec(edit(), 0..4).prop_map(Does::Patches),
        1 => edit().prop_map(Does::PatchesBlindly),
        1 => Just(Does::Denies),
        1 => Just(Does::Fails),
        1 => Just(Does::Skips),
    ];
    let policy = prop_oneof![Just(FailurePolicy::Fail), Just(FailurePolicy::Ignore)];
    let reinvocation = prop_oneof![Just(Reinvocation::Never), Just(Reinvocation::IfNeeded)];
    let both = Phases {
        mutating: true,
        validating: true,
    };
    let phases =
        prop_oneof![4 => Just(Phases::MUTATING), 1 => Just(Phases::VALIDATING), 1 => Just(both)];
    (does, policy, reinvocation, phases).prop_map(|(does, failure_policy, reinvocation, phases)| {
        Plan {
            does,
            failure_policy,
            reinvocation,
            phases,
        }
    })
}

fn any_chain() -> impl Strategy<Value = Vec<(Vec<Plan>, OnConflict)>> {
    let on_conflict = prop_oneof![Just(OnConflict::Deny), Just(OnConflict::LastWins)];
    prop::collection::vec((prop::collection::vec(plan(), 1..4), on_conflict), 0..4)
}

fn build(stages: &[(Vec<Plan>, OnConflict)]) -> Chain<Play> {
    let mut chain = Chain::default();
    for (index, (plans, on_conflict)) in stages.iter().enumerate() {
        let name = |n: usize| format!("{index}.{n}");
        let members = plans
            .iter()
            .enumerate()
            .map(|(n, plan)| plan.member(&name(n)));
        chain.push_fan_out(members.collect(), *on_conflict);
    }
    chain
}

/// Whether an operation changes what is at a place, or moves the elements of an array above it.
fn reaches(patch: &[PatchOperation], place: &Pointer, spec: &Value) -> bool {
    patch.iter().flat_map(patch::written).any(|path| {
        let moved = path
            .parent()
            .filter(|above| matches!(above.resolve(spec), Ok(Value::Array(_))));
        place.starts_with(path)
            || path.starts_with(place)
            || moved.is_some_and(|array| place.starts_with(array))
    })
}

proptest! {
    #[test]
    fn the_patch_of_a_decision_turns_the_original_into_its_spec(stages in any_chain(), spec in spec()) {
        let chain = build(&stages);
        let decision = decide(&chain, std::str::from_utf8(spec.text()).unwrap());
        let again = patch::apply(spec.value(), &decision.patch).unwrap();
        prop_assert_eq!(&again, &*decision.spec);
        let text = text::render(&decision.review.spec, &decision.spec);
        let parsed: Value = serde_json::from_slice(&text).unwrap();
        prop_assert_eq!(&parsed, &*decision.spec);
    }

    #[test]
    fn what_no_plugin_changed_is_answered_as_it_came(stages in any_chain(), spec in spec()) {
        let chain = build(&stages);
        let decision = decide(&chain, std::str::from_utf8(spec.text()).unwrap());
        let untouched = decision.parts.iter().all(|part| part.patch.is_empty());
        if untouched || !decision.allowed() {
            prop_assert_eq!(decision.answer(), spec.text());
        }
        let before = numbers(spec.text());
        let after = numbers(&decision.answer());
        let kept = before.iter().filter(|(place, _)| !reaches(&decision.patch, place, spec.value()));
        for (place, digits) in kept {
            prop_assert_eq!(after.get(place), Some(digits), "{}", place);
        }
    }

    #[test]
    fn a_review_is_allowed_exactly_when_no_part_denies_it(stages in any_chain(), spec in spec()) {
        let chain = build(&stages);
        let decision = decide(&chain, std::str::from_utf8(spec.text()).unwrap());
        prop_assert_eq!(decision.allowed(), !decision.parts.iter().any(|part| part.result.denies()));
        let asked = |index| decision.parts.iter().any(|part| part.member == index);
        let validated = (0..chain.members().len()).all(asked);
        prop_assert!(!decision.allowed() || validated);
    }

    #[test]
    fn a_monitored_chain_changes_no_decision(
        stages in any_chain(),
        monitored in any_chain(),
        spec in spec(),
    ) {
        let text = std::str::from_utf8(spec.text()).unwrap();
        let alone = decide(&build(&stages), text);
        let mut chain = build(&stages);
        for (plans, on_conflict) in &monitored {
            let watching = |plan: &Plan| Member { mode: Mode::Monitor, ..plan.member("monitored") };
            chain.push_fan_out(plans.iter().map(watching).collect(), *on_conflict);
        }
        let decision = decide(&chain, text);
        prop_assert_eq!(&decision.spec, &alone.spec);
        prop_assert_eq!(results(&decision), results(&alone));
        prop_assert_eq!(&decision.verdict, &alone.verdict);
        let shadow = play(Run::monitored(&chain, &decision)).0;
        let not_asked = monitored.iter().flat_map(|(plans, _)| plans).count();
        prop_assert!(shadow.parts.len() >= not_asked, "no monitored plugin is left out");
    }

    #[test]
    fn identity_survives_any_chain(stages in any_chain()) {
        let spec = r#"{"run_name": "r", "repo_id": "i", "configuration": {"type": "task", "name": "n"}, "a": [1]}"#;
        let decision = decide(&build(&stages), spec);
        for place in ["/run_name", "/repo_id", "/configuration/type", "/configuration/name"] {
            let place = PointerBuf::parse(place).unwrap();
            let before = place.resolve(&**decision.review.spec.value());
            prop_assert_eq!(place.resolve(&*decision.spec), before);
        }
    }
}
