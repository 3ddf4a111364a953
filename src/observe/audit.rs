//! The audit log: every decision as one line to each sink.
//!
//! A sink's mode says what an answer waits for, with Kubernetes' names: `batch` hands the line to
//! a writer behind it, `blocking` has it written first, `blocking-strict` has it on disk first and
//! denies when that fails. An answer that waits for a disk does not wait for ever.

mod backups;
mod destination;
mod file;
mod meters;
mod push;
mod segments;
mod ship;
mod sinks;
mod spool;
mod whole;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::record::Record;
use meters::SinkMeters;
use writer::{Failure, Writer};

pub use backups::{Form, Keep};
pub use destination::Rotation;
pub use meters::AuditVectors;
pub use push::Format;
pub use ship::Shipping;
pub use sinks::Sinks;

/// How long an answer waits for its record. With the chain's deadline of 5 s before it, it still
/// leaves within the 8 s that the dstack server waits.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Each with a name of its own.
    pub sinks: Vec<Target>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Always in batches, so that nobody who reads slowly can hold up a review.
    Stdout,
    File(FileTarget),
    Http(HttpTarget),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileTarget {
    pub path: PathBuf,
    pub mode: Mode,
    pub rotation: Rotation,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpTarget {
    /// Stands for the sink in metrics, and for its spool below `stateDir`.
    pub name: String,
    /// What an answer waits for is its record in the spool.
    pub mode: Mode,
    pub shipping: Shipping,
    pub spool_bytes: u64,
}

/// When an answer may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Batch,
    Blocking,
    BlockingStrict,
}

impl Mode {
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Batch => "batch",
            Mode::Blocking => "blocking",
            Mode::BlockingStrict => "blocking-strict",
        }
    }

    fn is_strict(self) -> bool {
        self == Mode::BlockingStrict
    }
}

impl Target {
    /// What the sink is called in metrics and in the log.
    pub fn name(&self) -> String {
        match self {
            Target::Stdout => "stdout".to_owned(),
            Target::File(file) => file.path.display().to_string(),
            Target::Http(http) => http.name.clone(),
        }
    }

    pub const fn mode(&self) -> Mode {
        match self {
            Target::Stdout => Mode::Batch,
            Target::File(file) => file.mode,
            Target::Http(http) => http.mode,
        }
    }
}

/// The sinks of one configuration. Dropping it closes those that no other configuration has.
pub struct Audit {
    sinks: Vec<Sink>,
}

struct Sink {
    writer: Arc<Writer>,
    meters: Arc<SinkMeters>,
    mode: Mode,
}

impl Audit {
    /// Opens every sink that is not open yet. A file that a crash left with a torn last line is cut
    /// to its last whole one. Blocks.
    ///
    /// # Errors
    /// In words, naming the sink.
    pub fn open(settings: &Settings, sinks: &Sinks, state_dir: &Path) -> Result<Self, String> {
        Ok(Self {
            sinks: sinks.open(&settings.sinks, state_dir)?,
        })
    }

    /// Gives a record to the strict sinks. The others get it from [`Given::written`]. What is
    /// given needs the record no more, so that a review that waits for a disk holds little.
    pub fn give(&self, record: &Record<'_>) -> Given<'_> {
        let line = self.line(record).unwrap_or_default();
        let until = Instant::now() + PATIENCE;
        let strict = match line.is_empty() {
            true => Vec::new(),
            false => self.give_to(&line, Mode::is_strict),
        };
        Given {
            audit: self,
            line,
            until,
            strict,
        }
    }

    /// Gives the record of the denial that follows from an unwritten one to every sink that may
    /// take it. Waits for none: the review is denied already.
    pub fn write_denial(&self, record: &Record<'_>, unwritten: &Unwritten) {
        let Some(line) = self.line(record) else {
            return;
        };
        for (index, sink) in self.sinks.iter().enumerate() {
            if !unwritten.gone.contains(&index) {
                // What is not taken is counted there.
                let _ = sink.writer.give(&line, Mode::Batch);
            }
        }
    }

    fn line(&self, record: &Record<'_>) -> Option<Vec<u8>> {
        match self.sinks.is_empty() {
            true => None,
            false => record.audit_line(),
        }
    }

    /// Gives a line to the sinks of some modes at once.
    fn give_to(&self, line: &[u8], of: impl Fn(Mode) -> bool) -> Vec<(usize, writer::Given)> {
        let sinks = self.sinks.iter().enumerate();
        sinks
            .filter(|(_, sink)| of(sink.mode))
            .map(|(index, sink)| (index, sink.writer.give(line, sink.mode)))
            .collect()
    }

    /// Waits for what sinks wait for, but not beyond a moment. Returns which have not got the line,
    /// and why.
    async fn failed(
        &self,
        given: Vec<(usize, writer::Given)>,
        until: Instant,
    ) -> Vec<(usize, Failure)> {
        let mut failed = Vec::new();
        for (index, given) in given {
            let done = match given {
                writer::Given::Done(done) => done,
                writer::Given::Waits(told) => match timeout_at(until, told).await {
                    Ok(told) => told.unwrap_or(Err(Failure::Closed)),
                    Err(_) => {
                        self.sinks[index].meters.late(&Failure::Late);
                        Err(Failure::Late)
                    }
                },
            };
            failed.extend(done.err().map(|failure| (index, failure)));
        }
        failed
    }
}

/// A record on its way to the sinks.
#[must_use = "sinks that are not strict get it when it is waited for"]
pub struct Given<'a> {
    audit: &'a Audit,
    /// Empty when nothing is recorded.
    line: Vec<u8>,
    until: Instant,
    strict: Vec<(usize, writer::Given)>,
}

impl Given<'_> {
    /// Whether a sink that has not got it makes a denial of the answer.
    pub fn may_deny(&self) -> bool {
        !self.strict.is_empty()
    }

    /// Waits until the answer may leave: the strict sinks first, then the others.
    ///
    /// # Errors
    /// When a strict sink has not got it on disk. The others are not given it then.
    pub async fn written(self) -> Result<(), Unwritten> {
        if self.line.is_empty() {
            return Ok(());
        }
        let failed = self.audit.failed(self.strict, self.until).await;
        if let Some((_, failure)) = failed.first() {
            let why = failure.for_the_user();
            let gone = failed.iter().filter(|(_, failure)| !failure.is_late());
            let gone = gone.map(|(index, _)| *index).collect();
            return Err(Unwritten { why, gone });
        }
        let given = self.audit.give_to(&self.line, |mode| !mode.is_strict());
        self.audit.failed(given, self.until).await;
        Ok(())
    }
}

/// A record that a strict sink has not got on disk. The text is for the user.
#[derive(Clone, Debug, thiserror::Error)]
#[error("its audit record could not be written: {why}")]
pub struct Unwritten {
    why: String,
    /// The sinks that do not take records now.
    gone: Vec<usize>,
}

#[cfg(test)]
mod tests;
