//! Decisions as JSON, for programs. It says what the events say and leaves nothing out.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::super::search::{Found, Search};
use super::{Field, changed};

/// Writes what was found, as the documentation says, one decision after the other: together they may
/// be larger than memory should be.
///
/// # Errors
/// When it cannot be written.
pub fn json(
    out: &mut impl Write,
    search: &Search,
    files: &[PathBuf],
    near: &[String],
) -> io::Result<()> {
    let report = Report {
        decisions: &search.found,
        matched: search.matched,
        near,
        searched: json!({
            "files": files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>(),
            "events": search.events,
            "unreadable": search.unreadable,
        }),
    };
    serde_json::to_writer_pretty(&mut *out, &report)?;
    writeln!(out)
}

#[derive(Serialize)]
struct Report<'r> {
    #[serde(serialize_with = "one_by_one")]
    decisions: &'r [Found],
    matched: u64,
    near: &'r [String],
    searched: Value,
}

fn one_by_one<S: Serializer>(found: &[Found], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(found.iter().map(decision_json))
}

fn decision_json(found: &Found) -> Value {
    let [decision, monitored] = found
        .lines()
        .map(|line| line.and_then(|line| serde_json::from_slice::<Value>(line).ok()));
    let events = found.events();
    let changed = events.decision.as_ref().map(changed).unwrap_or_default();
    json!({
        "auditID": decision.as_ref().or(monitored.as_ref()).map(|event| event["auditID"].clone()),
        "event": decision,
        "monitored": monitored,
        "fields": changed.iter().map(field_json).collect::<Vec<_>>(),
    })
}

fn field_json(field: &Field) -> Value {
    let mut shown = json!({"path": field.path, "setBy": field.by});
    for (key, told) in [("was", &field.was), ("now", &field.now)] {
        if let Some(Some(value)) = told {
            shown[key] = value.clone();
        }
    }
    shown
}
