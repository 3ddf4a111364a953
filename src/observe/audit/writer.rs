//! One sink's lines on their way to where they stay. Lines of many reviews are committed as a
//! group: whoever has one adds it to those that wait, one thread writes all of them at once and
//! tells each waiting review what came of its own.
//!
//! Nobody holds a lock while it waits for an answer, and nobody who asks waits for the disk but on
//! a channel.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Mode;
use super::destination::{Destination, Rotation};
use super::meters::{Loss, SinkMeters};
use super::whole::Durability;

/// How long lines that nobody waits for are gathered.
const EVERY: Duration = Duration::from_millis(100);
/// So many bytes of lines are written at once. More would leave the processor's cache before that.
const EARLY: usize = 256 << 10;
/// How many bytes may wait in memory.
const MOST: usize = 16 << 20;
/// A sink without work is looked after this often.
const TEND_EVERY: Duration = Duration::from_secs(600);

/// Why a line is not there.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{text}")]
    Io { words: Arc<str>, text: Arc<str> },
    #[error("too many records wait to be written")]
    Backlog,
    #[error("the disk is too slow")]
    Late,
    #[error("its sink is closed")]
    Closed,
}

impl Failure {
    /// Whether the line may still come to be written.
    pub fn is_late(&self) -> bool {
        matches!(self, Failure::Late)
    }

    /// In words for whoever applied a spec: the system's own, without paths.
    pub fn for_the_user(&self) -> String {
        match self {
            Failure::Io { words, .. } => words.to_string(),
            other => other.to_string(),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let text = error.to_string();
        let words = match error.raw_os_error() {
            Some(code) => text.trim_end_matches(&format!(" (os error {code})")).into(),
            None => error.kind().to_string().into(),
        };
        Failure::Io {
            words,
            text: text.into(),
        }
    }
}

/// What has become of a line that was given.
pub(super) enum Given {
    Done(Result<(), Failure>),
    /// It is told when it is known.
    Waits(oneshot::Receiver<Result<(), Failure>>),
}

/// A sink's writer. What waits when it is closed or dropped is still written.
pub(super) struct Writer {
    shared: Arc<Shared>,
}

/// How long lines are gathered for the disk that are waited for.
#[derive(Clone, Copy)]
pub(super) struct Gathering {
    /// No longer than this, nor than the last write took.
    pub at_most: Duration,
    /// When no line has come for so long, those that are there are written.
    pub quiet: Duration,
}

impl Default for Gathering {
    fn default() -> Self {
        Self {
            at_most: Duration::from_millis(4),
            quiet: Duration::from_micros(500),
        }
    }
}

struct Shared {
    queue: Mutex<Queue>,
    grown: Condvar,
    to: Mutex<Box<dyn Destination>>,
    meters: Arc<SinkMeters>,
    gathering: Gathering,
}

#[derive(Default)]
struct Queue {
    lines: Vec<u8>,
    events: usize,
    waiting: Vec<Waiting>,
    on_disk: bool,
    closed: bool,
    /// How many reviews wait once all have come that came last time.
    expected: usize,
    last_write: Duration,
    /// The last group's buffer, emptied.
    spare: Vec<u8>,
}

struct Waiting {
    /// Where its line ends among the queue's.
    end: usize,
    tell: oneshot::Sender<Result<(), Failure>>,
}

impl Writer {
    /// Begins to write. The thread ends when all is written after the writer was closed or dropped.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        to: Box<dyn Destination>,
        meters: Arc<SinkMeters>,
        gathering: Gathering,
    ) -> io::Result<(Arc<Self>, JoinHandle<()>)> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            grown: Condvar::new(),
            to: Mutex::new(to),
            meters,
            gathering,
        });
        let own = Arc::clone(&shared);
        let run = move || {
            while let Some(group) = own.next_group() {
                own.write(group);
            }
        };
        let thread = thread::Builder::new().name("audit".to_owned()).spawn(run)?;
        Ok((Arc::new(Self { shared }), thread))
    }

    /// Takes one line with its end. The mode says what is waited for.
    pub fn give(&self, line: &[u8], mode: Mode) -> Given {
        let mut queue = locked(&self.shared.queue);
        let before = queue.lines.len();
        let full = before > 0 && before + line.len() > MOST;
        if full || queue.closed {
            let failure = if full {
                Failure::Backlog
            } else {
                Failure::Closed
            };
            drop(queue);
            self.shared.meters.failed(1, &failure);
            return Given::Done(Err(failure));
        }
        queue.lines.extend_from_slice(line);
        queue.events += 1;
        queue.on_disk |= mode == Mode::BlockingStrict;
        let end = queue.lines.len();
        let mut wake = before == 0 || before < EARLY && end >= EARLY;
        let given = if mode == Mode::Batch {
            Given::Done(Ok(()))
        } else {
            let (tell, told) = oneshot::channel();
            wake |= queue.waiting.is_empty();
            queue.waiting.push(Waiting { end, tell });
            wake |= queue.waiting.len() == queue.expected;
            Given::Waits(told)
        };
        self.shared.meters.waiting.inc();
        drop(queue);
        if wake {
            self.shared.grown.notify_one();
        }
        given
    }

    /// Takes over changed settings. Blocks while lines are being written.
    pub fn rotate_by(&self, rotation: &Rotation) {
        locked(&self.shared.to).rotate_by(rotation);
    }

    /// Takes no more lines.
    pub fn close(&self) {
        locked(&self.shared.queue).closed = true;
        self.shared.grown.notify_one();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

/// Lines that are written at once.
struct Group {
    lines: Vec<u8>,
    events: usize,
    waiting: Vec<Waiting>,
    durability: Durability,
}

impl Shared {
    /// Waits for lines. None when no more come.
    fn next_group(&self) -> Option<Group> {
        let mut queue = locked(&self.queue);
        while queue.lines.is_empty() {
            if queue.closed {
                return None;
            }
            let idle;
            (queue, idle) = self.wait(queue, TEND_EVERY);
            if idle && queue.lines.is_empty() {
                drop(queue);
                locked(&self.to).tend();
                queue = locked(&self.queue);
            }
        }
        let until = Instant::now() + EVERY;
        while queue.waiting.is_empty() && !queue.closed && queue.lines.len() < EARLY {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            (queue, _) = self.wait(queue, left);
        }
        if queue.on_disk {
            queue = self.gather(queue);
        } else if !queue.waiting.is_empty() {
            // Where processors are short, reviews that are nearly there come along.
            drop(queue);
            thread::yield_now();
            queue = locked(&self.queue);
        }
        let on_disk = std::mem::take(&mut queue.on_disk);
        let spare = std::mem::take(&mut queue.spare);
        Some(Group {
            lines: std::mem::replace(&mut queue.lines, spare),
            events: std::mem::take(&mut queue.events),
            waiting: std::mem::take(&mut queue.waiting),
            durability: match on_disk {
                true => Durability::OnDisk,
                false => Durability::Written,
            },
        })
    }

    /// Waits, for a moment, for the reviews that will wait for the disk too. One that was told comes
    /// back with its caller's next, and a disk takes as long for many lines as for one.
    fn gather<'q>(&self, mut queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        let Gathering { at_most, quiet } = self.gathering;
        let until = Instant::now() + queue.last_write.min(at_most);
        while queue.waiting.len() < queue.expected && queue.lines.len() < EARLY && !queue.closed {
            let there = queue.events;
            let left = until.saturating_duration_since(Instant::now());
            (queue, _) = self.wait(queue, left.min(quiet));
            if left.is_zero() || queue.events == there {
                break;
            }
        }
        queue
    }

    fn wait<'q>(
        &self,
        queue: MutexGuard<'q, Queue>,
        time: Duration,
    ) -> (MutexGuard<'q, Queue>, bool) {
        let waited = self.grown.wait_timeout(queue, time);
        let (queue, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        (queue, waited.timed_out())
    }

    fn write(&self, group: Group) {
        let mut group = group;
        let started = Instant::now();
        let appended = locked(&self.to).append(&group.lines, group.durability);
        let took = started.elapsed();
        self.meters.wrote(took);
        self.meters.waiting.sub(group.events as i64);
        let lost = match &appended.error {
            None => 0,
            Some(_) => line_ends(&group.lines[appended.whole..]),
        };
        self.next_will_be(&mut group, took);
        let Some(error) = appended.error else {
            self.meters.recovered();
            for waiting in group.waiting {
                let _ = waiting.tell.send(Ok(()));
            }
            return;
        };
        let failure = Failure::from(error);
        self.meters.failed(lost, &failure);
        for waiting in group.waiting {
            let _ = waiting.tell.send(match waiting.end <= appended.whole {
                true => Ok(()),
                false => Err(failure.clone()),
            });
        }
    }
}

impl Shared {
    /// Notes what the next group may be like, and gives it this one's buffer.
    fn next_will_be(&self, group: &mut Group, took: Duration) {
        let mut lines = std::mem::take(&mut group.lines);
        lines.clear();
        lines.shrink_to(2 * EARLY);
        let mut queue = locked(&self.queue);
        queue.spare = lines;
        queue.last_write = took;
        queue.expected = group.waiting.len() + queue.waiting.len();
    }
}

fn line_ends(lines: &[u8]) -> u64 {
    let ends = lines.iter().filter(|byte| **byte == b'\n');
    ends.count() as u64
}

impl Loss for Failure {
    fn reason(&self) -> &'static str {
        match self {
            Failure::Io { .. } => "write",
            Failure::Backlog => "backlog",
            Failure::Late => "late",
            Failure::Closed => "closed",
        }
    }
}

fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
