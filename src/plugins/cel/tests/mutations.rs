//! What mutations make of a spec.

mod clamp;
mod properties;
mod wildcard;

use rstest::rstest;
use serde_json::{Value, json};

use super::{errors, outcome, policy, run, validate};
use crate::admission::verdict::{Fault, FaultKind, Phase};

/// The run, and in it what no dstack spec has: no model describes what is below `merged_profile`.
fn spec() -> Value {
    let mut spec = run();
    spec["merged_profile"] = json!({
        "n": 7, "one": 1.0, "text": "x", "unset": null, "matrix": [[1, 2], [3]], "nulls": [null],
        "map": {"a": 1, "b": [true, null]},
    });
    spec
}

fn patch(mutations: &Value) -> Value {
    patch_of(&spec(), mutations)
}

/// The patch that mutations make of a spec; made again on what came out, they change nothing.
fn patch_of(spec: &Value, mutations: &Value) -> Value {
    let policy = policy(json!({"mutations": mutations}));
    let verdict = outcome(&policy, spec, Phase::Mutating).unwrap_or_else(|fault| panic!("{fault}"));
    let mut patched = spec.clone();
    json_patch::patch(&mut patched, &verdict.patch).unwrap();
    let again = outcome(&policy, &patched, Phase::Mutating).unwrap();
    let inserts = |operation: &json_patch::PatchOperation| {
        operation.path().as_str() == "/configuration/commands/0"
    };
    if !verdict.patch.iter().any(inserts) {
        assert_eq!(again.patch, [], "a second time changes nothing");
    }
    serde_json::to_value(verdict.patch).unwrap()
}

fn fault_of(spec: &Value, mutation: &Value) -> Fault {
    let policy = policy(json!({"mutations": [mutation]}));
    outcome(&policy, spec, Phase::Mutating).unwrap_err()
}

/// What is said of a mutation that does not compile, with its key.
fn refused(mutation: &Value) -> Vec<String> {
    let errors = errors(json!({"mutations": [mutation]}));
    errors.iter().map(ToString::to_string).collect()
}

#[rstest]
// set
#[case(json!({"set": {"path": "/configuration/max_price", "value": 2}}), json!([{"op": "add", "path": "/configuration/max_price", "value": 2}]))]
#[case(json!({"set": {"path": "/configuration/user", "value": null}}), json!([{"op": "add", "path": "/configuration/user", "value": null}]))]
#[case(json!({"set": {"path": "/configuration/nodes", "value": 2}}), json!([]))]
#[case(json!({"set": {"path": "/merged_profile/one", "value": 1}}), json!([]))]
#[case(json!({"set": {"path": "/configuration/tags/team", "value": "ml"}}), json!([{"op": "add", "path": "/configuration/tags", "value": {"team": "ml"}}]))]
#[case(json!({"set": {"path": "/merged_profile/a/b/c", "valueExpression": "[spec.n, user]"}}), json!([{"op": "add", "path": "/merged_profile/a", "value": {"b": {"c": [7, "ada"]}}}]))]
#[case(json!({"set": {"path": "/configuration/groups/1/name", "value": "z"}}), json!([{"op": "add", "path": "/configuration/groups/1/name", "value": "z"}]))]
#[case(json!({"set": {"path": "/merged_profile/matrix/1", "value": [4]}}), json!([{"op": "replace", "path": "/merged_profile/matrix/1", "value": [4]}]))]
#[case(json!({"set": {"path": "/configuration/env/a~1b", "value": "x"}}), json!([{"op": "add", "path": "/configuration/env/a~1b", "value": "x"}]))]
#[case(json!({"set": {"path": "/merged_profile/x", "valueExpression": "optional.none()"}}), json!([]))]
#[case(json!({"set": {"path": "/merged_profile/x", "valueExpression": "spec.?absent"}}), json!([]))]
#[case(json!({"set": {"path": "/configuration/image", "valueExpression": "null"}}), json!([{"op": "add", "path": "/configuration/image", "value": null}]))]
#[case(json!({"set": {"path": "/merged_profile/matrix/2", "value": [4]}}), json!([{"op": "add", "path": "/merged_profile/matrix/2", "value": [4]}]))]
#[case(json!({"set": {"path": "/merged_profile/nulls/0/a", "value": 1}}), json!([{"op": "replace", "path": "/merged_profile/nulls/0", "value": {"a": 1}}]))]
#[case(json!({"set": {"path": "/merged_profile/map/01", "value": 1}}), json!([{"op": "add", "path": "/merged_profile/map/01", "value": 1}]))]
// setDefault
#[case(json!({"setDefault": {"path": "/configuration/max_price", "value": 2.0}}), json!([{"op": "add", "path": "/configuration/max_price", "value": 2.0}]))]
#[case(json!({"setDefault": {"path": "/configuration/nodes", "value": 9}}), json!([]))]
#[case(json!({"setDefault": {"path": "/configuration/docker", "value": null}}), json!([]))]
#[case(json!({"setDefault": {"path": "/configuration/privileged", "value": true}}), json!([]))]
// mergeMap
#[case(json!({"mergeMap": {"path": "/configuration/tags", "value": {"a": "1", "b": "2"}}}), json!([{"op": "add", "path": "/configuration/tags", "value": {"a": "1", "b": "2"}}]))]
#[case(json!({"mergeMap": {"path": "/configuration/env", "value": {"a-b": "x", "N/A": "y", "HF_TOKEN": "z"}}}), json!([{"op": "add", "path": "/configuration/env/N~1A", "value": "y"}, {"op": "add", "path": "/configuration/env/HF_TOKEN", "value": "z"}]))]
#[case(json!({"mergeMap": {"path": "/configuration/env", "valueExpression": "{'team': project, 'a-b': 'x'}"}}), json!([{"op": "add", "path": "/configuration/env/team", "value": "ml-research"}]))]
#[case(json!({"mergeMap": {"path": "/configuration/tags", "value": {}}}), json!([]))]
#[case(json!({"mergeMap": {"path": "/configuration/tags", "valueExpression": "null"}}), json!([]))]
// addToSet
#[case(json!({"addToSet": {"path": "/configuration/commands", "value": "sync"}}), json!([{"op": "add", "path": "/configuration/commands/-", "value": "sync"}]))]
#[case(json!({"addToSet": {"path": "/configuration/commands", "value": ["b", "sleep 1", "a", "b"]}}), json!([{"op": "add", "path": "/configuration/commands/-", "value": "b"}, {"op": "add", "path": "/configuration/commands/-", "value": "a"}]))]
#[case(json!({"addToSet": {"path": "/configuration/regions", "value": "eu-1"}}), json!([{"op": "add", "path": "/configuration/regions", "value": ["eu-1"]}]))]
#[case(json!({"addToSet": {"path": "/configuration/docker", "valueExpression": "[user, user]"}}), json!([{"op": "add", "path": "/configuration/docker", "value": ["ada"]}]))]
#[case(json!({"addToSet": {"path": "/configuration/volumes", "value": {"path": "/data", "instance_path": "/data"}}}), json!([]))]
#[case(json!({"addToSet": {"path": "/merged_profile/matrix/0", "value": [1.0, 4]}}), json!([{"op": "add", "path": "/merged_profile/matrix/0/-", "value": 4}]))]
#[case(json!({"addToSet": {"path": "/configuration/regions", "value": []}}), json!([]))]
#[case(json!({"addToSet": {"path": "/configuration/regions", "valueExpression": "null"}}), json!([]))]
#[case(json!({"addToSet": {"path": "/configuration/regions", "valueExpression": "optional.none()"}}), json!([]))]
// remove
#[case(json!({"remove": {"path": "/configuration/env/a-b"}}), json!([{"op": "remove", "path": "/configuration/env/a-b"}]))]
#[case(json!({"remove": {"path": "/configuration/max_price"}}), json!([{"op": "remove", "path": "/configuration/max_price"}]))]
#[case(json!({"remove": {"path": "/configuration/retry/duration"}}), json!([]))]
// when
#[case(json!({"when": "spec.n > 7", "remove": {"path": "/merged_profile/n"}}), json!([]))]
#[case(json!({"when": "kind == 'run'", "remove": {"path": "/merged_profile/n"}}), json!([{"op": "remove", "path": "/merged_profile/n"}]))]
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
        {"when": "spec.configuration.tags.b == 2 && original.configuration.tags == null", "set": {"path": "/merged_profile/done", "value": true}},
    ]));
    assert_eq!(
        operations,
        json!([
            {"op": "add", "path": "/configuration/tags", "value": {"a": 1}},
            {"op": "add", "path": "/configuration/tags/b", "value": 2},
            {"op": "add", "path": "/merged_profile/done", "value": true},
        ])
    );
}

#[rstest]
#[case(json!({"set": {"path": "/merged_profile/text/deep", "value": 1}}), FaultKind::Rule, "mutations[0] cannot be made: /merged_profile/text is a string, so /merged_profile/text/deep cannot be written")]
#[case(json!({"set": {"path": "/configuration/groups/7/name", "value": 1}}), FaultKind::Rule, "mutations[0] cannot be made: there is no /configuration/groups/7 to write to")]
#[case(json!({"set": {"path": "/merged_profile/unset/0/name", "value": 1}}), FaultKind::Rule, "mutations[0] cannot be made: /merged_profile/unset is not set, so it has no element 0")]
#[case(json!({"mergeMap": {"path": "/merged_profile/matrix", "value": {"a": 1}}}), FaultKind::Rule, "mutations[0] cannot be made: /merged_profile/matrix is a list, so nothing can be merged into it")]
#[case(json!({"mergeMap": {"path": "/merged_profile/map", "valueExpression": "[1]"}}), FaultKind::Rule, "mutations[0] cannot be made: what mergeMap writes is no map")]
#[case(json!({"set": {"path": "/merged_profile/matrix/01", "value": 1}}), FaultKind::Rule, "mutations[0] cannot be made: there is no /merged_profile/matrix/01 to write to")]
#[case(json!({"addToSet": {"path": "/configuration/env", "value": "A=1"}}), FaultKind::Rule, "mutations[0] cannot be made: /configuration/env is a map, so nothing can be added to it")]
#[case(json!({"set": {"path": "/merged_profile/x", "valueExpression": "duration('1h')"}}), FaultKind::Rule, "mutations[0] cannot be made: JSON has no Duration: convert it with string()")]
#[case(json!({"set": {"path": "/merged_profile/x", "valueExpression": "1.0 / 0.0"}}), FaultKind::Rule, "mutations[0] cannot be made: JSON has no infinite numbers")]
#[case(json!({"set": {"path": "/merged_profile/x", "valueExpression": "spec.configuration.max_price + 1.0"}}), FaultKind::Rule, "mutations[0] cannot be made: `+` cannot be applied to null and double: spec.configuration.max_price is null. dstack sends null for what is not set, so test `spec.configuration.max_price != null` first")]
#[case(json!({"when": "spec.n", "remove": {"path": "/merged_profile/n"}}), FaultKind::Rule, "mutations[0] cannot be made: it gives int, not a bool")]
#[case(json!({"jsonPatch": {"expression": "{'op': 'remove', 'path': '/n'}"}}), FaultKind::Rule, "mutations[0] cannot be made: it gives no list of operations")]
#[case(json!({"jsonPatch": {"expression": "[{'op': 'delete', 'path': '/n'}]"}}), FaultKind::Rule, "mutations[0] cannot be made: operation 0 of the patch is none of RFC 6902: op, path and value or from are needed")]
#[case(json!({"jsonPatch": {"expression": "[{'op': 'remove', 'path': '/n'}, {'op': 'remove', 'path': '/n'}]"}}), FaultKind::PatchApply, "mutations[0] cannot be made: operation 1 of the patch does not apply at /n: path is invalid")]
#[case(json!({"jsonPatch": {"expression": "[{'op': 'test', 'path': '/n', 'value': 8}]"}}), FaultKind::PatchApply, "mutations[0] cannot be made: operation 0 of the patch does not apply at /n: value did not match")]
fn a_mutation_that_cannot_be_made_is_a_fault(
    #[case] mutation: Value,
    #[case] kind: FaultKind,
    #[case] message: &str,
) {
    let fault = fault_of(&spec(), &mutation);
    assert_eq!((fault.kind, fault.message.as_str()), (kind, message));
}

#[test]
fn every_digit_survives_a_copy() {
    let policy = policy(
        json!({"mutations": [{"set": {"path": "/merged_profile/copy", "valueExpression": "spec.numbers"}}]}),
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
    let verdict = outcome(
        &policy,
        &json!({"numbers": numbers, "merged_profile": {}}),
        Phase::Mutating,
    )
    .unwrap();
    let json_patch::PatchOperation::Add(add) = &verdict.patch[0] else {
        panic!("{:?}", verdict.patch)
    };
    assert_eq!(add.value.to_string(), numbers.to_string());
}

#[test]
fn mutations_are_not_made_in_the_validating_phase() {
    let verdict = validate(
        json!({"mutations": [{"remove": {"path": "/merged_profile/n"}}]}),
        &run(),
    );
    assert_eq!(verdict, Ok(crate::admission::verdict::Verdict::default()));
}

#[rstest]
#[case(json!({"set": {"path": "configuration", "value": 1}}), "mutations[0].set.path: not a JSON pointer: it must start with /")]
#[case(json!({"addToSet": {"path": "", "value": 1}}), "mutations[0].addToSet.path: the whole spec cannot be written: name a member, for instance /configuration/tags")]
#[case(json!({"set": {"path": "/configuration/tags/~2", "value": 1}}), "mutations[0].set.path: not a JSON pointer: ~ is written ~0 and / within a name ~1")]
#[case(json!({"set": {"path": "/configuration/commands/-", "value": 1}}), "mutations[0].set.path: `-` is the end of a list, where nothing is: append with addToSet")]
#[case(json!({"remove": {"path": "/configuration/volumes/0"}}), "mutations[0].remove.path: an element is not removed by its position, which the next one takes: write * and a `when` about `element`")]
#[case(json!({"mergeMap": {"path": "/configuraton/tags", "value": {}}}), "mutations[0].mergeMap.path: no dstack spec has /configuraton; did you mean /configuration?")]
#[case(json!({"setDefault": {"path": "/max_price", "value": 1}}), "mutations[0].setDefault.path: no dstack spec has /max_price; did you mean /configuration/max_price?")]
#[case(json!({"addToSet": {"path": "/configuration/commands", "value": null}}), "mutations[0].addToSet.value: addToSet adds no null")]
#[case(json!({"addToSet": {"path": "/configuration/commands"}}), "mutations[0].addToSet: exactly one of value and valueExpression is needed")]
#[case(json!({"when": "true"}), "mutations[0]: exactly one of set, setDefault, clamp, mergeMap, addToSet, remove and jsonPatch is needed")]
fn a_mutation_that_can_never_be_made_is_refused(#[case] mutation: Value, #[case] reason: &str) {
    assert_eq!(refused(&mutation), [reason]);
}

#[test]
fn an_unset_list_that_means_all_is_narrowed_with_set() {
    let mutation = json!({
        "when": "spec.configuration.regions == null || spec.configuration.regions.exists(r, !(r in ['eu-1', 'eu-2']))",
        "set": {
            "path": "/configuration/regions",
            "valueExpression": "spec.configuration.regions == null ? ['eu-1', 'eu-2'] : spec.configuration.regions.filter(r, r in ['eu-1', 'eu-2'])",
        },
    });
    let narrowed = |regions: Value| {
        patch_of(
            &json!({"configuration": {"regions": regions}}),
            &json!([mutation]),
        )[0]["value"]
            .clone()
    };
    assert_eq!(narrowed(Value::Null), json!(["eu-1", "eu-2"]));
    assert_eq!(narrowed(json!(["us-1", "eu-2"])), json!(["eu-2"]));
    assert_eq!(narrowed(json!(["eu-1"])), Value::Null);
}
