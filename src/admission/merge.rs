//! Patches made at once on one spec, merged into one result.
//!
//! Two patches conflict when one writes at, above or below a place that the other writes with
//! another result. Appends to one array do not conflict: each plugin's elements follow in the
//! order of the chain.

use json_patch::PatchOperation;
use json_patch::jsonptr::{Pointer, PointerBuf, Token};
use serde_json::Value;

use super::patch::written;

/// One plugin's part of a merge.
#[derive(Clone, Debug)]
pub struct Contribution {
    writes: Vec<Write>,
    /// The spec as this plugin alone would leave it.
    result: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Write {
    /// Sets, changes or removes what is at a place. Inserting into or removing from an array
    /// writes the whole array, since it moves the elements.
    At(PointerBuf),
    /// Adds elements to the end of the array at a place.
    Append(PointerBuf),
}

/// Two contributions that cannot both stand, by index, and the place they disagree about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub first: usize,
    pub second: usize,
    pub path: String,
}

impl Contribution {
    /// `result` is `base` with `patch` applied.
    pub fn new(base: &Value, patch: &[PatchOperation], result: Value) -> Self {
        let mut writes: Vec<Write> = Vec::new();
        for operation in patch {
            for path in written(operation) {
                let write = match operation {
                    PatchOperation::Replace(_) => Write::At(path.to_buf()),
                    _ => Write::inserting_or_removing(path, base),
                };
                if !writes.contains(&write) {
                    writes.push(write);
                }
            }
        }
        let rewritten = |array: &PointerBuf| {
            writes
                .iter()
                .any(|write| matches!(write, Write::At(path) if array.starts_with(path)))
        };
        let swallowed = |write: &Write| matches!(write, Write::Append(array) if rewritten(array));
        let writes = writes
            .iter()
            .filter(|write| !swallowed(write))
            .cloned()
            .collect();
        Self { writes, result }
    }

    /// The first place about which the two disagree.
    fn disagreement<'a>(&'a self, other: &'a Self) -> Option<&'a Pointer> {
        let pairs = self
            .writes
            .iter()
            .flat_map(|a| other.writes.iter().map(move |b| (a, b)));
        pairs
            .filter_map(|(a, b)| overlap(a, b))
            .find(|place| place.resolve(&self.result).ok() != place.resolve(&other.result).ok())
    }
}

impl Write {
    /// What an operation other than `replace` writes: at an index of an array it moves the
    /// neighbours, unless the index is the end.
    fn inserting_or_removing(path: &Pointer, base: &Value) -> Self {
        let Some((parent, last)) = path.split_back() else {
            return Write::At(path.to_buf());
        };
        match parent.resolve(base) {
            Ok(Value::Array(array))
                if last.encoded() == "-" || last.encoded() == array.len().to_string() =>
            {
                Write::Append(parent.to_buf())
            }
            Ok(Value::Array(_)) => Write::At(parent.to_buf()),
            _ => Write::At(path.to_buf()),
        }
    }
}

/// The deeper of two places when one is at or above the other.
fn overlap<'w>(a: &'w Write, b: &'w Write) -> Option<&'w Pointer> {
    let (upper, lower) = match (a, b) {
        (Write::Append(_), Write::Append(_)) => return None,
        (Write::Append(array), Write::At(path)) | (Write::At(path), Write::Append(array)) => {
            // An element's own place is beside the end of its array.
            return array.starts_with(path).then_some(array.as_ptr());
        }
        (Write::At(a), Write::At(b)) if a.len() <= b.len() => (a, b),
        (Write::At(a), Write::At(b)) => (b, a),
    };
    lower.starts_with(upper).then_some(lower.as_ptr())
}

/// Merges contributions to `base` none of which may disagree with another.
///
/// # Errors
/// The first two that do.
pub fn merge(base: &Value, contributions: &[Contribution]) -> Result<Value, Conflict> {
    for (second, later) in contributions.iter().enumerate() {
        for (first, earlier) in contributions[..second].iter().enumerate() {
            if let Some(path) = earlier.disagreement(later) {
                return Err(Conflict {
                    first,
                    second,
                    path: path.to_string(),
                });
            }
        }
    }
    Ok(last_wins(base, contributions))
}

/// Merges contributions to `base`; where two disagree, the later one stands.
pub fn last_wins(base: &Value, contributions: &[Contribution]) -> Value {
    let mut merged = base.clone();
    for contribution in contributions {
        for write in &contribution.writes {
            match write {
                Write::At(path) => put(&mut merged, path, &contribution.result),
                Write::Append(array) => append(&mut merged, array, base, &contribution.result),
            }
        }
    }
    merged
}

/// Makes `merged` at `path` what `result` is there, with the parents it needs.
fn put(merged: &mut Value, path: &Pointer, result: &Value) {
    let Some((parent, last)) = path.split_back() else {
        *merged = result.clone();
        return;
    };
    let value = path.resolve(result).ok();
    match (parent.resolve_mut(merged), value) {
        (Ok(Value::Object(members)), Some(value)) => {
            members.insert(last.decoded().into_owned(), value.clone());
        }
        (Ok(Value::Object(members)), None) => {
            members.shift_remove(last.decoded().as_ref());
        }
        (Ok(Value::Array(elements)), Some(value)) if last.encoded() != "-" => {
            match index(&last).and_then(|i| elements.get_mut(i)) {
                Some(element) => *element = value.clone(),
                None => put(merged, parent, result),
            }
        }
        _ => put(merged, parent, result),
    }
}

fn index(token: &Token<'_>) -> Option<usize> {
    token.encoded().parse().ok()
}

/// Adds to the array in `merged` what `result` has there beyond `base`.
fn append(merged: &mut Value, array: &Pointer, base: &Value, result: &Value) {
    let length = |spec| {
        array
            .resolve(spec)
            .ok()
            .and_then(Value::as_array)
            .map_or(0, Vec::len)
    };
    let known = length(base);
    let Ok(Value::Array(longer)) = array.resolve(result) else {
        return;
    };
    match array.resolve_mut(merged) {
        Ok(Value::Array(elements)) => elements.extend(longer.iter().skip(known).cloned()),
        _ => put(merged, array, result),
    }
}

#[cfg(test)]
mod tests {
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
    #[case::a_test_writes_nothing(
        json!([{"op": "test", "path": "/price", "value": null}]),
        json!([{"op": "add", "path": "/price", "value": 2}]),
        json!({"tags": {"x": "1"}, "list": [1, 2], "price": 2, "deep": {"a": {"b": 0, "c": 0}}})
    )]
    fn patches_that_agree_are_merged(#[case] a: Value, #[case] b: Value, #[case] expected: Value) {
        let base = base();
        let (a, b) = (contribution(&base, &a), contribution(&base, &b));
        assert_eq!(merge(&base, &[a, b]).unwrap(), expected);
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

    fn write() -> impl Strategy<Value = Value> {
        let path = prop_oneof!["/[a-c]", "/o/[a-c]", "/o/[a-c]/[a-b]"];
        (path, any::<u8>(), any::<bool>()).prop_map(|(path, value, nested)| {
            let value = if nested {
                json!({"a": value})
            } else {
                json!(value)
            };
            json!({"op": "add", "path": path, "value": value})
        })
    }

    proptest! {
        #[test]
        fn the_order_of_a_merge_does_not_matter(
            a in prop::collection::vec(write(), 1..4),
            b in prop::collection::vec(write(), 1..4),
        ) {
            let base = json!({"o": {"a": {}, "b": {"a": 1}}, "a": 0});
            let contributions: Vec<_> = [a, b].into_iter().filter_map(|patch| {
                let operations: Vec<PatchOperation> = serde_json::from_value(json!(patch)).ok()?;
                let result = apply(&base, &operations).ok()?;
                Some(Contribution::new(&base, &operations, result.clone()))
            }).collect();
            let reversed: Vec<_> = contributions.iter().rev().cloned().collect();
            match (merge(&base, &contributions), merge(&base, &reversed)) {
                (Ok(one), Ok(other)) => prop_assert_eq!(one, other),
                (one, other) => prop_assert_eq!(one.is_err(), other.is_err()),
            }
        }

        #[test]
        fn a_single_contribution_is_its_result(patch in prop::collection::vec(write(), 1..5)) {
            let base = json!({"o": {"a": {}, "b": {"a": 1}}, "a": 0});
            let operations: Vec<PatchOperation> = serde_json::from_value(json!(patch)).unwrap();
            if let Ok(result) = apply(&base, &operations) {
                let contribution = Contribution::new(&base, &operations, result.clone());
                prop_assert_eq!(merge(&base, &[contribution]).unwrap(), result);
            }
        }
    }
}
