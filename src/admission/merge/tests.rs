//! Merging: which patches go together, which do not, and that their order does not matter.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

use super::*;
use crate::admission::patch::apply;

fn contribution(base: &Value, patch: &Value) -> Contribution {
    let operations: Vec<PatchOperation> = serde_json::from_value(patch.clone()).unwrap();
    let result = apply(base, &operations).unwrap();
    Contribution::new(base, &operations, result.clone())
}

fn base() -> Value {
    json!({"tags": {"x": "1"}, "list": [1, 2], "price": null, "deep": {"a": {"b": 0, "c": 0}}})
}

#[rstest]
#[case::apart(
    json!([{"op": "add", "path": "/price", "value": 1}]),
    json!([{"op": "add", "path": "/tags/y", "value": "2"}]),
    json!({"tags": {"x": "1", "y": "2"}, "list": [1, 2], "price": 1, "deep": {"a": {"b": 0, "c": 0}}})
)]
#[case::the_same_twice(
    json!([{"op": "remove", "path": "/tags/x"}]),
    json!([{"op": "remove", "path": "/tags/x"}]),
    json!({"tags": {}, "list": [1, 2], "price": null, "deep": {"a": {"b": 0, "c": 0}}})
)]
#[case::appends(
    json!([{"op": "add", "path": "/list/-", "value": 3}]),
    json!([{"op": "add", "path": "/list/2", "value": 4}, {"op": "add", "path": "/list/-", "value": 5}]),
    json!({"tags": {"x": "1"}, "list": [1, 2, 3, 4, 5], "price": null, "deep": {"a": {"b": 0, "c": 0}}})
)]
#[case::agreeing_above_and_below(
    json!([{"op": "replace", "path": "/deep/a", "value": {"b": 9}}]),
    json!([{"op": "replace", "path": "/deep/a/b", "value": 9}]),
    json!({"tags": {"x": "1"}, "list": [1, 2], "price": null, "deep": {"a": {"b": 9}}})
)]
#[case::different_elements(
    json!([{"op": "replace", "path": "/list/0", "value": 8}]),
    json!([{"op": "replace", "path": "/list/1", "value": 9}]),
    json!({"tags": {"x": "1"}, "list": [8, 9], "price": null, "deep": {"a": {"b": 0, "c": 0}}})
)]
#[case::appends_counted_on(
    json!([{"op": "add", "path": "/list/2", "value": 3}, {"op": "add", "path": "/list/3", "value": 4}]),
    json!([{"op": "add", "path": "/list/-", "value": 5}]),
    json!({"tags": {"x": "1"}, "list": [1, 2, 3, 4, 5], "price": null, "deep": {"a": {"b": 0, "c": 0}}})
)]
#[case::appended_then_changed(
    json!([{"op": "add", "path": "/list/-", "value": 3}]),
    json!([{"op": "add", "path": "/list/-", "value": {}}, {"op": "add", "path": "/list/2/x", "value": 4}]),
    json!({"tags": {"x": "1"}, "list": [1, 2, 3, {"x": 4}], "price": null, "deep": {"a": {"b": 0, "c": 0}}})
)]
#[case::append_and_the_same_list(
    json!([{"op": "replace", "path": "/list", "value": [1, 2, 3]}]),
    json!([{"op": "add", "path": "/list/-", "value": 3}]),
    json!({"tags": {"x": "1"}, "list": [1, 2, 3], "price": null, "deep": {"a": {"b": 0, "c": 0}}})
)]
#[case::append_and_an_element(
    json!([{"op": "add", "path": "/list/-", "value": 3}]),
    json!([{"op": "replace", "path": "/list/0", "value": 0}]),
    json!({"tags": {"x": "1"}, "list": [0, 2, 3], "price": null, "deep": {"a": {"b": 0, "c": 0}}})
)]
#[case::a_test_writes_nothing(
    json!([{"op": "test", "path": "/price", "value": null}]),
    json!([{"op": "add", "path": "/price", "value": 2}]),
    json!({"tags": {"x": "1"}, "list": [1, 2], "price": 2, "deep": {"a": {"b": 0, "c": 0}}})
)]
#[case::numbers_spelled_otherwise(
    json!([{"op": "replace", "path": "/price", "value": {"limit": 2}}]),
    json!([{"op": "add", "path": "/price", "value": {"limit": 2.0}}]),
    json!({"tags": {"x": "1"}, "list": [1, 2], "price": {"limit": 2.0}, "deep": {"a": {"b": 0, "c": 0}}})
)]
fn patches_that_agree_are_merged(#[case] a: Value, #[case] b: Value, #[case] expected: Value) {
    let base = base();
    let (a, b) = (contribution(&base, &a), contribution(&base, &b));
    let merged = merge(&base, &[a.clone(), b.clone()]).unwrap();
    assert_eq!(merged, expected);
    let (mut merged, mut reversed) = (merged, merge(&base, &[b, a]).unwrap());
    // Only the order of what is appended is the order of the chain.
    for list in [&mut merged["list"], &mut reversed["list"]] {
        let list = list.as_array_mut().unwrap();
        list.sort_by_key(ToString::to_string);
    }
    assert!(equal(&merged, &reversed), "{merged} {reversed}");
}

#[rstest]
#[case::same_place(
    json!([{"op": "add", "path": "/price", "value": 1}]),
    json!([{"op": "add", "path": "/price", "value": 2}]),
    "/price"
)]
#[case::above(
    json!([{"op": "replace", "path": "/deep/a", "value": {}}]),
    json!([{"op": "replace", "path": "/deep/a/b", "value": 1}]),
    "/deep/a/b"
)]
#[case::below_what_is_removed(
    json!([{"op": "replace", "path": "/deep/a/c", "value": 1}]),
    json!([{"op": "remove", "path": "/deep"}]),
    "/deep/a/c"
)]
#[case::append_and_replace(
    json!([{"op": "add", "path": "/list/-", "value": 3}]),
    json!([{"op": "replace", "path": "/list", "value": []}]),
    "/list"
)]
#[case::array_elements_moved(
    json!([{"op": "remove", "path": "/list/0"}]),
    json!([{"op": "add", "path": "/list/0", "value": 0}]),
    "/list"
)]
#[case::an_element_and_its_array(
    json!([{"op": "remove", "path": "/list/0"}, {"op": "add", "path": "/list/-", "value": 7}]),
    json!([{"op": "replace", "path": "/list/1", "value": 7}]),
    "/list"
)]
#[case::an_element_of_another_array(
    json!([{"op": "replace", "path": "", "value": {"list": [2, 9]}}]),
    json!([{"op": "replace", "path": "/list/1", "value": 9}]),
    "/list"
)]
#[case::moved_away(
    json!([{"op": "move", "from": "/price", "path": "/cost"}]),
    json!([{"op": "replace", "path": "/price", "value": 2}]),
    "/price"
)]
fn patches_that_disagree_conflict(#[case] a: Value, #[case] b: Value, #[case] path: &str) {
    let base = base();
    let (a, b) = (contribution(&base, &a), contribution(&base, &b));
    let conflict = merge(&base, &[a.clone(), b.clone()]).unwrap_err();
    assert_eq!(
        conflict,
        Conflict {
            first: 0,
            second: 1,
            path: path.to_owned()
        }
    );
    assert_eq!(merge(&base, &[b, a]).unwrap_err().path, path);
}

/// Some seconds in an unoptimised build if each write were held against each of the other.
#[test]
fn patches_of_many_operations_are_merged_at_once() {
    let base = json!({"env": {}});
    let many = |from: usize| -> Vec<Value> {
        let add = |n| json!({"op": "add", "path": format!("/env/V{n}"), "value": "x"});
        (from..from + 9_000).map(add).collect()
    };
    let both = [json!(many(0)), json!(many(5_000))].map(|patch| contribution(&base, &patch));
    let started = Instant::now();
    let merged = merge(&base, &both).unwrap();
    assert_eq!(merged["env"].as_object().unwrap().len(), 14_000);
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn elements_that_moved_are_compared_by_the_outermost_array() {
    let base = json!({"l": [[0], [7], [1]]});
    let moved = contribution(&base, &json!([{"op": "remove", "path": "/l/0"}]));
    let inner = json!([{"op": "replace", "path": "/l/1/0", "value": 1}]);
    let conflict = merge(&base, &[moved, contribution(&base, &inner)]).unwrap_err();
    assert_eq!(conflict.path, "/l");
}

#[test]
fn the_later_of_two_stands_when_asked_for() {
    let base = base();
    let a = contribution(&base, &json!([{"op": "remove", "path": "/deep"}]));
    let b = contribution(
        &base,
        &json!([{"op": "replace", "path": "/deep/a/b", "value": 7}]),
    );
    let merged = last_wins(&base, &[a.clone(), b.clone()]);
    assert_eq!(merged["deep"], json!({"a": {"b": 7, "c": 0}}));
    assert_eq!(last_wins(&base, &[b, a]).get("deep"), None);
}

#[rstest]
#[case::element_then_array(
    json!([{"op": "replace", "path": "/list/1", "value": 9}]),
    json!([{"op": "remove", "path": "/list/0"}]),
    json!([2])
)]
#[case::array_then_element(
    json!([{"op": "remove", "path": "/list/0"}]),
    json!([{"op": "replace", "path": "/list/1", "value": 9}]),
    json!([1, 9])
)]
#[case::array_then_append(
    json!([{"op": "replace", "path": "/list", "value": []}]),
    json!([{"op": "add", "path": "/list/-", "value": 9}]),
    json!([9])
)]
fn the_later_of_two_keeps_its_elements_in_their_array(
    #[case] a: Value,
    #[case] b: Value,
    #[case] list: Value,
) {
    let base = base();
    let (a, b) = (contribution(&base, &a), contribution(&base, &b));
    assert_eq!(last_wins(&base, &[a, b])["list"], list);
}

/// An operation on the base of the properties: members, elements, appends and whole arrays.
fn operation() -> impl Strategy<Value = Value> {
    let member = prop_oneof![
        "/[a-c]",
        "/o/[a-c]",
        "/o/[a-c]/[a-b]",
        "/l/[0-2]/a",
        "/l/[0-2]/t/[0-1]"
    ];
    let element = prop_oneof!["/l/[0-3]", "/l/-", "/l", "/l/[0-2]/t/-", "/l/[0-2]/t"];
    let value = prop_oneof![
        (0..3).prop_map(|n| json!(n)),
        (0..3).prop_map(|n| json!({"a": n, "t": [n]})),
        (0..3).prop_map(|n| json!([n])),
    ];
    let op = prop_oneof![4 => Just("add"), 2 => Just("replace"), 1 => Just("remove")];
    (op, prop_oneof![member, element], value)
        .prop_map(|(op, path, value)| json!({"op": op, "path": path, "value": value}))
}

/// The operations that apply to what those before them left.
fn patch() -> impl Strategy<Value = Vec<PatchOperation>> {
    prop::collection::vec(operation(), 1..5).prop_map(|operations| {
        let mut applying = Vec::new();
        for operation in operations {
            applying.push(serde_json::from_value(operation).unwrap());
            if apply(&spec(), &applying).is_err() {
                applying.pop();
            }
        }
        applying
    })
}

fn spec() -> Value {
    json!({"o": {"a": {}, "b": {"a": 1}}, "a": 0, "l": [{"a": 0, "t": []}, {"a": 1, "t": [0, 1]}, 2]})
}

fn contributions<const N: usize>(patches: [Vec<PatchOperation>; N]) -> Vec<Contribution> {
    let contribution = |patch: Vec<PatchOperation>| {
        let result = apply(&spec(), &patch).unwrap();
        Contribution::new(&spec(), &patch, result)
    };
    patches.into_iter().map(contribution).collect()
}

/// The same with each array in an order of its own, since appends follow the order of the chain.
fn unordered(mut value: Value) -> Value {
    match &mut value {
        Value::Array(elements) => {
            *elements = elements.drain(..).map(unordered).collect();
            elements.sort_by_key(ToString::to_string);
        }
        Value::Object(members) => members.values_mut().for_each(|v| *v = unordered(v.take())),
        _ => {}
    }
    value
}

proptest! {
    #[test]
    fn the_order_of_a_merge_does_not_matter(a in patch(), b in patch(), c in patch()) {
        let [one, other] = [contributions([a.clone(), b.clone(), c.clone()]), contributions([c, b, a])];
        match (merge(&spec(), &one), merge(&spec(), &other)) {
            (Ok(one), Ok(other)) => prop_assert_eq!(unordered(one), unordered(other)),
            (one, other) => prop_assert_eq!(one.is_err(), other.is_err()),
        }
    }

    #[test]
    fn a_single_contribution_is_its_result(patch in patch()) {
        let result = apply(&spec(), &patch).unwrap();
        let alone = contributions([patch]);
        prop_assert_eq!(merge(&spec(), &alone).unwrap(), result);
    }

    #[test]
    fn a_plugin_that_changes_nothing_does_not_matter(patch in patch()) {
        let result = apply(&spec(), &patch).unwrap();
        let both = contributions([Vec::new(), patch, Vec::new()]);
        prop_assert_eq!(merge(&spec(), &both).unwrap(), result);
    }

    #[test]
    fn two_that_do_the_same_agree_unless_they_append(patch in patch()) {
        let result = apply(&spec(), &patch).unwrap();
        let twice = contributions([patch.clone(), patch]);
        let appends = twice[0].writes.iter().any(|write| matches!(write, Write::Append(_)));
        let merged = merge(&spec(), &twice).unwrap();
        prop_assert!(appends || merged == result, "{}", merged);
    }

    #[test]
    fn the_last_contribution_stands_wherever_it_writes(a in patch(), b in patch()) {
        let result = apply(&spec(), &b).unwrap();
        let both = contributions([a, b]);
        let merged = last_wins(&spec(), &both);
        for write in &both[1].writes {
            if let Write::At(place) = write {
                prop_assert_eq!(place.resolve(&merged).ok(), place.resolve(&result).ok(), "{}", place);
            }
        }
    }
}
