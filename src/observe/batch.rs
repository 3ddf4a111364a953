//! Lines that a thread of its own writes every so often, so that whoever has one to write never
//! waits for a disk or for a reader who is slow.

use std::io::{self, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often lines are written, and how many bytes of them wait in memory at most.
const EVERY: Duration = Duration::from_millis(100);
const WAITING_BYTES: usize = 16 << 20;

/// Learns how many lines are lost, and why if it was an error; else too many waited.
type Lost = Arc<dyn Fn(u64, Option<&io::Error>) + Send + Sync>;

/// A writer of lines. Dropping it writes what waits and ends its thread.
pub struct Batch {
    lines: Arc<Mutex<Vec<u8>>>,
    lost: Lost,
    /// Dropped to end the thread after one last write.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Batch {
    /// Begins to write to `to`. `lost` learns how many lines could not be written or kept, and why.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        mut to: impl Write + Send + 'static,
        lost: impl Fn(u64, Option<&io::Error>) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let lost: Lost = Arc::new(lost);
        let (stop, stopped) = mpsc::channel();
        let (waiting, tell) = (Arc::clone(&lines), Arc::clone(&lost));
        let run = move || loop {
            let last = stopped.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout);
            let lines = std::mem::take(&mut *locked(&waiting));
            let written = to.write_all(&lines).and_then(|()| to.flush());
            if let Err(error) = written {
                tell(count(&lines), Some(&error));
            }
            if last {
                break;
            }
        };
        let thread = thread::Builder::new().name("batch".to_owned()).spawn(run)?;
        Ok(Self {
            lines,
            lost,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Takes whole lines, each with its end.
    pub fn push(&self, added: &[u8]) {
        let mut lines = locked(&self.lines);
        if lines.len() + added.len() > WAITING_BYTES {
            drop(lines);
            (self.lost)(count(added), None);
            return;
        }
        lines.extend_from_slice(added);
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lines_are_written_when_it_is_dropped() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let batch = Batch::start(file.reopen().unwrap(), |_, _| {}).unwrap();
        (0..1000).for_each(|_| batch.push(b"{}\n"));
        drop(batch);
        let mut text = String::new();
        io::Read::read_to_string(file.as_file_mut(), &mut text).unwrap();
        assert_eq!(text.lines().count(), 1000);
    }

    #[test]
    fn lines_that_cannot_be_written_are_told() {
        let told = Arc::new(Mutex::new(0));
        let telling = Arc::clone(&told);
        let full = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let batch = Batch::start(full, move |lost, error| {
            assert!(error.is_some());
            *telling.lock().unwrap() += lost;
        })
        .unwrap();
        batch.push(b"{}\n{}\n");
        drop(batch);
        assert_eq!(*told.lock().unwrap(), 2);
    }
}
