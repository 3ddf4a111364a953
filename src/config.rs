//! The configuration file: read, held against its schema, typed.
//!
//! Every problem is reported at once, each with the line and key path where it stands. Nothing
//! here opens a file that the configuration names, and no secret is ever in the configuration.

pub mod audit;
mod chain;
mod check;
pub mod defaults;
pub mod env;
pub mod file;
mod keys;
mod notes;
pub mod offline;
mod otlp;
pub mod places;
pub mod plugin;
pub mod problem;
pub mod python;
mod recording;
mod remote;
mod requirement;
pub mod resolve;
pub mod schema;
mod sinks;
pub(crate) mod suggest;
pub mod tracing;
pub mod units;
mod words;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha1::{Digest, Sha1};

pub use file::AdmissionConfiguration;
pub use places::Places;
pub use problem::{Place, Problem, Problems};
pub use remote::parse_url;

use check::Checker;
use places::MAX_BYTES;

/// A kind of file that is read as the configuration is.
pub trait Document: DeserializeOwned + JsonSchema {
    /// The value of its key `kind`.
    const KIND: &str;
    /// What messages call it, with its article.
    const NOUN: &str;
}

/// A file as typed.
#[derive(Clone, Debug)]
pub struct Loaded<D = AdmissionConfiguration> {
    pub file: D,
    /// The line of each key.
    pub places: Places,
    /// Tells one text of the file from another: its SHA-1, 40 hex digits.
    pub hash: String,
}

/// A file that was read, and what is wrong with it.
#[derive(Clone, Debug)]
pub struct Parsed<D = AdmissionConfiguration> {
    /// With problems, this is mended with stand-ins and only good for finding more of them.
    loaded: Option<Loaded<D>>,
    problems: Problems,
}

impl<D> Parsed<D> {
    /// The file, when nothing is wrong with it.
    ///
    /// # Errors
    /// All problems.
    pub fn into_result(self) -> Result<Loaded<D>, Problems> {
        self.then(Ok)
    }

    /// Takes the file through a later stage, which may find more that is wrong.
    ///
    /// The stage runs on a file with problems too, as far as one can be made out, so that the
    /// problems of both are reported together; what it makes is dropped then. A problem is best
    /// reported at the key it is about, not at the map that holds it: what may only follow from a
    /// problem known already is left out.
    ///
    /// # Errors
    /// All problems of the file and of the stage.
    pub fn then<T>(
        mut self,
        stage: impl FnOnce(Loaded<D>) -> Result<T, Problems>,
    ) -> Result<T, Problems> {
        match self.loaded.map(stage) {
            Some(Ok(made)) if self.problems.is_empty() => Ok(made),
            Some(Err(later)) => {
                self.problems.add_later(later);
                Err(self.problems)
            }
            Some(Ok(_)) | None => Err(self.problems),
        }
    }
}

/// Reads the configuration file at `path`. Blocks.
pub fn read(path: &Path) -> Parsed {
    read_document(path)
}

/// Reads a file of any kind. Blocks.
pub fn read_document<D: Document>(path: &Path) -> Parsed<D> {
    let name = path.display().to_string();
    let bytes = match read_bytes(path) {
        Ok(bytes) => bytes,
        Err(error) => return unreadable(file_problem(&name, format!("cannot be read: {error}"))),
    };
    if bytes.len() > MAX_BYTES {
        return unreadable(file_problem(&name, "larger than 1 MiB"));
    }
    match str::from_utf8(&bytes) {
        Ok(text) => parse_document(text, &name),
        Err(_) => unreadable(file_problem(&name, "not a text in UTF-8")),
    }
}

/// Reads a configuration from its text. `file` is what problems call it.
pub fn parse(text: &str, file: &str) -> Parsed {
    parse_document(text, file)
}

/// Reads a file of any kind from its text. `file` is what problems call it.
pub fn parse_document<D: Document>(text: &str, file: &str) -> Parsed<D> {
    if text.len() > MAX_BYTES {
        return unreadable(file_problem(file, "larger than 1 MiB"));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let scan = match places::scan(text, file) {
        Ok(scan) => scan,
        Err(problem) => return unreadable(problem),
    };
    let (places, mut problems) = (scan.places, scan.problems);
    let document: Value = match serde_yaml::from_str(text) {
        Ok(document) => document,
        Err(error) => {
            // What the scan found, such as a tag, is said better there.
            if problems.is_empty() {
                let mut problem = file_problem(file, format!("not valid YAML: {error}"));
                problem.place.line = error.location().map(|location| location.line());
                problems.push(problem);
            }
            return Parsed {
                loaded: None,
                problems,
            };
        }
    };
    if document.is_null() {
        let (noun, kind) = (D::NOUN, D::KIND);
        let message = format!(
            "empty; {noun} begins with `apiVersion: dstack-admission/v1` and `kind: {kind}`"
        );
        return unreadable(file_problem(file, message));
    }
    if !document.is_object() {
        return unreadable(file_problem(file, format!("{} is a map of keys", D::NOUN)));
    }
    let schema = schema::schema_of::<D>();
    let checked = match Checker::new(&schema) {
        Ok(checker) => checker.check(document, &places),
        Err(error) => {
            let message = format!("the schema of {} is not usable: {error}", D::NOUN);
            return unreadable(file_problem(file, message));
        }
    };
    for problem in checked.problems {
        problems.push(problem);
    }
    let typed = checked.mended.map(serde_json::from_value);
    let loaded = match typed {
        Some(Ok(file)) => Some(Loaded {
            file,
            places,
            hash: format!("{:x}", Sha1::digest(text)),
        }),
        Some(Err(error)) => {
            problems.push(file_problem(file, error.to_string()));
            None
        }
        None => None,
    };
    Parsed { loaded, problems }
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    // One byte more than is read, so that a file that is too large shows as such.
    let limit = MAX_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unreadable<D>(problem: Problem) -> Parsed<D> {
    Parsed {
        loaded: None,
        problems: std::iter::once(problem).collect(),
    }
}

fn file_problem(file: &str, message: impl Into<String>) -> Problem {
    Problem {
        place: Place {
            file: file.into(),
            line: None,
        },
        path: String::new(),
        message: message.into(),
    }
}
