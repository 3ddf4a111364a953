//! Regular expressions: CEL's `matches`, and `find` and `findAll` as Kubernetes has them.
//!
//! A pattern that is known when the policy is compiled is made then, once. One that is only
//! known while evaluating may be the user's, so it is small and paid for, and never repeated in
//! an error.

use std::any::Any;

use ::cel::common::types::{CelBool, CelInt, CelList, CelString, Type};
use ::cel::common::value::{StaticVal, Val};
use ::cel::{DeclarationError, Env, ExecutionError, add_member_overload, add_overload};
use regex::Regex;

use super::super::meter::{self, Meter};

/// The largest regular expression that may be made while evaluating, as `regex` counts bytes.
const SIZE: usize = 256 * 1024;

/// The longest one, in bytes.
const LENGTH: usize = 1024;

/// Units for making a regular expression while evaluating.
const COST: u64 = 4_000;

pub(super) fn library(env: &mut Env) -> Result<(), DeclarationError> {
    add_overload!(env, fn matches_known: (CelString, Pattern) -> CelBool, name = "@regex")?;
    add_overload!(env, fn matches: (CelString, CelString, Meter) -> Result<CelBool>, name = "@matches")?;
    add_member_overload!(env, fn find_known: (CelString, Pattern, Meter) -> Result<CelString>, name = "find")?;
    add_member_overload!(env, fn find: (CelString, CelString, Meter) -> Result<CelString>)?;
    add_member_overload!(env, fn find_all_known: (CelString, Pattern, Meter) -> Result<CelList>, name = "findAll")?;
    add_member_overload!(env, fn find_all: (CelString, CelString, Meter) -> Result<CelList>)?;
    add_member_overload!(env, fn find_some_known: (CelString, Pattern, CelInt, Meter) -> Result<CelList>, name = "findAll")?;
    add_member_overload!(env, fn find_some: (CelString, CelString, CelInt, Meter) -> Result<CelList>, name = "findAll")?;
    Ok(())
}

static PATTERN: Type = Type::new_unspecified_type("@regex");

/// A regular expression made when the policy was compiled.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(pub(crate) Regex);

impl Val for Pattern {
    fn get_type(&self) -> &Type {
        &PATTERN
    }

    fn cel_type() -> &'static Type {
        &PATTERN
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Pattern {}

fn matches_known(text: &CelString<'_>, pattern: &Pattern) -> CelBool {
    pattern.0.is_match(text.inner()).into()
}

fn matches(
    text: &CelString<'_>,
    pattern: &CelString<'_>,
    meter: &Meter,
) -> Result<CelBool, ExecutionError> {
    meter.pay(meter::text(text.len()))?;
    if let Some(regex) = meter.known(pattern.inner()) {
        return Ok(regex.is_match(text.inner()).into());
    }
    let regex = made("matches", pattern.inner(), meter)?;
    Ok(regex.is_match(text.inner()).into())
}

/// The regular expression of a pattern that is only known now.
fn made(function: &str, pattern: &str, meter: &Meter) -> Result<Regex, ExecutionError> {
    meter.pay(COST + meter::text(pattern.len()))?;
    let wrong = |reason| ExecutionError::function_error(function, reason);
    if pattern.len() > LENGTH {
        return Err(wrong("the pattern is too long"));
    }
    let regex = regex::RegexBuilder::new(pattern).size_limit(SIZE).build();
    regex.map_err(|error| {
        wrong(match error {
            regex::Error::CompiledTooBig(_) => "the pattern is too large",
            _ => "the pattern is not a valid regular expression",
        })
    })
}

fn find_known(
    text: &CelString<'_>,
    pattern: &Pattern,
    meter: &Meter,
) -> Result<CelString<'static>, ExecutionError> {
    first(&pattern.0, text.inner(), meter)
}

fn find(
    text: &CelString<'_>,
    pattern: &CelString<'_>,
    meter: &Meter,
) -> Result<CelString<'static>, ExecutionError> {
    first(&made("find", pattern.inner(), meter)?, text.inner(), meter)
}

/// The first match, or `""`.
fn first(regex: &Regex, text: &str, meter: &Meter) -> Result<CelString<'static>, ExecutionError> {
    meter.pay(meter::text(text.len()))?;
    let found = regex.find(text).map_or("", |found| found.as_str());
    Ok(found.to_owned().into())
}

fn find_all_known(
    text: &CelString<'_>,
    pattern: &Pattern,
    meter: &Meter,
) -> Result<CelList<'static>, ExecutionError> {
    all(&pattern.0, text.inner(), -1, meter)
}

fn find_all(
    text: &CelString<'_>,
    pattern: &CelString<'_>,
    meter: &Meter,
) -> Result<CelList<'static>, ExecutionError> {
    let regex = made("findAll", pattern.inner(), meter)?;
    all(&regex, text.inner(), -1, meter)
}

fn find_some_known(
    text: &CelString<'_>,
    pattern: &Pattern,
    limit: &CelInt,
    meter: &Meter,
) -> Result<CelList<'static>, ExecutionError> {
    all(&pattern.0, text.inner(), *limit.inner(), meter)
}

fn find_some(
    text: &CelString<'_>,
    pattern: &CelString<'_>,
    limit: &CelInt,
    meter: &Meter,
) -> Result<CelList<'static>, ExecutionError> {
    let regex = made("findAll", pattern.inner(), meter)?;
    all(&regex, text.inner(), *limit.inner(), meter)
}

/// The matches, at most `limit` of them unless that is negative. Looking for each may read the
/// rest of the text, so each pays for that.
fn all(
    regex: &Regex,
    text: &str,
    limit: i64,
    meter: &Meter,
) -> Result<CelList<'static>, ExecutionError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut matches = regex.find_iter(text);
    let mut found: Vec<Box<dyn Val>> = Vec::new();
    let mut end = 0;
    while found.len() < limit {
        meter.pay(meter::text(text.len() - end))?;
        let Some(next) = matches.next() else {
            break;
        };
        end = next.end();
        found.push(Box::new(CelString::from(next.as_str().to_owned())));
    }
    Ok(found.into())
}
