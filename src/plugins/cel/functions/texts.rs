//! `indexOf`, `lastIndexOf` and `split` of strings: what the strings extension means by them, in
//! time that does not grow with the product of the lengths, and paid for.

use ::cel::common::types::{CelInt, CelList, CelString};
use ::cel::common::value::Val;
use ::cel::{DeclarationError, Env, ExecutionError, add_member_overload};

use super::super::meter::{self, Meter};

pub(super) fn library(env: &mut Env) -> Result<(), DeclarationError> {
    add_member_overload!(env, fn index: (CelString, CelString, Meter) -> Result<CelInt>, name = "indexOf")?;
    add_member_overload!(env, fn index_from: (CelString, CelString, CelInt, Meter) -> Result<CelInt>, name = "indexOf")?;
    add_member_overload!(env, fn last_index: (CelString, CelString, Meter) -> Result<CelInt>, name = "lastIndexOf")?;
    add_member_overload!(env, fn last_index_from: (CelString, CelString, CelInt, Meter) -> Result<CelInt>, name = "lastIndexOf")?;
    add_member_overload!(env, fn split: (CelString, CelString, Meter) -> Result<CelList>)?;
    add_member_overload!(env, fn split_some: (CelString, CelString, CelInt, Meter) -> Result<CelList>, name = "split")?;
    Ok(())
}

fn index(
    text: &CelString<'_>,
    part: &CelString<'_>,
    meter: &Meter,
) -> Result<CelInt, ExecutionError> {
    meter.pay(meter::text(text.len()))?;
    Ok(characters(text.inner(), text.find(part.inner())).into())
}

fn index_from(
    text: &CelString<'_>,
    part: &CelString<'_>,
    from: &CelInt,
    meter: &Meter,
) -> Result<CelInt, ExecutionError> {
    meter.pay(meter::text(text.len()))?;
    let start = offset("indexOf", text.inner(), part.inner(), *from.inner())?;
    let rest = text.get(start..).unwrap_or_default();
    let found = rest.find(part.inner()).map(|found| start + found);
    Ok(characters(text.inner(), found).into())
}

fn last_index(
    text: &CelString<'_>,
    part: &CelString<'_>,
    meter: &Meter,
) -> Result<CelInt, ExecutionError> {
    meter.pay(meter::text(text.len()))?;
    Ok(characters(text.inner(), text.rfind(part.inner())).into())
}

/// The last place that is not after the character at `from`.
fn last_index_from(
    text: &CelString<'_>,
    part: &CelString<'_>,
    from: &CelInt,
    meter: &Meter,
) -> Result<CelInt, ExecutionError> {
    meter.pay(meter::text(text.len()))?;
    let start = offset("lastIndexOf", text.inner(), part.inner(), *from.inner())?;
    // What begins at `start` ends at most the part's length after it; a character may be cut.
    let mut end = start.saturating_add(part.len()).min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let found = text.get(..end).unwrap_or_default().rfind(part.inner());
    Ok(characters(text.inner(), found).into())
}

/// The byte at which the character of an index begins.
fn offset(function: &str, text: &str, part: &str, index: i64) -> Result<usize, ExecutionError> {
    let place = usize::try_from(index)
        .ok()
        .and_then(|index| text.char_indices().nth(index));
    match place {
        Some((start, _)) => Ok(start),
        None if index >= 0 && part.is_empty() => Ok(text.len()),
        None => Err(ExecutionError::function_error(
            function,
            format!("index out of range: {index}"),
        )),
    }
}

/// A byte's place in characters, -1 for none.
fn characters(text: &str, byte: Option<usize>) -> i64 {
    let before = byte.and_then(|byte| text.get(..byte));
    before.map_or(-1, |before| {
        i64::try_from(before.chars().count()).unwrap_or(i64::MAX)
    })
}

fn split(
    text: &CelString<'_>,
    separator: &CelString<'_>,
    meter: &Meter,
) -> Result<CelList<'static>, ExecutionError> {
    split_some(text, separator, &CelInt::from(-1), meter)
}

/// At most `limit` parts unless that is negative, the last with what is left. Nothing as a
/// separator parts every character.
fn split_some(
    text: &CelString<'_>,
    separator: &CelString<'_>,
    limit: &CelInt,
    meter: &Meter,
) -> Result<CelList<'static>, ExecutionError> {
    meter.pay(meter::text(text.len()))?;
    let limit = usize::try_from(*limit.inner()).unwrap_or(usize::MAX);
    let mut parts: Vec<Box<dyn Val>> = Vec::new();
    let mut rest = Some(text.inner()).filter(|text| !text.is_empty() || !separator.is_empty());
    while let Some(text) = rest.filter(|_| parts.len() < limit) {
        meter.pay(1)?;
        let last = parts.len() + 1 == limit;
        let end = match separator.inner() {
            "" => text.chars().next().map(char::len_utf8),
            separator => text.find(separator),
        };
        let (part, after) = match end.filter(|_| !last) {
            Some(end) => (&text[..end], text.get(end + separator.len()..)),
            None => (text, None),
        };
        parts.push(Box::new(CelString::from(part.to_owned())));
        rest = after.filter(|after| !after.is_empty() || !separator.is_empty());
    }
    Ok(parts.into())
}
