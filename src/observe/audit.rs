//! The audit log: every decision as one line to each sink.
//!
//! A sink's mode says what an answer waits for, with Kubernetes' names: `batch` hands the line to
//! a writer behind it, `blocking` has it written first, `blocking-strict` has it on disk first and
//! denies when that fails.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::IntCounterVec;

use super::batch::Batch;
use super::record::Record;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub sinks: Vec<Target>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Always in batches, so that nobody who reads slowly can hold up a review.
    Stdout,
    File {
        path: PathBuf,
        mode: Mode,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Batch,
    Blocking,
    BlockingStrict,
}

/// The open sinks.
pub struct Audit {
    sinks: Vec<Sink>,
    errors: IntCounterVec,
}

enum Sink {
    Batch(Batch),
    Direct {
        name: String,
        file: Arc<Mutex<File>>,
        strict: bool,
    },
}

impl Audit {
    /// Opens every sink. A file that a crash left with a torn last line is cut to its last whole one.
    ///
    /// # Errors
    /// In words, naming the file.
    pub fn open(settings: &Settings, errors: IntCounterVec) -> Result<Self, String> {
        let sinks = settings
            .sinks
            .iter()
            .map(|target| Sink::open(target, &errors))
            .collect::<Result<_, _>>()?;
        Ok(Self { sinks, errors })
    }

    /// Gives a record to every sink.
    ///
    /// # Errors
    /// When a strict sink has not got it on disk.
    pub async fn write(&self, record: &Record<'_>) -> Result<(), Unwritten> {
        let Some(line) = record.audit_line() else {
            return Ok(());
        };
        let mut unwritten = None;
        for sink in &self.sinks {
            match sink {
                Sink::Batch(batch) => batch.push(&line),
                Sink::Direct { name, file, strict } => {
                    let written = match strict {
                        true => write_through(Arc::clone(file), line.clone()).await,
                        false => locked(file).write_all(&line),
                    };
                    if let Err(error) = written {
                        self.errors.with_label_values(&[name]).inc();
                        tracing::error!(sink = name, %error, id = record.decision.review.id, "audit event not written");
                        if *strict {
                            unwritten = Some(Unwritten);
                        }
                    }
                }
            }
        }
        unwritten.map_or(Ok(()), Err)
    }
}

/// A record that a strict sink did not take.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("its audit record could not be written")]
pub struct Unwritten;

impl Sink {
    fn open(target: &Target, errors: &IntCounterVec) -> Result<Self, String> {
        match target {
            Target::Stdout => batch("stdout".to_owned(), io::stdout(), errors),
            Target::File { path, mode } => {
                let name = path.display().to_string();
                let file = open(path).map_err(|e| format!("audit file {name}: {e}"))?;
                match mode {
                    Mode::Batch => batch(name, file, errors),
                    mode => {
                        let strict = *mode == Mode::BlockingStrict;
                        Ok(Sink::Direct {
                            name,
                            file: Arc::new(Mutex::new(file)),
                            strict,
                        })
                    }
                }
            }
        }
    }
}

fn batch(
    name: String,
    to: impl Write + Send + 'static,
    errors: &IntCounterVec,
) -> Result<Sink, String> {
    let errors = errors.clone();
    let told = name.clone();
    let lost = move |lost: u64, error: Option<&io::Error>| {
        errors.with_label_values(&[&told]).inc_by(lost);
        let why = error.map_or_else(|| "too many wait".to_owned(), ToString::to_string);
        tracing::error!(sink = told, why, lost, "audit events not written");
    };
    Batch::start(to, lost)
        .map(Sink::Batch)
        .map_err(|e| format!("audit sink {name}: {e}"))
}

async fn write_through(file: Arc<Mutex<File>>, line: Vec<u8>) -> io::Result<()> {
    let write = move || {
        let mut file = locked(&file);
        file.write_all(&line)?;
        file.sync_data()
    };
    tokio::task::spawn_blocking(write)
        .await
        .unwrap_or_else(|e| Err(io::Error::other(e)))
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    let length = file.metadata()?.len();
    if length == 0 || !file.metadata()?.is_file() {
        return Ok(file);
    }
    let from = length.saturating_sub(1 << 20);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    if tail.last() != Some(&b'\n') {
        let whole = tail
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at as u64 + 1);
        file.set_len(from + whole)?;
        let cut = length - from - whole;
        tracing::warn!(file = %path.display(), bytes = cut, "cut a torn last line off the audit log");
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_is_cut_when_the_log_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        std::fs::write(&path, "{\"a\":1}\n{\"b\":").unwrap();
        open(&path).unwrap().write_all(b"{\"c\":1}\n").unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "{\"a\":1}\n{\"c\":1}\n"
        );
    }
}
