//! Readiness as handles: ready while nobody holds it back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whether this process should get reviews. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    held_by: Arc<Mutex<Vec<&'static str>>>,
}

/// Holds readiness back until it is dropped.
#[derive(Debug)]
#[must_use = "readiness is held back only while this lives"]
pub struct Hold {
    readiness: Readiness,
    reason: &'static str,
}

impl Readiness {
    /// Makes this process unready for a reason.
    pub fn hold(&self, reason: &'static str) -> Hold {
        self.reasons_mut().push(reason);
        Hold {
            readiness: self.clone(),
            reason,
        }
    }

    /// What holds readiness back. Empty: ready.
    pub fn reasons(&self) -> Vec<&'static str> {
        self.reasons_mut().clone()
    }

    fn reasons_mut(&self) -> MutexGuard<'_, Vec<&'static str>> {
        self.held_by.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut reasons = self.readiness.reasons_mut();
        if let Some(index) = reasons.iter().position(|reason| *reason == self.reason) {
            reasons.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_every_hold_is_gone() {
        let readiness = Readiness::default();
        let (first, second) = (readiness.hold("starting"), readiness.hold("starting"));
        drop(first);
        assert_eq!(readiness.reasons(), ["starting"]);
        drop(second);
        assert!(readiness.reasons().is_empty());
    }
}
