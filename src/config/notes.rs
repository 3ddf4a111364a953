//! What is found on the way through a file: problems, warnings, and the files that it names.

use std::path::{Path, PathBuf};

use super::places::member;
use super::plugin::Match;
use super::{Places, Problem};
use crate::admission::scope::{Globs, Scope};

/// What is found on the way through a file.
pub(super) struct Notes {
    pub(super) places: Places,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
    pub(super) inputs: Vec<PathBuf>,
}

impl Notes {
    pub(super) fn new(places: Places) -> Self {
        Self {
            places,
            problems: Vec::new(),
            warnings: Vec::new(),
            inputs: Vec::new(),
        }
    }

    pub(super) fn problem(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.problems.push(self.places.problem(path, message));
    }

    pub(super) fn warning(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.warnings.push(self.places.problem(path, message));
    }

    /// Remembers a file that the settings depend on.
    pub(super) fn input(&mut self, file: &Path) {
        if !self.inputs.iter().any(|known| known == file) {
            self.inputs.push(file.to_owned());
        }
    }

    /// The reviews that a `match` at `path` is about, but for its conditions.
    pub(super) fn scope(&mut self, given: &Match, path: &str) -> Scope {
        let mut globs = |key: &str, patterns: &Option<Vec<String>>| {
            let globs = Globs::parse(patterns.as_ref()?);
            self.noted(&member(path, key), globs)
        };
        Scope {
            projects: globs("projects", &given.projects),
            users: globs("users", &given.users),
            kinds: given
                .kinds
                .as_ref()
                .map(|kinds| kinds.iter().map(|kind| (*kind).into()).collect()),
        }
    }

    /// The value, or its problem noted at `path`.
    pub(super) fn noted<T>(&mut self, path: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|why| self.problem(path, why)).ok()
    }
}
