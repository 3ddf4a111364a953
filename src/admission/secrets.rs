//! Which members of a spec hold secrets, and redacting them, in specs and in patches alike.
//!
//! dstack sends these in clear: `env` values, `registry_auth`, `probes` (header values, URL, body),
//! private SSH keys, and credentials inside of URLs. A reference `${{ secrets.NAME }}` arrives as
//! it was written and is no secret.

use json_patch::PatchOperation;
use json_patch::jsonptr::Pointer;
use serde_json::Value;

/// What stands in place of a secret.
pub const REDACTED: &str = "[redacted]";

/// What a place in a spec is about, as far as secrets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Plain,
    /// Whatever is here or below is a secret.
    Secret,
    Repos,
    Repo,
    /// What dstack takes for a path may be the rest of a URL, cut at the colon before its password.
    RepoPath,
    Probes,
    Probe,
    Headers,
    Header,
}

impl Place {
    fn child(self, token: &str) -> Self {
        match (self, token) {
            (Place::Secret, _) => Place::Secret,
            (Place::Plain, "env" | "registry_auth" | "private") => Place::Secret,
            (Place::Plain, "probes") => Place::Probes,
            (Place::Plain, "repos") => Place::Repos,
            (Place::Plain, _) => Place::Plain,
            (Place::Repos, _) => Place::Repo,
            (Place::Repo, "path") => Place::RepoPath,
            (Place::Probes, _) => Place::Probe,
            (Place::Probe, "headers") => Place::Headers,
            (Place::Probe, "url" | "body") => Place::Secret,
            (Place::Headers, _) => Place::Header,
            (Place::Header, "value") => Place::Secret,
            (Place::Repo | Place::RepoPath | Place::Probe | Place::Header, _) => Place::Plain,
        }
    }

    fn of(path: &Pointer) -> Self {
        path.tokens()
            .fold(Place::Plain, |place, token| place.child(&token.decoded()))
    }
}

/// Redacts a spec in place and lists where, as JSON Pointers.
pub fn redact(spec: &mut Value) -> Vec<String> {
    let mut found = Vec::new();
    redact_below(Place::Plain, &mut String::new(), spec, &mut found);
    found
}

/// Redacts the values of a patch on a spec in place and lists where, as JSON Pointers.
pub fn redact_patch(patch: &mut [PatchOperation]) -> Vec<String> {
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
        redact_below(Place::of(path), &mut path.to_string(), value, &mut found);
    }
    found
}

fn redact_below(place: Place, path: &mut String, value: &mut Value, found: &mut Vec<String>) {
    let length = path.len();
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                path.push('/');
                path.push_str(&key.replace('~', "~0").replace('/', "~1"));
                redact_below(place.child(key), path, value, found);
                path.truncate(length);
            }
        }
        Value::Array(elements) => {
            for (index, value) in elements.iter_mut().enumerate() {
                let token = index.to_string();
                path.push('/');
                path.push_str(&token);
                redact_below(place.child(&token), path, value, found);
                path.truncate(length);
            }
        }
        Value::String(text) => {
            let redacted = match place {
                Place::Secret if is_reference(text) || text.is_empty() => return,
                Place::Secret => Some(REDACTED.to_owned()),
                Place::RepoPath => without_password(text).or_else(|| without_credentials(text)),
                _ => without_credentials(text),
            };
            if let Some(redacted) = redacted {
                *text = redacted;
                found.push(path.clone());
            }
        }
        Value::Number(_) if place == Place::Secret => {
            *value = Value::String(REDACTED.to_owned());
            found.push(path.clone());
        }
        Value::Number(_) | Value::Bool(_) | Value::Null => {}
    }
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
    let (scheme, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (_, host) = authority.rsplit_once('@')?;
    let end = &rest[authority.len()..];
    Some(format!("{scheme}://{REDACTED}@{host}{end}"))
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
        let found = redact(&mut spec);
        let text = spec.to_string();
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
