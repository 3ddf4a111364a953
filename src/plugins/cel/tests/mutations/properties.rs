//! What holds for every spec and every mutation but `jsonPatch`.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::outcome;
use crate::admission::verdict::Phase;
use crate::plugins::cel::Policy;
use crate::plugins::cel::tests::source;

/// Names of members, so few that paths often lead somewhere. Some look like positions.
const NAMES: [&str; 9] = ["a", "b", "min", "max", "0", "01", "", "a/b", "m~n"];

/// Tokens of a path that are no wildcard.
const TOKENS: [&str; 10] = ["a", "b", "min", "max", "0", "1", "01", "", "a~1b", "m~0n"];

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        2 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => prop::sample::select(&["off", "x", ""][..]).prop_map(Value::from),
        4 => number(),
    ]
}

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => (-9_i64..9).prop_map(Value::from),
        4 => (-18_i32..18).prop_map(|halves| Value::from(f64::from(halves) / 2.0)),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 24, 4, collection)
}

fn collection(of: impl Strategy<Value = Value> + Clone) -> impl Strategy<Value = Value> {
    let name = prop::sample::select(&NAMES[..]).prop_map(str::to_owned);
    let members = prop::collection::hash_map(name, of.clone(), 0..4);
    prop_oneof![
        members.prop_map(|members| Value::Object(Map::from_iter(members))),
        prop::collection::vec(of, 0..4).prop_map(Value::Array),
    ]
}

/// A path below the one member that no model describes.
fn path() -> impl Strategy<Value = String> {
    let token = prop_oneof![1 => Just("*"), 2 => prop::sample::select(&TOKENS[..])];
    let tokens = prop::collection::vec(token, 0..4);
    tokens.prop_map(|tokens| {
        ["/merged_profile"]
            .into_iter()
            .chain(tokens)
            .collect::<Vec<_>>()
            .join("/")
    })
}

fn write(name: &'static str, value: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    (path(), value).prop_map(move |(path, value)| json!({name: {"path": path, "value": value}}))
}

fn clamp() -> impl Strategy<Value = Value> {
    let bounds = (prop::option::of(number()), prop::option::of(number()));
    let negative = prop::sample::select(&["number", "unlimited"][..]);
    let unset = prop::sample::select(&["unlimited", "keep"][..]);
    let keys = (path(), bounds, negative, unset);
    keys.prop_map(|(path, (min, max), negative, unset)| {
        json!({"clamp": {"path": path, "min": min, "max": max, "negative": negative, "unset": unset}})
    })
}

fn mutation() -> impl Strategy<Value = Value> {
    let object = value().prop_filter("mergeMap writes a map", Value::is_object);
    let some = value().prop_filter("addToSet adds no null", |value| !value.is_null());
    prop_oneof![
        write("set", value()),
        write("setDefault", value()),
        write("mergeMap", object),
        write("addToSet", some),
        clamp(),
        path().prop_map(|path| json!({"remove": {"path": path}})),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_patch_applies_and_leaves_nothing_to_do(inside in collection(value().boxed()), mutation in mutation()) {
        // Bounds in the wrong order, and removals by position.
        let Ok(policy) = Policy::compile(&source(json!({"mutations": [mutation]})), &Value::Null) else {
            return Ok(());
        };
        let spec = json!({"merged_profile": inside});
        let Ok(verdict) = outcome(&policy, &spec, Phase::Mutating) else {
            return Ok(());
        };
        let mut patched = spec.clone();
        let applied = json_patch::patch(&mut patched, &verdict.patch);
        prop_assert!(applied.is_ok(), "{:?}: {:?}", verdict.patch, applied);
        prop_assert_eq!(patched == spec, verdict.patch.is_empty(), "{:?}", verdict.patch);
        match outcome(&policy, &patched, Phase::Mutating) {
            Ok(again) => prop_assert_eq!(again.patch, []),
            Err(fault) => prop_assert!(false, "{}", fault),
        }
    }
}
