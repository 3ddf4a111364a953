//! No expression runs away.

use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};

use super::super::Conditions;
use super::super::source::Condition;
use super::{busy, call, on_a_large_stack, outcome, policy};
use crate::admission::verdict::{FaultKind, Phase};

/// Far above what the budget takes in an unoptimised build, far below what these expressions take
/// without it.
const PATIENCE: Duration = Duration::from_secs(2);

fn spec() -> Value {
    let many: Vec<u32> = (0..2_000).collect();
    let texts: Vec<String> = many.iter().map(|n| format!("text {n}")).collect();
    let long = "x".repeat(100_000);
    json!({"many": many, "texts": texts, "long": long, "other": long.clone(), "map": {"a": [many, many]}, "few": many[..60]})
}

#[rstest]
#[case::nested_over_the_spec(
    "spec.many.all(a, spec.many.all(b, spec.many.all(c, a + b + c >= 0)))"
)]
#[case::nested_over_a_literal(
    "[1,2,3,4,5,6,7,8,9].all(a, [1,2,3,4,5,6,7,8,9].all(b, [1,2,3,4,5,6,7,8,9].all(c, [1,2,3,4,5,6,7,8,9].all(d, [1,2,3,4,5,6,7,8,9].all(e, [1,2,3,4,5,6,7,8,9].all(f, [1,2,3,4,5,6,7,8,9].all(g, true)))))))"
)]
#[case::nested_over_a_map_result(
    "spec.many.map(x, x + 1).all(a, spec.many.map(y, y).all(b, a + b >= 0))"
)]
#[case::an_error_swallowed_by_or(
    "spec.many.exists(a, spec.many.all(b, spec.many.all(c, true))) || true"
)]
#[case::an_error_swallowed_by_exists(
    "spec.many.exists(a, spec.many.exists(b, spec.many.exists(c, a == b && b == c && false)) || false)"
)]
#[case::text_that_doubles(
    "['ab'].map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).map(s,s+s).size() > 0"
)]
#[case::lists_that_double(
    "[[1]].map(s,[s,s]).map(s,[s,s]).map(s,[s,s]).map(s,[s,s]).map(s,[s,s]).map(s,[s,s]).map(s,[s,s]).map(s,[s,s]).map(s,[s,s]).map(s,[s,s]).map(s,[s,s]).map(s,[s,s]).map(s,[s,s]).map(s,[s,s]).map(s,[s,s]).map(s,[s,s]).map(s,[s,s]).map(s,[s,s]).map(s,[s,s]).map(s,[s,s]).map(s,[s,s]).map(s,[s,s]).map(s,[s,s]).map(s,[s,s]).map(s,[s,s]).size() > 0"
)]
#[case::optionals_that_double(
    "optional.of([1]).optMap(s,s+s).optMap(s,s+s).optMap(s,s+s).optMap(s,s+s).optMap(s,s+s).optMap(s,s+s).optMap(s,s+s).optMap(s,s+s).optMap(s,s+s).optMap(s,s+s).optMap(s,s+s).optMap(s,s+s).optMap(s,s+s).optMap(s,s+s).optMap(s,s+s).optMap(s,s+s).optMap(s,s+s).optMap(s,s+s).optMap(s,s+s).optMap(s,s+s).optMap(s,s+s).optMap(s,s+s).optMap(s,s+s).optMap(s,s+s).hasValue()"
)]
#[case::replacements_that_grow(
    "'aaaaaaaaaa'.replace('a','aaaaaaaaaa').replace('a','aaaaaaaaaa').replace('a','aaaaaaaaaa').replace('a','aaaaaaaaaa').replace('a','aaaaaaaaaa').replace('a','aaaaaaaaaa').replace('a','aaaaaaaaaa').replace('a','aaaaaaaaaa').replace('a','aaaaaaaaaa').size() > 0"
)]
#[case::replacement_of_nothing("spec.long.replace('', spec.long).size() > 0")]
#[case::a_long_separator("spec.texts.join(spec.long).size() > 0")]
#[case::formats_that_grow(
    "'%s%s%s%s'.format([spec.many, spec.map, spec.map, '%s%s'.format([spec.many.map(x, spec.many), spec.many])]).size() > 0"
)]
#[case::a_large_range("lists.range(1000000).size() > 0")]
#[case::distinct_is_quadratic("spec.many.distinct().size() > 0")]
#[case::membership_within_a_loop("spec.many.all(x, !((x + 5000) in spec.many))")]
#[case::equality_within_a_loop("spec.many.all(x, spec.long == spec.other)")]
#[case::order_within_a_loop("spec.many.all(x, spec.long <= spec.other)")]
#[case::text_within_a_loop("spec.texts.all(x, !spec.long.contains(x))")]
#[case::patterns_within_a_loop("spec.texts.all(x, !project.matches(x))")]
#[case::one_pattern_on_long_text("spec.many.all(x, !spec.long.matches('a+b'))")]
#[case::deep_equality_within_a_loop("spec.many.all(x, spec.map == {'a': [spec.many, spec.many]})")]
#[case::sorting_within_a_loop("spec.many.all(x, spec.texts.sort().size() > 0)")]
#[case::keys_within_a_loop(
    "[spec.many.map(x, 'a').join('bbbbbbbbbbbbbbbbbbbbbbbbbbbbbb')].map(s, spec.many.map(x, {s: 1})).size() > 0"
)]
#[case::optionals_within_a_loop(
    "[[spec.many.map(x, x)]].all(s, spec.many.all(x, s[?0].hasValue() && optional.of(s).hasValue()))"
)]
#[case::deep_lists_within_a_loop(
    "[[spec.many.map(x, x)]].all(s, spec.many.all(x, s.reverse().size() == 1))"
)]
#[case::copies_within_a_loop(
    "[spec.many.map(x, x)].map(s, [s, s, s, s, s, s, s, s]).map(s, [s, s, s, s, s, s, s, s]).map(s, [s, s, s, s, s, s, s, s]).size() > 0"
)]
fn a_run_away_is_stopped(#[case] expression: &'static str) {
    let (outcome, took) = on_a_large_stack(move || {
        let policy = policy(json!({"validations": [{"expression": expression}]}));
        let spec = spec();
        busy(|| outcome(&policy, &spec, Phase::Validating))
    });
    let fault = outcome.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Budget, "{}", fault.message);
    assert!(
        fault.message.starts_with("validations[0] was stopped"),
        "{}",
        fault.message
    );
    assert!(took < PATIENCE, "{took:?}");
}

#[rstest]
#[case("spec.many.all(x, x >= 0)")]
#[case("spec.texts.all(t, t.startsWith('text ') && t.size() < 20)")]
#[case("spec.texts.filter(t, t.matches('7$')).size() > 0")]
#[case("spec.many.map(x, x * 2).size() == 2000 && 1999 in spec.many")]
#[case("spec.long == spec.other && spec.long.contains('x')")]
#[case("spec.few.all(a, spec.few.all(b, a + b >= 0))")]
fn what_policies_do_fits_the_budget(#[case] expression: &str) {
    let policy = policy(json!({"validations": [{"expression": expression}]}));
    let verdict = outcome(&policy, &spec(), Phase::Validating);
    assert_eq!(verdict.map(|verdict| verdict.denials.len()), Ok(0));
}

#[test]
fn variables_that_double_are_stopped() {
    let doubled = |position: usize| {
        let before = position
            .checked_sub(1)
            .map_or("[1]".to_owned(), |p| format!("variables.v{p}"));
        json!({"name": format!("v{position}"), "expression": format!("[{before}, {before}]")})
    };
    let variables: Vec<Value> = (0..25).map(doubled).collect();
    let policy = policy(
        json!({"variables": variables, "validations": [{"expression": "variables.v24.size() == 2"}]}),
    );
    let fault = on_a_large_stack(move || outcome(&policy, &spec(), Phase::Validating)).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Budget);
}

#[test]
fn the_rules_of_a_policy_share_one_budget() {
    let rule = json!({"expression": "spec.many.all(x, x >= 0 && x < 5000)"});
    let policy = policy(json!({"validations": vec![rule; 50]}));
    let (outcome, took) = busy(|| outcome(&policy, &spec(), Phase::Validating));
    assert_eq!(outcome.unwrap_err().kind, FaultKind::Budget);
    assert!(took < PATIENCE, "{took:?}");
}

#[test]
fn a_denial_stands_beside_a_rule_that_was_stopped() {
    let policy = policy(json!({"validations": [
        {"expression": "false", "message": "no"},
        {"expression": "spec.many.all(a, spec.many.all(b, true))"},
    ]}));
    let verdict = outcome(&policy, &spec(), Phase::Validating).unwrap();
    assert_eq!(verdict.denials[0].message, "no");
    assert!(verdict.warnings[0].starts_with("validations[1] was stopped"));
}

#[test]
fn a_value_that_is_too_large_to_write_is_stopped() {
    let policy = policy(json!({"mutations": [
        {"set": {"path": "/merged_profile/x", "valueExpression": "spec.texts.map(t, spec.long)"}},
    ]}));
    let fault = outcome(&policy, &spec(), Phase::Mutating).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Budget);
}

#[test]
fn copies_of_copies_are_stopped() {
    let copies: Vec<String> = (0..40)
        .map(|position| format!("{{'op': 'copy', 'from': '', 'path': '/c{position}'}}"))
        .collect();
    let expression = format!("[{}]", copies.join(", "));
    let policy = policy(json!({"mutations": [{"jsonPatch": {"expression": expression}}]}));
    let fault = outcome(&policy, &json!({"a": 1}), Phase::Mutating).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Budget);
}

#[test]
fn mutations_and_conditions_have_a_budget_too() {
    let endless = "spec.many.all(a, spec.many.all(b, true))";
    let mutation = policy(
        json!({"mutations": [{"when": endless, "remove": {"path": "/configuration/commands"}}]}),
    );
    let fault = outcome(&mutation, &spec(), Phase::Mutating).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Budget);

    let condition = Condition {
        name: None,
        expression: endless.to_owned(),
    };
    let conditions =
        Conditions::compile(&[condition]).unwrap_or_else(|errors| panic!("{errors:?}"));
    let fault = conditions
        .evaluate(&call(&spec(), Phase::Validating))
        .unwrap_err();
    assert_eq!(fault.kind, FaultKind::Budget);
}
