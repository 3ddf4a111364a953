//! Changes to a spec as JSON Patches (RFC 6902): applying one, and finding one between two specs.

mod diff;
mod operations;

use json_patch::PatchOperation;
use json_patch::jsonptr::{Pointer, PointerBuf};
use serde_json::{Number, Value};

pub use diff::{Compare, diff};
pub use operations::Operations;

/// How many operations a patch may have, as in the API server (`maxJSONPatchOperations`).
const MAX_OPERATIONS: usize = 10_000;

/// How many bytes of JSON the `copy` operations of one patch may duplicate, as in the API server
/// (`JSONPatchMaxCopyBytes`): a few dozen copies of a copy would fill any memory.
const MAX_COPIED: usize = 3 * 1024 * 1024;

/// How many values the operations of one patch may move about, elements that others make room for
/// or close up to included: a fraction of a second.
const MAX_MOVED: usize = 50_000_000;

/// How deep a spec may nest: what JSON readers here take, so that a patched spec can be read again.
const MAX_DEPTH: usize = 127;

/// Applies `patch` to a copy of `spec`.
///
/// # Errors
/// In words, with the operation's index and path, when an operation does not apply (RFC 6902,
/// section 5), when the patch is out of all proportion, or when it leaves something that is no object.
pub fn apply(spec: &Value, patch: &[PatchOperation]) -> Result<Value, String> {
    if patch.len() > MAX_OPERATIONS {
        let operations = patch.len();
        return Err(format!(
            "it has {operations} operations, more than {MAX_OPERATIONS}"
        ));
    }
    let mut after = spec.clone();
    let mut spent = Spent::default();
    for (index, operation) in patch.iter().enumerate() {
        step(&mut after, operation, &mut spent).map_err(|why| match operation.path().as_str() {
            "" => format!("operation {index} at the spec itself: {why}"),
            path => format!("operation {index} at {path}: {why}"),
        })?;
    }
    if after.is_object() {
        Ok(after)
    } else {
        Err("the patch leaves no JSON object".to_owned())
    }
}

/// What the operations of a patch have cost so far.
#[derive(Default)]
struct Spent {
    copied: usize,
    moved: usize,
}

/// Applies one operation. When it does not apply, `spec` may be left anyhow.
fn step(spec: &mut Value, operation: &PatchOperation, spent: &mut Spent) -> Result<(), String> {
    let found = |path: &PointerBuf| spec.pointer(path.as_str());
    let incoming = match operation {
        PatchOperation::Test(op) => {
            return match found(&op.path) {
                Some(value) if equal(value, &op.value) => Ok(()),
                Some(_) => Err("value did not match".to_owned()),
                None => Err("path is invalid".to_owned()),
            };
        }
        PatchOperation::Remove(_) => None,
        PatchOperation::Add(op) => Some(&op.value),
        PatchOperation::Replace(op) => Some(&op.value),
        PatchOperation::Move(op) => found(&op.from),
        PatchOperation::Copy(op) => {
            let source = found(&op.from);
            spent.copied += source.map_or(0, |source| source.to_string().len());
            source
        }
    };
    if spent.copied > MAX_COPIED {
        return Err(format!(
            "the patch copies more than {MAX_COPIED} bytes in all"
        ));
    }
    let extent = incoming.map(Extent::of).unwrap_or_default();
    spent.moved += extent.values;
    if !matches!(operation, PatchOperation::Replace(_)) {
        let behind = written(operation).map(|path| behind(spec, path));
        spent.moved += behind.sum::<usize>();
    }
    if spent.moved > MAX_MOVED {
        return Err(format!(
            "the patch moves more than {MAX_MOVED} values in all"
        ));
    }
    if incoming.is_some() && operation.path().count() + extent.levels > MAX_DEPTH {
        return Err(format!(
            "the spec would nest deeper than {MAX_DEPTH} levels"
        ));
    }
    // What is changed is a copy, so nothing has to be undone: the crate's undoing panics where a
    // `move` to a place above its source is to be taken back.
    json_patch::patch_unsafe(spec, std::slice::from_ref(operation)).map_err(|e| e.kind.to_string())
}

/// Whether two values are one by the rule of `test` (RFC 6902, section 4.6): numbers by what they
/// count, so that a plugin which read `8.0` and tests for `8` is right.
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => same_number(a, b),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let same = |(key, a): (&String, &Value)| b.get(key).is_some_and(|b| equal(a, b));
            a.len() == b.len() && a.iter().all(same)
        }
        _ => a == b,
    }
}

/// Whether two values are the same JSON. Members are only looked up where their order differs.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let member = |((key, old), (other, new)): ((&String, &Value), (&String, &Value))| {
                if key == other {
                    return same(old, new);
                }
                b.get(key).is_some_and(|new| same(old, new))
            };
            a.len() == b.len() && a.iter().zip(b).all(member)
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(old, new)| same(old, new))
        }
        _ => a == b,
    }
}

/// How large a value is.
#[derive(Default)]
struct Extent {
    /// It and all that is in it.
    values: usize,
    /// How many arrays and objects enclose the deepest of its parts.
    levels: usize,
}

impl Extent {
    fn of(value: &Value) -> Self {
        match value {
            Value::Array(elements) => Self::around(elements.iter()),
            Value::Object(members) => Self::around(members.values()),
            _ => Self {
                values: 1,
                levels: 0,
            },
        }
    }

    fn around<'v>(parts: impl Iterator<Item = &'v Value>) -> Self {
        parts.map(Self::of).fold(
            Self {
                values: 1,
                levels: 1,
            },
            |all, part| Self {
                values: all.values + part.values,
                levels: all.levels.max(1 + part.levels),
            },
        )
    }
}

/// How many elements of an array stand at a place or behind it, and move when one comes or goes there.
fn behind(spec: &Value, path: &Pointer) -> usize {
    let Some((array, last)) = path.split_back() else {
        return 0;
    };
    let elements = array.resolve(spec).ok().and_then(Value::as_array);
    let index = last.encoded().parse().ok();
    elements
        .zip(index)
        .map_or(0, |(elements, index)| elements.len().saturating_sub(index))
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

/// Whether two numbers are one: `2` and `2.0` are, `1` and `1.5` are not.
fn same_number(a: &Number, b: &Number) -> bool {
    a == b || (a.is_f64() != b.is_f64() && a.as_f64() == b.as_f64())
}

#[cfg(test)]
mod properties;

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
        let error = applied(&json!({"a": 1}), json!([{"op": "remove", "path": ""}])).unwrap_err();
        assert!(
            error.starts_with("operation 0 at the spec itself: "),
            "{error}"
        );
    }

    #[test]
    fn a_patch_may_not_replace_the_spec_with_something_else() {
        assert!(
            applied(
                &json!({"a": 1}),
                json!([{"op": "replace", "path": "", "value": [1]}])
            )
            .is_err()
        );
    }

    fn applied(spec: &Value, patch: Value) -> Result<Value, String> {
        apply(spec, &serde_json::from_value::<Vec<_>>(patch).unwrap())
    }

    #[rstest]
    #[case::integer_for_decimal(json!(8.0), json!(8), true)]
    #[case::decimal_for_integer(json!(8), json!(8.0), true)]
    #[case::deep(json!([{"a": 1.0, "b": null}]), json!([{"b": null, "a": 1}]), true)]
    #[case::minus_zero(json!(-0.0), json!(0), true)]
    #[case::other_number(json!(8.5), json!(8), false)]
    #[case::text_for_number(json!("8"), json!(8), false)]
    #[case::null_for_absent(json!({}), json!({"a": null}), false)]
    #[case::longer_list(json!([1, 2]), json!([1]), false)]
    fn a_test_compares_as_the_rfc_says(
        #[case] is: Value,
        #[case] tested: Value,
        #[case] passes: bool,
    ) {
        let patch = json!([{"op": "test", "path": "/v", "value": tested}]);
        assert_eq!(applied(&json!({"v": is}), patch).is_ok(), passes);
    }

    #[rstest]
    #[case::empty_key(json!({"": {"": 1}}), json!([{"op": "replace", "path": "//", "value": 2}]), json!({"": {"": 2}}))]
    #[case::escaped(json!({"a/b": 1, "a~1b": 2}), json!([{"op": "remove", "path": "/a~1b"}]), json!({"a~1b": 2}))]
    #[case::tilde(json!({"~1": 1}), json!([{"op": "replace", "path": "/~01", "value": 2}]), json!({"~1": 2}))]
    #[case::root(json!({"a": 1}), json!([{"op": "add", "path": "", "value": {"b": 1}}]), json!({"b": 1}))]
    #[case::later_on_earlier(
        json!({"l": [1, 2]}),
        json!([{"op": "remove", "path": "/l/0"}, {"op": "replace", "path": "/l/0", "value": 3}]),
        json!({"l": [3]})
    )]
    #[case::move_up(json!({"a": {"b": 1, "c": 2}}), json!([{"op": "move", "from": "/a/b", "path": "/a"}]), json!({"a": 1}))]
    fn pointers_and_order_are_the_rfcs(
        #[case] before: Value,
        #[case] patch: Value,
        #[case] after: Value,
    ) {
        assert_eq!(applied(&before, patch).unwrap(), after);
    }

    #[rstest]
    #[case::leading_zero(json!([{"op": "replace", "path": "/l/00", "value": 1}]))]
    #[case::beyond_the_end(json!([{"op": "add", "path": "/l/3", "value": 1}]))]
    #[case::remove_after_the_end(json!([{"op": "remove", "path": "/l/-"}]))]
    #[case::absent(json!([{"op": "remove", "path": "/x"}]))]
    #[case::replace_absent(json!([{"op": "replace", "path": "/x", "value": 1}]))]
    #[case::no_parent(json!([{"op": "add", "path": "/x/y", "value": 1}]))]
    #[case::into_itself(json!([{"op": "move", "from": "/o", "path": "/o/a"}]))]
    #[case::move_up_and_fail(
        json!([{"op": "move", "from": "/o/p", "path": "/o"}, {"op": "test", "path": "/o", "value": 0}])
    )]
    fn what_does_not_apply_is_an_error(#[case] patch: Value) {
        assert!(applied(&json!({"l": [1, 2], "o": {"p": {}}}), patch).is_err());
    }

    #[test]
    fn a_patch_of_copies_of_copies_ends_early() {
        let double = json!({"op": "copy", "from": "/a", "path": "/a/-"});
        let error =
            applied(&json!({"a": ["x".repeat(1000)]}), json!(vec![double; 64])).unwrap_err();
        assert!(
            error.contains("the patch copies more than 3145728 bytes"),
            "{error}"
        );
    }

    #[rstest]
    #[case::to_and_fro(
        vec![json!({"op": "move", "from": "/l", "path": "/m"}), json!({"op": "move", "from": "/m", "path": "/l"})]
    )]
    #[case::to_the_front(vec![json!({"op": "move", "from": "/l/99999", "path": "/l/0"})])]
    #[case::in_and_out(
        vec![json!({"op": "add", "path": "/l/0", "value": 1}), json!({"op": "remove", "path": "/l/0"})]
    )]
    fn a_patch_that_moves_much_again_and_again_ends_early(#[case] operations: Vec<Value>) {
        let many = operations.iter().cycle().take(4000).collect::<Vec<_>>();
        let error = applied(&json!({"l": vec![0; 100_000]}), json!(many)).unwrap_err();
        assert!(
            error.contains("the patch moves more than 50000000 values"),
            "{error}"
        );
    }

    #[test]
    fn a_patch_has_at_most_ten_thousand_operations() {
        let test = json!({"op": "test", "path": "/a", "value": 1});
        assert!(applied(&json!({"a": 1}), json!(vec![test.clone(); 10_000])).is_ok());
        assert!(applied(&json!({"a": 1}), json!(vec![test; 10_001])).is_err());
    }

    #[test]
    fn a_patched_spec_nests_no_deeper_than_can_be_read() {
        let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        let add = |levels| json!([{"op": "add", "path": "/a", "value": nested(levels)}]);
        let deepest = applied(&json!({}), add(126)).unwrap();
        assert!(serde_json::from_str::<Value>(&deepest.to_string()).is_ok());
        let too_deep = applied(&json!({}), add(127)).unwrap_err();
        assert!(too_deep.contains("deeper than 127 levels"), "{too_deep}");
        let text = format!("{{\"a\":{}}}", nested(127));
        assert!(serde_json::from_str::<Value>(&text).is_err());
    }
}
