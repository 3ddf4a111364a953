//! Specs from files: bare, or in the request body in which a dstack server sent them.
//!
//! A JSON file's spec keeps its very text. Nothing here judges a spec.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use serde_json::Value;

use crate::admission::review::{Kind, Spec};
use crate::protocol::dstack::decode_request;

/// A spec as it was found, and who applies it where if that stood beside it.
#[derive(Debug)]
pub struct Found {
    pub user: Option<String>,
    pub project: Option<String>,
    pub spec: Spec,
}

/// Reads the file at `path`, YAML if its name says so and JSON else; `-` is standard input. Blocks.
///
/// # Errors
/// When it cannot be read or holds no spec.
pub fn read(path: &Path) -> anyhow::Result<Found> {
    let name = || path.display().to_string();
    let mut bytes = Vec::new();
    match path.to_str() {
        Some("-") => io::stdin()
            .read_to_end(&mut bytes)
            .map(drop)
            .context("standard input")?,
        _ => bytes = fs::read(path).with_context(name)?,
    }
    let is_yaml = path
        .extension()
        .is_some_and(|extension| extension == "yaml" || extension == "yml");
    if is_yaml {
        let value: Value = serde_yaml::from_slice(&bytes).with_context(name)?;
        bytes = value.to_string().into_bytes();
    }
    parse(bytes.into()).with_context(name)
}

/// Makes out a spec, or a request body `{user, project, spec}`.
fn parse(text: Bytes) -> anyhow::Result<Found> {
    Ok(match decode_request(&text) {
        Ok(request) => Found {
            user: Some(request.user),
            project: Some(request.project),
            spec: request.spec,
        },
        Err(_) => Found {
            user: None,
            project: None,
            spec: Spec::parse(text)?,
        },
    })
}

/// What a spec is, by its `configuration.type`.
pub fn kind_of(spec: &Value) -> Option<Kind> {
    match spec.pointer("/configuration/type")?.as_str()? {
        "task" | "service" | "dev-environment" => Some(Kind::Run),
        "fleet" => Some(Kind::Fleet),
        "volume" => Some(Kind::Volume),
        "gateway" => Some(Kind::Gateway),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case("a.json", r#"{"configuration": {"type": "task"}, "n": 1.50}"#, None)]
    #[case(
        "a.json",
        r#"{"user": "ada", "project": "p", "spec": {"n": 1.50}}"#,
        Some("ada")
    )]
    #[case("a.yaml", "configuration: {type: task}\n", None)]
    #[case("a.yml", "user: ada\nproject: p\nspec: {n: 1}\n", Some("ada"))]
    fn a_spec_is_found_bare_or_in_a_body(
        #[case] name: &str,
        #[case] text: &str,
        #[case] user: Option<&str>,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        let found = read(&path).unwrap();
        assert_eq!(found.user.as_deref(), user);
        if name == "a.json" {
            assert!(found.spec.text().ends_with(b"1.50}"), "its text is kept");
        }
    }

    #[rstest]
    #[case(json!({"configuration": {"type": "dev-environment"}}), Some(Kind::Run))]
    #[case(json!({"configuration": {"type": "fleet"}}), Some(Kind::Fleet))]
    #[case(json!({"configuration": {"type": "pod"}}), None)]
    #[case(json!({"configuration": {"type": 1}}), None)]
    #[case(json!({}), None)]
    fn a_spec_tells_its_kind(#[case] spec: Value, #[case] kind: Option<Kind>) {
        assert_eq!(kind_of(&spec), kind);
    }
}
