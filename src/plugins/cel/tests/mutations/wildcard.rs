//! Paths with `*`: what they match, and what expressions see of it.

use rstest::rstest;
use serde_json::{Value, json};

use super::{fault_of, outcome, patch_of, policy, refused};
use crate::admission::verdict::{FaultKind, Phase};

/// A service with groups, as far as these rules look at it.
fn service() -> Value {
    json!({
        "configuration": {
            "type": "service",
            "env": {"A": "1", "HF_TOKEN": "s3cr3t"},
            "volumes": [
                {"instance_path": "/", "path": "/host"}, {"name": "data", "path": "/data"},
                {"instance_path": "/run", "path": "/run"},
            ],
            "groups": [
                {"name": "a", "replicas": {"min": 1, "max": 9}, "resources": {"gpu": {"count": {"min": 4, "max": null}}}},
                {"name": "b", "replicas": {"min": 0, "max": 2}, "resources": {"gpu": null}},
                {"name": "c", "resources": null},
            ],
        },
        "merged_profile": {"lists": [[1, 2], "x", [3, 4, 5], {"a": 6}], "nulls": [null, {}], "text": "x"},
    })
}

#[rstest]
#[case::list(json!({"set": {"path": "/configuration/groups/*/privileged", "value": false}}), json!([
    {"op": "add", "path": "/configuration/groups/0/privileged", "value": false},
    {"op": "add", "path": "/configuration/groups/1/privileged", "value": false},
    {"op": "add", "path": "/configuration/groups/2/privileged", "value": false},
]))]
#[case::elements_themselves(json!({"set": {"path": "/merged_profile/lists/*", "value": "x"}}), json!([
    {"op": "replace", "path": "/merged_profile/lists/0", "value": "x"},
    {"op": "replace", "path": "/merged_profile/lists/2", "value": "x"},
    {"op": "replace", "path": "/merged_profile/lists/3", "value": "x"},
]))]
#[case::map(json!({"when": "element != '1'", "set": {"path": "/configuration/env/*", "value": ""}}), json!([
    {"op": "add", "path": "/configuration/env/HF_TOKEN", "value": ""},
]))]
#[case::parents_below_the_last_become_objects(json!({"setDefault": {"path": "/configuration/groups/*/resources/gpu/vendor", "value": "nvidia"}}), json!([
    {"op": "add", "path": "/configuration/groups/0/resources/gpu/vendor", "value": "nvidia"},
    {"op": "add", "path": "/configuration/groups/1/resources/gpu", "value": {"vendor": "nvidia"}},
    {"op": "add", "path": "/configuration/groups/2/resources", "value": {"gpu": {"vendor": "nvidia"}}},
]))]
#[case::null_elements_become_objects(json!({"mergeMap": {"path": "/merged_profile/nulls/*", "value": {"a": 1}}}), json!([
    {"op": "replace", "path": "/merged_profile/nulls/0", "value": {"a": 1}},
    {"op": "add", "path": "/merged_profile/nulls/1/a", "value": 1},
]))]
#[case::clamp(json!({"clamp": {"path": "/configuration/groups/*/replicas", "max": 3, "unset": "keep"}}), json!([
    {"op": "add", "path": "/configuration/groups/0/replicas/max", "value": 3},
]))]
#[case::clamp_where_there_is_something(json!({"clamp": {"path": "/configuration/groups/*/resources/gpu/count", "max": 2}}), json!([
    {"op": "add", "path": "/configuration/groups/0/resources/gpu/count/min", "value": 2},
    {"op": "add", "path": "/configuration/groups/0/resources/gpu/count/max", "value": 2},
]))]
#[case::bound_of_each_element(json!({"clamp": {"path": "/configuration/groups/*/replicas/max", "maxExpression": "has(element.replicas) ? element.replicas.min + 1 : null"}}), json!([
    {"op": "add", "path": "/configuration/groups/0/replicas/max", "value": 2},
    {"op": "add", "path": "/configuration/groups/1/replicas/max", "value": 1},
]))]
#[case::add_to_set(json!({"addToSet": {"path": "/configuration/groups/*/commands", "valueExpression": "'echo ' + element.name"}}), json!([
    {"op": "add", "path": "/configuration/groups/0/commands", "value": ["echo a"]},
    {"op": "add", "path": "/configuration/groups/1/commands", "value": ["echo b"]},
    {"op": "add", "path": "/configuration/groups/2/commands", "value": ["echo c"]},
]))]
#[case::two_wildcards_and_a_scalar_between(json!({"when": "element > 3", "set": {"path": "/merged_profile/lists/*/*", "value": 0}}), json!([
    {"op": "replace", "path": "/merged_profile/lists/2/1", "value": 0},
    {"op": "replace", "path": "/merged_profile/lists/2/2", "value": 0},
    {"op": "add", "path": "/merged_profile/lists/3/a", "value": 0},
]))]
#[case::remove_from_the_back(json!({"when": "has(element.instance_path)", "remove": {"path": "/configuration/volumes/*"}}), json!([
    {"op": "remove", "path": "/configuration/volumes/2"},
    {"op": "remove", "path": "/configuration/volumes/0"},
]))]
#[case::remove_members(json!({"remove": {"path": "/configuration/volumes/*/instance_path"}}), json!([
    {"op": "remove", "path": "/configuration/volumes/2/instance_path"},
    {"op": "remove", "path": "/configuration/volumes/0/instance_path"},
]))]
#[case::nothing_matches(json!({"set": {"path": "/configuration/replicas/*/count", "value": 1}}), json!([]))]
#[case::a_scalar_has_no_elements(json!({"set": {"path": "/merged_profile/text/*/x", "value": 1}}), json!([]))]
#[case::when_is_not_asked_without_a_match(json!({"when": "1 / 0 == 1", "remove": {"path": "/configuration/ports/*"}}), json!([]))]
fn a_wildcard_stands_for_all_that_is_there(#[case] mutation: Value, #[case] operations: Value) {
    assert_eq!(patch_of(&service(), &json!([mutation])), operations);
}

#[test]
fn a_later_mutation_sees_what_an_earlier_one_left() {
    let mutations = json!([
        {"when": "has(element.instance_path)", "remove": {"path": "/configuration/volumes/*"}},
        {"set": {"path": "/configuration/volumes/*/path", "valueExpression": "'/mnt/' + string(size(spec.configuration.volumes))"}},
    ]);
    let patch = patch_of(&service(), &mutations);
    assert_eq!(
        patch[2],
        json!({"op": "add", "path": "/configuration/volumes/0/path", "value": "/mnt/1"})
    );
}

#[rstest]
#[case(json!({"set": {"path": "/merged_profile/lists/*/a", "value": 1}}), "there is no /merged_profile/lists/0/a to write to")]
#[case(json!({"when": "element.replicas.max > 1", "set": {"path": "/configuration/groups/*/name", "value": "x"}}), "at /configuration/groups/2/name: there is no member `replicas` in element: test for it with has() or `in` first")]
#[case(json!({"clamp": {"path": "/configuration/groups/*/replicas/max", "maxExpression": "element.name"}}), "at /configuration/groups/0/replicas/max: it gives a string, not a number")]
fn a_fault_names_the_match(#[case] mutation: Value, #[case] message: &str) {
    let fault = fault_of(&service(), &mutation);
    assert_eq!(
        fault.message,
        format!("mutations[0] cannot be made: {message}")
    );
}

#[rstest]
#[case(json!({"when": "element == 1", "remove": {"path": "/configuration/env"}}), "mutations[0].when: unknown name `element`")]
#[case(json!({"jsonPatch": {"expression": "[element]"}}), "mutations[0].jsonPatch.expression: unknown name `element`")]
#[case(json!({"when": "elemnt == 1", "remove": {"path": "/configuration/env/*"}}), "mutations[0].when: unknown name `elemnt` (did you mean `element`?)")]
#[case(json!({"remove": {"path": "/configuration/groups/*/imgae"}}), "mutations[0].remove.path: no dstack spec has /configuration/groups/*/imgae; did you mean /configuration/groups/*/image?")]
#[case(json!({"remove": {"path": "/configuration/max_price/*"}}), "mutations[0].remove.path: no dstack spec has /configuration/max_price/*")]
fn an_element_is_known_beside_a_wildcard_only(#[case] mutation: Value, #[case] reason: &str) {
    let found = refused(&mutation);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with(reason), "{found:#?}");
}

#[test]
fn patterns_and_variables_work_beside_a_wildcard() {
    let keys = json!({
        "variables": [{"name": "root", "expression": "'/'"}, {"name": "paths", "expression": "[variables.root, '/etc']"}],
        "mutations": [
            {"when": "element.name.matches('^[ab]$')", "set": {"path": "/configuration/groups/*/image", "value": "x"}},
            {"when": "element.?instance_path.orValue('') in variables.paths", "remove": {"path": "/configuration/volumes/*"}},
            {"when": "spec.configuration.type.matches('^serv')", "set": {"path": "/configuration/image", "value": "y"}},
        ],
    });
    let verdict = outcome(&policy(keys), &service(), Phase::Mutating).unwrap();
    let paths: Vec<&str> = verdict.patch.iter().map(|op| op.path().as_str()).collect();
    assert_eq!(
        paths,
        [
            "/configuration/groups/0/image",
            "/configuration/groups/1/image",
            "/configuration/volumes/0",
            "/configuration/image",
        ]
    );
}

#[rstest]
#[case::matches(json!({"remove": {"path": "/configuration/commands/*"}}), json!(vec![0; 100_000]))]
#[case::expressions(json!({"when": "element == 1 || element == 2 || element == 3", "remove": {"path": "/configuration/commands/*"}}), json!(vec![0; 20_000]))]
#[case::values(json!({"set": {"path": "/configuration/commands/*", "value": vec![1; 1_000]}}), json!(vec![0; 1_000]))]
#[case::texts(json!({"when": "spec.configuration.image.contains('y')", "remove": {"path": "/configuration/commands/*"}}), json!(vec![0; 1_000]))]
#[case::look_ups(json!({"addToSet": {"path": "/configuration/commands", "value": (0..100).collect::<Vec<_>>()}}), json!(vec!["x"; 10_000]))]
fn a_wildcard_over_too_much_is_stopped(#[case] mutation: Value, #[case] commands: Value) {
    let spec = json!({"configuration": {"image": "x".repeat(100_000), "commands": commands}});
    let fault = fault_of(&spec, &mutation);
    assert_eq!(fault.kind, FaultKind::Budget, "{fault}");
}
