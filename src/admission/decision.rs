//! What was decided about one review, by whom, and in which words.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use json_patch::PatchOperation;
use serde_json::Value;

use super::patch::{self, Compare};
use super::review::Review;
use super::text;
use super::trace::SpanId;
use super::verdict::{Denial, Fault, Phase, Rule};

/// One plugin's part in a decision.
#[derive(Clone, Debug)]
pub struct Part {
    /// The plugin's index among the chain's members.
    pub member: usize,
    pub plugin: Arc<str>,
    pub phase: Phase,
    /// Whether this was the second call, made because a later plugin changed the spec.
    pub reinvoked: bool,
    /// The call's span, where the review has one and a call was made.
    pub span: Option<SpanId>,
    /// When it was asked, counted from when the deadline began to run.
    pub began: Duration,
    pub took: Duration,
    pub result: PartResult,
    /// What this plugin changed. Empty when it changed nothing or its patch was not taken.
    pub patch: Vec<PatchOperation>,
    /// The spec before and after that patch, by itself.
    pub change: Option<Change>,
    /// When the exemption ends that kept it from this review.
    pub exempt_until: Option<SystemTime>,
    pub warnings: Vec<String>,
    pub annotations: Vec<(String, String)>,
    /// The rules of a policy that denied or changed something.
    pub fired: Vec<Rule>,
}

impl Part {
    /// A part of which nothing but its result is known.
    pub fn new(member: usize, plugin: &Arc<str>, phase: Phase, result: PartResult) -> Self {
        Self {
            member,
            plugin: Arc::clone(plugin),
            phase,
            reinvoked: false,
            span: None,
            began: Duration::ZERO,
            took: Duration::ZERO,
            result,
            patch: Vec::new(),
            warnings: Vec::new(),
            annotations: Vec::new(),
            change: None,
            exempt_until: None,
            fired: Vec::new(),
        }
    }

    /// Its patch is not taken after all.
    pub fn drop_patch(&mut self) {
        self.patch.clear();
        self.change = None;
    }
}

/// What one plugin made of the spec that it saw.
#[derive(Clone, Debug)]
pub struct Change {
    pub before: Arc<Value>,
    pub after: Arc<Value>,
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

    /// The text of the spec to answer with: the very one that came, unless it is allowed and changed.
    pub fn answer(&self) -> Bytes {
        match self.allowed() {
            true => text::render(&self.review.spec, &self.spec),
            false => self.review.spec.text().clone(),
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

/// One sentence that says how many policies deny, how many could not be checked and under which
/// decision, then a line for each reason, beginning with the plugin's name.
fn message(review: &Review, parts: &[Part]) -> String {
    let against = || parts.iter().filter(|part| part.result.denies());
    let broken = against()
        .filter(|part| matches!(part.result, PartResult::Failed(_)))
        .count();
    let denying = against().count() - broken;
    let (kind, id) = (review.kind, &review.id);

    let policies = |n: usize| if n == 1 { "policy" } else { "policies" };
    let denying_policies = format!(
        "{denying} {} {} this {kind}",
        policies(denying),
        if denying == 1 { "denies" } else { "deny" }
    );
    let mut text = match (denying, broken) {
        (0, n) => format!(
            "{n} {} could not be checked, so this {kind} is denied (decision {id}):",
            policies(n)
        ),
        (_, 0) => format!("{denying_policies} (decision {id}):"),
        (_, n) => format!("{denying_policies} and {n} could not be checked (decision {id}):"),
    };
    for part in against() {
        let name = &part.plugin;
        let mut line = |reason: &str| {
            let lines = reason.trim().lines().collect::<Vec<_>>().join("\n  ");
            let _ = write!(text, "\n- {name}: {lines}");
        };
        match &part.result {
            PartResult::Denied(denials) => denials.iter().for_each(|denial| line(denial.words())),
            PartResult::Failed(fault) => line(&fault.message),
            PartResult::Conflict { with, path } => line(&format!(
                "its change of {path} conflicts with that of {with}, which was asked at the same time"
            )),
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::admission::review::{Kind, Spec};
    use crate::admission::verdict::FaultKind;

    fn review(kind: Kind) -> Arc<Review> {
        Arc::new(Review {
            id: "01JD4X".to_owned(),
            kind,
            user: "alice".to_owned(),
            project: "main".to_owned(),
            received: SystemTime::UNIX_EPOCH,
            headers: Vec::new(),
            trace: None,
            spec: Spec::parse(Bytes::from_static(b"{\"a\": 1.0}")).unwrap(),
        })
    }

    fn part(plugin: &str, result: PartResult) -> Part {
        Part::new(0, &plugin.into(), Phase::Mutating, result)
    }

    fn denied(plugin: &str, messages: &[&str]) -> Part {
        let denial = |message: &&str| Denial {
            message: (*message).to_owned(),
            reason: None,
        };
        part(
            plugin,
            PartResult::Denied(messages.iter().map(denial).collect()),
        )
    }

    fn failed(plugin: &str) -> Part {
        let fault = Fault::new(FaultKind::Timeout, "it did not answer within 2s")
            .with_detail("connect to 10.0.0.7:8443");
        part(plugin, PartResult::Failed(fault))
    }

    fn conflict() -> Part {
        let with = "tags".into();
        let path = "/configuration/tags/team".to_owned();
        part("owners", PartResult::Conflict { with, path })
    }

    #[rstest]
    #[case::one(
        vec![denied("gpu-limit", &["at most 8 GPUs"])],
        "1 policy denies this run (decision 01JD4X):\n\
         - gpu-limit: at most 8 GPUs"
    )]
    #[case::two(
        vec![
            denied("gpu-limit", &["at most 8 GPUs"]),
            part("quiet", PartResult::Allowed),
            denied("no-privileged", &["privileged containers are forbidden"]),
        ],
        "2 policies deny this run (decision 01JD4X):\n\
         - gpu-limit: at most 8 GPUs\n\
         - no-privileged: privileged containers are forbidden"
    )]
    #[case::one_policy_with_two_reasons(
        vec![denied("house-rules", &["no team", "no owner"])],
        "1 policy denies this run (decision 01JD4X):\n\
         - house-rules: no team\n\
         - house-rules: no owner"
    )]
    #[case::several_lines(
        vec![denied("house-rules", &["\n  too much:\r\ngpus\nprice\n"])],
        "1 policy denies this run (decision 01JD4X):\n\
         - house-rules: too much:\n  gpus\n  price"
    )]
    #[case::no_words(
        vec![denied("terse", &[" \n"])],
        "1 policy denies this run (decision 01JD4X):\n\
         - terse: denied without explanation"
    )]
    #[case::one_fault(
        vec![failed("quota")],
        "1 policy could not be checked, so this run is denied (decision 01JD4X):\n\
         - quota: it did not answer within 2s"
    )]
    #[case::two_faults(
        vec![failed("quota"), failed("cost")],
        "2 policies could not be checked, so this run is denied (decision 01JD4X):\n\
         - quota: it did not answer within 2s\n\
         - cost: it did not answer within 2s"
    )]
    #[case::mixed(
        vec![failed("quota"), denied("gpu-limit", &["at most 8 GPUs"])],
        "1 policy denies this run and 1 could not be checked (decision 01JD4X):\n\
         - quota: it did not answer within 2s\n\
         - gpu-limit: at most 8 GPUs"
    )]
    #[case::conflict(
        vec![part("tags", PartResult::Allowed), conflict()],
        "1 policy denies this run (decision 01JD4X):\n\
         - owners: its change of /configuration/tags/team conflicts with that of tags, \
         which was asked at the same time"
    )]
    fn a_user_reads_who_denies_and_why(#[case] parts: Vec<Part>, #[case] expected: &str) {
        let review = review(Kind::Run);
        let spec = Arc::clone(review.spec.value());
        let decision = Decision::new(review, spec, parts, Vec::new());
        assert_eq!(decision.denial(), Some(expected));
        assert_eq!(decision.as_str(), "denied");
    }

    #[test]
    fn what_does_not_deny_is_not_in_the_message() {
        let fault = Fault::new(FaultKind::Connect, "it cannot be reached");
        let parts = vec![
            part("a", PartResult::Allowed),
            part("b", PartResult::Skipped("only-gpus".to_owned())),
            part("c", PartResult::Exempt("launch".into())),
            part("d", PartResult::FailedOpen(fault)),
        ];
        let review = review(Kind::Run);
        let spec = Arc::clone(review.spec.value());
        let decision = Decision::new(review, spec, parts, Vec::new());
        assert_eq!((decision.denial(), decision.as_str()), (None, "allowed"));
    }

    #[test]
    fn a_refusal_says_that_nothing_was_reviewed() {
        let decision = Decision::refused(review(Kind::Fleet), "too many reviews at once");
        let expected = "this fleet was not reviewed (decision 01JD4X): too many reviews at once";
        assert_eq!(decision.denial(), Some(expected));
        assert!(Arc::ptr_eq(&decision.spec, decision.review.spec.value()));
    }

    #[rstest]
    #[case::changed(json!({"a": 2}), "patched")]
    #[case::another_form_of_the_number(json!({"a": 1}), "patched")]
    #[case::changed_back(json!({"a": 1.0}), "allowed")]
    fn a_decision_is_named_after_its_patch(#[case] spec: Value, #[case] name: &str) {
        let decision = Decision::new(review(Kind::Run), Arc::new(spec), Vec::new(), Vec::new());
        assert_eq!(decision.as_str(), name);
    }
}
