//! What of a spec is secret, and redacting it, in specs, in patches and in what plugins say.
//!
//! Three things tell a secret: its place (dstack sends `env` values, `registry_auth`, `probes`
//! and private SSH keys in clear), its shape (a well-known token, a password in a URL) and its value (what
//! stands at a secret place is secret elsewhere too). A reference `${{ secrets.NAME }}` arrives as
//! it was written and is no secret. Names of members are never taken for secrets.

mod known;
mod path;
mod places;
pub mod shapes;
mod write;

use json_patch::PatchOperation;
use serde_json::Value;

pub use known::Known;
pub use path::Path;
use places::{Pattern, Place};

/// What stands in place of a secret.
pub const REDACTED: &str = "[redacted]";

/// What is secret, by the rules of this house and of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    places: Vec<Pattern>,
}

impl Secrets {
    /// Takes further places for secret: JSON Pointers, in which `*` is any one name or index.
    ///
    /// # Errors
    /// The index of the first one that is no such pointer, and why.
    pub fn with_places<S: AsRef<str>>(patterns: &[S]) -> Result<Self, (usize, String)> {
        let parse =
            |(index, text): (usize, &S)| Pattern::parse(text.as_ref()).map_err(|why| (index, why));
        let places = patterns.iter().enumerate().map(parse);
        Ok(Self {
            places: places.collect::<Result<_, _>>()?,
        })
    }

    /// The secret values of a spec as it came and of what became of it. A value that the spec as
    /// it came also has in clear, or that is one of `clear`, is none.
    pub fn known(&self, came: &Value, became: Option<&Value>, clear: &[&str]) -> Known {
        let mut found = Found::default();
        self.collect(Place::Plain, &Path::at(""), came, &mut found);
        let plain = std::mem::take(&mut found.plain);
        if let Some(became) = became {
            self.collect(Place::Plain, &Path::at(""), became, &mut found);
        }
        let values = found.secret.iter().map(|value| &**value);
        Known::new(values, |value| {
            clear.contains(&value) || plain.contains(&value)
        })
    }

    /// Redacts a spec in place and lists where, as JSON Pointers.
    pub fn redact(&self, spec: &mut Value, known: &Known) -> Vec<String> {
        self.redact_at("", spec, known)
    }

    /// Redacts the values of a patch on a spec in place and lists where, as JSON Pointers.
    pub fn redact_patch(&self, patch: &mut [PatchOperation], known: &Known) -> Vec<String> {
        let mut found = Vec::new();
        for operation in patch {
            let (path, value) = match operation {
                PatchOperation::Add(op) => (&op.path, &mut op.value),
                PatchOperation::Replace(op) => (&op.path, &mut op.value),
                PatchOperation::Test(op) => (&op.path, &mut op.value),
                PatchOperation::Remove(_) | PatchOperation::Move(_) | PatchOperation::Copy(_) => {
                    continue;
                }
            };
            found.extend(self.redact_at(path.as_str(), value, known));
        }
        found
    }

    /// Redacts a value that stands at a JSON Pointer of a spec, and lists where.
    pub fn redact_at(&self, pointer: &str, value: &mut Value, known: &Known) -> Vec<String> {
        let mut found = Vec::new();
        let path = Path::at(pointer);
        self.redact_below(Place::of(pointer), &path, value, known, &mut found);
        found
    }

    fn redact_below(
        &self,
        place: Place,
        path: &Path<'_>,
        value: &mut Value,
        known: &Known,
        found: &mut Vec<String>,
    ) {
        match value {
            Value::Object(members) => {
                for (key, value) in members {
                    self.redact_below(place.child(key), &path.member(key), value, known, found);
                }
            }
            Value::Array(elements) => {
                for (index, value) in elements.iter_mut().enumerate() {
                    self.redact_below(place.element(), &path.element(index), value, known, found);
                }
            }
            leaf => {
                if let Some(redacted) = self.leaf(place, path, leaf, known) {
                    *leaf = Value::String(redacted);
                    found.push(path.pointer());
                }
            }
        }
    }

    /// What stands in place of a value that is neither map nor list, when it holds a secret.
    fn leaf(&self, place: Place, path: &Path<'_>, value: &Value, known: &Known) -> Option<String> {
        match value {
            Value::String(text) => {
                let redacted = match place {
                    _ if self.is_secret(place, path) => {
                        let harmless = text.is_empty() || is_reference(text);
                        (!harmless).then(|| REDACTED.to_owned())
                    }
                    Place::RepoPath => without_password(text),
                    _ => without_credentials(text),
                };
                let rest = known.redacted(redacted.as_deref().unwrap_or(text));
                rest.or(redacted).filter(|redacted| redacted != text)
            }
            // What a switch says is no secret, unless the configuration says so.
            Value::Number(_) | Value::Bool(_) if self.is_secret(place, path) => {
                let is_one = value.is_number() || place != Place::Secret;
                is_one.then(|| REDACTED.to_owned())
            }
            Value::Number(number) if known.is(number) => Some(REDACTED.to_owned()),
            _ => None,
        }
    }

    fn is_secret(&self, place: Place, path: &Path<'_>) -> bool {
        if place == Place::Secret || self.places.is_empty() {
            return place == Place::Secret;
        }
        let pointer = path.pointer();
        self.places.iter().any(|pattern| pattern.covers(&pointer))
    }

    fn collect<'v>(&self, place: Place, path: &Path<'_>, value: &'v Value, found: &mut Found<'v>) {
        match value {
            Value::Object(members) => {
                for (key, value) in members {
                    self.collect(place.child(key), &path.member(key), value, found);
                }
            }
            Value::Array(elements) => {
                for (index, value) in elements.iter().enumerate() {
                    self.collect(place.element(), &path.element(index), value, found);
                }
            }
            Value::String(text) if self.is_secret(place, path) => {
                if !is_reference(text) {
                    found.secret.push(text.into());
                }
            }
            Value::Number(number) if self.is_secret(place, path) => {
                found.secret.push(number.to_string().into());
            }
            Value::String(text) => {
                let shapes = shapes::find(text).into_iter();
                let inside = shapes.map(|range| text[range].into()).collect::<Vec<_>>();
                let password = match place {
                    Place::RepoPath => text.split_once('@').map(|(password, _)| password),
                    _ => userinfo(text),
                };
                let password = password.map(|info| info.rsplit(':').next().unwrap_or(info).into());
                if inside.is_empty() && password.is_none() {
                    found.plain.push(text);
                }
                found.secret.extend(inside);
                found.secret.extend(password);
            }
            Value::Number(_) | Value::Bool(_) | Value::Null => {}
        }
    }
}

/// What a spec holds.
#[derive(Default)]
struct Found<'v> {
    secret: Vec<std::borrow::Cow<'v, str>>,
    /// Whole texts without a secret.
    plain: Vec<&'v str>,
}

/// Redacts a spec in place by its places and shapes, and lists where, as JSON Pointers.
pub fn redact(spec: &mut Value) -> Vec<String> {
    Secrets::default().redact(spec, &Known::default())
}

/// Redacts the values of a patch on a spec in place, likewise.
pub fn redact_patch(patch: &mut [PatchOperation]) -> Vec<String> {
    Secrets::default().redact_patch(patch, &Known::default())
}

fn is_reference(text: &str) -> bool {
    let inside = text
        .trim()
        .strip_prefix("${{")
        .and_then(|rest| rest.strip_suffix("}}"));
    inside.is_some_and(|name| name.trim().starts_with("secrets.") && !name.contains("}}"))
}

/// A URL without its userinfo, or nothing when the text has none.
fn without_credentials(text: &str) -> Option<String> {
    let info = userinfo(text)?;
    let (scheme, rest) = text.split_once("://")?;
    Some(format!("{scheme}://{REDACTED}{}", &rest[info.len()..]))
}

/// The userinfo of a text that is a URL.
fn userinfo(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#', ' ', '\n']).next()?;
    authority.rsplit_once('@').map(|(info, _)| info)
}

/// The rest of a URL without the password that it begins with, or nothing when it begins with none.
fn without_password(text: &str) -> Option<String> {
    let (password, rest) = text.split_once('@')?;
    let is_one = !password.is_empty() && !password.contains('/');
    is_one.then(|| format!("{REDACTED}@{rest}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_password_that_dstack_takes_for_a_path_is_redacted() {
        let repo = |path: &str| json!({"configuration": {"repos": [{"url": "https://robot", "path": path}]}});
        let mut spec = repo("canary-7@git.example.com/acme/train.git");
        assert_eq!(redact(&mut spec), ["/configuration/repos/0/path"]);
        assert_eq!(spec, repo("[redacted]@git.example.com/acme/train.git"));
        let mut plain = repo("work/a@b");
        assert!(redact(&mut plain).is_empty());
        assert_eq!(plain, repo("work/a@b"));
    }

    #[test]
    fn what_dstack_sends_in_clear_is_redacted_and_listed() {
        let canary = "canary-7";
        let mut spec = json!({
            "configuration": {
                "env": {"TOKEN": canary, "REF": "${{ secrets.hf }}", "N": 7},
                "registry_auth": {"username": canary, "password": canary},
                "probes": [{"type": "http", "url": canary, "body": canary, "headers": [{"name": "a", "value": canary}]}],
                "groups": [{"registry_auth": {"password": canary}}],
                "repos": [{"url": format!("https://me:{canary}@host/x.git"), "path": "a"}],
                "ssh_config": {"ssh_key": {"public": "ssh-rsa A", "private": canary},
                               "hosts": [{"ssh_key": {"private": canary}, "proxy_jump": {"ssh_key": {"private": canary}}}]},
                "image": "host/a@sha256:1",
            }
        });
        let came = spec.clone();
        let found = redact(&mut spec);
        let text = spec.to_string();
        let written = Secrets::default().redacted(&came, &Known::default());
        let (written, places) = written.unwrap();
        assert_eq!((written.get(), &places), (&*text, &found));
        assert!(!text.contains(canary), "{text}");
        assert!(
            text.contains("${{ secrets.hf }}")
                && text.contains("host/a@sha256:1")
                && text.contains("ssh-rsa A")
        );
        assert!(
            found.contains(&"/configuration/env/TOKEN".to_owned()),
            "{found:?}"
        );
        assert_eq!(found.len(), 12, "{found:?}");
    }

    #[test]
    fn values_in_patches_are_redacted_by_where_they_go() {
        let mut patch: Vec<PatchOperation> = serde_json::from_value(json!([
            {"op": "add", "path": "/configuration/env/TOKEN", "value": "canary"},
            {"op": "replace", "path": "/configuration", "value": {"env": {"A": "canary"}, "image": "x"}},
            {"op": "test", "path": "/configuration/probes/0/headers/1/value", "value": "canary"},
            {"op": "remove", "path": "/configuration/env/OLD"},
        ]))
        .unwrap();
        let found = redact_patch(&mut patch);
        assert!(!serde_json::to_string(&patch).unwrap().contains("canary"));
        assert_eq!(found.len(), 3, "{found:?}");
    }
}
