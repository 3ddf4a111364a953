//! A recorded decision beside the one that another configuration makes of the same review. Pure:
//! two decisions in, their difference out.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use clap::ValueEnum;
use json_patch::PatchOperation;
use serde_json::Value;

use crate::admission::decision::{Decision, PartResult};
use crate::admission::patch::{self, Compare};
use crate::admission::review::Kind;
use crate::admission::secrets;
use crate::observe::events::Event;

/// Characters of one message that are kept. Denials may quote whole specs.
const LONGEST_MESSAGE: usize = 2000;
/// How many places of a patch are shown, and how many characters of a value.
const PLACES: usize = 5;
const LONGEST_VALUE: usize = 60;

/// How a review is decided otherwise than it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Change {
    NewlyDenied,
    NewlyAllowed,
    /// Allowed both times, with another spec in the end.
    Patched,
}

/// What came of deciding one review again.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    Same,
    Differs(Box<Difference>),
    NotComparable(Doubt),
    /// Allowed and patched both times, and the record does not say how.
    PatchUnknown,
}

/// One review that is decided otherwise.
#[derive(Debug, PartialEq)]
pub struct Difference {
    pub change: Change,
    pub review: Reviewed,
    /// Who denies now, who denied then, or whose patch is another one.
    pub plugins: Vec<String>,
    /// Those of them who deny now because they fail.
    pub failed: Vec<String>,
    /// Denied now after a plugin that is left out had patched it, so perhaps for want of that patch.
    pub in_doubt: bool,
    /// The denial's reasons, or what is patched otherwise.
    pub message: String,
}

/// Which review this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reviewed {
    pub id: String,
    pub received: SystemTime,
    pub kind: Kind,
    pub name: Option<String>,
    pub user: String,
    pub project: String,
}

/// Why two decisions say nothing about each other.
#[derive(Debug, PartialEq, Eq)]
pub enum Doubt {
    /// These denied it and are left out of the new chain.
    DeniedByLeftOut(Vec<String>),
    /// These patched it and are left out of the new chain.
    PatchedByLeftOut(Vec<String>),
    /// It was denied without asking anybody: too many reviews were in hand, or something broke.
    NotReviewed,
}

impl Difference {
    /// Whether nobody objects, and a failure alone denies.
    pub fn by_failure(&self) -> bool {
        !self.failed.is_empty() && self.failed == self.plugins
    }
}

impl Reviewed {
    pub fn new(event: &Event<'_>, decision: &Decision) -> Self {
        let review = &decision.review;
        let recorded = event.object_ref.name.as_deref();
        Self {
            id: review.id.clone(),
            received: review.received,
            kind: review.kind,
            name: recorded.or(review.name()).map(str::to_owned),
            user: review.user.clone(),
            project: review.project.clone(),
        }
    }
}

/// Holds the new decision against the recorded one. `left_out` are the plugins that the new chain
/// has and that were not asked.
pub fn compare(event: &Event<'_>, decision: &Decision, left_out: &[Arc<str>]) -> Outcome {
    match (event.denied(), decision.allowed()) {
        (true, false) => Outcome::Same,
        (true, true) => newly_allowed(event, decision, left_out),
        (false, false) => newly_denied(event, decision, left_out),
        (false, true) => patched(event, decision, left_out),
    }
}

fn newly_allowed(event: &Event<'_>, decision: &Decision, left_out: &[Arc<str>]) -> Outcome {
    let denying = event.plugins.iter().filter(|part| part.denies());
    let plugins = distinct(denying.map(|part| &*part.name));
    if plugins.is_empty() {
        return Outcome::NotComparable(Doubt::NotReviewed);
    }
    let absent = among(&plugins, left_out);
    if !absent.is_empty() {
        return Outcome::NotComparable(Doubt::DeniedByLeftOut(absent));
    }
    let message = event.response_status.message.as_deref();
    differs(event, decision, Change::NewlyAllowed, plugins, message)
}

fn newly_denied(event: &Event<'_>, decision: &Decision, left_out: &[Arc<str>]) -> Outcome {
    let denying = decision.parts.iter().filter(|part| part.result.denies());
    let failed = denying
        .clone()
        .filter(|part| matches!(part.result, PartResult::Failed(_)));
    Outcome::Differs(Box::new(Difference {
        change: Change::NewlyDenied,
        review: Reviewed::new(event, decision),
        plugins: distinct(denying.map(|part| &*part.plugin)),
        failed: distinct(failed.map(|part| &*part.plugin)),
        in_doubt: !patched_by(event, left_out).is_empty(),
        message: shortened(decision.denial().unwrap_or_default(), LONGEST_MESSAGE),
    }))
}

fn patched(event: &Event<'_>, decision: &Decision, left_out: &[Arc<str>]) -> Outcome {
    let message = match changes(event, decision) {
        Ok(None) => return Outcome::Same,
        Ok(Some(changes)) => changes,
        Err(Unknown) => return Outcome::PatchUnknown,
    };
    let absent = patched_by(event, left_out);
    if !absent.is_empty() {
        return Outcome::NotComparable(Doubt::PatchedByLeftOut(absent));
    }
    let plugins = patching_otherwise(event, decision);
    differs(event, decision, Change::Patched, plugins, Some(&message))
}

fn differs(
    event: &Event<'_>,
    decision: &Decision,
    change: Change,
    plugins: Vec<String>,
    message: Option<&str>,
) -> Outcome {
    Outcome::Differs(Box::new(Difference {
        change,
        review: Reviewed::new(event, decision),
        plugins,
        failed: Vec::new(),
        in_doubt: false,
        message: shortened(message.unwrap_or_default(), LONGEST_MESSAGE),
    }))
}

/// The record does not say what was changed then.
struct Unknown;

/// What another final spec has otherwise than the recorded one, in words; nothing when they are the
/// same. Secrets are redacted in the record, so they are in the new spec too before the two are compared.
fn changes(event: &Event<'_>, decision: &Decision) -> Result<Option<String>, Unknown> {
    let then: &[PatchOperation] = match &event.patch {
        Some(patch) => patch,
        // Nothing it could have been gives the original spec.
        None if &*event.decision == "patched" && decision.patch.is_empty() => {
            return Ok(Some("no longer patched".to_owned()));
        }
        None if &*event.decision == "patched" => return Err(Unknown),
        None => &[],
    };
    if then == decision.patch {
        return Ok(None);
    }
    let original = decision.review.spec.value();
    let mut then = patch::apply(original, then).map_err(|_| Unknown)?;
    let mut now = Value::clone(&decision.spec);
    secrets::redact(&mut then);
    secrets::redact(&mut now);
    let operations = patch::diff(&then, &now, Compare::Exactly);
    if operations.is_empty() {
        return Ok(None);
    }
    let shown = operations.iter().take(PLACES);
    let mut words: Vec<String> = shown.map(|op| change(op, &then).to_string()).collect();
    if operations.len() > PLACES {
        words.push(format!("and {} more", operations.len() - PLACES));
    }
    Ok(Some(words.join("; ")))
}

/// One operation of the difference of two specs: the place, what was there and what is.
fn change<'c>(operation: &'c PatchOperation, then: &'c Value) -> impl fmt::Display + 'c {
    let path = operation.path();
    let was = match operation {
        PatchOperation::Add(_) => None,
        _ => path.resolve(then).ok(),
    };
    let is = match operation {
        PatchOperation::Add(op) => Some(&op.value),
        PatchOperation::Replace(op) => Some(&op.value),
        _ => None,
    };
    let words = |value: Option<&Value>| match value {
        Some(value) => shortened(&value.to_string(), LONGEST_VALUE),
        None => "(absent)".to_owned(),
    };
    format!("{path} {} → {}", words(was), words(is))
}

/// The plugins whose patches are not what they were; all that patch when each one's patch is.
fn patching_otherwise(event: &Event<'_>, decision: &Decision) -> Vec<String> {
    let then = event.plugins.iter().map(|part| &*part.name);
    let now = decision.parts.iter().map(|part| &*part.plugin);
    let names = distinct(then.chain(now));
    let of_then = |name: &str| {
        let parts = event.plugins.iter().filter(|part| &*part.name == name);
        let told = parts.clone().any(|part| &*part.verdict == "patched");
        (told, parts.flat_map(|part| part.patch().to_vec()).collect())
    };
    let of_now = |name: &str| {
        let parts = decision.parts.iter().filter(|part| &*part.plugin == name);
        let mut patch: Vec<_> = parts.flat_map(|part| part.patch.clone()).collect();
        secrets::redact_patch(&mut patch);
        (!patch.is_empty(), patch)
    };
    let otherwise = |name: &&String| of_then(name) != of_now(name);
    let found: Vec<_> = names.iter().filter(otherwise).cloned().collect();
    if found.is_empty() {
        names.into_iter().filter(|name| of_now(name).0).collect()
    } else {
        found
    }
}

/// Those of the plugins left out that patched the review then.
fn patched_by(event: &Event<'_>, left_out: &[Arc<str>]) -> Vec<String> {
    let patching = event.plugins.iter().filter(|p| &*p.verdict == "patched");
    among(&distinct(patching.map(|part| &*part.name)), left_out)
}

fn among(names: &[String], left_out: &[Arc<str>]) -> Vec<String> {
    let is_out = |name: &&String| left_out.iter().any(|out| **out == ***name);
    names.iter().filter(is_out).cloned().collect()
}

fn distinct<'n>(names: impl Iterator<Item = &'n str>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for name in names {
        if found.iter().all(|known| known != name) {
            found.push(name.to_owned());
        }
    }
    found
}

fn shortened(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
