//! An audit file: it is begun anew when it is too large or too old, and opened anew when someone
//! else moved or deleted it. It never waits for its old files to be compressed.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::backups::{self, Keep};
use super::destination::{Destination, Rotation};
use super::whole::{Appended, Durability, WholeLines, sync_directory};

/// Of `nice`: old files are put in order when nobody else has work.
const LEAST_PRIORITY: i32 = 19;
/// After a beginning that failed, the next is tried this much later.
const RETRY: Duration = Duration::from_secs(30);

pub(super) struct AuditFile {
    path: PathBuf,
    rotation: Rotation,
    lines: WholeLines,
    identity: (u64, u64),
    /// How old the file was when it was opened, and when that was: of this process's time, which
    /// nobody sets back.
    opened: (Duration, Instant),
    /// When a beginning is tried again that failed.
    not_before: Option<Instant>,
    /// Whether the log has been told that the file cannot be opened anew.
    astray: bool,
    tidying: Sender<Keep>,
}

impl AuditFile {
    /// Opens the file. A torn last line is cut off.
    ///
    /// # Errors
    /// When it cannot be opened, or there is no thread to compress old files.
    pub fn open(path: &Path, rotation: &Rotation) -> io::Result<Self> {
        let lines = WholeLines::open(path)?;
        if lines.is_regular() {
            sync_directory(backups::directory(path))?;
        }
        let tidying = tidy_elsewhere(path)?;
        let mut file = Self {
            path: path.to_owned(),
            rotation: rotation.clone(),
            identity: lines.identity()?,
            lines,
            opened: (Duration::ZERO, Instant::now()),
            not_before: None,
            astray: false,
            tidying,
        };
        file.begin_counting();
        file.tend();
        Ok(file)
    }

    /// Reads off the file since when it is written. One from the future is new.
    fn begin_counting(&mut self) {
        let born = fs::metadata(&self.path).and_then(|metadata| metadata.created());
        let age = match (self.lines.length, born) {
            (0, _) | (_, Err(_)) => Duration::ZERO,
            (_, Ok(born)) => born.elapsed().unwrap_or_default(),
        };
        self.opened = (age, Instant::now());
    }

    /// Makes sure that what is written stands at the path.
    fn follow(&mut self) -> io::Result<()> {
        if !self.lines.is_regular() {
            return Ok(());
        }
        if let Ok(found) = fs::metadata(&self.path)
            && (found.dev(), found.ino()) == self.identity
        {
            self.lines.length = found.len();
            return Ok(());
        }
        match WholeLines::open(&self.path) {
            Ok(lines) => {
                let file = self.path.display();
                tracing::info!(%file, "the audit file was moved or deleted; another is begun");
                self.take(lines)
            }
            // A file that was moved away is still a file that is kept.
            Err(error) if self.lines.is_linked() => {
                if !self.astray {
                    let file = self.path.display();
                    tracing::error!(%file, %error, "the audit file was moved and cannot be begun anew; it goes on where it is");
                }
                self.astray = true;
                self.lines.measure()
            }
            Err(error) => Err(error),
        }
    }

    fn take(&mut self, lines: WholeLines) -> io::Result<()> {
        self.identity = lines.identity()?;
        self.lines = lines;
        self.astray = false;
        self.begin_counting();
        // Without this, a power cut may take the file's name.
        sync_directory(backups::directory(&self.path))
    }

    fn is_due(&self, more: usize) -> bool {
        let rotation = &self.rotation;
        let (length, more) = (self.lines.length, more as u64);
        let large = rotation.max_size.is_some_and(|max| length + more > max);
        let (age, opened) = self.opened;
        let age = || age + opened.elapsed();
        let old = rotation.every.is_some_and(|every| age() >= every);
        self.lines.is_regular() && length > 0 && !self.astray && (large || old)
    }

    /// Puts the file aside and begins another. One that cannot be begun leaves this one.
    fn rotate(&mut self) {
        if self.not_before.is_some_and(|until| Instant::now() < until) {
            return;
        }
        match self.begin_another() {
            Ok(()) => {
                self.not_before = None;
                // At once, since compressing may wait long for a processor and a disk may be small.
                let pruned = backups::prune(&self.path, &self.rotation.keep, SystemTime::now());
                if let Err(error) = pruned {
                    let file = self.path.display();
                    tracing::warn!(%file, %error, "old audit files could not be deleted");
                }
                let _ = self.tidying.send(self.rotation.keep.clone());
            }
            Err(error) => {
                self.not_before = Some(Instant::now() + RETRY);
                let file = self.path.display();
                tracing::error!(%file, %error, "the audit file cannot be rotated; it grows on");
            }
        }
    }

    fn begin_another(&mut self) -> io::Result<()> {
        let next = backups::with_end(&self.path, ".next");
        let lines = WholeLines::begin(&next)?;
        let backup = backups::name(&self.path, SystemTime::now());
        let moved = fs::rename(&self.path, &backup);
        let begun = moved.and_then(|()| {
            fs::rename(&next, &self.path).inspect_err(|_| {
                let _ = fs::rename(&backup, &self.path);
            })
        });
        if let Err(error) = begun {
            let _ = fs::remove_file(next);
            return Err(error);
        }
        self.take(lines)
    }
}

impl Destination for AuditFile {
    fn append(&mut self, lines: &[u8], durability: Durability) -> Appended {
        if let Err(error) = self.follow() {
            return Appended::nothing(error);
        }
        if self.is_due(lines.len()) {
            self.rotate();
        }
        let mut appended = self.lines.append(lines, durability);
        let deleted = durability == Durability::OnDisk && !self.lines.is_linked();
        if deleted && self.lines.is_regular() && appended.whole > 0 {
            appended = match self.follow() {
                Ok(()) => self.lines.append(lines, durability),
                Err(error) => Appended::nothing(error),
            };
        }
        appended
    }

    fn tend(&mut self) {
        if let Err(error) = self.follow() {
            let file = self.path.display();
            tracing::error!(%file, %error, "the audit file cannot be opened anew");
        }
        if self.is_due(0) {
            self.rotate();
        } else {
            let _ = self.tidying.send(self.rotation.keep.clone());
        }
    }

    fn rotate_by(&mut self, rotation: &Rotation) {
        self.rotation = rotation.clone();
        self.tend();
    }
}

/// A thread that keeps the backups of `path` in order each time it is told to, until nobody can.
fn tidy_elsewhere(path: &Path) -> io::Result<Sender<Keep>> {
    let path = path.to_owned();
    let (tell, told) = mpsc::channel::<Keep>();
    let run = move || {
        // Of this thread alone. Where it is forbidden, the reviews share their processors with it.
        let _ = rustix::process::nice(LEAST_PRIORITY);
        while let Ok(mut keep) = told.recv() {
            // Only the last of several counts.
            while let Ok(later) = told.try_recv() {
                keep = later;
            }
            if let Err(error) = backups::tidy(&path, &keep, SystemTime::now()) {
                let file = path.display();
                tracing::warn!(%file, %error, "old audit files could not be put in order");
            }
        }
    };
    thread::Builder::new()
        .name("audit-backups".to_owned())
        .spawn(run)?;
    Ok(tell)
}
