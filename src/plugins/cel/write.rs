//! The operations that bring a value to its place in a spec.
//!
//! Each is made only where it changes something. Plain functions over JSON: no expression is
//! evaluated here.

use json_patch::jsonptr::{Pointer, PointerBuf, Token};
use json_patch::{AddOperation, PatchOperation, RemoveOperation, ReplaceOperation};
use serde_json::{Map, Value};

/// Writes `value` at `path`: one operation, or none if it is there already.
pub(super) fn set(
    spec: &Value,
    path: &Pointer,
    value: Value,
) -> Result<Option<PatchOperation>, String> {
    let mut parent = spec;
    let mut walked = PointerBuf::new();
    let mut tokens = path.tokens().peekable();
    while let Some(token) = tokens.next() {
        let last = tokens.peek().is_none();
        let place = walked.with_trailing_token(token.clone());
        let child = child(parent, &token);
        match (parent, child) {
            (_, Some(there)) if last && same_json(there, &value) => return Ok(None),
            (Value::Array(_), Some(_)) if last => {
                let path = place;
                return Ok(Some(PatchOperation::Replace(ReplaceOperation {
                    path,
                    value,
                })));
            }
            (Value::Object(_), _) if last => return Ok(Some(add(place, value))),
            (Value::Object(_), None | Some(Value::Null)) => {
                let value = nested(tokens, value, &place)?;
                return Ok(Some(add(place, value)));
            }
            (Value::Object(_) | Value::Array(_), Some(there)) => parent = there,
            (Value::Array(items), None) if last && appends(&token, items.len()) => {
                return Ok(Some(add(place, value)));
            }
            (Value::Array(_), None) => {
                return Err(format!("there is no {place} to write to"));
            }
            _ => {
                let kind = json_type(parent);
                return Err(format!("{walked} is {kind}, so {path} cannot be written"));
            }
        }
        walked = place;
    }
    Ok(None)
}

/// `value` in as many objects as there are tokens left.
fn nested<'t>(
    tokens: impl Iterator<Item = Token<'t>>,
    value: Value,
    place: &Pointer,
) -> Result<Value, String> {
    let tokens: Vec<Token<'t>> = tokens.collect();
    tokens.into_iter().rev().try_fold(value, |value, token| {
        let key = token.decoded().into_owned();
        // A number names an element of a list, and a list cannot be made up.
        if key == "-" || key.parse::<usize>().is_ok() {
            return Err(format!("{place} is not set, so it has no element {key}"));
        }
        Ok(Value::Object(Map::from_iter([(key, value)])))
    })
}

fn child<'a>(parent: &'a Value, token: &Token<'_>) -> Option<&'a Value> {
    match parent {
        Value::Object(members) => members.get(token.decoded().as_ref()),
        Value::Array(items) => items.get(token.decoded().parse::<usize>().ok()?),
        _ => None,
    }
}

fn appends(token: &Token<'_>, len: usize) -> bool {
    let token = token.decoded();
    token == "-" || token.parse() == Ok(len)
}

pub(super) fn merge(
    spec: &Value,
    path: &Pointer,
    members: Map<String, Value>,
) -> Result<Vec<PatchOperation>, String> {
    match path.resolve(spec) {
        Ok(Value::Object(there)) => {
            let changed = members
                .into_iter()
                .filter(|(key, value)| !there.get(key).is_some_and(|old| same_json(old, value)));
            let add = |(key, value): (String, Value)| add(path.with_trailing_token(key), value);
            Ok(changed.map(add).collect())
        }
        Ok(Value::Null) | Err(_) if members.is_empty() => Ok(Vec::new()),
        Ok(Value::Null) | Err(_) => set(spec, path, Value::Object(members)).map(Vec::from_iter),
        Ok(other) => {
            let kind = json_type(other);
            Err(format!(
                "{path} is {kind}, so nothing can be merged into it"
            ))
        }
    }
}

pub(super) fn remove(spec: &Value, path: &Pointer) -> Vec<PatchOperation> {
    let path = path.to_buf();
    let there = path.resolve(spec).is_ok();
    Vec::from_iter(there.then_some(PatchOperation::Remove(RemoveOperation { path })))
}

pub(super) fn changes_nothing(operation: &PatchOperation, spec: &Value) -> bool {
    let (path, value) = match operation {
        PatchOperation::Add(add) => (&add.path, &add.value),
        PatchOperation::Replace(replace) => (&replace.path, &replace.value),
        _ => return false,
    };
    // Adding to a list inserts, whatever is there.
    let parent = path.parent().and_then(|parent| parent.resolve(spec).ok());
    let inserts =
        matches!(operation, PatchOperation::Add(_)) && parent.is_some_and(Value::is_array);
    !inserts
        && path
            .resolve(spec)
            .is_ok_and(|there| same_json(there, value))
}

fn add(path: PointerBuf, value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path, value })
}

/// Whether two JSON values say the same, 2 and 2.0 included.
fn same_json(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => {
            x == y || x.is_f64() != y.is_f64() && x.as_f64() == y.as_f64()
        }
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same_json(x, y))
        }
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len()
                && x.iter()
                    .all(|(key, x)| y.get(key).is_some_and(|y| same_json(x, y)))
        }
        _ => a == b,
    }
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a bool",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}
