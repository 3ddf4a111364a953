//! The text of a changed spec, in which everything that did not change is copied from the text
//! that came: key order, white space inside values, and every digit of every number.

use bytes::Bytes;
use indexmap::IndexMap;
use serde_json::Value;
use serde_json::value::RawValue;

use super::review::Spec;

/// The JSON text of `current`, a spec that plugins made out of `original`.
pub fn render(original: &Spec, current: &Value) -> Bytes {
    if std::ptr::eq(original.value().as_ref(), current) {
        return original.text().clone();
    }
    let mut text = Vec::with_capacity(original.text().len() + 256);
    match serde_json::from_slice::<&RawValue>(original.text()) {
        Ok(raw) => splice(original.value(), raw, current, &mut text),
        Err(_) => write(current, &mut text),
    }
    text.into()
}

/// Writes `current`, taking from `raw`, the text of `original`, whatever is the same in both.
fn splice(original: &Value, raw: &RawValue, current: &Value, text: &mut Vec<u8>) {
    match (original, current) {
        _ if original == current => text.extend_from_slice(raw.get().as_bytes()),
        (Value::Object(original), Value::Object(current)) => {
            let Ok(parts) = serde_json::from_str::<IndexMap<String, &RawValue>>(raw.get()) else {
                return write(current, text);
            };
            // Removing a member may have moved another: the original's order is the one to keep.
            let kept = original.keys().filter_map(|key| current.get_key_value(key));
            let added = current
                .iter()
                .filter(|(key, _)| !original.contains_key(*key));
            text.push(b'{');
            for (index, (key, value)) in kept.chain(added).enumerate() {
                separate(index, text);
                write(key, text);
                text.extend_from_slice(b": ");
                match (original.get(key), parts.get(key)) {
                    (Some(old), Some(raw)) => splice(old, raw, value, text),
                    _ => write(value, text),
                }
            }
            text.push(b'}');
        }
        (Value::Array(original), Value::Array(current)) => {
            let Ok(parts) = serde_json::from_str::<Vec<&RawValue>>(raw.get()) else {
                return write(current, text);
            };
            // What follows a change of length stays the same from the end.
            let shift = |index: usize| (index + original.len()).checked_sub(current.len());
            text.push(b'[');
            for (index, value) in current.iter().enumerate() {
                separate(index, text);
                let here = original
                    .get(index)
                    .filter(|old| *old == value)
                    .map(|_| index);
                let from_end = || shift(index).filter(|&i| original.get(i) == Some(value));
                let source = here.or_else(from_end).unwrap_or(index);
                match (original.get(source), parts.get(source)) {
                    (Some(old), Some(raw)) => splice(old, raw, value, text),
                    _ => write(value, text),
                }
            }
            text.push(b']');
        }
        _ => write(current, text),
    }
}

fn separate(index: usize, text: &mut Vec<u8>) {
    if index > 0 {
        text.extend_from_slice(b", ");
    }
}

/// Writes a value that the original does not have. Writing JSON into memory cannot fail.
fn write(value: &impl serde::Serialize, text: &mut Vec<u8>) {
    let _ = serde_json::to_writer(text, value);
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::admission::patch;

    fn spec(text: &str) -> Spec {
        Spec::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    #[test]
    fn an_untouched_spec_is_its_very_bytes() {
        let spec = spec("{ \"b\":1.0,\"a\" : 1e-05 }");
        assert_eq!(render(&spec, spec.value()), *spec.text());
    }

    #[rstest]
    #[case::lone_surrogate(r#"{"a": "\ud800"}"#)]
    #[case::number_out_of_range(r#"{"a": 1e400}"#)]
    #[case::nested_too_deep(&format!("{{\"a\": {}1{}}}", "[".repeat(127), "]".repeat(127)))]
    #[case::no_object("[1]")]
    fn what_cannot_be_held_without_loss_is_no_spec(#[case] text: &str) {
        assert!(Spec::parse(Bytes::copy_from_slice(text.as_bytes())).is_err());
    }

    #[rstest]
    #[case::number_kept(
        r#"{"z": 1.10, "big": 123456789012345678901234567890, "a": {"x": 1e-05}}"#,
        json!([{"op": "add", "path": "/a/y", "value": 1}]),
        r#"{"z": 1.10, "big": 123456789012345678901234567890, "a": {"x": 1e-05, "y": 1}}"#
    )]
    #[case::list_prepended(
        r#"{"l": [1.0, 2.50, {"n": 1e2}]}"#,
        json!([{"op": "add", "path": "/l/0", "value": 7}]),
        r#"{"l": [7, 1.0, 2.50, {"n": 1e2}]}"#
    )]
    #[case::inside_a_list(
        r#"{"l": [{"n": 1.0, "m": 2.00}]}"#,
        json!([{"op": "replace", "path": "/l/0/n", "value": "x"}]),
        r#"{"l": [{"n": "x", "m": 2.00}]}"#
    )]
    #[case::order_after_a_removal(
        r#"{"a": 1, "b": 2, "c": 3, "d": 4}"#,
        json!([{"op": "remove", "path": "/b"}, {"op": "add", "path": "/e", "value": 5}]),
        r#"{"a": 1, "c": 3, "d": 4, "e": 5}"#
    )]
    #[case::name_given_twice(
        r#"{"a": 1.0, "b": 2, "a": 3.0}"#,
        json!([{"op": "remove", "path": "/b"}]),
        r#"{"a": 3.0}"#
    )]
    #[case::empty_and_odd_names(
        r#"{"": {"/": 1.0, "~": 2.0}, "x": 1}"#,
        json!([{"op": "remove", "path": "//~1"}]),
        r#"{"": {"~": 2.0}, "x": 1}"#
    )]
    #[case::exponents(
        r#"{"a": 1E5, "b": -0.0, "c": 1}"#,
        json!([{"op": "replace", "path": "/c", "value": 2}]),
        r#"{"a": 1E5, "b": -0.0, "c": 2}"#
    )]
    #[case::same_number_written_otherwise(
        r#"{"a": -0.0, "c": 1}"#,
        json!([{"op": "replace", "path": "/a", "value": 0.0}, {"op": "remove", "path": "/c"}]),
        r#"{"a": -0.0}"#
    )]
    #[case::taken_from_the_front(
        r#"{"l": [{"n": 1.0}, {"n": 2.00}, {"n": 3.000}]}"#,
        json!([{"op": "remove", "path": "/l/0"}]),
        r#"{"l": [{"n": 2.00}, {"n": 3.000}]}"#
    )]
    #[case::surrogate_pair(
        r#"{"a": "\ud83d\ude00", "c": 1}"#,
        json!([{"op": "remove", "path": "/c"}]),
        r#"{"a": "\ud83d\ude00"}"#
    )]
    #[case::escaped_key(
        r#"{"a\"b": 1.0, "c": 1}"#,
        json!([{"op": "remove", "path": "/c"}]),
        r#"{"a\"b": 1.0}"#
    )]
    fn what_did_not_change_keeps_its_text(
        #[case] before: &str,
        #[case] patch: Value,
        #[case] after: &str,
    ) {
        let spec = spec(before);
        let operations: Vec<_> = serde_json::from_value(patch).unwrap();
        let current = patch::apply(spec.value(), &operations).unwrap();
        assert_eq!(
            std::str::from_utf8(&render(&spec, &current)).unwrap(),
            after
        );
    }
}
