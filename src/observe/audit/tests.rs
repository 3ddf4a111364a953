//! Files, rotation and group commit, and a spool from one end to the other.

mod files;
mod spool;
mod writing;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use prometheus::Registry;
use tempfile::TempDir;

use super::meters::{AuditVectors, SinkMeters};
use crate::observe::metrics::table::Table;

/// The handles of a sink that is called `sink`, and where they can be read.
fn meters() -> (Arc<SinkMeters>, Registry) {
    let registry = Registry::new();
    let table = Table::of(&registry);
    let errors = table.counters("audit_error_total", "Errors.", &["sink"]);
    let vectors = AuditVectors::register(&table, errors.unwrap()).unwrap();
    (Arc::new(vectors.sink("sink")), registry)
}

/// A counter or gauge by its name and its last label's value; 0 if absent.
fn metric(registry: &Registry, name: &str, label: &str) -> f64 {
    let families = registry.gather();
    let name = format!("dstack_admission_{name}");
    let family = families.iter().find(|family| family.name() == name);
    let metrics = family.map(|family| family.get_metric()).unwrap_or_default();
    let found = metrics
        .iter()
        .find(|metric| metric.get_label().iter().any(|pair| pair.value() == label));
    found.map_or(0.0, |metric| {
        metric.get_counter().get_value() + metric.get_gauge().get_value()
    })
}

fn home() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    (directory, path)
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}
