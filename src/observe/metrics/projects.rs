//! Decisions by project, only where the configuration asks for them and for so many projects at most.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use prometheus::{IntCounter, IntCounterVec};

use super::table::Table;

/// Stands for the projects beyond the limit. No name of a dstack project has parentheses.
const OTHERS: &str = "(other)";
/// The longest name that a dstack project can have.
const LONGEST_NAME: usize = 50;

/// The decisions of each project.
pub(super) struct Projects {
    decisions: IntCounterVec,
    names: &'static [&'static str],
    counted: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    limit: usize,
    projects: HashMap<String, Vec<IntCounter>>,
}

impl Projects {
    /// `names` are the decisions that there are.
    pub fn register(
        table: &Table<'_>,
        names: &'static [&'static str],
    ) -> Result<Self, prometheus::Error> {
        let decisions = table.counters(
            "project_request_total",
            "Reviews answered, by project and decision, if metrics.projects asks for it; projects beyond that many are (other).",
            &["project", "decision"],
        )?;
        Ok(Self {
            decisions,
            names,
            counted: Mutex::default(),
        })
    }

    /// From now on counts so many projects; none at all if 0. Another limit begins anew.
    pub fn limit(&self, limit: usize) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.limit != limit {
            self.decisions.reset();
            *counted = Counted {
                limit,
                projects: HashMap::new(),
            };
        }
    }

    /// Counts a review of `project`; `decision` is an index into the names.
    pub fn decided(&self, project: &str, decision: usize) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.limit == 0 {
            return;
        }
        if !counted.projects.contains_key(project) {
            let is_room = counted.projects.len() < counted.limit && is_name(project);
            let label = if is_room { project } else { OTHERS };
            let counters = Vec::from_iter(
                self.names
                    .iter()
                    .map(|name| self.decisions.with_label_values(&[label, name])),
            );
            if !is_room {
                counters[decision].inc();
                return;
            }
            counted.projects.insert(project.to_owned(), counters);
        }
        if let Some(counters) = counted.projects.get(project) {
            counters[decision].inc();
        }
    }
}

fn is_name(project: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    !project.is_empty() && project.len() <= LONGEST_NAME && project.chars().all(plain)
}
