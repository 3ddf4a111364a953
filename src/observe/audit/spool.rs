//! Audit events on disk until an HTTP sink's receiver has taken them: a queue of segment files that
//! survives restarts. When it is full the oldest segment goes, which is counted.
//!
//! What was taken is noted after each batch, so that a restart sends nothing twice but a batch
//! whose answer was lost.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::destination::Destination;
use super::meters::{Loss, SinkMeters, SpoolMeters};
use super::segments::{
    SEGMENT, count, first_lines, is_gone, make, newlines, note, noted, read, segment_path,
};
use super::whole::{Appended, Durability, WholeLines, sync_directory};

/// So many segments make up a full spool, so that one of them is a small part.
const SEGMENTS: u64 = 16;

/// A spool. One end takes lines, the other gives batches.
pub(super) struct Spool {
    directory: PathBuf,
    state: Mutex<State>,
    meters: SpoolMeters,
    sink: Arc<SinkMeters>,
    /// Told whenever lines were added.
    pub grown: Notify,
}

struct State {
    limit: u64,
    /// Oldest first.
    segments: VecDeque<Segment>,
    /// The id of the next segment. None is used again, since a note that could not be written may
    /// still tell of it.
    next: u64,
    /// The newest segment, when lines may be added to it.
    open: Option<WholeLines>,
    /// How far the oldest segment was taken.
    taken: u64,
    /// The segment whose events are on their way, which is not dropped.
    under_way: Option<u64>,
}

struct Segment {
    id: u64,
    bytes: u64,
    /// Events in it that were not taken.
    events: u64,
}

/// Events on their way.
pub(super) struct Batch {
    segment: u64,
    /// Where it ends in its segment.
    end: u64,
    /// Whole lines.
    pub lines: Vec<u8>,
    pub events: u64,
}

/// Why events left a spool unseen.
#[derive(Debug, thiserror::Error)]
#[error("the spool is full; its oldest events were dropped")]
struct Full;

impl Loss for Full {
    fn reason(&self) -> &'static str {
        "spool_full"
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a part of the spool was deleted or cut by another process: {0}")]
struct Damaged(String);

impl Loss for Damaged {
    fn reason(&self) -> &'static str {
        "spool_damaged"
    }
}

impl Spool {
    /// Opens the spool in a directory, which is made for its owner alone. Reads what is there.
    ///
    /// # Errors
    /// When a file cannot be read, naming the directory.
    pub fn open(directory: &Path, limit: u64, sink: Arc<SinkMeters>) -> io::Result<Self> {
        make(directory)?;
        let (first, mut taken) = noted(directory);
        let mut ids = Vec::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let id = path.file_name().and_then(|name| name.to_str());
            ids.extend(id.and_then(|name| name.strip_suffix(SEGMENT)?.parse::<u64>().ok()));
        }
        ids.sort_unstable();
        let unused = first + u64::from(taken > 0);
        let next = ids.last().map_or(unused, |last| unused.max(last + 1));
        let mut segments = VecDeque::new();
        for id in ids {
            let path = segment_path(directory, id);
            if id < first {
                fs::remove_file(path)?;
                continue;
            }
            // Cuts what a crash left torn.
            let bytes = WholeLines::open(&path)?.length;
            let from = if id == first { taken.min(bytes) } else { 0 };
            let events = count(&path, from)?;
            segments.push_back(Segment { id, bytes, events });
        }
        match segments.front() {
            Some(front) if front.id == first => taken = taken.min(front.bytes),
            _ => taken = 0,
        }
        let spool = Self {
            directory: directory.to_owned(),
            meters: sink.spool(),
            sink,
            state: Mutex::new(State {
                limit,
                segments,
                next,
                open: None,
                taken,
                under_way: None,
            }),
            grown: Notify::new(),
        };
        spool.measure(&spool.state());
        Ok(spool)
    }

    /// Changes how many bytes it may have.
    pub fn limit(&self, limit: u64) {
        self.state().limit = limit;
    }

    /// Events that were not taken.
    pub fn events(&self) -> u64 {
        self.state().events()
    }

    /// The oldest events, at most so many. None when there is none. Blocks.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn batch(&self, most: usize) -> io::Result<Option<Batch>> {
        loop {
            let (id, from, bytes) = {
                let mut state = self.state();
                let Some(front) = state.segments.front() else {
                    return Ok(None);
                };
                let (id, bytes, taken) = (front.id, front.bytes, state.taken);
                if taken < bytes {
                    state.under_way = Some(id);
                    (id, taken, bytes)
                } else if state.segments.len() == 1 && state.open.is_some() {
                    return Ok(None);
                } else {
                    self.forget_front(&mut state)?;
                    continue;
                }
            };
            let lines = match read(&segment_path(&self.directory, id), from, bytes, most) {
                Err(error) if is_gone(&error) => {
                    self.give_up(id, &error)?;
                    continue;
                }
                read => read?,
            };
            return Ok(Some(Batch {
                segment: id,
                end: from + lines.len() as u64,
                events: newlines(&lines),
                lines,
            }));
        }
    }

    /// Notes that a batch was taken, or given up.
    ///
    /// # Errors
    /// When that cannot be written: a restart would send the batch again.
    pub fn done(&self, batch: &Batch) -> io::Result<()> {
        let mut state = self.state();
        state.under_way = None;
        let State {
            segments, taken, ..
        } = &mut *state;
        let Some(front) = segments.front_mut() else {
            return Ok(());
        };
        front.events = front.events.saturating_sub(batch.events);
        *taken = batch.end;
        let ended = *taken >= front.bytes && segments.len() > 1;
        let noted = if ended {
            self.forget_front(&mut state)
        } else {
            note(&self.directory, batch.segment, batch.end)
        };
        self.measure(&state);
        noted
    }

    /// Goes on behind a segment that somebody else deleted or cut: what it held is lost.
    fn give_up(&self, id: u64, error: &io::Error) -> io::Result<()> {
        make(&self.directory)?;
        let mut state = self.state();
        state.under_way = None;
        if state.segments.front().is_none_or(|front| front.id != id) {
            return Ok(());
        }
        let lost = state.segments.front().map_or(0, |front| front.events);
        let forgotten = self.forget_front(&mut state);
        self.sink.lost(lost, &Damaged(error.to_string()));
        self.measure(&state);
        forgotten
    }

    fn forget_front(&self, state: &mut State) -> io::Result<()> {
        let Some(front) = state.segments.pop_front() else {
            return Ok(());
        };
        if state.segments.is_empty() {
            state.open = None;
        }
        state.taken = 0;
        // Noted first: a segment that is still there is then known to be taken. A full disk has room
        // for the note when the segment is gone.
        let noted = note(&self.directory, state.first(), 0);
        match fs::remove_file(segment_path(&self.directory, front.id)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => noted.or_else(|_| note(&self.directory, state.first(), 0)),
        }
    }

    /// Adds lines, to as many segments as they fill.
    fn append(&self, lines: &[u8], durability: Durability) -> Appended {
        let mut state = self.state();
        let (mut whole, mut error) = (0, None);
        while whole < lines.len() && error.is_none() {
            let rest = &lines[whole..];
            let part = &rest[..first_lines(rest, state.segment_size())];
            let appended = self.append_part(&mut state, part, durability);
            whole += appended.whole;
            error = appended.error;
        }
        self.measure(&state);
        drop(state);
        self.grown.notify_one();
        Appended { whole, error }
    }

    fn append_part(&self, state: &mut State, part: &[u8], durability: Durability) -> Appended {
        let appended = self.append_to_newest(state, part, durability);
        // A full disk gets back what holds only events that were taken.
        match appended.whole == 0 && appended.error.is_some() && state.front_is_taken() {
            true if self.forget_front(state).is_ok() => {
                self.append_to_newest(state, part, durability)
            }
            _ => appended,
        }
    }

    fn append_to_newest(&self, state: &mut State, part: &[u8], durability: Durability) -> Appended {
        if let Err(error) = self.make_room(state, part.len() as u64) {
            return Appended::nothing(error);
        }
        let (Some(open), Some(segment)) = (state.open.as_mut(), state.segments.back_mut()) else {
            return Appended::nothing(ErrorKind::NotFound.into());
        };
        let appended = open.append(part, durability);
        segment.bytes = open.length;
        segment.events += newlines(&part[..appended.whole]);
        appended
    }

    /// Sees to it that the newest segment is open and has room, dropping the oldest if need be.
    fn make_room(&self, state: &mut State, more: u64) -> io::Result<()> {
        while state.bytes() + more > state.limit {
            if !self.drop_oldest(state)? {
                return Err(io::Error::new(ErrorKind::StorageFull, "the spool is full"));
            }
        }
        let size = state.segment_size();
        let last = state.segments.back();
        if state.open.is_some() && last.is_some_and(|last| last.bytes + more <= size) {
            return Ok(());
        }
        let id = state.next;
        let lines = WholeLines::begin(&segment_path(&self.directory, id))?;
        sync_directory(&self.directory)?;
        state.next = id + 1;
        state.open = Some(lines);
        state.segments.push_back(Segment {
            id,
            bytes: 0,
            events: 0,
        });
        Ok(())
    }

    /// Whether there was one that could go.
    fn drop_oldest(&self, state: &mut State) -> io::Result<bool> {
        let under_way = state.under_way;
        let free = |segment: &Segment| Some(segment.id) != under_way;
        let Some(index) = state.segments.iter().position(free) else {
            return Ok(false);
        };
        let lost = state.segments[index].events;
        let forgotten = if index == 0 {
            self.forget_front(state)
        } else if let Some(segment) = state.segments.remove(index) {
            if index == state.segments.len() {
                state.open = None;
            }
            fs::remove_file(segment_path(&self.directory, segment.id))
        } else {
            Ok(())
        };
        if lost > 0 {
            self.sink.lost(lost, &Full);
        }
        forgotten.map(|()| true)
    }

    fn measure(&self, state: &State) {
        self.meters.bytes.set(state.bytes() as i64);
        self.meters.events.set(state.events() as i64);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn segment_size(&self) -> u64 {
        (self.limit / SEGMENTS).max(1)
    }

    /// The oldest segment, or the one that will be.
    fn first(&self) -> u64 {
        self.segments.front().map_or(self.next, |front| front.id)
    }

    /// Whether all events of the oldest segment were taken.
    fn front_is_taken(&self) -> bool {
        let front = self.segments.front();
        front.is_some_and(|front| front.bytes > 0 && self.taken >= front.bytes)
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    fn events(&self) -> u64 {
        self.segments.iter().map(|segment| segment.events).sum()
    }
}

/// The end that takes lines.
impl Destination for Arc<Spool> {
    fn append(&mut self, lines: &[u8], durability: Durability) -> Appended {
        Spool::append(self, lines, durability)
    }
}
