//! The configured chain: its plugins in order, and which of them sees which review.
//!
//! A chain is generic over what a plugin is, so that its rules can be tried without one.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::protected::Grant;
use super::review::Review;
use super::schema::SpecSchemas;
use super::scope::Scope;
use super::verdict::Phase;

/// A plugin in its place in the chain.
#[derive(Clone, Debug)]
pub struct Member<P> {
    pub name: Arc<str>,
    pub plugin: P,
    pub mode: Mode,
    /// The phases this plugin has something to say in.
    pub phases: Phases,
    pub scope: Scope,
    pub failure_policy: FailurePolicy,
    /// How long one call may take. The chain's deadline cuts it shorter.
    pub timeout: Duration,
    pub reinvocation: Reinvocation,
    /// The protected places this plugin may change nevertheless.
    pub may_patch: Vec<Grant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Enforce,
    /// Runs after the answer and can neither deny nor change.
    Monitor,
}

impl Mode {
    /// The word in the configuration and in labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Enforce => "enforce",
            Mode::Monitor => "monitor",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phases {
    pub mutating: bool,
    pub validating: bool,
}

impl Phases {
    pub const MUTATING: Self = Self {
        mutating: true,
        validating: false,
    };
    pub const VALIDATING: Self = Self {
        mutating: false,
        validating: true,
    };

    pub fn contains(self, phase: Phase) -> bool {
        match phase {
            Phase::Mutating => self.mutating,
            Phase::Validating => self.validating,
        }
    }
}

/// What a plugin's fault does to the review (Kubernetes `failurePolicy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePolicy {
    Fail,
    Ignore,
}

impl FailurePolicy {
    /// The word in the configuration and in labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            FailurePolicy::Fail => "Fail",
            FailurePolicy::Ignore => "Ignore",
        }
    }
}

/// Whether a plugin is called once more when another changed the spec after it or at the same time
/// (Kubernetes `reinvocationPolicy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reinvocation {
    Never,
    IfNeeded,
}

/// What a `fanOut` does with patches that disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    Deny,
    LastWins,
}

/// Plugins that leave some reviews alone until a day, and why.
#[derive(Clone, Debug)]
pub struct Exemption {
    pub plugins: Vec<Arc<str>>,
    pub scope: Scope,
    pub reason: Arc<str>,
    /// The first instant at which it no longer holds.
    pub expires: SystemTime,
}

/// Neighbours in the mutating phase that are called at once, by index. One plugin is a stage of its own.
#[derive(Clone, Debug)]
pub struct Stage {
    pub members: Range<usize>,
    pub on_conflict: OnConflict,
}

/// The plugins in order. Immutable: a reload makes another.
#[derive(Clone)]
pub struct Chain<P> {
    members: Vec<Member<P>>,
    stages: Vec<Stage>,
    exemptions: Vec<Exemption>,
    schemas: Option<Arc<SpecSchemas>>,
    spec_checker: Option<Arc<str>>,
}

impl<P> Default for Chain<P> {
    fn default() -> Self {
        Self {
            members: Vec::new(),
            stages: Vec::new(),
            exemptions: Vec::new(),
            schemas: None,
            spec_checker: None,
        }
    }
}

impl<P> Chain<P> {
    /// Adds a plugin that is called by itself.
    pub fn push(&mut self, member: Member<P>) {
        self.push_fan_out(vec![member], OnConflict::Deny);
    }

    /// Adds plugins that are called at once on the same spec.
    pub fn push_fan_out(&mut self, members: Vec<Member<P>>, on_conflict: OnConflict) {
        let first = self.members.len();
        self.members.extend(members);
        self.stages.push(Stage {
            members: first..self.members.len(),
            on_conflict,
        });
    }

    pub fn exempt(&mut self, exemption: Exemption) {
        self.exemptions.push(exemption);
    }

    /// Takes out the plugins that `keep` does not want and returns them. The others keep their order
    /// and who is asked at the same time as they are. An exemption goes by names, so it stays.
    pub fn retain(&mut self, mut keep: impl FnMut(&Member<P>) -> bool) -> Vec<Member<P>> {
        let mut members = std::mem::take(&mut self.members).into_iter();
        let mut taken_out = Vec::new();
        for stage in std::mem::take(&mut self.stages) {
            let of_stage = members.by_ref().take(stage.members.len());
            let (kept, others) = of_stage.partition::<Vec<_>, _>(&mut keep);
            taken_out.extend(others);
            if !kept.is_empty() {
                self.push_fan_out(kept, stage.on_conflict);
            }
        }
        taken_out
    }

    /// Has every changed spec checked against what dstack's models take.
    pub fn check_specs(&mut self, schemas: Arc<SpecSchemas>) {
        self.schemas = Some(schemas);
    }

    pub fn schemas(&self) -> Option<&SpecSchemas> {
        self.schemas.as_deref()
    }

    /// Has every final spec that a plugin changed held against dstack's own models by the plugin of this name.
    pub fn check_final_specs(&mut self, checker: Arc<str>) {
        self.spec_checker = Some(checker);
    }

    /// The plugin that has dstack's own models, by its index.
    pub fn spec_checker(&self) -> Option<usize> {
        let checker = self.spec_checker.as_ref()?;
        self.members.iter().position(|m| m.name == *checker)
    }

    pub fn members(&self) -> &[Member<P>] {
        &self.members
    }

    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    pub fn exemptions(&self) -> &[Exemption] {
        &self.exemptions
    }

    /// The exemption that keeps a plugin from this review, if one holds.
    pub fn exemption(&self, member: &Member<P>, review: &Review) -> Option<&Exemption> {
        self.exemptions.iter().find(|exemption| {
            exemption.plugins.contains(&member.name)
                && review.received < exemption.expires
                && exemption.scope.covers(review)
        })
    }

    /// How long the enforced plugins may take together when every call takes as long as `longest`
    /// says: mutating stages one after the other, the check of the final spec and the validating phase once,
    /// second calls included.
    pub fn worst_case(&self, longest: impl Fn(&Member<P>) -> Duration) -> Duration {
        let enforced = |m: &&Member<P>, phase| m.mode == Mode::Enforce && m.phases.contains(phase);
        let slowest = |members: &[Member<P>], phase: Phase| {
            let members = members.iter().filter(|m| enforced(m, phase));
            members.map(&longest).max().unwrap_or_default()
        };
        let stages = self
            .stages
            .iter()
            .map(|s| slowest(&self.members[s.members.clone()], Phase::Mutating));
        let reinvoked = self
            .members
            .iter()
            .filter(|m| enforced(m, Phase::Mutating) && m.reinvocation == Reinvocation::IfNeeded);
        let checker = self.spec_checker().map(|index| &self.members[index]);
        stages.sum::<Duration>()
            + reinvoked.map(&longest).sum::<Duration>()
            + checker.map(&longest).unwrap_or_default()
            + slowest(&self.members, Phase::Validating)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rstest::rstest;

    use super::*;
    use crate::admission::review::{Kind, Spec};

    fn member(name: &str) -> Member<()> {
        Member {
            name: name.into(),
            plugin: (),
            mode: Mode::Enforce,
            phases: Phases::MUTATING,
            scope: Scope::default(),
            failure_policy: FailurePolicy::Fail,
            timeout: Duration::ZERO,
            reinvocation: Reinvocation::Never,
            may_patch: Vec::new(),
        }
    }

    #[rstest]
    #[case::all("abcde", "a bcd e")]
    #[case::none("", "")]
    #[case::not_one_by_itself("bcde", "bcd e")]
    #[case::not_the_first_of_a_fan_out("acde", "a cd e")]
    #[case::one_of_a_fan_out("ace", "a c e")]
    #[case::not_a_whole_fan_out("ae", "a e")]
    fn who_stays_in_a_chain_stays_in_place(#[case] kept: &str, #[case] stages: &str) {
        let mut chain = Chain::default();
        chain.push(member("a"));
        chain.push_fan_out(["b", "c", "d"].map(member).into(), OnConflict::LastWins);
        chain.push(member("e"));
        let taken_out = chain.retain(|member| kept.contains(&*member.name));
        assert_eq!(taken_out.len() + kept.len(), 5);
        assert!(taken_out.iter().all(|m| !kept.contains(&*m.name)));
        let names = |stage: &Stage| {
            let members = &chain.members()[stage.members.clone()];
            members.iter().map(|m| &*m.name).collect::<String>()
        };
        let found: Vec<String> = chain.stages().iter().map(names).collect();
        assert_eq!(found.join(" "), stages);
        for stage in chain.stages().iter().filter(|s| names(s).contains('c')) {
            assert_eq!(stage.on_conflict, OnConflict::LastWins);
        }
    }

    #[test]
    fn an_exemption_holds_for_those_who_stay() {
        let mut chain = Chain::default();
        ["a", "b"]
            .into_iter()
            .for_each(|name| chain.push(member(name)));
        let now = SystemTime::now();
        chain.exempt(Exemption {
            plugins: vec!["a".into(), "b".into()],
            scope: Scope::default(),
            reason: "launch".into(),
            expires: now + Duration::from_secs(1),
        });
        chain.retain(|member| &*member.name == "b");
        let review = Review {
            id: "1".to_owned(),
            kind: Kind::Run,
            user: "alice".to_owned(),
            project: "main".to_owned(),
            received: now,
            headers: Vec::new(),
            trace: None,
            spec: Spec::parse(Bytes::from_static(b"{}")).unwrap(),
        };
        assert!(chain.exemption(&chain.members()[0], &review).is_some());
    }
}
