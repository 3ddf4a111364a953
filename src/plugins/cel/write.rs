//! The operations that bring a value to its place in a spec.
//!
//! Each is made only where it changes something. Plain functions over JSON: no expression is
//! evaluated here.

use json_patch::jsonptr::index::Index;
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
            (Value::Array(_), Some(_)) if last => return Ok(Some(replace(place, value))),
            (Value::Object(_), _) if last => return Ok(Some(add(place, value))),
            (Value::Object(_), None | Some(Value::Null)) => {
                let value = nested(tokens, value, &place)?;
                return Ok(Some(add(place, value)));
            }
            (Value::Array(_), Some(Value::Null)) => {
                let value = nested(tokens, value, &place)?;
                return Ok(Some(replace(place, value)));
            }
            (Value::Object(_) | Value::Array(_), Some(there)) => parent = there,
            (Value::Array(items), None) if last && token.to_index() == Ok(items.len().into()) => {
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
        // A number names an element of a list, and a list cannot be made up.
        if let Ok(index) = token.to_index() {
            return Err(format!("{place} is not set, so it has no element {index}"));
        }
        let key = token.decoded().into_owned();
        Ok(Value::Object(Map::from_iter([(key, value)])))
    })
}

fn child<'a>(parent: &'a Value, token: &Token<'_>) -> Option<&'a Value> {
    match parent {
        Value::Object(members) => members.get(token.decoded().as_ref()),
        Value::Array(items) => match token.to_index() {
            Ok(Index::Num(index)) => items.get(index),
            _ => None,
        },
        _ => None,
    }
}

/// Writes members into the object at `path`: one operation for each that is not there already.
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

/// Appends to the list at `path` those of `values` that it does not hold.
pub(super) fn add_to_set(
    spec: &Value,
    path: &Pointer,
    values: Vec<Value>,
) -> Result<Vec<PatchOperation>, String> {
    let there = match path.resolve(spec) {
        Ok(Value::Array(items)) => Some(items),
        Ok(Value::Null) | Err(_) => None,
        Ok(other) => {
            let kind = json_type(other);
            return Err(format!("{path} is {kind}, so nothing can be added to it"));
        }
    };
    let mut missing: Vec<Value> = Vec::new();
    for value in values {
        let mut held = there.into_iter().flatten().chain(&missing);
        if !held.any(|held| same_json(held, &value)) {
            missing.push(value);
        }
    }
    if there.is_some() {
        let end = path.with_trailing_token("-");
        return Ok(missing
            .into_iter()
            .map(|value| add(end.clone(), value))
            .collect());
    }
    match missing.is_empty() {
        true => Ok(Vec::new()),
        false => set(spec, path, Value::Array(missing)).map(Vec::from_iter),
    }
}

/// Takes what is at `path` away, if anything is.
pub(super) fn remove(spec: &Value, path: &Pointer) -> Vec<PatchOperation> {
    let path = path.to_buf();
    let there = path.resolve(spec).is_ok();
    Vec::from_iter(there.then_some(PatchOperation::Remove(RemoveOperation { path })))
}

/// Whether an operation of RFC 6902 would leave the spec as it is.
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

fn replace(path: PointerBuf, value: Value) -> PatchOperation {
    PatchOperation::Replace(ReplaceOperation { path, value })
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

/// A JSON type as a person calls it.
pub(super) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a bool",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}
