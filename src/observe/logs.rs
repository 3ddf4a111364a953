//! The process's log: `tracing` to standard error, as JSON or text; one line a decision, never a
//! whole spec. Lines are written in batches, so that a slow reader holds up no review.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;

use super::batch::Batch;

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Text,
}

/// Why a log cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("the filter of the log cannot be read: {0}")]
    Filter(#[from] ParseError),
    #[error("the log cannot be written: {0}")]
    Thread(#[from] io::Error),
}

/// The log of this process. What is logged until it is dropped is written.
#[must_use = "lines that wait when it is dropped are written then"]
pub struct Log {
    _lines: Arc<Batch>,
}

/// Begins logging. `filter` is a level or a `tracing` filter such as `info,hyper=warn`.
///
/// # Errors
/// When the filter cannot be read or there is no thread to write lines.
pub fn start(format: Format, filter: &str) -> Result<Log, LogError> {
    let filter = EnvFilter::builder().parse(filter)?;
    let lines = Arc::new(Batch::start(io::stderr(), |_, _| {})?);
    let writer = Lines(Arc::downgrade(&lines));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(writer);
    // A process that logs already goes on with its first log.
    let _ = match format {
        Format::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .try_init(),
        Format::Text => builder.with_target(false).try_init(),
    };
    Ok(Log { _lines: lines })
}

/// Hands each line to the batch; without one any more, to standard error itself.
struct Lines(std::sync::Weak<Batch>);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(self.0.upgrade())
    }
}

struct Line(Option<Arc<Batch>>);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &self.0 {
            Some(batch) => batch.push(line),
            None => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
