//! `text.globMatches(pattern)` and `text.globMatches(patterns)`: shell globs over whole texts,
//! of which one of several has to match.
//!
//! `*` is any text, `/` included, `?` any character, `[ab]`, `[a-z]` and `[!a]` one of a class,
//! and `\` takes the meaning off the character after it. Case counts. A `[` without its `]` and
//! a leading `!` stand for themselves. Nothing is compiled: patterns may come from anywhere.

// The interpreter hands arguments over by value.
#![allow(clippy::needless_pass_by_value)]

use ::cel::common::types::{CelBool, CelString, LIST_TYPE, STRING_TYPE};
use ::cel::{DeclarationError, Env, ExecutionError, add_member_overload};

use super::super::meter::{self, Meter};
use super::arguments::{Answer, Args, boolean, items, meter_in, mismatch, string};

/// Steps of the matcher for one unit, as measured.
const STEPS: usize = 12;

pub(super) fn library(env: &mut Env) -> Result<(), DeclarationError> {
    add_member_overload!(env, fn glob_matches: (CelString, CelString, Meter) -> Result<CelBool>)?;
    let arguments = vec![LIST_TYPE, Meter::TYPE];
    let id = "string.globMatches(list)";
    env.add_member_overload("globMatches", id, STRING_TYPE, arguments, glob_matches_any)
}

fn glob_matches(
    text: &CelString<'_>,
    pattern: &CelString<'_>,
    meter: &Meter,
) -> Result<CelBool, ExecutionError> {
    matches(pattern.inner(), text.inner(), meter).map(CelBool::from)
}

fn glob_matches_any<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let (Some(text), [_, patterns, meter]) = (string(&args, 0), args.as_slice()) else {
        return Err(mismatch("globMatches", &args));
    };
    let meter = meter_in(meter.as_ref())?;
    meter.pay(meter::elements(patterns.as_ref()))?;
    for pattern in items(patterns.as_ref()) {
        let Some(pattern) = pattern.downcast_ref::<CelString>() else {
            let reason = "the list holds something else than patterns, which are strings";
            return Err(ExecutionError::function_error("globMatches", reason));
        };
        if matches(pattern.inner(), text, meter)? {
            return Ok(boolean(true));
        }
    }
    Ok(boolean(false))
}

/// Whether the whole text matches. Only the last `*` ever takes in more, so that the steps are
/// at most the product of the lengths; each is paid for.
pub(in super::super) fn matches(
    pattern: &str,
    text: &str,
    meter: &Meter,
) -> Result<bool, ExecutionError> {
    let (mut pattern, mut text) = (pattern, text);
    // What follows the last `*`, and the text that it has not taken in.
    let mut star: Option<(&str, &str)> = None;
    let mut steps = 0;
    loop {
        steps += 1;
        if steps >= STEPS {
            meter.pay((steps / STEPS) as u64)?;
            steps = 0;
        }
        if let Some(after) = pattern.strip_prefix('*') {
            if after.is_empty() {
                return Ok(true);
            }
            star = Some((after, text));
            pattern = after;
            continue;
        }
        let Some(next) = text.chars().next() else {
            return Ok(pattern.is_empty());
        };
        if let Some(after) = after_one(pattern, next, &mut steps) {
            pattern = after;
            text = &text[next.len_utf8()..];
            continue;
        }
        let Some((after, left)) = star else {
            return Ok(false);
        };
        let taken = left.chars().next().map_or(0, char::len_utf8);
        text = &left[taken..];
        pattern = after;
        star = Some((after, text));
    }
}

/// The pattern behind its first element, if that stands for the character.
fn after_one<'p>(pattern: &'p str, c: char, steps: &mut usize) -> Option<&'p str> {
    let first = pattern.chars().next()?;
    let after = &pattern[first.len_utf8()..];
    match first {
        '?' => return Some(after),
        '[' => {
            if let Some((inside, after)) = class(after, c, steps) {
                return inside.then_some(after);
            }
        }
        '\\' => {
            if let Some(literal) = after.chars().next() {
                return (literal == c).then(|| &after[literal.len_utf8()..]);
            }
        }
        _ => {}
    }
    (first == c).then_some(after)
}

/// Whether a character is in the class that a text begins with, and what follows its `]`; `None`
/// if it has none.
fn class<'p>(text: &'p str, c: char, steps: &mut usize) -> Option<(bool, &'p str)> {
    let body = text.strip_prefix(['!', '^']).unwrap_or(text);
    let negated = body.len() < text.len();
    // A `]` that comes first is a member.
    let first = body.chars().next().map_or(0, char::len_utf8);
    let end = body.get(first..).and_then(|rest| rest.find(']'));
    *steps += end.unwrap_or(body.len());
    let end = end? + first;
    let mut inside = false;
    let mut members = body[..end].chars().peekable();
    while let Some(low) = members.next() {
        let mut rest = members.clone();
        let range = rest.next().filter(|dash| *dash == '-').and(rest.next());
        let high = range.unwrap_or(low);
        if range.is_some() {
            members = rest;
        }
        inside |= (low..=high).contains(&c);
    }
    Some((inside != negated, &body[end + 1..]))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;

    fn holds(pattern: &str, text: &str) -> bool {
        matches(pattern, text, &Meter::new(1_000_000)).unwrap()
    }

    proptest! {
        #[test]
        fn a_pattern_means_what_globset_means_by_it(pattern in "[ab*?]{0,8}", text in "[ab/]{0,10}") {
            let glob = globset::GlobBuilder::new(&pattern).literal_separator(false).build().unwrap();
            prop_assert_eq!(holds(&pattern, &text), glob.compile_matcher().is_match(&text));
        }

        #[test]
        fn no_pattern_panics(pattern in "\\PC{0,12}|[\\[\\]!^\\\\*?a-]{0,12}", text in "\\PC{0,12}") {
            holds(&pattern, &text);
        }
    }

    #[test]
    fn a_long_match_is_paid_for_and_stopped() {
        let text = "a".repeat(100_000);
        let pattern = format!("*{}b", "a".repeat(50_000));
        let meter = Meter::new(1_000);
        assert!(matches(&pattern, &text, &meter).is_err());
        assert_eq!(meter.left(), 0);
    }

    #[test]
    fn many_stars_are_not_exponential() {
        let text = "a".repeat(2_000);
        let started = Instant::now();
        assert!(!holds(
            &"*a".repeat(30).replace("a*", "a*a*"),
            &(text + "b")
        ));
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }
}
