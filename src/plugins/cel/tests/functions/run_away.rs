//! No function runs away, in a comprehension or alone.

use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};

use super::super::{busy, on_a_large_stack, outcome, policy};
use crate::admission::verdict::{FaultKind, Phase};

/// Far above what the budget takes in an unoptimised build, far below what these expressions take
/// without it.
const PATIENCE: Duration = Duration::from_secs(2);

fn spec() -> Value {
    let many: Vec<u32> = (0..2_000).collect();
    let texts: Vec<String> = many.iter().map(|n| format!("text {n}")).collect();
    let members = |texts: &[String]| -> serde_json::Map<String, Value> {
        let member = |text: &String| (text.clone(), json!(1));
        texts.iter().map(member).collect()
    };
    let huge: Vec<u32> = (0..200_000).collect();
    json!({
        "many": many, "texts": texts, "members": members(&texts), "some": members(&texts[..1_000]), "huge": huge,
        "long": "x".repeat(100_000), "half": "x".repeat(50_000),
        "query": format!("/?{}", "a&".repeat(100_000)),
        "image": format!("ghcr.io/{}", "a".repeat(240)),
    })
}

#[rstest]
#[case::globs("spec.texts.all(x, !(x + '!').globMatches(spec.texts))")]
#[case::a_glob_on_long_text("spec.long.globMatches('*' + spec.half + 'y')")]
#[case::a_class_in_a_glob("spec.long.globMatches('*[' + spec.half + ']y')")]
#[case::a_class_without_an_end("spec.long.globMatches('*[' + spec.half)")]
#[case::find("spec.texts.all(x, spec.long.find('a+b') == '')")]
#[case::find_with_patterns_of_the_spec("spec.texts.all(x, project.find(x) == '')")]
#[case::find_all("spec.long.findAll('').size() > 0")]
#[case::find_all_that_looks_far("spec.long.findAll('x*y|x').size() > 0")]
#[case::sums("spec.many.all(x, spec.many.sum() > 0)")]
#[case::one_huge_sum("spec.huge.sum() > 0")]
#[case::minima("spec.many.all(x, spec.texts.min() != '')")]
#[case::sorted("spec.many.all(x, spec.many.isSorted())")]
#[case::index_of_list("spec.many.all(x, spec.many.indexOf(-1) == -1)")]
#[case::last_index_of_list("spec.many.all(x, spec.many.lastIndexOf(-1) == -1)")]
#[case::index_of_text("spec.many.all(x, spec.long.indexOf('y') == -1)")]
#[case::split("spec.long.split('').size() > 0")]
#[case::sets_contain("sets.contains(spec.many, spec.many.map(x, x + 1000))")]
#[case::sets_are_equivalent("sets.equivalent(spec.many, spec.many)")]
#[case::sets_intersect("sets.intersects(spec.many, spec.texts)")]
#[case::query("url(spec.query).getQuery().size() > 0")]
#[case::urls("spec.many.all(x, isURL(spec.query))")]
#[case::images("spec.many.all(x, spec.many.all(y, imageReference(spec.image).tag == 'latest'))")]
#[case::units("spec.many.all(x, spec.many.all(y, seconds(y) + seconds('1d') > 0))")]
#[case::quantities("spec.many.all(x, spec.many.all(y, !isQuantity(spec.long)))")]
#[case::addresses("spec.many.all(ip, isIP(spec.long) || ip >= 0)")]
#[case::a_variable_named_like_a_namespace(
    "[spec.long].all(sets, spec.many.all(x, sets.contains('x')))"
)]
#[case::two_variables("spec.members.all(k, v, spec.members.all(k2, v2, k == k2 || v == v2))")]
#[case::transformed(
    "spec.members.transformMap(k, v, spec.members.transformList(a, b, a)).size() > 0"
)]
#[case::huge_entries("spec.huge.all(i, v, true)")]
#[case::bound_text_that_doubles(
    "cel.bind(a, 'aaaaaaaa', cel.bind(b, [a, a, a, a, a, a, a, a], cel.bind(c, [b, b, b, b, b, b, b, b], cel.bind(d, [c, c, c, c, c, c, c, c], cel.bind(e, [d, d, d, d, d, d, d, d], cel.bind(f, [e, e, e, e, e, e, e, e], [f, f, f, f, f, f, f, f].size() > 0))))))"
)]
fn a_run_away_is_stopped(#[case] expression: &'static str) {
    let (outcome, took) = on_a_large_stack(move || {
        let policy = policy(json!({"validations": [{"expression": expression}]}));
        let spec = spec();
        busy(|| outcome(&policy, &spec, Phase::Validating))
    });
    let fault = outcome.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Budget, "{}", fault.message);
    assert!(took < PATIENCE, "{took:?}");
}

#[rstest]
#[case(
    "spec.many.sum() == 1999000 && spec.many.max() == 1999 && spec.texts.indexOf('text 9') == 9"
)]
#[case("!spec.texts.exists(t, t.globMatches(['a*', '*/b/*', 'c?d']))")]
#[case("spec.texts.all(t, t.find('[0-9]+') != '')")]
#[case("spec.some.all(k, v, v == 1)")]
#[case("spec.long.size() == 100000 && spec.long.globMatches('x*x')")]
#[case("sets.contains(spec.texts, ['text 5', 'text 7'])")]
fn what_policies_do_fits_the_budget(#[case] expression: &str) {
    let policy = policy(json!({"validations": [{"expression": expression}]}));
    let verdict = outcome(&policy, &spec(), Phase::Validating);
    assert_eq!(verdict.map(|verdict| verdict.denials.len()), Ok(0));
}
