//! What is found on the way through a file: problems, warnings, and the files that it names.

use std::path::{Path, PathBuf};

use super::{Places, Problem};

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

    /// The value, or its problem noted at `path`.
    pub(super) fn noted<T>(&mut self, path: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|why| self.problem(path, why)).ok()
    }
}
