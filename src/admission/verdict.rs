//! The contract between the chain and a plugin: a [`Call`] in, an [`Outcome`] out.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::review::Review;
use super::revision::Revision;
use super::trace::{SpanId, Trace};
use json_patch::PatchOperation;

/// Which part of the chain a plugin is called in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    Mutating,
    Validating,
}

impl Phase {
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Mutating => "mutating",
            Phase::Validating => "validating",
        }
    }
}

/// What a plugin is asked.
#[derive(Clone, Debug)]
pub struct Call {
    pub review: Arc<Review>,
    /// The spec as the plugins before this one left it.
    pub spec: Arc<Revision>,
    pub phase: Phase,
    /// The call's span, where the review has one.
    pub span: Option<SpanId>,
}

impl Call {
    /// The trace that what is called shall go on with, and the span that calls.
    pub fn trace(&self) -> Option<(&Trace, SpanId)> {
        self.review.trace.as_ref().zip(self.span)
    }
}

/// How long a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub limit: Duration,
    /// Whether the chain's deadline left less than the plugin's own timeout.
    pub cut_short: bool,
    /// Whether it is less than half of what the plugin gets at the beginning of a chain. Running out
    /// of so little says nothing about the plugin.
    pub is_scant: bool,
}

/// What a plugin answers.
#[derive(Clone, Debug)]
pub enum Outcome {
    Verdict(Verdict),
    /// A `match` condition, named here, is false: the plugin has nothing to say about this spec.
    Skipped(String),
    Fault(Fault),
}

/// What a plugin says of a spec. Without denials it allows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    pub denials: Vec<Denial>,
    /// RFC 6902 operations on the spec (pointers start at the spec's root), in order.
    pub patch: Vec<PatchOperation>,
    pub warnings: Vec<String>,
    /// Audit annotations, keys without the plugin's name.
    pub annotations: Vec<(String, String)>,
    /// The rules of a policy that denied or changed something. A remote plugin names none.
    pub fired: Vec<Rule>,
}

/// A rule of a policy, by its key in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    Mutation(usize),
    Validation(usize),
}

impl fmt::Display for Rule {
    /// `mutations[0]`, `validations[2]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Mutation(index) => write!(f, "mutations[{index}]"),
            Rule::Validation(index) => write!(f, "validations[{index}]"),
        }
    }
}

/// One reason to refuse, in words for the user who applied the spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    pub message: String,
    /// A machine-readable reason, as `validations[].reason` and `status.reason` give it.
    pub reason: Option<String>,
}

impl Denial {
    /// The message, or what the API server says in place of an empty one.
    pub fn words(&self) -> &str {
        match self.message.trim() {
            "" => "denied without explanation",
            message => message,
        }
    }
}

/// A plugin that did not do its part. What follows is its failure policy's choice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    pub kind: FaultKind,
    /// What the user may read: no addresses, no secrets.
    pub message: String,
    /// What the log needs besides.
    pub detail: Option<String>,
}

impl Fault {
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            detail: None,
        }
    }

    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

/// The ways in which a plugin fails, each with a name that is safe as a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// No connection: refused, unreachable, unknown host.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// No answer within the plugin's timeout or the chain's deadline.
    Timeout,
    /// An HTTP status other than 200.
    Status,
    /// The connection broke while the answer was awaited.
    Transport,
    /// Its process ended, or broke the protocol, while the answer was awaited.
    Crash,
    /// Its code failed: an exception that is no denial.
    Exception,
    /// Its models do not know the spec, mostly for being of another dstack version.
    Unreadable,
    /// What it made of the spec is no spec of this kind.
    InvalidResult,
    /// An answer larger than the plugin may send.
    TooLarge,
    /// Recent calls failed, so this one was not made.
    CircuitOpen,
    /// An answer that cannot be read.
    Undecodable,
    /// An answer to another question.
    WrongUid,
    /// A patch that is no JSON Patch.
    PatchType,
    /// A patch where none may be: from the validating phase.
    PatchNotAllowed,
    /// A patch that does not apply to the spec.
    PatchApply,
    /// A patch that touches what identifies the object.
    Protected,
    /// A patch after which dstack's models refuse the spec.
    Schema,
    /// A `match` condition that errors.
    Condition,
    /// A rule that errors.
    Rule,
    /// A rule that used up its evaluation budget.
    Budget,
}

impl FaultKind {
    pub const ALL: [FaultKind; 21] = [
        FaultKind::Connect,
        FaultKind::Tls,
        FaultKind::Timeout,
        FaultKind::Status,
        FaultKind::Transport,
        FaultKind::Crash,
        FaultKind::Exception,
        FaultKind::Unreadable,
        FaultKind::InvalidResult,
        FaultKind::TooLarge,
        FaultKind::CircuitOpen,
        FaultKind::Undecodable,
        FaultKind::WrongUid,
        FaultKind::PatchType,
        FaultKind::PatchNotAllowed,
        FaultKind::PatchApply,
        FaultKind::Protected,
        FaultKind::Schema,
        FaultKind::Condition,
        FaultKind::Rule,
        FaultKind::Budget,
    ];

    /// The `error_type` label.
    pub const fn as_str(self) -> &'static str {
        match self {
            FaultKind::Connect => "connect",
            FaultKind::Tls => "tls",
            FaultKind::Timeout => "timeout",
            FaultKind::Status => "status",
            FaultKind::Transport => "transport",
            FaultKind::Crash => "crash",
            FaultKind::Exception => "exception",
            FaultKind::Unreadable => "unreadable",
            FaultKind::InvalidResult => "invalid_result",
            FaultKind::TooLarge => "too_large",
            FaultKind::CircuitOpen => "circuit_open",
            FaultKind::Undecodable => "undecodable",
            FaultKind::WrongUid => "wrong_uid",
            FaultKind::PatchType => "patch_type",
            FaultKind::PatchNotAllowed => "patch_not_allowed",
            FaultKind::PatchApply => "patch_apply",
            FaultKind::Protected => "protected",
            FaultKind::Schema => "schema",
            FaultKind::Condition => "condition",
            FaultKind::Rule => "rule",
            FaultKind::Budget => "budget",
        }
    }
}
