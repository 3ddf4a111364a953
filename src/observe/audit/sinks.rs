//! The open sinks of the process, by what they write to. A reload keeps the writer of every sink
//! that stays, so that two never write to one file, and lets the others write what waits.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sha1::{Digest, Sha1};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::destination::Destination;
use super::file::AuditFile;
use super::meters::{AuditVectors, SinkMeters};
use super::ship::{Receiver, Shipper};
use super::spool::Spool;
use super::whole::{Appended, Durability, WholeLines};
use super::writer::{Gathering, Writer};
use super::{HttpTarget, Sink, Target};

/// How long what waits may take to be written and shipped when a sink is closed.
const PATIENCE: Duration = Duration::from_secs(3);

/// The open sinks.
pub struct Sinks {
    vectors: AuditVectors,
    open: Mutex<Vec<Open>>,
}

/// A sink that was opened, and may have been closed since.
struct Open {
    name: String,
    meters: Arc<SinkMeters>,
    writer: Weak<Writer>,
    thread: JoinHandle<()>,
    shipping: Option<ShippingTask>,
}

struct ShippingTask {
    spool: Arc<Spool>,
    receiver: watch::Sender<Arc<Receiver>>,
    closing: CancellationToken,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Sinks {
    pub fn new(vectors: AuditVectors) -> Self {
        Self {
            vectors,
            open: Mutex::default(),
        }
    }

    /// Opens what is not open yet and hands changed settings to what is. Blocks.
    ///
    /// # Errors
    /// In words, naming the sink that cannot be opened. Open sinks then go on as they were.
    pub(super) fn open(&self, targets: &[Target], state_dir: &Path) -> Result<Vec<Sink>, String> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changes = Vec::new();
        let mut sinks = Vec::new();
        for target in targets {
            let name = target.name();
            let failed = |why: String| format!("audit sink {name}: {why}");
            let index = open.iter().position(|known| known.name == name);
            let known = index.and_then(|index| Some((index, open[index].writer.upgrade()?)));
            let (meters, writer) = match known {
                Some((index, writer)) => {
                    changes.push(Change::new(target, index, &open).map_err(failed)?);
                    (Arc::clone(&open[index].meters), writer)
                }
                None => {
                    if let Some(index) = index {
                        open.swap_remove(index).end();
                    }
                    let (opened, writer) = self.begin(target, state_dir).map_err(failed)?;
                    let meters = Arc::clone(&opened.meters);
                    open.push(opened);
                    (meters, writer)
                }
            };
            sinks.push(Sink {
                writer,
                meters,
                mode: target.mode(),
            });
        }
        for change in changes {
            change.make(&open);
        }
        Ok(sinks)
    }

    /// Writes what waits and ships what it can in a short time; the rest waits in its spool. No
    /// sink takes events after this. Blocks.
    pub fn close(&self) {
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        for sink in &open {
            if let Some(writer) = sink.writer.upgrade() {
                writer.close();
            }
        }
        open.into_iter().for_each(Open::end);
    }

    fn begin(&self, target: &Target, state_dir: &Path) -> Result<(Open, Arc<Writer>), String> {
        let name = target.name();
        let meters = Arc::new(self.vectors.sink(&name));
        let in_words = |error: io::Error| error.to_string();
        let mut shipping = None;
        let to: Box<dyn Destination> = match target {
            Target::Stdout => {
                let stdout = io::stdout().as_fd().try_clone_to_owned();
                let stdout = fs::File::from(stdout.map_err(in_words)?);
                Box::new(Stream(WholeLines::stream(stdout)))
            }
            Target::File(file) => {
                Box::new(AuditFile::open(&file.path, &file.rotation).map_err(in_words)?)
            }
            Target::Http(http) => {
                let task = ShippingTask::begin(http, state_dir, &meters)?;
                let spool = Arc::clone(&task.spool);
                shipping = Some(task);
                Box::new(spool)
            }
        };
        let (writer, thread) =
            Writer::start(to, Arc::clone(&meters), Gathering::default()).map_err(in_words)?;
        let opened = Open {
            name,
            meters,
            writer: Arc::downgrade(&writer),
            thread,
            shipping,
        };
        Ok((opened, writer))
    }
}

/// New settings of a sink that is open.
struct Change<'t> {
    target: &'t Target,
    name: String,
    receiver: Option<Arc<Receiver>>,
}

impl<'t> Change<'t> {
    /// Does what can fail.
    fn new(target: &'t Target, index: usize, open: &[Open]) -> Result<Self, String> {
        let receiver = match target {
            Target::Http(http) => Some(Arc::new(Receiver::new(&http.shipping)?)),
            _ => None,
        };
        Ok(Self {
            target,
            name: open[index].name.clone(),
            receiver,
        })
    }

    fn make(self, open: &[Open]) {
        let Some(sink) = open.iter().find(|sink| sink.name == self.name) else {
            return;
        };
        match (self.target, &sink.shipping, sink.writer.upgrade()) {
            (Target::File(file), _, Some(writer)) => writer.rotate_by(&file.rotation),
            (Target::Http(http), Some(shipping), _) => {
                shipping.spool.limit(http.spool_bytes);
                if let Some(receiver) = self.receiver {
                    shipping.receiver.send_replace(receiver);
                }
            }
            _ => {}
        }
    }
}

impl Open {
    /// Waits until what was given is written, but not for ever.
    fn end(self) {
        let until = Instant::now() + PATIENCE;
        if !ended(|| self.thread.is_finished(), until) {
            tracing::error!(
                sink = self.name,
                "audit events that wait were not written in time"
            );
        }
        let Some(shipping) = self.shipping else {
            return;
        };
        shipping.closing.cancel();
        if !ended(|| shipping.task.is_finished(), until) {
            shipping.stop.cancel();
            if !ended(|| shipping.task.is_finished(), until + PATIENCE) {
                shipping.task.abort();
            }
            let events = shipping.spool.events();
            tracing::warn!(
                sink = self.name,
                events,
                "audit events wait in the spool for the next start"
            );
        }
    }
}

fn ended(is_finished: impl Fn() -> bool, until: Instant) -> bool {
    while !is_finished() {
        if Instant::now() > until {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

impl ShippingTask {
    fn begin(
        http: &HttpTarget,
        state_dir: &Path,
        meters: &Arc<SinkMeters>,
    ) -> Result<Self, String> {
        let receiver = Receiver::new(&http.shipping)?;
        fs::create_dir_all(state_dir)
            .map_err(|error| format!("{}: {error}", state_dir.display()))?;
        let directory = spool_directory(state_dir, &http.name);
        let spool = Spool::open(&directory, http.spool_bytes, Arc::clone(meters));
        let spool = spool.map_err(|error| format!("{}: {error}", directory.display()))?;
        let (spool, runtime) = (
            Arc::new(spool),
            Handle::try_current().map_err(|error| error.to_string())?,
        );
        if spool.events() > 0 {
            let events = spool.events();
            tracing::info!(sink = http.name, events, "audit events wait in the spool");
        }
        let (send, receive) = watch::channel(Arc::new(receiver));
        let (closing, stop) = (CancellationToken::new(), CancellationToken::new());
        let shipper = Shipper {
            spool: Arc::clone(&spool),
            receiver: receive,
            meters: Arc::clone(meters),
            closing: closing.clone(),
            stop: stop.clone(),
        };
        Ok(Self {
            spool,
            receiver: send,
            closing,
            stop,
            task: runtime.spawn(shipper.run()),
        })
    }
}

/// Where an HTTP sink's events wait: below `stateDir`, named after the sink.
fn spool_directory(state_dir: &Path, name: &str) -> PathBuf {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let spool = state_dir.join("spool");
    if name.chars().all(is_plain) {
        return spool.join(name);
    }
    // Two names that differ in other characters have two directories.
    let plain = name.replace(|c| !is_plain(c), "_");
    let digest = format!("{:x}", Sha1::digest(name));
    spool.join(format!("{plain}-{}", &digest[..8]))
}

/// Standard output.
struct Stream(WholeLines);

impl Destination for Stream {
    fn append(&mut self, lines: &[u8], _durability: Durability) -> Appended {
        self.0.append(lines, Durability::Written)
    }
}
