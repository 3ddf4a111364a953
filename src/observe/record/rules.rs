//! How much is recorded of which review: rules as in the `audit.k8s.io` Policy, of which the first
//! that fits holds.

use crate::admission::review::Review;
use crate::admission::scope::Scope;
use crate::admission::secrets::Secrets;

/// How much of a decision an audit event holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    None,
    /// Who, what, when, and each plugin's verdict.
    Metadata,
    /// And what was changed.
    Patch,
    /// And the spec that came.
    Spec,
}

impl Level {
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Patch => "Patch",
            Level::Spec => "Spec",
        }
    }
}

/// What is recorded, and what of it is secret.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Where no rule fits.
    pub level: Level,
    pub rules: Vec<LevelRule>,
    pub secrets: Secrets,
}

/// The level of some reviews.
#[derive(Clone, Debug)]
pub struct LevelRule {
    pub level: Level,
    pub scope: Scope,
    /// How the event calls the decision. Without any, all.
    pub decisions: Vec<&'static str>,
}

impl Default for Recording {
    fn default() -> Self {
        Self {
            level: Level::Patch,
            rules: Vec::new(),
            secrets: Secrets::default(),
        }
    }
}

impl Recording {
    /// How much is recorded of a review that was decided as `decision` says.
    pub fn level(&self, review: &Review, decision: &str) -> Level {
        let fits = |rule: &&LevelRule| {
            (rule.decisions.is_empty() || rule.decisions.contains(&decision))
                && rule.scope.covers(review)
        };
        self.rules
            .iter()
            .find(fits)
            .map_or(self.level, |rule| rule.level)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use bytes::Bytes;
    use rstest::rstest;

    use super::*;
    use crate::admission::review::{Kind, Spec};
    use crate::admission::scope::Globs;

    fn rule(level: Level, kinds: &[Kind], users: &[&str], decisions: &[&'static str]) -> LevelRule {
        let scope = Scope {
            kinds: (!kinds.is_empty()).then(|| kinds.to_vec()),
            users: (!users.is_empty()).then(|| Globs::parse(users).unwrap()),
            projects: None,
        };
        LevelRule {
            level,
            scope,
            decisions: decisions.to_vec(),
        }
    }

    #[rstest]
    #[case::no_rule_fits(Kind::Volume, "alice", "patched", Level::Metadata)]
    #[case::the_first_that_fits(Kind::Run, "ci-7", "denied", Level::None)]
    #[case::by_decision(Kind::Run, "alice", "denied", Level::Spec)]
    #[case::by_kind(Kind::Run, "alice", "allowed", Level::Patch)]
    #[case::excluded_user(Kind::Fleet, "ci-admin", "denied", Level::Spec)]
    fn the_first_rule_that_fits_holds(
        #[case] kind: Kind,
        #[case] user: &str,
        #[case] decision: &str,
        #[case] level: Level,
    ) {
        let recording = Recording {
            level: Level::Metadata,
            rules: vec![
                rule(Level::None, &[], &["ci-*", "!ci-admin"], &[]),
                rule(Level::Spec, &[], &[], &["denied", "would_deny"]),
                rule(Level::Patch, &[Kind::Run], &[], &[]),
            ],
            secrets: Secrets::default(),
        };
        let review = Review {
            id: "1".to_owned(),
            kind,
            user: user.to_owned(),
            project: "main".to_owned(),
            received: SystemTime::UNIX_EPOCH,
            headers: Vec::new(),
            trace: None,
            spec: Spec::parse(Bytes::from_static(b"{}")).unwrap(),
        };
        assert_eq!(recording.level(&review, decision), level);
    }
}
