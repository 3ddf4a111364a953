//! From the list of plugins as typed to the chain of plugins that can be called.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value};

use super::file::Exemption as ExemptionEntry;
use super::notes::Notes;
use super::places::{item, member};
use super::plugin::{self, Match, PluginEntry};
use super::{defaults, suggest};
use crate::admission::chain::{
    Chain, Exemption, FailurePolicy, Member, Mode, OnConflict, Phases, Reinvocation,
};
use crate::admission::protected::Grant;
use crate::admission::review::Kind;
use crate::admission::scope::Scope;
use crate::plugins::cel::{CompileError, Conditions, Policy};
use crate::plugins::library::{self, BuiltIn};
use crate::plugins::python::Python;
use crate::plugins::rest::Rest;
use crate::plugins::webhook::Webhook;
use crate::plugins::{Backend, Plugin};

pub(super) struct Resolved {
    pub chain: Chain<Plugin>,
    pub forward_headers: Vec<String>,
    /// The names of the plugins that [`Remote::LeftOut`] left out.
    pub left_out: Vec<String>,
}

/// What becomes of the plugins that are called over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remote {
    Called,
    /// Neither they nor the files that they name are looked at.
    LeftOut,
}

/// Builds the chain of the list at the key path `at` and notes all that is wrong with it.
pub(super) fn resolve(
    entries: &[PluginEntry],
    at: &str,
    exemptions: &[ExemptionEntry],
    state_dir: &Path,
    now: SystemTime,
    remote: Remote,
    notes: &mut Notes,
) -> Resolved {
    let mut build = Build {
        notes,
        // Workers are elsewhere.
        state_dir: std::path::absolute(state_dir).unwrap_or_else(|_| state_dir.to_owned()),
        remote,
        names: Vec::new(),
        spec_checker: None,
        forward_headers: Vec::new(),
        left_out: Vec::new(),
    };
    let mut chain = Chain::default();
    for (index, entry) in entries.iter().enumerate() {
        let path = item(at, index);
        match &entry.fan_out {
            Some(inner) => {
                let on_conflict = build.group(entry, &path);
                let members = inner.iter().enumerate().filter_map(|(index, entry)| {
                    build.member(entry, &item(&member(&path, "fanOut"), index))
                });
                let members = members.collect();
                chain.push_fan_out(members, on_conflict);
            }
            None => {
                if entry.on_conflict.is_some() {
                    build
                        .notes
                        .problem(format!("{path}.onConflict"), "belongs beside `fanOut`");
                }
                if let Some(member) = build.member(entry, &path) {
                    chain.push(member);
                }
            }
        }
    }
    if let Some(checker) = build.spec_checker.take() {
        chain.check_final_specs(checker);
    }
    for (index, entry) in exemptions.iter().enumerate() {
        if let Some(exemption) = build.exemption(entry, &item("exemptions", index), now) {
            chain.exempt(exemption);
        }
    }
    Resolved {
        chain,
        forward_headers: build.forward_headers,
        left_out: build.left_out,
    }
}

pub(super) struct Build<'n> {
    pub(super) notes: &'n mut Notes,
    pub(super) state_dir: PathBuf,
    remote: Remote,
    names: Vec<String>,
    /// The plugin with `specCheck`.
    pub(super) spec_checker: Option<Arc<str>>,
    pub(super) forward_headers: Vec<String>,
    left_out: Vec<String>,
}

impl Build<'_> {
    /// A `fanOut` has no settings of its own but what to do with conflicts.
    fn group(&mut self, entry: &PluginEntry, path: &str) -> OnConflict {
        let own = [
            ("match", entry.r#match.is_some()),
            ("mode", entry.mode.is_some()),
            ("phase", entry.phase.is_some()),
            ("failurePolicy", entry.failure_policy.is_some()),
            ("timeout", entry.timeout.is_some()),
            ("reinvocation", entry.reinvocation.is_some()),
            ("mayPatch", !entry.may_patch.is_empty()),
        ];
        for (key, _) in own.into_iter().filter(|(_, given)| *given) {
            self.notes.problem(
                member(path, key),
                "belongs to the plugins inside of `fanOut`",
            );
        }
        self.one_kind(entry, path);
        match entry.on_conflict {
            None | Some(plugin::OnConflict::Deny) => OnConflict::Deny,
            Some(plugin::OnConflict::LastWins) => OnConflict::LastWins,
        }
    }

    fn one_kind(&mut self, entry: &PluginEntry, path: &str) {
        match entry.given().as_slice() {
            [_] => {}
            [] => self.notes.problem(
                path,
                "give one of `use`, `cel`, `python`, `webhook`, `rest` and `fanOut`",
            ),
            several => {
                let several = several.join("`, `");
                self.notes
                    .problem(path, format!("give only one of `{several}`"));
            }
        }
    }

    fn member(&mut self, entry: &PluginEntry, path: &str) -> Option<Member<Plugin>> {
        self.one_kind(entry, path);
        let name = self.name(entry, path);
        if entry.fan_out.is_some() {
            self.notes.problem(
                member(path, "fanOut"),
                "a `fanOut` cannot stand inside another",
            );
            return None;
        }
        let given = entry.r#match.as_ref();
        let mut scope = given
            .map(|given| self.notes.scope(given, &member(path, "match")))
            .unwrap_or_default();
        let conditions = self.conditions(given, &member(path, "match"));
        let may_patch = self.grants(entry, path);
        let timeout = entry.timeout.unwrap_or(defaults::TIMEOUT).0;
        if timeout.is_zero() {
            self.notes
                .problem(member(path, "timeout"), "a timeout of 0s fails every call");
        }
        if self.remote == Remote::LeftOut && entry.is_remote() {
            self.left_out.extend(name.map(|name| name.to_string()));
            return None;
        }
        let (backend, phases) = self.backend(entry, path)?;
        if let Backend::BuiltIn(built_in) = &backend {
            self.narrow(&mut scope, built_in, path);
        }
        Some(Member {
            name: name?,
            plugin: Plugin {
                conditions: conditions?,
                backend,
            },
            mode: match entry.mode {
                None | Some(plugin::Mode::Enforce) => Mode::Enforce,
                Some(plugin::Mode::Monitor) => Mode::Monitor,
            },
            phases,
            scope,
            failure_policy: match entry.failure_policy {
                None | Some(plugin::FailurePolicy::Fail) => FailurePolicy::Fail,
                Some(plugin::FailurePolicy::Ignore) => FailurePolicy::Ignore,
            },
            timeout,
            reinvocation: match entry.reinvocation {
                None | Some(plugin::Reinvocation::Never) => Reinvocation::Never,
                Some(plugin::Reinvocation::IfNeeded) => Reinvocation::IfNeeded,
            },
            may_patch,
        })
    }

    fn name(&mut self, entry: &PluginEntry, path: &str) -> Option<Arc<str>> {
        let Some(name) = entry.name.as_deref().filter(|name| !name.trim().is_empty()) else {
            self.notes.problem(path, "a plugin needs a `name`");
            return None;
        };
        if self.names.iter().any(|known| known == name) {
            self.notes.problem(
                member(path, "name"),
                format!("`{name}` is the name of another plugin already"),
            );
            return None;
        }
        self.names.push(name.to_owned());
        Some(name.into())
    }

    fn conditions(&mut self, given: Option<&Match>, path: &str) -> Option<Conditions> {
        let conditions = given
            .map(|given| given.conditions.as_slice())
            .unwrap_or_default();
        let conditions = self.compiled(Conditions::compile(conditions), path)?;
        self.doubtful(conditions.unknown_places(), path);
        Some(conditions)
    }

    fn grants(&mut self, entry: &PluginEntry, path: &str) -> Vec<Grant> {
        let mut grants = Vec::new();
        for (index, grant) in entry.may_patch.iter().enumerate() {
            let place = item(&member(path, "mayPatch"), index);
            grants.extend(self.notes.noted(&place, Grant::parse(grant)));
        }
        grants
    }

    fn backend(&mut self, entry: &PluginEntry, path: &str) -> Option<(Backend, Phases)> {
        if entry.with.is_some() && entry.r#use.is_none() {
            self.notes
                .problem(member(path, "with"), "belongs beside `use`");
        }
        let phases = match entry.phase {
            Some(plugin::Phase::Validating) => Phases::VALIDATING,
            None | Some(plugin::Phase::Mutating) => Phases::MUTATING,
        };
        if let Some(source) = &entry.cel {
            let path = member(path, "cel");
            let policy = Policy::compile(source, &Value::Object(Map::new()));
            let policy = self.compiled(policy, &path)?;
            self.doubtful(policy.unknown_places(), &path);
            let phases = self.cel_phases(entry, &policy, &path);
            return Some((Backend::Cel(policy), phases));
        }
        if let Some(remote) = &entry.webhook {
            let path = member(path, "webhook");
            let settings = self.remote(remote, &path)?;
            let webhook = self.notes.noted(&path, Webhook::new(&settings))?;
            return Some((Backend::Webhook(webhook), phases));
        }
        if let Some(remote) = &entry.rest {
            let path = member(path, "rest");
            let settings = self.remote(remote, &path)?;
            let rest = self.notes.noted(&path, Rest::new(&settings))?;
            return Some((Backend::Rest(rest), phases));
        }
        if let Some(name) = &entry.r#use {
            let built_in = self.built_in(name, entry.with.as_ref(), path)?;
            let phases = Phases {
                mutating: built_in.policy.has_mutations(),
                validating: built_in.policy.has_validations(),
            };
            if entry.phase == Some(plugin::Phase::Validating) && phases.mutating {
                let message = format!("`{name}` may change a spec, which happens before");
                self.notes.problem(member(path, "phase"), message);
            }
            return Some((Backend::BuiltIn(built_in), phases));
        }
        if let Some(python) = &entry.python {
            let at = member(path, "python");
            self.spec_check(entry, python, &at);
            let settings = self.python(python, entry.name.as_deref(), &at)?;
            return Some((Backend::Python(Python::new(settings)), phases));
        }
        None
    }

    /// A built-in policy. That its name is one and its parameters fit it is the schema's to say.
    fn built_in(
        &mut self,
        name: &str,
        with: Option<&Map<String, Value>>,
        path: &str,
    ) -> Option<BuiltIn> {
        let policy = library::find(name)?.with(with.unwrap_or(&Map::new()));
        self.compiled(policy, &member(path, "with"))
    }

    /// Keeps a built-in policy from the kinds of spec that it has nothing to say about.
    fn narrow(&mut self, scope: &mut Scope, built_in: &BuiltIn, path: &str) {
        let about = |kind: &Kind| built_in.kinds.contains(kind);
        match &mut scope.kinds {
            None => scope.kinds = Some(built_in.kinds.clone()),
            Some(kinds) => {
                kinds.retain(about);
                if kinds.is_empty() {
                    let names: Vec<_> = built_in.kinds.iter().map(|kind| kind.as_str()).collect();
                    let (name, about) = (&built_in.name, names.join(", "));
                    let message = format!("`{name}` would see nothing: it is about {about}");
                    self.notes.problem(format!("{path}.match.kinds"), message);
                }
            }
        }
    }

    /// What was compiled, or its problems noted below `path`.
    fn compiled<T>(&mut self, compiled: Result<T, Vec<CompileError>>, path: &str) -> Option<T> {
        let note = |errors: Vec<CompileError>| {
            for error in errors {
                self.notes
                    .problem(format!("{path}.{}", error.field), error.message);
            }
        };
        compiled.map_err(note).ok()
    }

    /// What expressions read that is probably misspelt, or new in dstack.
    fn doubtful(&mut self, unknown: Vec<CompileError>, path: &str) {
        for place in unknown {
            self.notes
                .warning(format!("{path}.{}", place.field), place.message);
        }
    }

    /// A CEL plugin's mutations mutate and its validations validate; `phase` can only say so again.
    fn cel_phases(&mut self, entry: &PluginEntry, policy: &Policy, path: &str) -> Phases {
        let validating = policy.has_validations() || policy.has_annotations();
        let phases = Phases {
            mutating: policy.has_mutations(),
            validating,
        };
        if !phases.mutating && !phases.validating {
            self.notes
                .problem(path, "has no `validations` and no `mutations`");
        }
        if entry.phase == Some(plugin::Phase::Validating) && phases.mutating {
            self.notes.problem(
                member(path, "mutations"),
                "cannot stand in the validating phase",
            );
        }
        phases
    }

    fn exemption(
        &mut self,
        entry: &ExemptionEntry,
        path: &str,
        now: SystemTime,
    ) -> Option<Exemption> {
        let match_path = member(path, "match");
        if !entry.r#match.conditions.is_empty() {
            let message = "an exemption has no conditions: it is about kinds, projects and users";
            self.notes
                .problem(member(&match_path, "conditions"), message);
        }
        if entry.reason.trim().is_empty() {
            self.notes
                .problem(member(path, "reason"), "say why, for the audit record");
        }
        let mut plugins = Vec::new();
        for (index, name) in entry.plugins.iter().enumerate() {
            if self.names.contains(name) {
                plugins.push(name.as_str().into());
                continue;
            }
            let nearest = suggest::nearest(name, self.names.iter().map(String::as_str));
            let hint = nearest
                .map(|name| format!("; did you mean `{name}`?"))
                .unwrap_or_default();
            let message = format!("there is no plugin `{}`{hint}", suggest::short(name));
            self.notes
                .problem(item(&member(path, "plugins"), index), message);
        }
        if entry.expires.0 <= now {
            self.notes.warning(
                member(path, "expires"),
                "this exemption has expired and holds no more",
            );
        }
        Some(Exemption {
            plugins,
            scope: self.notes.scope(&entry.r#match, &match_path),
            reason: entry.reason.as_str().into(),
            expires: entry.expires.0,
        })
    }
}
