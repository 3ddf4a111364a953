//! A circuit breaker: while a plugin keeps failing, it is not asked, so that reviews do not wait
//! for it one by one.
//!
//! Closed until so many calls in a row failed; then open for a while, in which no call is made;
//! then one call is tried, which closes or opens it again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many calls in a row fail before it opens.
    pub failures: u32,
    /// How long it stays open.
    pub open_for: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            failures: 5,
            open_for: Duration::from_secs(10),
        }
    }
}

#[derive(Debug)]
pub struct Breaker {
    settings: Settings,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed {
        failed: u32,
    },
    Open {
        until: Instant,
    },
    /// One call is on its way to find out.
    Trying,
}

/// One call that was let through. Dropped without a word, it counts as a failure: a call that is
/// cut off at its timeout never gets to say so.
#[derive(Debug)]
pub struct Attempt<'b> {
    breaker: &'b Breaker,
    ending: Ending,
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    Failed,
    Succeeded,
    Inconclusive,
}

impl Breaker {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            state: Mutex::new(State::Closed { failed: 0 }),
        }
    }

    /// Lets a call through, unless it is open. The attempt's ending decides what comes next.
    pub fn attempt(&self) -> Option<Attempt<'_>> {
        let mut state = self.state();
        match *state {
            State::Closed { .. } => {}
            State::Open { until } if Instant::now() >= until => *state = State::Trying,
            State::Open { .. } | State::Trying => return None,
        }
        Some(Attempt {
            breaker: self,
            ending: Ending::Failed,
        })
    }

    /// Whether a call would not be made now.
    pub fn is_open(&self) -> bool {
        match *self.state() {
            State::Closed { .. } => false,
            State::Open { until } => Instant::now() < until,
            State::Trying => true,
        }
    }

    pub fn failures(&self) -> u32 {
        self.settings.failures
    }

    fn end(&self, ending: Ending) {
        let mut state = self.state();
        let open = State::Open {
            until: Instant::now() + self.settings.open_for,
        };
        *state = match (*state, ending) {
            (_, Ending::Succeeded) => State::Closed { failed: 0 },
            (State::Closed { failed }, Ending::Failed) if failed + 1 < self.settings.failures => {
                State::Closed { failed: failed + 1 }
            }
            (State::Closed { .. } | State::Trying, Ending::Failed) => open,
            (State::Trying, Ending::Inconclusive) => State::Open {
                until: Instant::now(),
            },
            (state, _) => state,
        };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt<'_> {
    pub fn succeeded(mut self) {
        self.ending = Ending::Succeeded;
    }

    pub fn failed(mut self) {
        self.ending = Ending::Failed;
    }

    /// Whether, from here on, being dropped says nothing about the plugin.
    pub fn inconclusive_if(&mut self, inconclusive: bool) {
        self.ending = match inconclusive {
            true => Ending::Inconclusive,
            false => Ending::Failed,
        };
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.breaker.end(self.ending);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(Settings {
            failures: 3,
            open_for: Duration::from_secs(10),
        })
    }

    fn fail(breaker: &Breaker, times: usize) {
        for _ in 0..times {
            drop(breaker.attempt().unwrap());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_and_tries_one_call_later() {
        let breaker = breaker();
        assert!(!breaker.is_open());
        fail(&breaker, 3);
        assert!(breaker.attempt().is_none());
        assert!(breaker.is_open());

        tokio::time::advance(Duration::from_secs(10)).await;
        let trial = breaker.attempt().unwrap();
        assert!(breaker.attempt().is_none(), "one call at a time finds out");
        assert!(breaker.is_open());
        trial.succeeded();
        assert!(!breaker.is_open());
        fail(&breaker, 2);
        assert!(breaker.attempt().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_again_when_the_tried_call_fails() {
        let breaker = breaker();
        fail(&breaker, 3);
        tokio::time::advance(Duration::from_secs(10)).await;
        fail(&breaker, 1);
        assert!(breaker.attempt().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_forgets_the_failures_before() {
        let breaker = breaker();
        fail(&breaker, 2);
        breaker.attempt().unwrap().succeeded();
        fail(&breaker, 2);
        assert!(breaker.attempt().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_enough_time_says_nothing_unless_it_fails_before() {
        let breaker = breaker();
        for _ in 0..10 {
            breaker.attempt().unwrap().inconclusive_if(true);
        }
        for _ in 0..3 {
            let mut attempt = breaker.attempt().unwrap();
            attempt.inconclusive_if(true);
            attempt.failed();
        }
        assert!(breaker.attempt().is_none());
    }
}
