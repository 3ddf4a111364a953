//! Which rules of the tested policies some case made fire: denied by it, or changed by it.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use super::suite::Tested;
use crate::admission::decision::Decision;
use crate::admission::verdict::Rule;
use crate::plugins::{Backend, Plugin};

/// The rules of all policies that were asked.
pub struct Coverage {
    /// Whether the rules of built-in policies count, which have tests of their own.
    built_in: bool,
    policies: IndexMap<Identity, Vec<Covered>>,
}

/// What makes two plugins of two chains the same policy: the same rules under the same name of the
/// same file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Identity {
    name: String,
    /// Where it is defined. None: in this program.
    origin: Option<PathBuf>,
    rules: Vec<String>,
}

struct Covered {
    rule: Rule,
    text: String,
    fired: bool,
}

/// A rule that no case made fire.
#[derive(Debug, PartialEq)]
pub struct Unfired<'c> {
    /// The plugin's name, a built-in policy's own.
    pub policy: &'c str,
    /// The file in which it stands.
    pub origin: Option<&'c Path>,
    pub rule: Rule,
    pub text: &'c str,
}

/// The rules behind a plugin.
struct Rules<'p> {
    /// A built-in policy's name, which is one policy wherever it is used.
    built_in: Option<&'p str>,
    rules: Vec<(Rule, &'p str)>,
}

/// The rules behind a plugin that tells them.
fn rules_of(plugin: &Plugin) -> Option<Rules<'_>> {
    match &plugin.backend {
        Backend::Cel(policy) => Some(Rules {
            built_in: None,
            rules: policy.rules().collect(),
        }),
        Backend::BuiltIn(built_in) => Some(Rules {
            built_in: Some(&built_in.name),
            rules: built_in.policy.rules().collect(),
        }),
        Backend::Webhook(_) | Backend::Rest(_) | Backend::Python(_) => None,
    }
}

impl Coverage {
    pub fn new(built_in: bool) -> Self {
        Self {
            built_in,
            policies: IndexMap::new(),
        }
    }

    /// Counts what fired in one case. A rule counts from the first case of its chain on.
    pub fn count(&mut self, chain: &Tested, decisions: [&Decision; 2]) {
        for (index, member) in chain.engine.chain().members().iter().enumerate() {
            let Some(Rules { built_in, rules }) = rules_of(&member.plugin) else {
                continue;
            };
            if built_in.is_some() && !self.built_in {
                continue;
            }
            let identity = Identity {
                name: built_in.unwrap_or(&member.name).to_owned(),
                origin: built_in.is_none().then(|| chain.origin.clone()),
                rules: rules.iter().map(|(_, text)| (*text).to_owned()).collect(),
            };
            let new = |&(rule, text): &(Rule, &str)| Covered {
                rule,
                text: text.to_owned(),
                fired: false,
            };
            let covered = self
                .policies
                .entry(identity)
                .or_insert_with(|| rules.iter().map(new).collect());
            let parts = decisions.into_iter().flat_map(|decision| &decision.parts);
            let fired: Vec<Rule> = parts
                .filter(|part| part.member == index)
                .flat_map(|part| part.fired.iter().copied())
                .collect();
            for covered in covered.iter_mut() {
                covered.fired |= fired.contains(&covered.rule);
            }
        }
    }

    /// How many rules there are.
    pub fn rules(&self) -> usize {
        self.policies.values().map(Vec::len).sum()
    }

    /// How many of them fired.
    pub fn fired(&self) -> usize {
        self.rules() - self.unfired().count()
    }

    /// Rounded down, so that 100 is all of them. All, when there are none.
    pub fn percent(&self) -> usize {
        (self.fired() * 100)
            .checked_div(self.rules())
            .unwrap_or(100)
    }

    /// The rules that never fired, in the order in which their chains were met.
    pub fn unfired(&self) -> impl Iterator<Item = Unfired<'_>> {
        self.policies.iter().flat_map(|(identity, covered)| {
            let unfired = covered.iter().filter(|covered| !covered.fired);
            unfired.map(|covered| Unfired {
                policy: &identity.name,
                origin: identity.origin.as_deref(),
                rule: covered.rule,
                text: &covered.text,
            })
        })
    }
}
