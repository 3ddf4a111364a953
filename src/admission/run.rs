//! One review's way through a chain, as a state machine: it asks for calls, it is fed what came
//! of them, and it ends in a [`Decision`].
//!
//! It knows no clock and no runtime. Whoever drives it makes the calls of a round in any order or
//! all at once, and feeds what came of them.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::chain::{Chain, FailurePolicy, Member, Mode, OnConflict, Reinvocation};
use super::decision::{self, Decision, Part, PartResult};
use super::patch;
use super::review::Review;
use super::revision::Revision;
use super::schema::Fit;
use super::trace::SpanId;
use super::verdict::{Call, Fault, FaultKind, Outcome, Phase};
use changes::Change;
use check::{Changed, Checking};

mod changes;
mod check;

/// A review on its way. Begin with [`Run::new`], then [`Run::next_round`] and [`Run::feed`] in turn.
pub struct Run<'c, P> {
    chain: &'c Chain<P>,
    mode: Mode,
    review: Arc<Review>,
    spec: Arc<Revision>,
    step: Step,
    parts: Vec<Part>,
    /// The spec as it was after each member's last mutating call, by the member's index.
    left: Vec<Option<Arc<Revision>>>,
    /// The models that the original spec fits, looked for when a plugin first changes something.
    fit: OnceCell<Option<Fit>>,
    /// Each change of the spec, for the check of the final one.
    changed: Vec<Changed>,
    checking: Checking,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The stage of this index is next.
    Mutating(usize),
    /// The member of this index is the next to be looked at for a second call.
    Reinvoking(usize),
    /// The final spec is next to be held against dstack's own models.
    Checking,
    Validating,
    Done,
}

/// The calls of one round, to be made at once.
pub struct Round<'c, P> {
    pub asks: Vec<Ask<'c, P>>,
    step: Step,
    on_conflict: OnConflict,
}

/// One call to make: whom to ask, and what.
pub struct Ask<'c, P> {
    pub member: &'c Member<P>,
    pub question: Question,
    pub call: Call,
    index: usize,
}

/// What a plugin is asked about the spec of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// What it says of it.
    Verdict,
    /// What dstack's own models refuse of it: one denial for each error.
    SpecCheck,
}

/// What came of one call.
#[derive(Clone, Debug)]
pub struct Reply {
    pub outcome: Outcome,
    /// When it was asked, counted from when the deadline began to run.
    pub began: Duration,
    pub took: Duration,
}

impl<'c, P> Run<'c, P> {
    /// The enforced plugins on the spec that came.
    pub fn new(chain: &'c Chain<P>, review: Arc<Review>) -> Self {
        let spec = Arc::clone(review.spec.value());
        Self::start(chain, Mode::Enforce, review, spec)
    }

    /// The monitored plugins on the spec that was decided upon. They see each other's changes and
    /// none of them ends the run.
    pub fn monitored(chain: &'c Chain<P>, decision: &Decision) -> Self {
        Self::start(
            chain,
            Mode::Monitor,
            Arc::clone(&decision.review),
            Arc::clone(&decision.spec),
        )
    }

    fn start(chain: &'c Chain<P>, mode: Mode, review: Arc<Review>, spec: Arc<Value>) -> Self {
        let original = Arc::clone(review.spec.value());
        let spec = Arc::new(Revision::new(review.kind, original, spec));
        let left = vec![None; chain.members().len()];
        Self {
            chain,
            mode,
            review,
            spec,
            step: Step::Mutating(0),
            parts: Vec::new(),
            left,
            fit: OnceCell::new(),
            changed: Vec::new(),
            checking: Checking::Final,
        }
    }

    /// The next round, or nothing when the run is over.
    pub fn next_round(&mut self) -> Option<Round<'c, P>> {
        loop {
            let step = self.step;
            let (round, following) = match step {
                Step::Mutating(index) => match self.chain.stages().get(index) {
                    Some(stage) => {
                        let asks = self.asks(stage.members.clone(), Phase::Mutating);
                        (
                            Round {
                                asks,
                                step,
                                on_conflict: stage.on_conflict,
                            },
                            Step::Mutating(index + 1),
                        )
                    }
                    None => {
                        self.step = Step::Reinvoking(0);
                        continue;
                    }
                },
                Step::Reinvoking(index) if index < self.chain.members().len() => {
                    let asks = if self.is_stale(index) {
                        vec![self.ask(index, Phase::Mutating)]
                    } else {
                        vec![]
                    };
                    (
                        Round {
                            asks,
                            step,
                            on_conflict: OnConflict::Deny,
                        },
                        Step::Reinvoking(index + 1),
                    )
                }
                Step::Reinvoking(_) => {
                    self.step = Step::Checking;
                    continue;
                }
                Step::Checking => (Round::of_check(self.check_round()), Step::Validating),
                Step::Validating => {
                    let asks = self.asks(0..self.chain.members().len(), Phase::Validating);
                    (
                        Round {
                            asks,
                            step,
                            on_conflict: OnConflict::Deny,
                        },
                        Step::Done,
                    )
                }
                Step::Done => return None,
            };
            self.step = following;
            if !round.asks.is_empty() {
                return Some(round);
            }
        }
    }

    /// Takes in what came of a round: one reply for each ask, in the order of the asks. A plugin
    /// without a reply has failed.
    pub fn feed(&mut self, round: &Round<'c, P>, replies: Vec<Reply>) {
        if round.is_check() {
            let missing = round.asks.len().saturating_sub(replies.len());
            let missing = std::iter::repeat_with(no_reply).take(missing);
            return self.feed_check(round, replies.into_iter().chain(missing).collect());
        }
        let reinvoked = matches!(round.step, Step::Reinvoking(_));
        let mut changes: Vec<Change> = Vec::new();
        let first = self.parts.len();

        let replies = replies.into_iter().chain(std::iter::repeat_with(no_reply));
        for (ask, reply) in round.asks.iter().zip(replies) {
            let member = ask.member;
            let mut part = Part {
                reinvoked,
                span: ask.call.span,
                began: reply.began,
                took: reply.took,
                ..Part::new(ask.index, &member.name, ask.call.phase, PartResult::Allowed)
            };
            match reply.outcome {
                Outcome::Skipped(condition) => part.result = PartResult::Skipped(condition),
                Outcome::Fault(fault) => part.result = failed(member, fault),
                // A denial stands whatever comes with it, as in the API server.
                Outcome::Verdict(verdict) if !verdict.denials.is_empty() => {
                    part.warnings = verdict.warnings;
                    part.annotations = verdict.annotations;
                    part.fired = verdict.fired;
                    part.result = PartResult::Denied(verdict.denials);
                }
                Outcome::Verdict(verdict) => match self.accept(member, ask.call.phase, &verdict) {
                    Err(fault) => part.result = failed(member, fault),
                    Ok(change) => {
                        part.warnings = verdict.warnings;
                        part.annotations = verdict.annotations;
                        part.fired = verdict.fired;
                        if let Some(after) = change {
                            let after = Arc::new(after);
                            part.patch = verdict.patch;
                            part.change = Some(decision::Change {
                                before: Arc::clone(ask.call.spec.value()),
                                after: Arc::clone(&after),
                            });
                            changes.push(Change {
                                part: self.parts.len(),
                                after,
                            });
                        }
                    }
                },
            }
            self.parts.push(part);
        }

        if round.step != Step::Validating {
            let (before, parts) = (
                Arc::clone(&self.spec),
                changes.iter().map(|c| c.part).collect(),
            );
            self.take_changes(changes, round.on_conflict);
            if !Arc::ptr_eq(&before, &self.spec) {
                self.changed.push(Changed {
                    parts,
                    parts_until: self.parts.len(),
                    before,
                    following: self.step,
                });
            }
            for (ask, part) in round.asks.iter().zip(first..) {
                self.left[ask.index] = Some(self.left_by(ask, part));
            }
            // A denial in the mutating phase ends the chain there.
            if self.mode == Mode::Enforce && self.parts.iter().any(|part| part.result.denies()) {
                self.step = self.after_denial();
            }
        }
    }

    /// The spec as a member left it: the one of now, unless others of its round changed it too.
    fn left_by(&self, ask: &Ask<'c, P>, part: usize) -> Arc<Revision> {
        let change = self.parts.get(part).and_then(|part| part.change.as_ref());
        let own = change.map_or(ask.call.spec.value(), |change| &change.after);
        let now = self.spec.value();
        let alone = Arc::ptr_eq(own, now)
            || ask.member.reinvocation == Reinvocation::IfNeeded && patch::same(own, now);
        Arc::clone(if alone { &self.spec } else { &ask.call.spec })
    }

    /// Ends the run where it stands.
    pub fn finish(self) -> Decision {
        let unsettled = self
            .parts
            .iter()
            .filter(|part| part.reinvoked && self.is_stale(part.member))
            .map(|part| Arc::clone(&part.plugin))
            .collect();
        let spec = Arc::clone(self.spec.value());
        Decision::new(self.review, spec, self.parts, unsettled)
    }

    /// The calls to the members of a range that take part in this run and see this review.
    fn asks(&mut self, members: std::ops::Range<usize>, phase: Phase) -> Vec<Ask<'c, P>> {
        let mut asks = Vec::new();
        for index in members {
            let member = &self.chain.members()[index];
            let takes_part = member.mode == self.mode && member.phases.contains(phase);
            if !takes_part || !member.scope.covers(&self.review) {
                continue;
            }
            match self.chain.exemption(member, &self.review) {
                None => asks.push(self.ask(index, phase)),
                Some(exemption) => {
                    let result = PartResult::Exempt(Arc::clone(&exemption.reason));
                    let part = Part::new(index, &member.name, phase, result);
                    self.parts.push(Part {
                        exempt_until: Some(exemption.expires),
                        ..part
                    });
                }
            }
        }
        asks
    }

    fn ask(&self, index: usize, phase: Phase) -> Ask<'c, P> {
        let question = Question::Verdict;
        let call = Call {
            review: Arc::clone(&self.review),
            spec: Arc::clone(&self.spec),
            phase,
            span: self.span(index, phase, question),
        };
        Ask {
            member: &self.chain.members()[index],
            question,
            call,
            index,
        }
    }

    /// The span of the call that comes now, of its own for each part of a record.
    fn span(&self, index: usize, phase: Phase, question: Question) -> Option<SpanId> {
        let review = self.review.trace.as_ref()?.span?;
        let kind = match (question, phase, self.step) {
            (Question::SpecCheck, ..) => 3,
            (_, Phase::Validating, _) => 2,
            (_, Phase::Mutating, Step::Reinvoking(_)) => 1,
            (_, Phase::Mutating, _) => 0,
        };
        Some(review.below(4 * u32::try_from(index).ok()? + kind))
    }

    /// Whether a member that wants to be called again has not seen the spec as it is now.
    fn is_stale(&self, index: usize) -> bool {
        let wants = self.chain.members()[index].reinvocation == Reinvocation::IfNeeded;
        wants
            && self.left[index]
                .as_ref()
                .is_some_and(|left| !Arc::ptr_eq(left, &self.spec))
    }
}

fn no_reply() -> Reply {
    let fault = Fault::new(FaultKind::Transport, "no answer of it was kept");
    Reply {
        outcome: Outcome::Fault(fault),
        began: Duration::ZERO,
        took: Duration::ZERO,
    }
}

fn failed<P>(member: &Member<P>, fault: Fault) -> PartResult {
    match member.failure_policy {
        FailurePolicy::Fail => PartResult::Failed(fault),
        FailurePolicy::Ignore => PartResult::FailedOpen(fault),
    }
}

#[cfg(test)]
mod tests;
