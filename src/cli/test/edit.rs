//! Edits of a spec: values set and taken away by JSON Pointer.

use json_patch::jsonptr::{Pointer, Token};
use serde_json::{Map, Value};

/// Writes `new` at `pointer`. Parents that are absent or null become maps, `-` appends to a list.
///
/// # Errors
/// In words, when the pointer is none or leads through something that holds nothing.
pub fn set(spec: &mut Value, pointer: &str, new: Value) -> Result<(), String> {
    let mut place = spec;
    let mut path = String::new();
    for token in tokens(pointer)? {
        if place.is_null() {
            *place = Value::Object(Map::new());
        }
        let key = token.decoded();
        place = match place {
            Value::Object(members) => members.entry(key).or_insert(Value::Null),
            Value::Array(items) => {
                let length = items.len();
                if key == "-" {
                    items.push(Value::Null);
                }
                let index = if key == "-" {
                    Some(length)
                } else {
                    key.parse().ok()
                };
                let item = index.and_then(|index: usize| items.get_mut(index));
                item.ok_or_else(|| no_item(&path, length, &key))?
            }
            _ => return Err(format!("{path} is neither a map nor a list")),
        };
        path = format!("{path}/{}", token.encoded());
    }
    *place = new;
    Ok(())
}

/// Takes away what is at `pointer`.
///
/// # Errors
/// In words, when the pointer is none or nothing is there.
pub fn remove(spec: &mut Value, pointer: &str) -> Result<(), String> {
    let mut tokens = tokens(pointer)?;
    let nothing = || format!("there is nothing at {pointer}");
    let last = tokens.pop().ok_or_else(nothing)?.decoded().into_owned();
    let parent: String = tokens
        .iter()
        .map(|token| format!("/{}", token.encoded()))
        .collect();
    let removed = match spec.pointer_mut(&parent) {
        // What stays keeps its order.
        Some(Value::Object(members)) => members.shift_remove(&last),
        Some(Value::Array(items)) => {
            let index = last.parse().ok().filter(|index| *index < items.len());
            index.map(|index| items.remove(index))
        }
        _ => None,
    };
    removed.map(drop).ok_or_else(nothing)
}

fn tokens(pointer: &str) -> Result<Vec<Token<'_>>, String> {
    if pointer.is_empty() {
        return Err("the whole spec cannot be edited: name a member of it".to_owned());
    }
    if !pointer.starts_with('/') {
        return Err("not a JSON Pointer: it must start with `/`".to_owned());
    }
    let pointer = Pointer::parse(pointer)
        .map_err(|_| "not a JSON Pointer: `~` is written `~0`, and `/` in a name `~1`")?;
    Ok(pointer.tokens().collect())
}

fn no_item(path: &str, length: usize, key: &str) -> String {
    format!("{path} is a list of {length}, which has no item `{key}`; `-` appends")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn spec() -> Value {
        json!({"configuration": {"image": "a", "tags": null, "groups": [{"n": 1}, {"n": 2}], "a/b": 0}})
    }

    #[rstest]
    #[case::replaced("/configuration/image", "/configuration/image")]
    #[case::added("/configuration/new", "/configuration/new")]
    #[case::in_null("/configuration/tags/team", "/configuration/tags/team")]
    #[case::in_nothing("/profile/tags/team", "/profile/tags/team")]
    #[case::in_an_item("/configuration/groups/1/n", "/configuration/groups/1/n")]
    #[case::appended("/configuration/groups/-", "/configuration/groups/2")]
    #[case::inside_of_what_is_appended("/configuration/groups/-/n", "/configuration/groups/2/n")]
    #[case::escaped("/configuration/a~1b", "/configuration/a~1b")]
    fn a_value_is_set_where_the_pointer_says(#[case] pointer: &str, #[case] found: &str) {
        for value in [json!(7), Value::Null, json!({"x": []})] {
            let mut spec = spec();
            set(&mut spec, pointer, value.clone()).unwrap();
            assert_eq!(spec.pointer(found), Some(&value));
        }
    }

    #[rstest]
    #[case("", "the whole spec")]
    #[case("configuration", "must start with `/`")]
    #[case("/a~b", "`~` is written `~0`")]
    #[case(
        "/configuration/image/x",
        "/configuration/image is neither a map nor a list"
    )]
    #[case(
        "/configuration/groups/2",
        "/configuration/groups is a list of 2, which has no item `2`; `-` appends"
    )]
    #[case("/configuration/groups/x", "no item `x`")]
    fn what_cannot_be_set_is_said(#[case] pointer: &str, #[case] why: &str) {
        let error = set(&mut spec(), pointer, json!(1)).unwrap_err();
        assert!(error.contains(why), "{error}");
    }

    #[rstest]
    #[case("/configuration/image")]
    #[case("/configuration/groups/0")]
    #[case("/configuration/a~1b")]
    #[case("/configuration")]
    fn what_is_there_is_removed(#[case] pointer: &str) {
        let mut left = spec();
        remove(&mut left, pointer).unwrap();
        let found = left.pointer(pointer);
        assert!(
            found.is_none_or(|found| *found == json!({"n": 2})),
            "{left}"
        );
    }

    #[rstest]
    #[case("/configuration/imag")]
    #[case("/configuration/image/x")]
    #[case("/configuration/groups/2")]
    #[case("/configuration/groups/-")]
    #[case("/profile/x")]
    fn nothing_cannot_be_removed(#[case] pointer: &str) {
        let error = remove(&mut spec(), pointer).unwrap_err();
        assert_eq!(error, format!("there is nothing at {pointer}"));
    }
}
