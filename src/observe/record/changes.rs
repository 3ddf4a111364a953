//! Which fields differ between two specs, so that a record tells where each value came from.

use serde_json::{Map, Value};

use crate::admission::secrets::Path;

/// One field that differs. What is absent on a side is `None`, which null is not.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Difference<'v> {
    /// A JSON Pointer.
    pub path: String,
    pub was: Option<&'v Value>,
    pub now: Option<&'v Value>,
}

/// The smallest fields that differ. Maps are looked into, and lists of the same length are; another
/// list is one field.
pub(super) fn between<'v>(before: &'v Value, after: &'v Value) -> Vec<Difference<'v>> {
    let mut found = Vec::new();
    walk(&Path::at(""), before, after, &mut found);
    found
}

fn walk<'v>(path: &Path<'_>, before: &'v Value, after: &'v Value, found: &mut Vec<Difference<'v>>) {
    match (before, after) {
        (Value::Object(was), Value::Object(now)) => members(path, was, now, found),
        (Value::Array(was), Value::Array(now)) if was.len() == now.len() => {
            for (index, (old, new)) in was.iter().zip(now).enumerate() {
                walk(&path.element(index), old, new, found);
            }
        }
        _ if before == after => {}
        _ => found.push(difference(path, Some(before), Some(after))),
    }
}

fn members<'v>(
    path: &Path<'_>,
    was: &'v Map<String, Value>,
    now: &'v Map<String, Value>,
    found: &mut Vec<Difference<'v>>,
) {
    // Mostly a patch keeps the order of members, and then none has to be looked up.
    let mut in_order = now.iter();
    for (key, old) in was {
        let path = path.member(key);
        let next = in_order.next().filter(|(other, _)| *other == key);
        match next.map(|(_, new)| new).or_else(|| now.get(key)) {
            Some(new) => walk(&path, old, new, found),
            None => found.push(difference(&path, Some(old), None)),
        }
    }
    let mut in_order = was.keys();
    for (key, new) in now {
        if in_order.next() != Some(key) && !was.contains_key(key) {
            found.push(difference(&path.member(key), None, Some(new)));
        }
    }
}

fn difference<'v>(
    path: &Path<'_>,
    was: Option<&'v Value>,
    now: Option<&'v Value>,
) -> Difference<'v> {
    Difference {
        path: path.pointer(),
        was,
        now,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::same(json!({"a": [1]}), json!({"a": [1]}), &[])]
    #[case::null_is_not_absent(json!({"a": null}), json!({"b": null}), &["/a null -> -", "/b - -> null"])]
    #[case::deep(json!({"a": {"b/c": 1, "d": 2}}), json!({"a": {"b/c": 3, "d": 2}}), &["/a/b~1c 1 -> 3"])]
    #[case::in_a_list(json!([{"a": 1}, 2]), json!([{"a": 5}, 2]), &["/0/a 1 -> 5"])]
    #[case::longer_list(json!({"l": [1]}), json!({"l": [1, 2]}), &["/l [1] -> [1,2]"])]
    #[case::another_type(json!({"a": {"b": 1}}), json!({"a": "x"}), &["/a {\"b\":1} -> \"x\""])]
    fn each_field_that_differs_is_told(
        #[case] before: Value,
        #[case] after: Value,
        #[case] expected: &[&str],
    ) {
        let shown = |value: Option<&Value>| value.map_or("-".to_owned(), Value::to_string);
        let told = between(&before, &after);
        let told: Vec<_> = told
            .iter()
            .map(|field| {
                format!(
                    "{} {} -> {}",
                    field.path,
                    shown(field.was),
                    shown(field.now)
                )
            })
            .collect();
        assert_eq!(told, expected);
    }
}
