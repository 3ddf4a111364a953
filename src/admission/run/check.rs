//! The check of the final spec by a plugin that has dstack's own models (`specCheck`), and the search
//! for the plugin whose patch these do not take.
//!
//! A good spec costs one question. When the final one is refused, the one that came and all between are
//! held against the models at once: what they refused from the beginning is nobody's fault, and
//! the culprit is who changed the last spec without the new errors.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Ask, Question, Reply, Round, Run, Step, failed};
use crate::admission::chain::{Mode, OnConflict};
use crate::admission::decision::{Part, PartResult};
use crate::admission::revision::Revision;
use crate::admission::verdict::{Call, Fault, FaultKind, Outcome, Phase, Verdict};

/// How many of the errors are told.
const SHOWN: usize = 5;

/// One change of the spec on its way.
pub(super) struct Changed {
    /// The parts whose patches made it, by index.
    pub parts: Vec<usize>,
    /// How many parts there were after its round.
    pub parts_until: usize,
    pub before: Arc<Revision>,
    /// Where the run went on.
    pub following: Step,
}

/// Where the check stands.
#[derive(Debug)]
pub(super) enum Checking {
    /// The final spec is asked about.
    Final,
    /// It has these errors. All that were before it are asked about.
    Before(BTreeSet<String>),
}

impl<'c, P> Run<'c, P> {
    /// Where a run goes on that the mutating phase denies. Who cannot read a spec may only be the first
    /// to notice that a plugin before broke it.
    pub(super) fn after_denial(&self) -> Step {
        let unreadable = |part: &Part| match &part.result {
            PartResult::Failed(fault) => fault.kind == FaultKind::Unreadable,
            _ => false,
        };
        let denying = || self.parts.iter().filter(|part| part.result.denies());
        match self.is_to_be_checked() && denying().all(unreadable) {
            true => Step::Checking,
            false => Step::Done,
        }
    }

    fn is_to_be_checked(&self) -> bool {
        let is_changed = !self.changed.is_empty();
        self.mode == Mode::Enforce && is_changed && self.chain.spec_checker().is_some()
    }

    /// The next questions of the check, or none when there is nothing to check.
    pub(super) fn check_round(&self) -> Vec<Ask<'c, P>> {
        let Some(checker) = self
            .chain
            .spec_checker()
            .filter(|_| self.is_to_be_checked())
        else {
            return Vec::new();
        };
        let revisions = match self.checking {
            Checking::Final => vec![&self.spec],
            Checking::Before(_) => self.changed.iter().map(|change| &change.before).collect(),
        };
        let ask = |spec: &Arc<Revision>| Ask {
            member: &self.chain.members()[checker],
            question: Question::SpecCheck,
            call: Call {
                review: Arc::clone(&self.review),
                spec: Arc::clone(spec),
                phase: Phase::Validating,
                span: self.span(checker, Phase::Validating, Question::SpecCheck),
            },
            index: checker,
        };
        revisions.into_iter().map(ask).collect()
    }

    /// Takes in what the models say, and decides how the run goes on.
    pub(super) fn feed_check(&mut self, round: &Round<'c, P>, replies: Vec<Reply>) {
        let Some(first) = round.asks.first() else {
            return;
        };
        let (began, took) = (
            replies.iter().map(|reply| reply.began).min(),
            replies.iter().map(|reply| reply.took).max(),
        );
        let time = (began.unwrap_or_default(), took.unwrap_or_default());
        let errors: Result<Vec<BTreeSet<String>>, Fault> = replies
            .into_iter()
            .map(|reply| errors(reply.outcome))
            .collect();
        let mut errors = match errors {
            Ok(errors) => errors.into_iter(),
            Err(fault) => {
                let message = format!("the changed spec was not checked: {}", fault.message);
                let fault = Fault { message, ..fault };
                return self.checked(first, time, failed(first.member, fault));
            }
        };
        match std::mem::replace(&mut self.checking, Checking::Final) {
            Checking::Final => match errors.next() {
                Some(refused) if !refused.is_empty() => {
                    self.checking = Checking::Before(refused);
                    self.step = Step::Checking;
                }
                _ => self.checked(first, time, PartResult::Allowed),
            },
            Checking::Before(mut refused) => {
                let known = Vec::from_iter(errors);
                if let Some(original) = known.first() {
                    refused.retain(|error| !original.contains(error));
                }
                let culprit = known.iter().rposition(|known| known.is_disjoint(&refused));
                match culprit.filter(|_| !refused.is_empty()) {
                    Some(culprit) => self.blame(culprit, &refused),
                    None => self.checked(first, time, PartResult::Allowed),
                }
            }
        }
    }

    /// The check is over and goes into the record. `time` is when it began and how long it took.
    fn checked(&mut self, ask: &Ask<'c, P>, time: (Duration, Duration), result: PartResult) {
        if result.denies() || self.parts.iter().any(|part| part.result.denies()) {
            self.step = Step::Done;
        }
        let part = Part::new(ask.index, &ask.member.name, Phase::Validating, result);
        let (began, took) = time;
        self.parts.push(Part {
            span: ask.call.span,
            began,
            took,
            ..part
        });
    }

    /// Holds a change against those who made it. What came after was about a spec that dstack would
    /// refuse, so it does not count. Where the culprits' failure policy passes that over, the run goes on
    /// from the spec before it.
    fn blame(&mut self, culprit: usize, refused: &BTreeSet<String>) {
        let change = self.changed.swap_remove(culprit);
        self.changed.truncate(culprit);
        let names = |parts: &[usize]| {
            let names = parts.iter().map(|&part| &*self.parts[part].plugin);
            names.collect::<Vec<_>>().join(", ")
        };
        let whose = match change.parts.as_slice() {
            [_] => "its patch".to_owned(),
            several => format!("the patches of {}", names(several)),
        };
        let message = format!(
            "after {whose} dstack would refuse the spec: {}",
            listed(refused)
        );
        for &part in &change.parts {
            let part = &mut self.parts[part];
            let fault = Fault::new(FaultKind::Schema, message.clone());
            part.result = failed(&self.chain.members()[part.member], fault);
            part.drop_patch();
            self.left[part.member] = Some(Arc::clone(&change.before));
        }
        self.parts.truncate(change.parts_until);
        self.spec = change.before;
        let denied = self.parts.iter().any(|part| part.result.denies());
        self.step = match denied {
            true => Step::Done,
            false => change.following,
        };
    }
}

impl<P> Round<'_, P> {
    /// A round of the check.
    pub(super) fn is_check(&self) -> bool {
        self.step == Step::Checking
    }
}

impl<'c, P> Round<'c, P> {
    pub(super) fn of_check(asks: Vec<Ask<'c, P>>) -> Self {
        Self {
            asks,
            step: Step::Checking,
            on_conflict: OnConflict::Deny,
        }
    }
}

/// What the models refuse, each in words with its place.
fn errors(outcome: Outcome) -> Result<BTreeSet<String>, Fault> {
    match outcome {
        Outcome::Verdict(Verdict { denials, .. }) => {
            Ok(denials.into_iter().map(|denial| denial.message).collect())
        }
        Outcome::Skipped(_) => Ok(BTreeSet::new()),
        Outcome::Fault(fault) => Err(fault),
    }
}

fn listed(errors: &BTreeSet<String>) -> String {
    let shown = errors.iter().take(SHOWN).map(String::as_str);
    let shown = shown.collect::<Vec<_>>().join("; ");
    match errors.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}
