//! Drives a review's run through the plugins under one deadline: the only place that knows both
//! the chain and what plugins are.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::admission::chain::Chain;
use crate::admission::decision::Decision;
use crate::admission::review::Review;
use crate::admission::run::{Ask, Question, Reply, Round, Run};
use crate::admission::verdict::{Budget, Fault, FaultKind, Outcome};
use crate::plugins::Plugin;

/// One loaded chain. Immutable: a reload makes another.
pub struct Engine {
    chain: Chain<Plugin>,
    deadline: Duration,
}

impl Engine {
    /// `deadline` bounds the enforced chain as a whole.
    pub fn new(chain: Chain<Plugin>, deadline: Duration) -> Self {
        Self { chain, deadline }
    }

    pub fn chain(&self) -> &Chain<Plugin> {
        &self.chain
    }

    /// The plugins that have a circuit breaker, by name, and whether it is open now.
    pub fn breakers(&self) -> impl Iterator<Item = (&str, bool)> {
        self.chain.members().iter().filter_map(|member| {
            let breaker = member.plugin.backend.breaker()?;
            Some((&*member.name, breaker.is_open()))
        })
    }

    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Decides a review. Ends before `started` plus the deadline, whatever the plugins do.
    pub async fn decide(&self, review: Arc<Review>, started: Instant) -> Decision {
        self.drive(Run::new(&self.chain, review), started).await
    }

    /// Asks the monitored plugins about a decided review, under a deadline of their own.
    pub async fn monitor(&self, decision: &Decision) -> Decision {
        self.drive(Run::monitored(&self.chain, decision), Instant::now())
            .await
    }

    async fn drive<'c>(&'c self, mut run: Run<'c, Plugin>, started: Instant) -> Decision {
        while let Some(round) = run.next_round() {
            let replies = self.ask_all(&round, started).await;
            run.feed(&round, replies);
        }
        run.finish()
    }

    /// Makes the calls of a round at once: those that leave the process wait side by side, the others
    /// are computed one after the other.
    async fn ask_all(&self, round: &Round<'_, Plugin>, started: Instant) -> Vec<Reply> {
        let asks = round.asks.as_slice();
        if asks.len() > 1 && asks.iter().any(|ask| ask.member.plugin.backend.is_remote()) {
            return join_all(asks.iter().map(|ask| self.ask(ask, started))).await;
        }
        let mut replies = Vec::with_capacity(asks.len());
        for ask in asks {
            replies.push(self.ask(ask, started).await);
        }
        replies
    }

    async fn ask(&self, ask: &Ask<'_, Plugin>, started: Instant) -> Reply {
        let asked = Instant::now();
        let left = (started + self.deadline).saturating_duration_since(asked);
        let timeout = ask.member.timeout;
        let budget = Budget {
            limit: timeout.min(left),
            cut_short: left < timeout,
            is_scant: left < timeout.min(self.deadline) / 2,
        };
        let outcome = if left.is_zero() {
            let deadline = humantime::format_duration(self.deadline);
            let message =
                format!("it was not asked: the {deadline} for all plugins were used up before");
            Outcome::Fault(Fault::new(FaultKind::Timeout, message))
        } else if ask.member.plugin.backend.is_remote() {
            let call = async {
                match ask.question {
                    Question::Verdict => ask.member.plugin.call(&ask.call, budget).await,
                    Question::SpecCheck => ask.member.plugin.check(&ask.call, budget).await,
                }
            };
            let answer = tokio::time::timeout(budget.limit, call).await;
            answer.unwrap_or_else(|_| Outcome::Fault(timed_out(budget)))
        } else {
            ask.member.plugin.call(&ask.call, budget).await
        };
        Reply {
            outcome: outcome.legible(),
            began: asked - started,
            took: asked.elapsed(),
        }
    }
}

/// The fault of a plugin that did not answer within its budget.
fn timed_out(budget: Budget) -> Fault {
    let millis = Duration::from_millis(budget.limit.as_millis() as u64);
    let limit = humantime::format_duration(millis);
    let message = match budget.cut_short {
        false => format!("it did not answer within {limit}"),
        true => format!("it did not answer within the {limit} that the chain's deadline left"),
    };
    Fault::new(FaultKind::Timeout, message)
}
