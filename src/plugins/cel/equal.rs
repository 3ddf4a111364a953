//! Equality of values, wherever they come from.
//!
//! The interpreter's lists and maps know no list or map but their own: `[1] == spec.list` would
//! be false whatever the spec holds. Here lists and maps are compared by what they answer.

use ::cel::ExecutionError;
use ::cel::common::types::{CelOptional, CelString, Kind};
use ::cel::common::value::Val;

use super::meter::{self, Meter};

/// Whether two values are equal as CEL has it: numbers by value, lists and maps by their
/// elements.
pub(super) fn same(a: &dyn Val, b: &dyn Val) -> bool {
    // Without a meter nothing can fail.
    compare(a, b, None).unwrap_or(false)
}

/// [`same`], each step paid for.
///
/// # Errors
/// When the meter has not enough left.
pub(super) fn metered_same(
    a: &dyn Val,
    b: &dyn Val,
    meter: &Meter,
) -> Result<bool, ExecutionError> {
    compare(a, b, Some(meter))
}

fn compare(a: &dyn Val, b: &dyn Val, meter: Option<&Meter>) -> Result<bool, ExecutionError> {
    if let Some(meter) = meter {
        meter.pay(cost(a, b))?;
    }
    match (a.get_type().kind(), b.get_type().kind()) {
        (Kind::List, Kind::List) => compare_lists(a, b, meter),
        (Kind::Map, Kind::Map) => compare_maps(a, b, meter),
        (Kind::List | Kind::Map, _) | (_, Kind::List | Kind::Map) => Ok(false),
        _ => match (held(a), held(b)) {
            (Some(a), Some(b)) => compare(a, b, meter),
            _ => Ok(a.equals(b)),
        },
    }
}

/// Strings of different lengths are told apart without reading them.
fn cost(a: &dyn Val, b: &dyn Val) -> u64 {
    let strings = a
        .downcast_ref::<CelString>()
        .zip(b.downcast_ref::<CelString>());
    match strings {
        Some((a, b)) if a.len() == b.len() => meter::text(a.len()),
        Some(_) => 1,
        None => 1 + meter::elements(a).min(meter::elements(b)),
    }
}

/// What an optional holds.
fn held<'b, 'v>(val: &'b (dyn Val + 'v)) -> Option<&'b (dyn Val + 'v)> {
    val.downcast_ref::<CelOptional>()
        .and_then(CelOptional::option)
}

fn compare_lists(a: &dyn Val, b: &dyn Val, meter: Option<&Meter>) -> Result<bool, ExecutionError> {
    if meter::elements(a) != meter::elements(b) {
        return Ok(false);
    }
    let (Some(a), Some(b)) = (a.as_iterable(), b.as_iterable()) else {
        return Ok(false);
    };
    let (mut a, mut b) = (a.iter(), b.iter());
    while let (Some(a), Some(b)) = (a.next(), b.next()) {
        if !compare(a, b, meter)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn compare_maps(a: &dyn Val, b: &dyn Val, meter: Option<&Meter>) -> Result<bool, ExecutionError> {
    if meter::elements(a) != meter::elements(b) {
        return Ok(false);
    }
    let (Some(keys), Some(a), Some(b)) = (a.as_iterable(), a.as_indexer(), b.as_indexer()) else {
        return Ok(false);
    };
    let mut keys = keys.iter();
    while let Some(key) = keys.next() {
        let (Ok(a), Ok(b)) = (a.get(key), b.get(key)) else {
            return Ok(false);
        };
        if !compare(a.as_ref(), b.as_ref(), meter)? {
            return Ok(false);
        }
    }
    Ok(true)
}
