//! What a policy and its conditions say of a call.

use rstest::rstest;
use serde_json::{Value, json};

use super::super::source::Condition;
use super::super::{Conditions, Policy};
use super::{call, outcome, policy, run, validate};
use crate::admission::verdict::{Denial, FaultKind, Phase, Verdict};

#[rstest]
#[case(json!({}), "failed expression: spec.n > 9")]
#[case(json!({"message": "too few"}), "too few")]
#[case(json!({"messageExpression": "'only ' + string(spec.n)"}), "only 7")]
#[case(json!({"message": "too few", "messageExpression": "'only ' + string(spec.n)"}), "only 7")]
#[case(json!({"message": "too few", "messageExpression": "spec.absent"}), "too few")]
#[case(json!({"message": "too few", "messageExpression": "spec.n"}), "too few")]
#[case(json!({"message": "too few", "messageExpression": "'  '"}), "too few")]
#[case(json!({"message": "too few", "messageExpression": "'a\\nb'"}), "too few")]
#[case(json!({"messageExpression": "spec.absent"}), "failed expression: spec.n > 9")]
fn a_false_validation_denies_with_its_message(#[case] keys: Value, #[case] message: &str) {
    let mut validation = json!({"expression": " spec.n > 9 ", "reason": "Forbidden"});
    for (key, value) in keys.as_object().unwrap() {
        validation[key] = value.clone();
    }
    let verdict = validate(json!({"validations": [validation]}), &run()).unwrap();
    let denial = Denial {
        message: message.to_owned(),
        reason: Some("Forbidden".to_owned()),
    };
    assert_eq!(verdict.denials, [denial]);
}

#[test]
fn every_false_validation_denies() {
    let verdict = validate(
        json!({"validations": [
            {"expression": "spec.n > 9", "message": "first"},
            {"expression": "spec.n == 7"},
            {"expression": "user == 'eve'", "message": "second"},
        ]}),
        &run(),
    )
    .unwrap();
    let messages: Vec<&str> = verdict.denials.iter().map(|d| d.message.as_str()).collect();
    assert_eq!(messages, ["first", "second"]);
}

#[test]
fn a_rule_that_errors_is_a_fault_with_its_expression_for_the_log() {
    let fault = validate(
        json!({"validations": [{"expression": "true"}, {"expression": "spec.absent > 1"}]}),
        &run(),
    )
    .unwrap_err();
    assert_eq!(fault.kind, FaultKind::Rule);
    assert_eq!(
        fault.message,
        "validations[1] cannot be evaluated: spec has no member `absent`: test has(spec.absent) first"
    );
    assert_eq!(fault.detail.as_deref(), Some("spec.absent > 1"));
}

#[test]
fn a_denial_stands_beside_a_rule_that_errors() {
    let verdict = validate(
        json!({"validations": [{"expression": "spec.absent > 1"}, {"expression": "false", "message": "no"}]}),
        &run(),
    )
    .unwrap();
    assert_eq!(verdict.denials.len(), 1);
    assert!(verdict.warnings[0].starts_with("validations[0] cannot be evaluated"));
}

#[test]
fn annotations_are_strings_or_nothing() {
    let annotations = |expression: &str| {
        let keys = json!({"auditAnnotations": [{"key": "k", "valueExpression": expression}]});
        validate(keys, &run())
            .map(|verdict| verdict.annotations)
            .map_err(|fault| fault.message)
    };
    assert_eq!(
        annotations("user + '!'"),
        Ok(vec![("k".to_owned(), "ada!".to_owned())])
    );
    assert_eq!(annotations("spec.configuration.max_price"), Ok(vec![]));
    assert_eq!(
        annotations("spec.n"),
        Err("auditAnnotations[0] cannot be evaluated: it gives int, not a string".to_owned())
    );
}

#[test]
fn variables_build_on_earlier_ones_and_keep_borrowing() {
    let verdict = validate(
        json!({
            "variables": [
                {"name": "team", "expression": "project.split('-')[0]"},
                {"name": "groups", "expression": "spec.configuration.groups"},
                {"name": "largest", "expression": "variables.groups.filter(g, g.replicas.max > 1)"},
                {"name": "label", "expression": "variables.team + '/' + variables.largest[0].name"},
            ],
            "validations": [{
                "expression": "variables.label == 'ml/a' && variables.groups[1].name == 'b' \
                    && variables.largest.all(g, g in variables.groups) && variables.team in ['ml']",
            }],
        }),
        &run(),
    );
    assert_eq!(verdict, Ok(Verdict::default()));
}

#[test]
fn a_variable_is_evaluated_only_when_it_is_used() {
    let keys = |rule: &str| {
        json!({
            "variables": [{"name": "broken", "expression": "spec.absent.deep"}, {"name": "user", "expression": "variables.broken"}],
            "validations": [{"expression": rule}],
        })
    };
    assert_eq!(validate(keys("true"), &run()), Ok(Verdict::default()));
    assert_eq!(
        validate(keys("kind == 'run' || variables.user"), &run()),
        Ok(Verdict::default())
    );
    let fault = validate(keys("variables.user"), &run()).unwrap_err();
    assert_eq!(
        fault.message,
        "validations[0] cannot be evaluated: variables.user cannot be evaluated: variables.broken \
         cannot be evaluated: spec has no member `absent`: test has(spec.absent) first"
    );
}

#[test]
fn a_variable_is_evaluated_at_most_once() {
    // Each evaluation takes most of the budget, so that a second one would spend it.
    let costly =
        json!({"name": "costly", "expression": "spec.many.all(x, x >= 0 && x < 9000 && x != -1)"});
    let rule = json!({"expression": "variables.costly && variables.costly"});
    let policy = policy(json!({"variables": [costly], "validations": vec![rule; 20]}));
    let many: Vec<u32> = (0..2_000).collect();
    assert_eq!(
        outcome(&policy, &json!({"many": many}), Phase::Validating),
        Ok(Verdict::default())
    );
}

fn condition(name: Option<&str>, expression: &str) -> Condition {
    Condition {
        name: name.map(str::to_owned),
        expression: expression.to_owned(),
    }
}

#[rstest]
#[case(&[], Ok(None))]
#[case(&["true", "spec.n == 7"], Ok(None))]
#[case(&["true", "spec.n == 8"], Ok(Some("spec.n == 8")))]
#[case(&["spec.absent", "spec.n == 8"], Ok(Some("spec.n == 8")))]
#[case(&["spec.n == 8", "spec.absent"], Ok(Some("spec.n == 8")))]
#[case(&["true", "spec.absent"], Err("match.conditions[1] cannot be evaluated: spec has no member `absent`: test has(spec.absent) first"))]
#[case(&["user"], Err("match.conditions[0] cannot be evaluated: it gives string, not a bool"))]
fn any_false_condition_skips(
    #[case] expressions: &[&str],
    #[case] expected: Result<Option<&str>, &str>,
) {
    let source: Vec<Condition> = expressions.iter().map(|e| condition(None, e)).collect();
    let conditions = Conditions::compile(&source).unwrap_or_else(|errors| panic!("{errors:?}"));
    let answer = conditions.evaluate(&call(&run(), Phase::Validating));
    assert!(
        answer
            .as_ref()
            .err()
            .is_none_or(|fault| fault.kind == FaultKind::Condition)
    );
    let expected = expected
        .map(|name| name.map(str::to_owned))
        .map_err(str::to_owned);
    assert_eq!(answer.map_err(|fault| fault.message), expected);
}

#[test]
fn a_false_condition_is_called_by_its_name() {
    let source = [condition(Some("not-mine"), "user == 'eve'")];
    let conditions = Conditions::compile(&source).unwrap_or_else(|errors| panic!("{errors:?}"));
    let skipped = conditions.evaluate(&call(&run(), Phase::Mutating));
    assert_eq!(skipped, Ok(Some("not-mine".to_owned())));
}

#[test]
fn one_policy_serves_many_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    let policy = policy(
        json!({"validations": [{"expression": "spec.configuration.groups.all(g, g.name.matches('^[ab]$'))"}]}),
    );
    shared::<Policy>(&policy);
    let call = call(&run(), Phase::Validating);
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for _ in 0..100 {
                    assert!(matches!(
                        policy.evaluate(&call),
                        crate::admission::verdict::Outcome::Verdict(verdict) if verdict.denials.is_empty()
                    ));
                }
            });
        }
    });
}
