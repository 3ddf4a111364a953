//! What holds of the difference of any two specs.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::admission::arbitrary::{edit, spec, value};

/// A spec as a peer writes it that read it into models of its own.
fn reserialized(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let written = members
                .iter()
                .map(|(name, value)| (name.clone(), reserialized(value)));
            // Null members come and go.
            let mut written: serde_json::Map<_, _> =
                written.filter(|(_, v)| !v.is_null()).collect();
            written.insert("known to the peer alone".to_owned(), Value::Null);
            Value::Object(written)
        }
        Value::Array(elements) => elements.iter().map(reserialized).collect(),
        Value::Number(number) => rewritten(number),
        other => other.clone(),
    }
}

/// An integer as a decimal where a decimal can hold it, and the other way round.
fn rewritten(number: &Number) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match (number.as_i64(), number.as_f64()) {
        (Some(_), Some(decimal)) if decimal.abs() < EXACT => json!(decimal),
        (None, Some(decimal)) if decimal.fract() == 0.0 && decimal.abs() < EXACT => {
            json!(decimal as i64)
        }
        _ => Value::Number(number.clone()),
    }
}

proptest! {
    #[test]
    fn a_difference_applied_to_the_one_gives_the_other(before in spec(), after in spec()) {
        let (before, after) = (before.value(), after.value());
        let patch = diff(before, after, Compare::Exactly);
        prop_assert_eq!(&apply(before, &patch).unwrap(), &**after);
        prop_assert_eq!(patch.is_empty(), before == after);
    }

    #[test]
    fn a_small_change_is_a_difference_too(
        before in spec(),
        edits in prop::collection::vec(edit(), 1..4),
    ) {
        let mut after = (**before.value()).clone();
        for edit in &edits {
            let operation = serde_json::from_value(edit.on(&after)).unwrap();
            after = apply(&after, &[operation]).unwrap_or(after);
        }
        let patch = diff(before.value(), &after, Compare::Exactly);
        prop_assert_eq!(apply(before.value(), &patch).unwrap(), after);
    }

    #[test]
    fn operations_that_fail_half_way_are_an_error_and_no_end(
        spec in spec(),
        edits in prop::collection::vec(edit(), 1..5),
    ) {
        let operations = edits.iter().map(|edit| serde_json::from_value(edit.on(spec.value())).unwrap());
        let operations: Vec<_> = operations.collect();
        if let Ok(after) = apply(spec.value(), &operations) {
            prop_assert!(after.is_object());
        }
    }

    #[test]
    fn a_reserialized_spec_is_no_change(spec in spec()) {
        let written = reserialized(spec.value());
        let there = diff(spec.value(), &written, Compare::Reserialized);
        let back = diff(&written, spec.value(), Compare::Reserialized);
        prop_assert!(there.is_empty() && back.is_empty(), "{there:?} {back:?}");
    }

    #[test]
    fn what_a_peer_changed_arrives_whatever_else_it_rewrote(sent in spec(), meant in spec()) {
        let written = reserialized(meant.value());
        let patch = diff(sent.value(), &written, Compare::Reserialized);
        let taken = apply(sent.value(), &patch).unwrap();
        let missing = diff(&taken, &written, Compare::Reserialized);
        prop_assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn a_value_is_equal_to_itself_in_other_words(value in value()) {
        prop_assert!(equal(&value, &value));
        let text = serde_json::to_string(&value).unwrap();
        prop_assert!(equal(&value, &serde_json::from_str(&text).unwrap()));
    }
}
