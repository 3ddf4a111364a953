//! `audit` as typed, and what of it says what is recorded of which reviews and what of it is secret:
//! the keys `level`, `rules` and `redact`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::audit::Sink;
use super::notes::Notes;
use super::places::{item, member};
use super::plugin::Match;
use crate::admission::secrets::{Secrets, shapes};
use crate::observe::record::{Level, LevelRule, Recording};

/// The record of each decision.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Audit {
    /// How much of a review is recorded.
    #[schemars(extend("default" = "Patch"))]
    pub level: Option<AuditLevel>,
    /// How much of some reviews is recorded; the first rule that fits holds, else `level`.
    #[serde(default)]
    pub rules: Vec<AuditRule>,
    /// More places of a spec that are secret, as JSON Pointers in which `*` is any name or index.
    #[serde(default)]
    #[schemars(extend("examples" = [["/configuration/tags/ticket", "/configuration/labels/*"]]))]
    pub redact: Vec<String>,
    /// Where records go. Without any, they go to standard output.
    #[serde(default)]
    pub sinks: Vec<Sink>,
}

/// How much of a review is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum AuditLevel {
    /// Nothing.
    None,
    /// Who asked for what, and each plugin's verdict.
    Metadata,
    /// Also what each plugin changed.
    Patch,
    /// Also the spec, without its secrets.
    Spec,
}

/// How much is recorded of some reviews.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditRule {
    /// How much of them is recorded.
    pub level: AuditLevel,
    /// The reviews, by kind, project and user. Without it, all.
    pub r#match: Option<Match>,
    /// How they were decided. Without any, all.
    #[serde(default)]
    pub decisions: Vec<DecisionName>,
}

/// How a review was decided, or would have been if monitored plugins had a say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DecisionName {
    Allowed,
    Patched,
    Denied,
    WouldAllow,
    WouldPatch,
    WouldDeny,
}

impl DecisionName {
    const fn as_str(self) -> &'static str {
        match self {
            DecisionName::Allowed => "allowed",
            DecisionName::Patched => "patched",
            DecisionName::Denied => "denied",
            DecisionName::WouldAllow => "would_allow",
            DecisionName::WouldPatch => "would_patch",
            DecisionName::WouldDeny => "would_deny",
        }
    }
}

impl Notes {
    pub(super) fn recording(&mut self, audit: &Audit) -> Recording {
        let mut rules = Vec::new();
        for (index, rule) in audit.rules.iter().enumerate() {
            let at = item("audit.rules", index);
            rules.push(self.rule(rule, &at));
            let catches_all = rule.decisions.is_empty() && rule.r#match.is_none();
            if catches_all && index + 1 < audit.rules.len() {
                let message = "this rule fits every review, so those after it never hold";
                self.warning(at, message);
            }
        }
        let secrets = Secrets::with_places(&audit.redact).unwrap_or_else(|(index, why)| {
            self.problem(item("audit.redact", index), why);
            Secrets::default()
        });
        if let Err(why) = shapes::warm() {
            self.problem("audit", why);
        }
        Recording {
            level: audit.level.map_or(Level::Patch, Level::from),
            rules,
            secrets,
        }
    }

    fn rule(&mut self, rule: &AuditRule, at: &str) -> LevelRule {
        let at = member(at, "match");
        let given = rule.r#match.as_ref();
        if given.is_some_and(|given| !given.conditions.is_empty()) {
            let message =
                "a rule of the audit has no conditions: it is about kinds, projects and users";
            self.problem(member(&at, "conditions"), message);
        }
        LevelRule {
            level: rule.level.into(),
            scope: given
                .map(|given| self.scope(given, &at))
                .unwrap_or_default(),
            decisions: rule.decisions.iter().map(|name| name.as_str()).collect(),
        }
    }
}

impl From<AuditLevel> for Level {
    fn from(level: AuditLevel) -> Self {
        match level {
            AuditLevel::None => Level::None,
            AuditLevel::Metadata => Level::Metadata,
            AuditLevel::Patch => Level::Patch,
            AuditLevel::Spec => Level::Spec,
        }
    }
}
