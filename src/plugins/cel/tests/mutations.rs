//! What mutations make of a spec.

use rstest::rstest;
use serde_json::{Value, json};

use super::{outcome, policy, run, validate};
use crate::admission::verdict::{FaultKind, Phase};

fn patch(mutations: &Value) -> Value {
    let policy = policy(json!({"mutations": mutations}));
    let verdict =
        outcome(&policy, &run(), Phase::Mutating).unwrap_or_else(|fault| panic!("{fault}"));
    let mut patched = run();
    json_patch::patch(&mut patched, &verdict.patch).unwrap();
    let again = outcome(&policy, &patched, Phase::Mutating).unwrap();
    if verdict
        .patch
        .iter()
        .all(|operation| operation.path().as_str() != "/configuration/commands/0")
    {
        assert_eq!(again.patch, [], "a second time changes nothing");
    }
    serde_json::to_value(verdict.patch).unwrap()
}

#[rstest]
// set
#[case(json!({"set": {"path": "/configuration/max_price", "value": 2}}), json!([{"op": "add", "path": "/configuration/max_price", "value": 2}]))]
#[case(json!({"set": {"path": "/configuration/new", "value": null}}), json!([{"op": "add", "path": "/configuration/new", "value": null}]))]
#[case(json!({"set": {"path": "/configuration/nodes", "value": 2}}), json!([]))]
#[case(json!({"set": {"path": "/one", "value": 1}}), json!([]))]
#[case(json!({"set": {"path": "/configuration/tags/team", "value": "ml"}}), json!([{"op": "add", "path": "/configuration/tags", "value": {"team": "ml"}}]))]
#[case(json!({"set": {"path": "/a/b/c", "valueExpression": "[spec.n, user]"}}), json!([{"op": "add", "path": "/a", "value": {"b": {"c": [7, "ada"]}}}]))]
#[case(json!({"set": {"path": "/configuration/groups/1/name", "value": "z"}}), json!([{"op": "add", "path": "/configuration/groups/1/name", "value": "z"}]))]
#[case(json!({"set": {"path": "/matrix/1", "value": [4]}}), json!([{"op": "replace", "path": "/matrix/1", "value": [4]}]))]
#[case(json!({"set": {"path": "/configuration/env/a~1b", "value": "x"}}), json!([{"op": "add", "path": "/configuration/env/a~1b", "value": "x"}]))]
#[case(json!({"set": {"path": "/x", "valueExpression": "optional.none()"}}), json!([]))]
#[case(json!({"set": {"path": "/x", "valueExpression": "spec.?absent"}}), json!([]))]
#[case(json!({"set": {"path": "/configuration/image", "valueExpression": "null"}}), json!([{"op": "add", "path": "/configuration/image", "value": null}]))]
// setDefault
#[case(json!({"setDefault": {"path": "/configuration/max_price", "value": 2.0}}), json!([{"op": "add", "path": "/configuration/max_price", "value": 2.0}]))]
#[case(json!({"setDefault": {"path": "/configuration/nodes", "value": 9}}), json!([]))]
#[case(json!({"setDefault": {"path": "/configuration/absent", "value": null}}), json!([]))]
#[case(json!({"setDefault": {"path": "/configuration/privileged", "value": true}}), json!([]))]
// mergeMap
#[case(json!({"mergeMap": {"path": "/configuration/tags", "value": {"a": "1", "b": "2"}}}), json!([{"op": "add", "path": "/configuration/tags", "value": {"a": "1", "b": "2"}}]))]
#[case(json!({"mergeMap": {"path": "/configuration/env", "value": {"a-b": "x", "N/A": "y", "HF_TOKEN": "z"}}}), json!([{"op": "add", "path": "/configuration/env/N~1A", "value": "y"}, {"op": "add", "path": "/configuration/env/HF_TOKEN", "value": "z"}]))]
#[case(json!({"mergeMap": {"path": "/configuration/env", "valueExpression": "{'team': project, 'a-b': 'x'}"}}), json!([{"op": "add", "path": "/configuration/env/team", "value": "ml-research"}]))]
#[case(json!({"mergeMap": {"path": "/configuration/tags", "value": {}}}), json!([]))]
#[case(json!({"mergeMap": {"path": "/configuration/tags", "valueExpression": "null"}}), json!([]))]
// remove
#[case(json!({"remove": {"path": "/configuration/env/a-b"}}), json!([{"op": "remove", "path": "/configuration/env/a-b"}]))]
#[case(json!({"remove": {"path": "/configuration/max_price"}}), json!([{"op": "remove", "path": "/configuration/max_price"}]))]
#[case(json!({"remove": {"path": "/configuration/absent/deep"}}), json!([]))]
// when
#[case(json!({"when": "spec.n > 7", "remove": {"path": "/n"}}), json!([]))]
#[case(json!({"when": "kind == 'run'", "remove": {"path": "/n"}}), json!([{"op": "remove", "path": "/n"}]))]
// jsonPatch
#[case(json!({"jsonPatch": {"expression": "[{'op': 'add', 'path': '/configuration/tags', 'value': {'b': 2, 'a': spec.map}}]"}}), json!([{"op": "add", "path": "/configuration/tags", "value": {"a": {"a": 1, "b": [true, null]}, "b": 2}}]))]
#[case(json!({"jsonPatch": {"expression": "spec.configuration.groups.map(g, {'op': 'add', 'path': '/configuration/tags/' + g.name, 'value': g.replicas.max}).filter(op, false)"}}), json!([]))]
#[case(json!({"jsonPatch": {"expression": "null"}}), json!([]))]
#[case(json!({"jsonPatch": {"expression": "[]"}}), json!([]))]
#[case(json!({"jsonPatch": {"expression": "spec.n == 1 ? [{'op': 'remove', 'path': '/n'}] : []"}}), json!([]))]
#[case(json!({"jsonPatch": {"expression": "[{'op': 'replace', 'path': '/n', 'value': 7}, {'op': 'add', 'path': '/configuration/nodes', 'value': 2}]"}}), json!([]))]
#[case(json!({"jsonPatch": {"expression": "[{'op': 'test', 'path': '/n', 'value': 7}, {'op': 'add', 'path': '/configuration/commands/0', 'value': 'python train.py'}]"}}), json!([{"op": "add", "path": "/configuration/commands/0", "value": "python train.py"}]))]
#[case(json!({"jsonPatch": {"expression": "[{'op': 'add', 'path': '/x', 'value': 1}, {'op': 'remove', 'path': '/x'}]"}}), json!([]))]
fn a_mutation_makes_these_operations(#[case] mutation: Value, #[case] operations: Value) {
    assert_eq!(patch(&json!([mutation])), operations);
}

#[test]
fn a_mutation_sees_the_result_of_the_ones_before() {
    let operations = patch(&json!([
        {"set": {"path": "/configuration/tags/a", "value": 1}},
        {"set": {"path": "/configuration/tags/b", "valueExpression": "spec.configuration.tags.a + 1"}},
        {"when": "spec.configuration.tags.b == 2 && original.configuration.tags == null", "set": {"path": "/done", "value": true}},
    ]));
    assert_eq!(
        operations,
        json!([
            {"op": "add", "path": "/configuration/tags", "value": {"a": 1}},
            {"op": "add", "path": "/configuration/tags/b", "value": 2},
            {"op": "add", "path": "/done", "value": true},
        ])
    );
}

#[rstest]
#[case(json!({"set": {"path": "/configuration/image/deep", "value": 1}}), FaultKind::Rule, "mutations[0] cannot be made: /configuration/image is a string, so /configuration/image/deep cannot be written")]
#[case(json!({"set": {"path": "/configuration/groups/7/name", "value": 1}}), FaultKind::Rule, "mutations[0] cannot be made: there is no /configuration/groups/7 to write to")]
#[case(json!({"set": {"path": "/configuration/tags/0/name", "value": 1}}), FaultKind::Rule, "mutations[0] cannot be made: /configuration/tags is not set, so it has no element 0")]
#[case(json!({"mergeMap": {"path": "/matrix", "value": {"a": 1}}}), FaultKind::Rule, "mutations[0] cannot be made: /matrix is a list, so nothing can be merged into it")]
#[case(json!({"mergeMap": {"path": "/map", "valueExpression": "[1]"}}), FaultKind::Rule, "mutations[0] cannot be made: what mergeMap writes is no map")]
#[case(json!({"set": {"path": "/x", "valueExpression": "duration('1h')"}}), FaultKind::Rule, "mutations[0] cannot be made: JSON has no Duration: convert it with string()")]
#[case(json!({"set": {"path": "/x", "valueExpression": "1.0 / 0.0"}}), FaultKind::Rule, "mutations[0] cannot be made: JSON has no infinite numbers")]
#[case(json!({"set": {"path": "/x", "valueExpression": "spec.configuration.max_price + 1.0"}}), FaultKind::Rule, "mutations[0] cannot be made: `+` cannot be applied to null and double: spec.configuration.max_price is null. dstack sends null for what is not set, so test `spec.configuration.max_price != null` first")]
#[case(json!({"when": "spec.n", "remove": {"path": "/n"}}), FaultKind::Rule, "mutations[0] cannot be made: it gives int, not a bool")]
#[case(json!({"jsonPatch": {"expression": "{'op': 'remove', 'path': '/n'}"}}), FaultKind::Rule, "mutations[0] cannot be made: it gives no list of operations")]
#[case(json!({"jsonPatch": {"expression": "[{'op': 'delete', 'path': '/n'}]"}}), FaultKind::Rule, "mutations[0] cannot be made: operation 0 of the patch is none of RFC 6902: op, path and value or from are needed")]
#[case(json!({"jsonPatch": {"expression": "[{'op': 'remove', 'path': '/n'}, {'op': 'remove', 'path': '/n'}]"}}), FaultKind::PatchApply, "mutations[0] cannot be made: operation 1 of the patch does not apply at /n: path is invalid")]
#[case(json!({"jsonPatch": {"expression": "[{'op': 'test', 'path': '/n', 'value': 8}]"}}), FaultKind::PatchApply, "mutations[0] cannot be made: operation 0 of the patch does not apply at /n: value did not match")]
fn a_mutation_that_cannot_be_made_is_a_fault(
    #[case] mutation: Value,
    #[case] kind: FaultKind,
    #[case] message: &str,
) {
    let policy = policy(json!({"mutations": [mutation]}));
    let fault = outcome(&policy, &run(), Phase::Mutating).unwrap_err();
    assert_eq!((fault.kind, fault.message.as_str()), (kind, message));
}

#[test]
fn every_digit_survives_a_copy() {
    let policy = policy(
        json!({"mutations": [{"set": {"path": "/copy", "valueExpression": "spec.numbers"}}]}),
    );
    let numbers = json!([
        1,
        -1,
        18_446_744_073_709_551_615_u64,
        0.1,
        1e300,
        2.0,
        123_456_789.123_456_78
    ]);
    let verdict = outcome(&policy, &json!({"numbers": numbers}), Phase::Mutating).unwrap();
    let json_patch::PatchOperation::Add(add) = &verdict.patch[0] else {
        panic!("{:?}", verdict.patch)
    };
    assert_eq!(add.value.to_string(), numbers.to_string());
}

#[test]
fn mutations_are_not_made_in_the_validating_phase() {
    let verdict = validate(json!({"mutations": [{"remove": {"path": "/n"}}]}), &run());
    assert_eq!(verdict, Ok(crate::admission::verdict::Verdict::default()));
}
