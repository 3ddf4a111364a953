//! What a plugin is: one of the kinds, and one call.

pub mod breaker;
pub mod cel;
pub mod http;
pub mod library;
pub mod python;
pub mod rest;
pub mod webhook;

use ::http::Uri;

use crate::admission::verdict::{Budget, Call, Fault, FaultKind, Outcome};

/// A plugin, ready to be called by many reviews at once.
pub struct Plugin {
    /// The `match.conditions`. They are asked first, in every phase.
    pub conditions: cel::Conditions,
    pub backend: Backend,
}

pub enum Backend {
    Cel(cel::Policy),
    BuiltIn(library::BuiltIn),
    Webhook(webhook::Webhook),
    Rest(rest::Rest),
    Python(python::Python),
}

impl Plugin {
    /// Asks this plugin. Every way of failing is an outcome.
    pub async fn call(&self, call: &Call, budget: Budget) -> Outcome {
        match self.conditions.evaluate(call) {
            Ok(None) => {}
            Ok(Some(condition)) => return Outcome::Skipped(condition),
            Err(fault) => return Outcome::Fault(fault),
        }
        let verdict = match &self.backend {
            Backend::Cel(policy) => return policy.evaluate(call),
            Backend::BuiltIn(built_in) => return built_in.policy.evaluate(call),
            Backend::Webhook(webhook) => webhook.call(call, budget).await,
            Backend::Rest(rest) => rest.call(call, budget).await,
            Backend::Python(python) => python.call(call, budget).await,
        };
        verdict.map_or_else(Outcome::Fault, Outcome::Verdict)
    }

    /// Has this plugin hold the spec against dstack's own models, whatever it says of it itself. The
    /// outcome has a denial for each error.
    pub async fn check(&self, call: &Call, budget: Budget) -> Outcome {
        let Backend::Python(python) = &self.backend else {
            let message = "it has no models to hold a spec against";
            return Outcome::Fault(Fault::new(FaultKind::InvalidResult, message));
        };
        let verdict = python.check(call, budget).await;
        verdict.map_or_else(Outcome::Fault, Outcome::Verdict)
    }
}

impl Backend {
    /// The kind's key in the configuration.
    pub fn as_str(&self) -> &'static str {
        match self {
            Backend::Cel(_) => "cel",
            Backend::BuiltIn(_) => "use",
            Backend::Webhook(_) => "webhook",
            Backend::Rest(_) => "rest",
            Backend::Python(_) => "python",
        }
    }

    /// What keeps calls from a plugin that fails, where there is such a thing.
    pub fn breaker(&self) -> Option<&breaker::Breaker> {
        match self {
            Backend::Webhook(webhook) => Some(webhook.breaker()),
            Backend::Rest(rest) => Some(rest.breaker()),
            Backend::Cel(_) | Backend::BuiltIn(_) | Backend::Python(_) => None,
        }
    }

    /// Where it is called over HTTP, if it is.
    pub fn url(&self) -> Option<&Uri> {
        match self {
            Backend::Webhook(webhook) => Some(webhook.url()),
            Backend::Rest(rest) => Some(rest.url()),
            Backend::Cel(_) | Backend::BuiltIn(_) | Backend::Python(_) => None,
        }
    }

    /// Whether calls leave this process.
    pub fn is_remote(&self) -> bool {
        !matches!(self, Backend::Cel(_) | Backend::BuiltIn(_))
    }
}
