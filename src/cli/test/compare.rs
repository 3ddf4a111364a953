//! Expected JSON against found JSON: numbers by their value, maps by the members that are expected.

use serde_json::{Number, Value};

/// Whether `found` holds what is `expected`: of a map the expected members, a list as a whole.
pub fn holds(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            expected.iter().all(|(key, expected)| {
                let found = found.get(key);
                found.is_some_and(|found| holds(found, expected))
            })
        }
        _ => same(found, expected),
    }
}

/// Whether two values are the same but for the form of their numbers.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let in_b = |(key, a): (&String, &Value)| b.get(key).is_some_and(|b| same(a, b));
            a.len() == b.len() && a.iter().all(in_b)
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Number(a), Value::Number(b)) => same_number(a, b),
        _ => a == b,
    }
}

/// What `found` has in the places of `expected`, as it would be expected; none where it has nothing
/// there. What is expected already stays as it is written.
pub fn shaped(found: &Value, expected: &Value) -> Option<Value> {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            let members = expected.iter().filter_map(|(key, expected)| {
                let found = found.get(key)?;
                Some((key.clone(), shaped(found, expected)?))
            });
            let members: serde_json::Map<_, _> = members.collect();
            let vain = members.is_empty() && !expected.is_empty();
            (!vain).then_some(Value::Object(members))
        }
        _ if same(found, expected) => Some(expected.clone()),
        _ => Some(found.clone()),
    }
}

/// Integers to the last digit, anything else as floating point.
fn same_number(a: &Number, b: &Number) -> bool {
    let is_integer = |n: &Number| n.is_i64() || n.is_u64();
    if is_integer(a) && is_integer(b) {
        return a == b;
    }
    a.as_f64() == b.as_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn found() -> Value {
        json!({"a": {"price": 2.0, "tags": {"x": "1"}, "list": [1, {"n": 2.0, "m": 3}], "none": null}})
    }

    #[rstest]
    #[case(json!({"a": {"price": 2}}))]
    #[case(json!({"a": {"tags": {}}}))]
    #[case(json!({"a": {"list": [1.0, {"m": 3, "n": 2}]}}))]
    #[case(json!({"a": {"none": null}}))]
    fn what_holds(#[case] expected: Value) {
        assert!(holds(&found(), &expected));
        assert_eq!(shaped(&found(), &expected), Some(expected));
    }

    #[rstest]
    #[case::another_number(json!({"a": {"price": 2.5}}), json!({"a": {"price": 2.0}}))]
    #[case::another_type(json!({"a": {"price": "2.0"}}), json!({"a": {"price": 2.0}}))]
    #[case::a_map_in_a_list_is_whole(json!({"a": {"list": [1, {"n": 2}]}}), json!({"a": {"list": [1, {"n": 2.0, "m": 3}]}}))]
    #[case::a_longer_list(json!({"a": {"list": [1]}}), json!({"a": {"list": [1, {"n": 2.0, "m": 3}]}}))]
    #[case::null_is_a_value(json!({"a": {"price": 2, "nothing": null}}), json!({"a": {"price": 2}}))]
    #[case::a_map_for_a_value(json!({"a": {"price": {}}}), json!({"a": {"price": 2.0}}))]
    fn what_does_not_hold(#[case] expected: Value, #[case] instead: Value) {
        assert!(!holds(&found(), &expected));
        let shaped = shaped(&found(), &expected);
        assert_eq!(shaped.as_ref(), Some(&instead));
        assert!(
            shaped.is_some_and(|shaped| holds(&found(), &shaped)),
            "and so would be mended"
        );
    }

    #[test]
    fn nothing_is_shaped_like_nothing() {
        assert_eq!(shaped(&found(), &json!({"b": 1})), None);
    }

    #[test]
    fn long_integers_are_told_apart() {
        assert!(!same(
            &json!(9_007_199_254_740_993_u64),
            &json!(9_007_199_254_740_992_u64)
        ));
        assert!(same(&json!(1e3), &json!(1000)));
    }
}
