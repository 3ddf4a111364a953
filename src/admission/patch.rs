//! Changes to a spec as JSON Patches (RFC 6902): applying one, and finding one between two specs.

use json_patch::jsonptr::{Pointer, PointerBuf, Token};
use json_patch::{AddOperation, PatchOperation, RemoveOperation, ReplaceOperation};
use serde_json::{Number, Value};

/// What counts as a change between two specs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// Every difference of value. `patch(before) == after`, to the letter.
    Exactly,
    /// As a peer sees it that parsed the spec into models of its own and wrote it again: a member
    /// that is null, false or empty on one side and absent on the other is the same, and so are
    /// `2` and `2.0`. dstack leaves a member out of its requests only at such a default.
    Reserialized,
}

/// Applies `patch` to a copy of `spec`.
///
/// # Errors
/// In words, with the operation's index and path, when an operation does not apply (RFC 6902,
/// section 5) or leaves something that is no object.
pub fn apply(spec: &Value, patch: &[PatchOperation]) -> Result<Value, String> {
    let mut after = spec.clone();
    json_patch::patch(&mut after, patch)
        .map_err(|e| format!("operation {} at {}: {}", e.operation, e.path, e.kind))?;
    if after.is_object() {
        Ok(after)
    } else {
        Err("the patch leaves no JSON object".to_owned())
    }
}

/// The operations that turn `before` into `after`.
///
/// Members are compared by name and arrays by position once what they share at both ends is set
/// aside, so that one inserted element is one operation.
pub fn diff(before: &Value, after: &Value, compare: Compare) -> Vec<PatchOperation> {
    let mut walk = Diff {
        compare,
        path: PointerBuf::root(),
        operations: Vec::new(),
    };
    walk.values(before, after);
    walk.operations
}

/// The places an operation writes: where it puts something, and where it takes something away.
pub fn written(operation: &PatchOperation) -> impl Iterator<Item = &Pointer> {
    let (first, second) = match operation {
        PatchOperation::Test(_) => (None, None),
        PatchOperation::Move(op) => (Some(&op.from), Some(&op.path)),
        PatchOperation::Add(op) => (Some(&op.path), None),
        PatchOperation::Remove(op) => (Some(&op.path), None),
        PatchOperation::Replace(op) => (Some(&op.path), None),
        PatchOperation::Copy(op) => (Some(&op.path), None),
    };
    first.into_iter().chain(second).map(|path| path.as_ptr())
}

struct Diff {
    compare: Compare,
    path: PointerBuf,
    operations: Vec<PatchOperation>,
}

impl Diff {
    fn values(&mut self, before: &Value, after: &Value) {
        match (before, after) {
            (Value::Object(before), Value::Object(after)) => {
                for (key, old) in before {
                    if !after.contains_key(key) && !self.negligible(old) {
                        self.at(key, |walk| walk.remove());
                    }
                }
                for (key, new) in after {
                    match before.get(key) {
                        Some(old) => self.at(key, |walk| walk.values(old, new)),
                        None if self.negligible(new) => {}
                        None => self.at(key, |walk| walk.add(new)),
                    }
                }
            }
            (Value::Array(before), Value::Array(after)) => self.arrays(before, after),
            _ if self.same(before, after) => {}
            _ => self.replace(after),
        }
    }

    fn arrays(&mut self, before: &[Value], after: &[Value]) {
        let shared = before.len().min(after.len());
        let head = (0..shared)
            .take_while(|&i| self.same(&before[i], &after[i]))
            .count();
        let tail = (0..shared - head)
            .take_while(|&i| self.same(&before[before.len() - 1 - i], &after[after.len() - 1 - i]))
            .count();
        let old = &before[head..before.len() - tail];
        let new = &after[head..after.len() - tail];
        let paired = old.len().min(new.len());

        for index in 0..paired {
            self.at(&(head + index).to_string(), |walk| {
                walk.values(&old[index], &new[index])
            });
        }
        for _ in paired..old.len() {
            self.at(&(head + paired).to_string(), |walk| walk.remove());
        }
        for (index, value) in new.iter().enumerate().skip(paired) {
            let place = if tail == 0 {
                "-".to_owned()
            } else {
                (head + index).to_string()
            };
            self.at(&place, |walk| walk.add(value));
        }
    }

    fn same(&self, before: &Value, after: &Value) -> bool {
        if self.compare == Compare::Exactly {
            return before == after;
        }
        match (before, after) {
            (Value::Number(a), Value::Number(b)) => same_number(a, b),
            (Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.same(a, b))
            }
            (Value::Object(a), Value::Object(b)) => {
                a.iter().all(|(key, old)| {
                    b.get(key)
                        .map_or(is_default(old), |new| self.same(old, new))
                }) && b
                    .iter()
                    .all(|(key, new)| a.contains_key(key) || is_default(new))
            }
            _ => before == after,
        }
    }

    fn negligible(&self, value: &Value) -> bool {
        self.compare == Compare::Reserialized && is_default(value)
    }

    fn at(&mut self, token: &str, step: impl FnOnce(&mut Self)) {
        self.path.push_back(Token::new(token));
        step(self);
        self.path.pop_back();
    }

    fn add(&mut self, value: &Value) {
        let operation = AddOperation {
            path: self.path.clone(),
            value: value.clone(),
        };
        self.operations.push(PatchOperation::Add(operation));
    }

    fn remove(&mut self) {
        let operation = RemoveOperation {
            path: self.path.clone(),
        };
        self.operations.push(PatchOperation::Remove(operation));
    }

    fn replace(&mut self, value: &Value) {
        let operation = ReplaceOperation {
            path: self.path.clone(),
            value: value.clone(),
        };
        self.operations.push(PatchOperation::Replace(operation));
    }
}

/// Whether a member of this value says no more than its absence.
fn is_default(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(elements) => elements.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Whether two numbers are one: `2` and `2.0` are, `1` and `1.5` are not.
fn same_number(a: &Number, b: &Number) -> bool {
    a == b || (a.is_f64() != b.is_f64() && a.as_f64() == b.as_f64())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::same(json!({"a": 1}), json!({"a": 1}), json!([]))]
    #[case::null_added(json!({}), json!({"a": null}), json!([]))]
    #[case::null_left_out(json!({"a": null}), json!({}), json!([]))]
    #[case::null_deep_in_a_list(json!({"l": [{"a": 1}]}), json!({"l": [{"a": 1, "b": null}]}), json!([]))]
    #[case::defaults_written_out(json!({}), json!({"a": false, "b": [], "c": {}}), json!([]))]
    #[case::set_to_false(json!({"a": true}), json!({"a": false}), json!([{"op": "replace", "path": "/a", "value": false}]))]
    #[case::emptied(json!({"a": [1]}), json!({"a": []}), json!([{"op": "remove", "path": "/a/0"}]))]
    #[case::true_added(json!({}), json!({"a": true}), json!([{"op": "add", "path": "/a", "value": true}]))]
    #[case::number_rewritten(json!({"a": 2}), json!({"a": 2.0}), json!([]))]
    #[case::set_to_null(json!({"a": 1}), json!({"a": null}), json!([{"op": "replace", "path": "/a", "value": null}]))]
    #[case::removed(json!({"a": 1}), json!({}), json!([{"op": "remove", "path": "/a"}]))]
    #[case::escaped(json!({}), json!({"a/b~c": 1}), json!([{"op": "add", "path": "/a~1b~0c", "value": 1}]))]
    #[case::appended(json!({"l": [1]}), json!({"l": [1, 2]}), json!([{"op": "add", "path": "/l/-", "value": 2}]))]
    #[case::inserted(json!({"l": [1, 3]}), json!({"l": [1, 2, 3]}), json!([{"op": "add", "path": "/l/1", "value": 2}]))]
    #[case::taken_out(json!({"l": [1, 2, 3]}), json!({"l": [1, 3]}), json!([{"op": "remove", "path": "/l/1"}]))]
    fn a_reserialized_spec_differs_only_where_it_was_changed(
        #[case] before: Value,
        #[case] after: Value,
        #[case] expected: Value,
    ) {
        let patch = diff(&before, &after, Compare::Reserialized);
        assert_eq!(serde_json::to_value(patch).unwrap(), expected);
    }

    #[test]
    fn a_patch_that_does_not_apply_says_which_operation_and_where() {
        let patch: Vec<PatchOperation> =
            serde_json::from_value(json!([{"op": "replace", "path": "/b/c", "value": 1}])).unwrap();
        let error = apply(&json!({"a": 1}), &patch).unwrap_err();
        assert!(error.starts_with("operation 0 at /b/c"), "{error}");
    }

    #[test]
    fn a_patch_may_not_replace_the_spec_with_something_else() {
        let patch: Vec<PatchOperation> =
            serde_json::from_value(json!([{"op": "replace", "path": "", "value": [1]}])).unwrap();
        assert!(apply(&json!({"a": 1}), &patch).is_err());
    }
}
