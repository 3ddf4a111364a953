//! From the list of plugins as typed to the chain of plugins that can be called.

use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderName, Uri};

use super::file::Exemption as ExemptionEntry;
use super::places::{item, member};
use super::plugin::{self, Match, PluginEntry, Remote};
use super::resolve::Notes;
use super::{defaults, env, suggest};
use crate::admission::chain::{
    Chain, Exemption, FailurePolicy, Globs, Member, Mode, OnConflict, Phases, Reinvocation, Scope,
};
use crate::admission::protected::Grant;
use crate::plugins::cel::{Conditions, Policy};
use crate::plugins::http::{ClientCert, Credentials, Settings};
use crate::plugins::rest::Rest;
use crate::plugins::webhook::Webhook;
use crate::plugins::{Backend, Plugin, breaker};

/// Headers that belong to one connection or one caller and are never passed on.
const NEVER_FORWARDED: [&str; 8] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "proxy-authorization",
    "transfer-encoding",
];

pub(super) struct Resolved {
    pub chain: Chain<Plugin>,
    pub forward_headers: Vec<String>,
}

/// Builds the chain and notes all that is wrong with it.
pub(super) fn resolve(
    entries: &[PluginEntry],
    exemptions: &[ExemptionEntry],
    now: SystemTime,
    notes: &mut Notes,
) -> Resolved {
    let mut build = Build {
        notes,
        names: Vec::new(),
        forward_headers: Vec::new(),
    };
    let mut chain = Chain::default();
    for (index, entry) in entries.iter().enumerate() {
        let path = item("plugins", index);
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
    for (index, entry) in exemptions.iter().enumerate() {
        if let Some(exemption) = build.exemption(entry, &item("exemptions", index), now) {
            chain.exempt(exemption);
        }
    }
    Resolved {
        chain,
        forward_headers: build.forward_headers,
    }
}

struct Build<'n> {
    notes: &'n mut Notes,
    names: Vec<String>,
    forward_headers: Vec<String>,
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
        let scope = given
            .map(|given| self.scope(given, &member(path, "match")))
            .unwrap_or_default();
        let conditions = self.conditions(given, &member(path, "match"));
        let may_patch = self.grants(entry, path);
        let timeout = entry.timeout.unwrap_or(defaults::TIMEOUT).0;
        if timeout.is_zero() {
            self.notes
                .problem(member(path, "timeout"), "a timeout of 0s fails every call");
        }
        let (backend, phases) = self.backend(entry, path)?;
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

    fn scope(&mut self, given: &Match, path: &str) -> Scope {
        let mut globs = |key: &str, patterns: &[String]| {
            if patterns.is_empty() {
                return None;
            }
            self.notes.noted(&member(path, key), Globs::parse(patterns))
        };
        Scope {
            projects: globs("projects", &given.projects),
            users: globs("users", &given.users),
            kinds: match given.kinds.is_empty() {
                true => None,
                false => Some(given.kinds.iter().map(|kind| (*kind).into()).collect()),
            },
        }
    }

    fn conditions(&mut self, given: Option<&Match>, path: &str) -> Option<Conditions> {
        let conditions = given
            .map(|given| given.conditions.as_slice())
            .unwrap_or_default();
        match Conditions::compile(conditions) {
            Ok(conditions) => Some(conditions),
            Err(errors) => {
                for error in errors {
                    self.notes
                        .problem(format!("{path}{}", error.field), error.message);
                }
                None
            }
        }
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
            let policy =
                match Policy::compile(source, &serde_json::Value::Object(serde_json::Map::new())) {
                    Ok(policy) => policy,
                    Err(errors) => {
                        for error in errors {
                            self.notes
                                .problem(format!("{path}.{}", error.field), error.message);
                        }
                        return None;
                    }
                };
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
        for (key, given) in [
            ("use", entry.r#use.is_some()),
            ("python", entry.python.is_some()),
        ] {
            if given {
                let message = format!(
                    "`{key}` is not built into this version; `cel`, `webhook` and `rest` are"
                );
                self.notes.problem(member(path, key), message);
            }
        }
        None
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

    fn remote(&mut self, remote: &Remote, path: &str) -> Option<Settings> {
        let url = self.url(remote, path);
        let client_cert = match (&remote.client_cert_file, &remote.client_key_file) {
            (Some(cert), Some(key)) => Some(ClientCert {
                cert_file: cert.clone(),
                key_file: key.clone(),
            }),
            (None, None) => None,
            (Some(_), None) => {
                self.notes.problem(
                    member(path, "clientCertFile"),
                    "needs `clientKeyFile` beside it",
                );
                None
            }
            (None, Some(_)) => {
                self.notes.problem(
                    member(path, "clientKeyFile"),
                    "needs `clientCertFile` beside it",
                );
                None
            }
        };
        let credentials = match (&remote.bearer_token_file, &remote.basic) {
            (None, None) => None,
            (Some(file), None) => Some(Credentials::Bearer {
                token_file: file.clone(),
            }),
            (None, Some(basic)) => Some(Credentials::Basic {
                username: basic.username.clone(),
                password_file: basic.password_file.clone(),
            }),
            (Some(_), Some(_)) => {
                self.notes.problem(
                    member(path, "basic"),
                    "give only one of `basic` and `bearerTokenFile`",
                );
                None
            }
        };
        let password = remote.basic.as_ref().map(|basic| &basic.password_file);
        let files = [
            &remote.ca_file,
            &remote.client_cert_file,
            &remote.client_key_file,
            &remote.bearer_token_file,
        ];
        for file in files.into_iter().flatten().chain(password) {
            self.notes.input(file);
        }
        let max_response_bytes = remote
            .max_response_bytes
            .unwrap_or(defaults::MAX_RESPONSE_BYTES)
            .0;
        Some(Settings {
            url: url?,
            ca_file: remote.ca_file.clone(),
            client_cert,
            credentials,
            forward_headers: self.forward_headers(remote, path),
            max_response_bytes: usize::try_from(max_response_bytes).unwrap_or(usize::MAX),
            breaker: breaker::Settings {
                failures: remote
                    .breaker
                    .failures
                    .unwrap_or(defaults::BREAKER_FAILURES),
                open_for: remote
                    .breaker
                    .open_for
                    .unwrap_or(defaults::BREAKER_OPEN_FOR)
                    .0,
            },
        })
    }

    fn url(&mut self, remote: &Remote, path: &str) -> Option<Uri> {
        let path = member(path, "url");
        let expanded = env::expand_env(&remote.url, |name| std::env::var(name).ok())
            .map_err(|e| e.to_string());
        let text = self.notes.noted(&path, expanded)?;
        let parsed = text.parse::<Uri>().map_err(|e| format!("no URL: {e}"));
        let url = self.notes.noted(&path, parsed)?;
        let authority = url
            .authority()
            .map(|authority| authority.as_str())
            .unwrap_or_default();
        let why = match url.scheme_str() {
            _ if authority.contains('@') => {
                "credentials do not belong into a URL: use `basic` or `bearerTokenFile`"
            }
            Some("https") => return Some(url),
            Some("http") if remote.allow_plain_http || is_loopback(&url) => return Some(url),
            Some("http") => {
                "plain HTTP beyond loopback shows the specs and their secrets to the network; \
                 use https, or set `allowPlainHttp: true`"
            }
            _ => "write a whole URL, such as `https://policy.example.com/validate`",
        };
        self.notes.problem(path, why);
        None
    }

    fn forward_headers(&mut self, remote: &Remote, path: &str) -> Vec<HeaderName> {
        let mut names = Vec::new();
        for (index, text) in remote.forward_headers.iter().enumerate() {
            let parsed = text
                .parse::<HeaderName>()
                .map_err(|_| format!("`{text}` is no header name"));
            let parsed = parsed.and_then(|name| match NEVER_FORWARDED.contains(&name.as_str()) {
                true => Err(format!("`{name}` is never passed on")),
                false => Ok(name),
            });
            let place = item(&member(path, "forwardHeaders"), index);
            if let Some(name) = self.notes.noted(&place, parsed) {
                if !self
                    .forward_headers
                    .iter()
                    .any(|known| known == name.as_str())
                {
                    self.forward_headers.push(name.as_str().to_owned());
                }
                names.push(name);
            }
        }
        names
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
            scope: self.scope(&entry.r#match, &match_path),
            reason: entry.reason.as_str().into(),
            expires: entry.expires.0,
        })
    }
}

fn is_loopback(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}
