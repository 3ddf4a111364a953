//! One worker from its start to its end: it gets ready, it answers one request at a time, and
//! whatever becomes of it, it is gone with all its children.
//!
//! Reading what it says and asking it are apart: [`Worker::live`] reads until the end, while a
//! [`Channel`] goes from review to review.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use prometheus::IntGauge;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::StartError;
use super::ending::Ending;
use super::frames::{Answer, Frames, Message, Ready, decode, frames};
use super::meters::Counted;
use super::output::{Label, Rate, Tail, drain, log};
use super::process::{Group, Launch};

/// How long a worker has from its start until it is ready.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a worker may take to end by itself once it is told to.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long what a dead worker had said is still read: a child may hold its pipes open.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// How often a worker's memory is looked at.
const MEMORY_EVERY: Duration = Duration::from_secs(1);

/// What everyone who has to do with a worker shares.
#[derive(Debug)]
pub(super) struct Process {
    group: Group,
    /// Whether the process was reaped, so that its id may be another's.
    reaped: AtomicBool,
    ending: OnceLock<Ending>,
    /// Why a replacement is wanted, if it is.
    outworn: OnceLock<Ending>,
    /// Told when a replacement is wanted.
    pub replace: Notify,
    /// Whether it gets no further review.
    pub retired: AtomicBool,
    /// Reviews it has answered.
    pub answered: AtomicU64,
    /// How it ended, for the log.
    epitaph: OnceLock<String>,
}

impl Process {
    /// Kills it with all its children. The first reason given is the one that counts.
    pub fn kill(&self, why: Ending) {
        let _ = self.ending.set(why);
        if !self.reaped.load(Ordering::Acquire) {
            self.group.kill();
        }
    }

    /// Asks for a replacement, until which this one goes on. Returns whether that is news.
    pub fn ask_for_replacement(&self, why: Ending) -> bool {
        let first = self.outworn.set(why).is_ok();
        if first {
            self.replace.notify_one();
        }
        first
    }

    /// It is to end by itself, as soon as nobody speaks to it any more.
    fn stop(&self) {
        let why = self.outworn.get().copied();
        let _ = self.ending.set(why.unwrap_or(Ending::Stopped));
    }

    /// How it ended, once it has.
    pub fn epitaph(&self) -> Option<&str> {
        self.epitaph.get().map(String::as_str)
    }
}

/// A worker as its reader has it. Dropped, it is killed.
pub(super) struct Worker {
    pub process: Arc<Process>,
    child: Child,
    stdout: Frames<ChildStdout>,
    stderr: JoinHandle<()>,
    tail: Tail,
    label: Label,
    rate: Rate,
    answers: mpsc::Sender<(u64, Answer)>,
    /// What it said that is not of the protocol.
    broken: Option<String>,
}

/// A worker as a review has it. Dropped, it lets the worker end by itself.
#[derive(Debug)]
pub(super) struct Channel {
    pub process: Arc<Process>,
    /// What the worker is counted as.
    pub state: Counted,
    stdin: ChildStdin,
    answers: mpsc::Receiver<(u64, Answer)>,
}

/// No answer came, and the worker is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// It was gone before it had the request.
    Unasked,
    /// It ended, or what it said cannot be understood.
    Unanswered,
}

impl Worker {
    /// Starts a worker, which is not ready yet.
    pub fn spawn(
        launch: &Launch,
        label: Label,
        state: Counted,
    ) -> Result<(Self, Channel), StartError> {
        let spawned = launch.spawn();
        let program = launch.program.display();
        let (mut child, group) =
            spawned.map_err(|e| StartError::new(format!("{program} cannot be started: {e}")))?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(StartError::new(format!("{program} has no pipes")));
        };
        let process = Arc::new(Process {
            group,
            reaped: AtomicBool::new(false),
            ending: OnceLock::new(),
            outworn: OnceLock::new(),
            replace: Notify::new(),
            retired: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            epitaph: OnceLock::new(),
        });
        let tail = Tail::default();
        // One place: a worker answers one request at a time.
        let (sender, receiver) = mpsc::channel(1);
        let worker = Self {
            process: Arc::clone(&process),
            child,
            stdout: frames(stdout),
            stderr: tokio::spawn(drain(stderr, label.clone(), tail.clone())),
            tail,
            label,
            rate: Rate::records(),
            answers: sender,
            broken: None,
        };
        let channel = Channel {
            process,
            state,
            stdin,
            answers: receiver,
        };
        Ok((worker, channel))
    }

    /// Waits until the worker is ready.
    pub async fn ready(&mut self) -> Result<Ready, StartError> {
        let said = tokio::time::timeout(START_TIMEOUT, self.first()).await;
        let why = match said {
            Ok(Ok(Message::Ready(ready))) => return Ok(ready),
            Ok(Ok(Message::Refused(refusal))) => return Err(refusal.into()),
            Ok(Ok(_)) => "its first word is not that it is ready".to_owned(),
            Ok(Err(why)) => why,
            Err(_) => {
                let limit = humantime::format_duration(START_TIMEOUT);
                format!("it was not ready within {limit}")
            }
        };
        self.process.kill(Ending::Crash);
        let status = self.reap().await;
        Err(StartError {
            message: format!("{why} ({status})"),
            detail: Some(self.tail.text()).filter(|text| !text.is_empty()),
            found: Vec::new(),
        })
    }

    /// The first message that is no log record.
    async fn first(&mut self) -> Result<Message, String> {
        loop {
            let frame = self.stdout.next().await;
            let frame = frame.ok_or_else(|| "it ended before it was ready".to_owned())?;
            match decode(&frame.map_err(|e| e.to_string())?)? {
                Message::Log(record) => log(&self.label, &mut self.rate, &record),
                message => return Ok(message),
            }
        }
    }

    /// Passes on what the worker says until it has ended, and its children with it.
    pub async fn live(mut self, memory: &Memory) -> Ending {
        let mut look = tokio::time::interval(MEMORY_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leave_until = None;
        loop {
            let leave = tokio::time::sleep_until(leave_until.unwrap_or_else(Instant::now));
            tokio::select! {
                frame = self.stdout.next() => if !self.take(frame) {
                    break;
                },
                _ = self.child.wait() => {
                    let _ = tokio::time::timeout(LAST_WORDS, self.last_words()).await;
                    break;
                }
                () = self.answers.closed(), if leave_until.is_none() => {
                    self.process.stop();
                    leave_until = Some(Instant::now() + LEAVE_TIMEOUT);
                }
                () = leave, if leave_until.is_some() => break,
                _ = look.tick() => memory.look_at(&self.process, &self.label),
            }
        }
        // Its end may be seen before that nobody speaks to it any more.
        if self.answers.is_closed() {
            self.process.stop();
        }
        self.process.kill(Ending::Crash);
        let status = self.reap().await;
        self.bury(&status)
    }

    /// Takes what was said, and returns whether there may be more.
    fn take(&mut self, frame: Option<io::Result<BytesMut>>) -> bool {
        let message = match frame {
            None => return false,
            Some(Ok(frame)) => decode(&frame),
            Some(Err(error)) => Err(error.to_string()),
        };
        let why = match message {
            Ok(Message::Log(record)) => {
                log(&self.label, &mut self.rate, &record);
                return true;
            }
            Ok(Message::Answer {
                id,
                answer,
                is_last,
            }) => {
                if is_last {
                    self.process.retired.store(true, Ordering::Relaxed);
                    self.process.ask_for_replacement(Ending::Memory);
                }
                match self.answers.try_send((id, answer)) {
                    Ok(()) | Err(TrySendError::Closed(_)) => return true,
                    Err(TrySendError::Full(_)) => "it answers what was not asked".to_owned(),
                }
            }
            Ok(Message::Ready(_) | Message::Refused(_)) => "it starts a second time".to_owned(),
            Err(why) => why,
        };
        self.broken = Some(why);
        false
    }

    async fn last_words(&mut self) {
        while let Some(frame) = self.stdout.next().await {
            if !self.take(Some(frame)) {
                break;
            }
        }
    }

    /// Waits for the end of the process, which was killed or has ended.
    async fn reap(&mut self) -> String {
        let status = self.child.wait().await;
        self.process.reaped.store(true, Ordering::Release);
        let _ = tokio::time::timeout(LAST_WORDS, &mut self.stderr).await;
        self.stderr.abort();
        status.map_or_else(|e| e.to_string(), |status| status.to_string())
    }

    /// Says how it ended and why.
    fn bury(&self, status: &str) -> Ending {
        let ending = self.process.ending.get().copied().unwrap_or(Ending::Crash);
        let (plugin, worker) = (&self.label.plugin, self.label.worker);
        let pid = self.process.group.pid();
        let broken = self.broken.as_deref().map(|why| format!(", {why}"));
        let status = format!("{status}{}", broken.unwrap_or_default());
        let stderr = self.tail.text();
        match ending {
            Ending::Crash | Ending::Timeout => {
                let reason = ending.as_str();
                tracing::warn!(%plugin, worker, pid, reason, status, stderr, "a worker ended");
            }
            Ending::Recycled | Ending::Memory | Ending::Start | Ending::Stopped => {
                let reason = ending.as_str();
                tracing::debug!(%plugin, worker, pid, reason, status, "a worker ended");
            }
        }
        let lines = match stderr.is_empty() {
            true => String::new(),
            false => format!("; its last lines:\n{stderr}"),
        };
        let _ = self
            .process
            .epitaph
            .set(format!("worker {worker}, pid {pid}: {status}{lines}"));
        ending
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.process.kill(Ending::Stopped);
        self.stderr.abort();
    }
}

impl Channel {
    /// Asks, and waits for the answer. Who gives up waiting has to kill the worker.
    pub async fn ask(&mut self, id: u64, frame: &[u8]) -> Result<Answer, Lost> {
        let asked = self.stdin.write_all(frame).await.is_ok();
        if asked
            && let Some((answered, answer)) = self.answers.recv().await
            && answered == id
        {
            self.process.answered.fetch_add(1, Ordering::Relaxed);
            return Ok(answer);
        }
        self.process.kill(Ending::Crash);
        // The end of the answers is the end of the worker: then it is known how it ended.
        while self.answers.recv().await.is_some() {}
        match asked {
            true => Err(Lost::Unanswered),
            false => Err(Lost::Unasked),
        }
    }
}

/// Looks at the memory of one plugin's workers.
#[derive(Debug)]
pub(super) struct Memory {
    pub limit: Option<u64>,
    /// By the worker's index.
    pub gauge: IntGauge,
}

impl Memory {
    fn look_at(&self, process: &Process, label: &Label) {
        let Some(bytes) = process.group.resident_memory() else {
            return;
        };
        self.gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        let Some(limit) = self.limit.filter(|limit| bytes > *limit) else {
            return;
        };
        if process.ask_for_replacement(Ending::Memory) {
            let (plugin, worker) = (&label.plugin, label.worker);
            tracing::warn!(%plugin, worker, bytes, limit, "a worker uses more memory than it may and is replaced");
        }
    }
}
