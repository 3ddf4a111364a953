//! Which fields differ between two specs, so that a record tells where each value came from.

use serde_json::Value;

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
    walk(&mut String::new(), before, after, &mut found);
    found
}

fn walk<'v>(
    path: &mut String,
    before: &'v Value,
    after: &'v Value,
    found: &mut Vec<Difference<'v>>,
) {
    let length = path.len();
    match (before, after) {
        (Value::Object(was), Value::Object(now)) => {
            for (key, old) in was {
                step(path, key);
                match now.get(key) {
                    Some(new) => walk(path, old, new, found),
                    None => found.push(difference(path, Some(old), None)),
                }
                path.truncate(length);
            }
            for (key, new) in now.iter().filter(|(key, _)| !was.contains_key(*key)) {
                step(path, key);
                found.push(difference(path, None, Some(new)));
                path.truncate(length);
            }
        }
        (Value::Array(was), Value::Array(now)) if was.len() == now.len() => {
            for (index, (old, new)) in was.iter().zip(now).enumerate() {
                step(path, &index.to_string());
                walk(path, old, new, found);
                path.truncate(length);
            }
        }
        _ if before == after => {}
        _ => found.push(difference(path, Some(before), Some(after))),
    }
}

fn difference<'v>(path: &str, was: Option<&'v Value>, now: Option<&'v Value>) -> Difference<'v> {
    Difference {
        path: path.to_owned(),
        was,
        now,
    }
}

fn step(path: &mut String, token: &str) {
    path.push('/');
    path.push_str(&token.replace('~', "~0").replace('/', "~1"));
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
