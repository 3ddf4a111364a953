//! `clamp`: numbers, what counts as unlimited, ranges.

use rstest::rstest;
use serde_json::{Value, json};

use super::{fault_of, patch_of, refused};

/// What becomes of the value under `v`, which no model describes, clamped with these keys.
fn clamped(value: Option<Value>, keys: Value) -> Option<Value> {
    let (spec, mutation) = clamping(value, keys);
    let mut patched = spec.clone();
    let patch = patch_of(&spec, &json!([mutation]));
    let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
    json_patch::patch(&mut patched, &patch).unwrap();
    patched.pointer("/merged_profile/v").cloned()
}

fn clamping(value: Option<Value>, mut keys: Value) -> (Value, Value) {
    let mut spec = json!({"n": 5, "merged_profile": {}});
    if let Some(value) = value {
        spec["merged_profile"]["v"] = value;
    }
    keys["path"] = json!("/merged_profile/v");
    (spec, json!({"clamp": keys}))
}

#[rstest]
#[case(json!(9), json!({"max": 8}), json!(8))]
#[case(json!(8), json!({"max": 8}), json!(8))]
#[case(json!(1), json!({"min": 2}), json!(2))]
#[case(json!(1), json!({"min": 2, "max": 8}), json!(2))]
#[case(json!(-3), json!({"max": 8}), json!(-3))]
#[case(json!(-3), json!({"min": 0}), json!(0))]
#[case(json!(4.5), json!({"max": 2}), json!(2))]
#[case(json!(4.5), json!({"max": 2.5}), json!(2.5))]
#[case(json!(2.0), json!({"max": 2}), json!(2.0))]
#[case::below_the_nearest_double(json!(9_007_199_254_740_993_u64), json!({"max": 9_007_199_254_740_992_u64}), json!(9_007_199_254_740_992_u64))]
#[case::above_int(json!(18_446_744_073_709_551_615_u64), json!({"max": 9}), json!(9))]
fn a_number_is_brought_into_the_range(
    #[case] value: Value,
    #[case] keys: Value,
    #[case] result: Value,
) {
    assert_eq!(clamped(Some(value), keys), Some(result));
}

#[rstest]
#[case(json!(9), json!({"max": 2.0}), json!(2))]
#[case(json!(9), json!({"max": 2.5}), json!(2))]
#[case(json!(1), json!({"min": 2.5}), json!(3))]
#[case::unless_none_is_in_the_range(json!(9), json!({"min": 2.2, "max": 2.8}), json!(2.8))]
#[case::unless_none_is_that_large(json!(9), json!({"max": -1e300}), json!(-1e300))]
#[case(json!("off"), json!({"max": 3600.0}), json!(3600))]
#[case(json!({"min": 1, "max": null}), json!({"max": 8.0}), json!({"min": 1, "max": 8}))]
#[case(json!({"min": 1.0, "max": null}), json!({"max": 8.0}), json!({"min": 1.0, "max": 8.0}))]
fn ints_stay_ints(#[case] value: Value, #[case] keys: Value, #[case] result: Value) {
    let found = clamped(Some(value), keys).unwrap();
    assert_eq!(found.to_string(), result.to_string());
}

#[rstest]
#[case(None, json!({"max": 8}), Some(json!(8)))]
#[case(Some(Value::Null), json!({"max": 8}), Some(json!(8)))]
#[case(Some(json!("off")), json!({"max": 8}), Some(json!(8)))]
#[case(None, json!({"min": 8}), None)]
#[case(Some(Value::Null), json!({"min": 8}), Some(Value::Null))]
#[case(Some(json!("off")), json!({"min": 8}), Some(json!("off")))]
#[case(None, json!({"max": 8, "unset": "keep"}), None)]
#[case(Some(Value::Null), json!({"max": 8, "unset": "keep"}), Some(Value::Null))]
#[case(Some(json!("off")), json!({"max": 8, "unset": "keep"}), Some(json!(8)))]
#[case(Some(json!(-1)), json!({"max": 8, "negative": "unlimited"}), Some(json!(8)))]
#[case(Some(json!(-1)), json!({"min": 2, "negative": "unlimited"}), Some(json!(-1)))]
#[case(Some(json!(-1)), json!({"min": 2, "negative": "number"}), Some(json!(2)))]
#[case(Some(json!(0)), json!({"min": 2, "negative": "unlimited"}), Some(json!(2)))]
fn what_has_no_limit_becomes_the_greatest(
    #[case] value: Option<Value>,
    #[case] keys: Value,
    #[case] result: Option<Value>,
) {
    assert_eq!(clamped(value, keys), result);
}

#[rstest]
#[case(json!({"min": 1, "max": null}), json!({"max": 8}), json!({"min": 1, "max": 8}))]
#[case(json!({"min": 1}), json!({"max": 8}), json!({"min": 1, "max": 8}))]
#[case(json!({"min": 9, "max": 12}), json!({"max": 8}), json!({"min": 8, "max": 8}))]
#[case(json!({"min": null, "max": 4}), json!({"max": 8}), json!({"min": null, "max": 4}))]
#[case(json!({"min": null, "max": 1}), json!({"min": 2}), json!({"min": 2, "max": 2}))]
#[case(json!({"min": 0, "max": null}), json!({"min": 2}), json!({"min": 2, "max": null}))]
#[case(json!({"min": 0, "max": null}), json!({"min": 2, "max": 8}), json!({"min": 2, "max": 8}))]
#[case(json!({"min": 0, "target": 10, "max": null}), json!({"max": 8}), json!({"min": 0, "target": 8, "max": 8}))]
#[case(json!({"min": 0, "target": null, "max": 4}), json!({"min": 2}), json!({"min": 2, "target": null, "max": 4}))]
fn a_range_is_clamped_at_both_ends(
    #[case] value: Value,
    #[case] keys: Value,
    #[case] result: Value,
) {
    assert_eq!(clamped(Some(value), keys), Some(result));
}

#[rstest]
#[case(json!({"maxExpression": "spec.n"}), json!(5))]
#[case(json!({"minExpression": "spec.n + 10"}), json!(15))]
#[case(json!({"min": 1, "maxExpression": "double(spec.n) / 2.0"}), json!(2))]
#[case(json!({"min": 1, "maxExpression": "null"}), json!(9))]
#[case(json!({"maxExpression": "spec.?absent"}), json!(9))]
fn a_bound_may_be_computed(#[case] keys: Value, #[case] result: Value) {
    assert_eq!(clamped(Some(json!(9)), keys), Some(result));
}

#[rstest]
#[case(json!("1d"), json!({"max": 1}), "/merged_profile/v is a string other than `off`, so it cannot be clamped")]
#[case(json!(true), json!({"max": 1}), "/merged_profile/v is a bool, so it cannot be clamped")]
#[case(json!([1]), json!({"max": 1}), "/merged_profile/v is a list, so it cannot be clamped")]
#[case(json!({"arch": "x86", "min": 1}), json!({"max": 1}), "/merged_profile/v is a map that is no range of min and max, so it cannot be clamped")]
#[case(json!({}), json!({"max": 1}), "/merged_profile/v is a map that is no range of min and max, so it cannot be clamped")]
#[case(json!({"min": 1, "max": "8GB"}), json!({"max": 1}), "/merged_profile/v/max is a string other than `off`, so it cannot be clamped")]
#[case(json!(1), json!({"maxExpression": "'8'"}), "it gives a string, not a number")]
#[case(json!(1), json!({"maxExpression": "1.0 / 0.0"}), "JSON has no infinite numbers")]
#[case(json!(1), json!({"min": 6, "maxExpression": "spec.n"}), "its min is above its max")]
fn what_is_no_number_is_a_fault(#[case] value: Value, #[case] keys: Value, #[case] message: &str) {
    let (spec, mutation) = clamping(Some(value), keys);
    let fault = fault_of(&spec, &mutation);
    assert_eq!(
        fault.message,
        format!("mutations[0] cannot be made: {message}")
    );
}

#[rstest]
#[case(json!({}), "mutations[0].clamp: at least one of min, max, minExpression and maxExpression is needed")]
#[case(json!({"min": 3, "max": 2.5}), "mutations[0].clamp.max: max, 2.5, is below min, 3")]
#[case(json!({"min": 3, "minExpression": "3"}), "mutations[0].clamp.min: min and minExpression exclude each other")]
#[case(json!({"max": 3, "maxExpression": "3"}), "mutations[0].clamp.max: max and maxExpression exclude each other")]
#[case(json!({"maxExpression": "spce.n"}), "mutations[0].clamp.maxExpression: unknown name `spce` (did you mean `spec`?)\n 1 | spce.n\n   | ^")]
#[case(json!({"max": -1, "negative": "unlimited"}), "mutations[0].clamp.max: a negative max is no limit where negative numbers are unlimited")]
fn bounds_that_bound_nothing_are_refused(#[case] keys: Value, #[case] reason: &str) {
    let (_, mutation) = clamping(None, keys);
    assert_eq!(refused(&mutation), [reason]);
}
