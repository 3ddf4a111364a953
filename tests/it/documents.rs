//! Pages of the documentation that say what the program itself knows. `make docs` writes them anew.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dstack_admission::admission::effective::Effective;
use dstack_admission::observe::metrics::Metrics;
use schemars::schema_for;
use serde_json::Value;

use crate::harness::events;

/// What is above this line in a page is written by hand.
const MARK: &str = "<!-- From here on this page is generated: `make docs`. -->\n\n";

/// Compares the generated part of a page, or writes it.
fn is_up_to_date(page: &str, generated: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(page);
    let there = fs::read_to_string(&path).unwrap();
    let (by_hand, after) = there.split_once(MARK).unwrap();
    if env::var_os("DOCUMENTS").is_some_and(|what| what == "write") {
        fs::write(&path, format!("{by_hand}{MARK}{generated}")).unwrap();
    } else {
        assert!(
            after == generated,
            "docs/{page} is out of date: run `make docs`"
        );
    }
}

#[test]
fn the_page_of_the_policies_is_up_to_date() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dstack-admission"));
    let output = command
        .args(["policies", "-o", "markdown"])
        .output()
        .unwrap();
    is_up_to_date("policies.md", &String::from_utf8(output.stdout).unwrap());
}

/// Compares a whole file, or writes it.
fn is_schema(path: &str, of: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dstack-admission"));
    let schema = command.args(["schema", of]).output().unwrap().stdout;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if env::var_os("DOCUMENTS").is_some_and(|what| what == "write") {
        fs::write(path, schema).unwrap();
    } else {
        assert!(
            fs::read(&path).unwrap() == schema,
            "{path:?} is out of date: run `make docs`"
        );
    }
}

#[test]
fn the_schemas_for_editors_are_up_to_date() {
    is_schema("deploy/schema/configuration.json", "configuration");
    is_schema("deploy/schema/suite.json", "suite");
}

#[test]
fn the_schema_of_audit_events_is_up_to_date() {
    is_schema("deploy/schema/audit-event.json", "audit-event");
}

#[test]
fn the_page_of_the_audit_event_is_up_to_date() {
    let schema = events::schema();
    let mut page = String::new();
    members(&mut page, &schema, "field");
    for (name, schema) in schema["$defs"].as_object().unwrap() {
        let description = schema["description"].as_str().unwrap();
        let _ = write!(page, "\n### {name}\n\n{description}\n\n");
        members(&mut page, schema, "field");
    }
    is_up_to_date("audit.md", &page);
}

/// The YAML files below a directory that are of a format of ours.
fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
            && fs::read_to_string(&path)
                .unwrap()
                .contains("apiVersion: dstack-admission/v1")
        {
            found.push(path);
        }
    }
}

#[test]
fn every_example_tells_editors_its_schema() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    files(&root.join("deploy"), &mut found);
    assert!(found.len() >= 4, "{found:?}");
    for path in found {
        let text = fs::read_to_string(&path).unwrap();
        let first = text.lines().next().unwrap();
        let schema = first.strip_prefix("# yaml-language-server: $schema=");
        let schema = schema.unwrap_or_else(|| panic!("{}: no modeline", path.display()));
        let is_suite = path.to_string_lossy().ends_with(".test.yaml");
        let of = if is_suite {
            "suite.json"
        } else {
            "configuration.json"
        };
        assert!(schema.ends_with(of), "{}: {schema}", path.display());
        assert!(
            path.parent().unwrap().join(schema).is_file(),
            "{}: {schema}",
            path.display()
        );
    }
}

#[test]
fn the_page_of_what_a_spec_asks_for_is_up_to_date() {
    let schema = schema_for!(Effective).to_value();
    let mut page = String::new();
    members(&mut page, &schema, "effective");
    let types = schema["$defs"].as_object().unwrap();
    for (name, schema) in types {
        let description = schema["description"].as_str().unwrap();
        let _ = write!(page, "\n## {name}\n\n{description}\n\n");
        members(&mut page, schema, "member");
    }
    is_up_to_date("effective.md", &page);
}

#[test]
fn the_page_of_the_metrics_is_up_to_date() {
    let mut page = "| metric | type | labels | |\n|---|---|---|---|\n".to_owned();
    for metric in Metrics::new().unwrap().described() {
        let labels: Vec<_> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
        let (name, kind, labels) = (&metric.name, metric.kind, labels.join(", "));
        let _ = writeln!(page, "| `{name}` | {kind} | {labels} | {} |", metric.help);
    }
    is_up_to_date("metrics.md", &page);
}

/// A table of an object's members.
fn members(page: &mut String, schema: &Value, title: &str) {
    let _ = writeln!(page, "| {title} | type | |\n|---|---|---|");
    for (name, schema) in schema["properties"].as_object().unwrap() {
        let description = schema["description"].as_str().unwrap_or_default();
        let description = description.replace('\n', " ");
        let _ = writeln!(page, "| `{name}` | {} | {description} |", type_of(schema));
    }
}

/// A type in few words: `int`, `string or null`, `list of Group`.
fn type_of(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(branches) = schema["anyOf"].as_array() {
        let names: Vec<_> = branches.iter().map(type_of).collect();
        return names.join(" or ");
    }
    let name = |kind: &str| match kind {
        "integer" => "int".to_owned(),
        "number" => "double".to_owned(),
        "boolean" => "bool".to_owned(),
        "object" => "map".to_owned(),
        "array" => format!("list of {}", type_of(&schema["items"])),
        other => other.to_owned(),
    };
    match &schema["type"] {
        Value::Array(kinds) => {
            let names: Vec<_> = kinds.iter().filter_map(Value::as_str).map(name).collect();
            names.join(" or ")
        }
        kind => name(kind.as_str().unwrap_or("any")),
    }
}
