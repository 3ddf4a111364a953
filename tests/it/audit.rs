//! Where records go: what is on disk or with a receiver, whatever happens to the process, its files
//! and its receivers.

mod crash;
mod disk;
mod receiver;
mod reload;
mod rotation;
mod shipping;

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};

use crate::harness::Home;

/// Keys of a configuration with these sinks, over plain HTTP.
fn with_sinks(sinks: impl IntoIterator<Item = Value>) -> Value {
    json!({"tls": "off", "audit": {"sinks": Vec::from_iter(sinks)}})
}

/// A file sink at `audit.log`.
fn file_sink(home: &Home, mode: &str) -> Value {
    json!({"file": {"path": home.path("audit.log"), "mode": mode}})
}

/// The audit events of one file, plain or compressed. Every line must be whole.
fn events(path: &Path) -> Vec<Value> {
    let mut bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    if path.extension().is_some_and(|end| end == "gz") {
        let mut text = Vec::new();
        let read = MultiGzDecoder::new(&*bytes).read_to_end(&mut text);
        read.unwrap_or_else(|e| panic!("{path:?}: {e}"));
        bytes = text;
    }
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{path:?} is torn");
    let parse =
        |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{path:?}: {e}: {line}"));
    text.lines().map(parse).collect()
}

/// The files of an audit log with its backups. What is being compressed is there under one name.
fn log_files(home: &Home) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(home.path("")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    files.retain(|file| {
        let name = name(file);
        let is_log =
            name.starts_with("audit") && !name.ends_with(".part") && !name.ends_with(".next");
        is_log && !home.path(&format!("{name}.gz")).exists()
    });
    files.sort();
    files
}

fn id(event: &Value) -> String {
    event["auditID"].as_str().unwrap().to_owned()
}
