//! What was decided about one review, by whom, and in which words.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use json_patch::PatchOperation;
use serde_json::Value;

use super::patch::{self, Compare};
use super::review::Review;
use super::verdict::{Denial, Fault, Phase};

/// One plugin's part in a decision.
#[derive(Clone, Debug)]
pub struct Part {
    /// The plugin's index among the chain's members.
    pub member: usize,
    pub plugin: Arc<str>,
    pub phase: Phase,
    /// Whether this was the second call, made because a later plugin changed the spec.
    pub reinvoked: bool,
    pub took: Duration,
    pub result: PartResult,
    /// What this plugin changed. Empty when it changed nothing or its patch was not taken.
    pub patch: Vec<PatchOperation>,
    pub warnings: Vec<String>,
    pub annotations: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub enum PartResult {
    Allowed,
    Denied(Vec<Denial>),
    /// Its fault denies the review.
    Failed(Fault),
    /// Its fault was passed over: `failurePolicy: Ignore`.
    FailedOpen(Fault),
    /// Its patch disagrees with that of another plugin called at the same time.
    Conflict {
        with: Arc<str>,
        path: String,
    },
    /// One of its `match` conditions, named here, was false.
    Skipped(String),
    /// An exemption kept it from this review.
    Exempt(Arc<str>),
}

impl PartResult {
    /// The name in records and labels.
    pub fn as_str(&self) -> &'static str {
        match self {
            PartResult::Allowed => "allowed",
            PartResult::Denied(_) => "denied",
            PartResult::Failed(_) => "failed",
            PartResult::FailedOpen(_) => "failed_open",
            PartResult::Conflict { .. } => "conflict",
            PartResult::Skipped(_) => "skipped",
            PartResult::Exempt(_) => "exempt",
        }
    }

    /// Whether this part alone denies the review.
    pub fn denies(&self) -> bool {
        matches!(
            self,
            PartResult::Denied(_) | PartResult::Failed(_) | PartResult::Conflict { .. }
        )
    }
}

/// The end of a review.
#[derive(Clone, Debug)]
pub struct Decision {
    pub review: Arc<Review>,
    pub verdict: Overall,
    /// The spec as the chain left it. What is answered is this when allowed, else the original.
    pub spec: Arc<Value>,
    /// The operations from the original spec to `spec`; empty when no plugin changed it.
    pub patch: Vec<PatchOperation>,
    pub parts: Vec<Part>,
    /// Plugins that would have to be called once more, since the spec went on changing after
    /// their second call.
    pub unsettled: Vec<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overall {
    Allowed,
    /// The message for the user.
    Denied(String),
}

impl Decision {
    pub fn new(
        review: Arc<Review>,
        spec: Arc<Value>,
        parts: Vec<Part>,
        unsettled: Vec<Arc<str>>,
    ) -> Self {
        let patch = match Arc::ptr_eq(review.spec.value(), &spec) {
            true => Vec::new(),
            false => patch::diff(review.spec.value(), &spec, Compare::Exactly),
        };
        let verdict = match parts.iter().any(|part| part.result.denies()) {
            true => Overall::Denied(message(&review, &parts)),
            false => Overall::Allowed,
        };
        Self {
            review,
            verdict,
            spec,
            patch,
            parts,
            unsettled,
        }
    }

    /// A denial without asking any plugin, with the reason that the user reads.
    pub fn refused(review: Arc<Review>, why: &str) -> Self {
        let kind = review.kind;
        let verdict = Overall::Denied(format!(
            "this {kind} was not reviewed (decision {}): {why}",
            review.id
        ));
        let spec = Arc::clone(review.spec.value());
        Self {
            review,
            verdict,
            spec,
            patch: Vec::new(),
            parts: Vec::new(),
            unsettled: Vec::new(),
        }
    }

    pub fn allowed(&self) -> bool {
        self.verdict == Overall::Allowed
    }

    /// The words for the user, when denied.
    pub fn denial(&self) -> Option<&str> {
        match &self.verdict {
            Overall::Allowed => None,
            Overall::Denied(message) => Some(message),
        }
    }

    /// The decision's name in records and labels: `allowed`, `patched` or `denied`.
    pub fn as_str(&self) -> &'static str {
        match (&self.verdict, self.patch.is_empty()) {
            (Overall::Denied(_), _) => "denied",
            (Overall::Allowed, true) => "allowed",
            (Overall::Allowed, false) => "patched",
        }
    }

    /// The plugins' warnings, each after its plugin's name.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let of = |part: &Part| {
            let line = |text: &String| format!("{}: {text}", part.plugin);
            part.warnings.iter().map(line).collect::<Vec<_>>()
        };
        self.parts.iter().flat_map(of)
    }
}

/// One sentence that says how many policies deny and under which decision, then a line for each
/// reason, beginning with the plugin's name.
fn message(review: &Review, parts: &[Part]) -> String {
    let against = || parts.iter().filter(|part| part.result.denies());
    let broken = against()
        .filter(|part| matches!(part.result, PartResult::Failed(_)))
        .count();
    let denying = against().count() - broken;
    let (kind, id) = (review.kind, &review.id);

    let mut text = match (denying, broken) {
        (0, 1) => {
            format!("1 policy could not be checked, so this {kind} is denied (decision {id}):")
        }
        (0, n) => {
            format!("{n} policies could not be checked, so this {kind} is denied (decision {id}):")
        }
        (1, _) => format!("1 policy denies this {kind} (decision {id}):"),
        (n, _) => format!("{n} policies deny this {kind} (decision {id}):"),
    };
    for part in against() {
        let name = &part.plugin;
        let mut line = |reason: &str| {
            let _ = write!(text, "\n- {name}: {}", reason.trim().replace('\n', "\n  "));
        };
        match &part.result {
            PartResult::Denied(denials) => denials.iter().for_each(|denial| line(&denial.message)),
            PartResult::Failed(fault) => line(&fault.message),
            PartResult::Conflict { with, path } => line(&format!(
                "its change of {path} conflicts with that of {with}, which was asked at the same time"
            )),
            _ => {}
        }
    }
    text
}
