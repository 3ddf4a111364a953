//! Patches made at once on one spec, merged into one result.
//!
//! Two patches conflict when one writes at, above or below a place that the other writes with
//! another result. Appends to one array do not conflict: each plugin's elements follow in the
//! order of the chain.

use std::collections::{HashMap, HashSet};
use std::iter;

use indexmap::IndexSet;
use json_patch::PatchOperation;
use json_patch::jsonptr::{Pointer, PointerBuf, Token};
use serde_json::Value;

use super::patch::{equal, written};

/// One plugin's part of a merge.
#[derive(Clone, Debug)]
pub struct Contribution {
    writes: Vec<Write>,
    /// The spec as this plugin alone would leave it.
    result: Value,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
        let all: IndexSet<Write> = patch
            .iter()
            .flat_map(|operation| {
                written(operation).map(move |path| Write::of(operation, path, base))
            })
            .collect();
        let places: HashSet<&Pointer> = all.iter().filter_map(Write::at).collect();
        let part_of_another = |write: &Write| match write {
            Write::At(path) => above(path).any(|place| places.contains(place)),
            Write::Append(array) => at_or_above(array).any(|place| places.contains(place)),
        };
        let writes = all.iter().filter(|write| !part_of_another(write));
        Self {
            writes: writes.cloned().collect(),
            result,
        }
    }

    /// The first place about which the two disagree.
    fn disagreement<'a>(&'a self, other: &'a Self, base: &Value) -> Option<&'a Pointer> {
        let places: HashSet<&Pointer> = self.writes.iter().map(Write::place).collect();
        let (mut at, mut below) = (Places::new(), Places::new());
        for write in &other.writes {
            at.entry(write.place()).or_default().push(write);
            for place in above(write.place()).filter(|place| places.contains(place)) {
                below.entry(place).or_default().push(write);
            }
        }
        let mut compared = HashSet::new();
        for own in &self.writes {
            let below = below.get(own.place());
            let near = at_or_above(own.place()).filter_map(|place| at.get(place));
            for write in near.chain(below).flatten() {
                let Some(place) = overlap(own, write, base) else {
                    continue;
                };
                if compared.insert(place) && !self.agrees(other, place) {
                    return Some(place);
                }
            }
        }
        None
    }

    fn agrees(&self, other: &Self, place: &Pointer) -> bool {
        match (place.resolve(&self.result), place.resolve(&other.result)) {
            (Ok(own), Ok(others)) => equal(own, others),
            (own, others) => own.is_err() && others.is_err(),
        }
    }
}

/// Writes by a place that they have to do with.
type Places<'w> = HashMap<&'w Pointer, Vec<&'w Write>>;

/// The places that enclose one, the nearest first.
fn above(place: &Pointer) -> impl Iterator<Item = &Pointer> {
    iter::successors(place.parent(), |place| place.parent())
}

fn at_or_above(place: &Pointer) -> impl Iterator<Item = &Pointer> {
    iter::once(place).chain(above(place))
}

impl Write {
    /// What an operation writes at one of its paths. Whatever it does beyond the end of an array
    /// of `base` is part of appending. At an index within, all but `replace` moves the neighbours.
    fn of(operation: &PatchOperation, path: &Pointer, base: &Value) -> Self {
        let moves = !matches!(operation, PatchOperation::Replace(_));
        let mut place = PointerBuf::root();
        for token in path.tokens() {
            if let Ok(Value::Array(elements)) = place.resolve(base) {
                if index(&token).is_none_or(|index| index >= elements.len()) {
                    return Write::Append(place);
                }
                if moves && path.parent() == Some(place.as_ptr()) {
                    return Write::At(place);
                }
            }
            place.push_back(token);
        }
        Write::At(place)
    }

    fn place(&self) -> &Pointer {
        match self {
            Write::At(place) | Write::Append(place) => place,
        }
    }

    /// The place that is written as a whole.
    fn at(&self) -> Option<&Pointer> {
        match self {
            Write::At(place) => Some(place),
            Write::Append(_) => None,
        }
    }
}

/// The place to compare two writes at, when they are not beside each other.
fn overlap<'w>(a: &'w Write, b: &'w Write, base: &Value) -> Option<&'w Pointer> {
    let (upper, lower) = match (a, b) {
        (Write::Append(_), Write::Append(_)) => return None,
        // An element's own place is beside the end of its array.
        (Write::Append(array), Write::At(path)) | (Write::At(path), Write::Append(array)) => {
            (path, array)
        }
        (Write::At(a), Write::At(b)) if a.len() <= b.len() => (a, b),
        (Write::At(a), Write::At(b)) => (b, a),
    };
    lower
        .starts_with(upper)
        .then(|| comparable(upper, lower, base))
}

/// The deeper of two places, unless an array between them was written as a whole: an index within
/// then means one element to one patch and another to the other, so the array is what to compare.
fn comparable<'w>(upper: &Pointer, lower: &'w Pointer, base: &Value) -> &'w Pointer {
    above(lower)
        .take_while(|place| place.len() >= upper.len())
        .filter(|place| matches!(place.resolve(base), Ok(Value::Array(_))))
        .last()
        .unwrap_or(lower)
}

/// Merges contributions to `base` none of which may disagree with another.
///
/// # Errors
/// The first two that do.
pub fn merge(base: &Value, contributions: &[Contribution]) -> Result<Value, Conflict> {
    for (second, later) in contributions.iter().enumerate() {
        for (first, earlier) in contributions[..second].iter().enumerate() {
            if let Some(path) = earlier.disagreement(later, base) {
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
    let mut earlier: Vec<(&Contribution, HashSet<&Pointer>)> = Vec::new();
    for contribution in contributions {
        let result = &contribution.result;
        for write in &contribution.writes {
            let array_above = array_written(&earlier, write.place(), base);
            match (write, array_above) {
                (Write::At(path), None) => put(&mut merged, path, result),
                (Write::Append(array), None) => {
                    let has_it = |(earlier, places): &(&Contribution, HashSet<&Pointer>)| {
                        at_or_above(array).any(|place| places.contains(place))
                            && earlier.agrees(contribution, array)
                    };
                    if !earlier.iter().any(has_it) {
                        append(&mut merged, array, base, result);
                    }
                }
                (_, Some(array)) => put(&mut merged, array, result),
            }
        }
        let places = contribution.writes.iter().filter_map(Write::at).collect();
        earlier.push((contribution, places));
    }
    merged
}

/// The array above `place` that an earlier contribution wrote as a whole, so that an index below
/// no longer means the element that it meant in `base`.
fn array_written<'w>(
    earlier: &[(&Contribution, HashSet<&Pointer>)],
    place: &'w Pointer,
    base: &Value,
) -> Option<&'w Pointer> {
    let is_written = |upper: &&Pointer| earlier.iter().any(|(_, places)| places.contains(upper));
    at_or_above(place)
        .filter(is_written)
        .map(|upper| comparable(upper, place, base))
        .filter(|array| *array != place)
        .min_by_key(|array| array.len())
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
        // What is gone with its parent needs no removing.
        (_, None) => {}
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
mod tests;
