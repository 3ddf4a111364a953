//! The files of a spool: segments of whole lines, and the note of what was taken.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

pub(super) const SEGMENT: &str = ".ndjson";
/// Holds the segment and the offset up to which events were taken.
const TAKEN: &str = "taken";
/// Bytes of one batch. Loki takes 4 MiB.
const BATCH_BYTES: u64 = 1 << 20;

/// Makes the directory of a spool, for its owner alone.
pub(super) fn make(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(directory)
}

/// Whether a segment does not have what it was given.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof)
}

/// Where a segment stands.
pub(super) fn segment_path(directory: &Path, id: u64) -> PathBuf {
    directory.join(format!("{id:020}{SEGMENT}"))
}

/// The segment and the offset up to which events were taken.
pub(super) fn noted(directory: &Path) -> (u64, u64) {
    let text = fs::read_to_string(directory.join(TAKEN)).unwrap_or_default();
    let mut numbers = text.split_whitespace().map_while(|word| word.parse().ok());
    (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    )
}

/// Notes up to where events were taken.
pub(super) fn note(directory: &Path, segment: u64, offset: u64) -> io::Result<()> {
    let new = directory.join("taken.new");
    fs::write(&new, format!("{segment} {offset}\n"))?;
    fs::rename(new, directory.join(TAKEN))
}

/// The events from an offset on.
pub(super) fn count(path: &Path, from: u64) -> io::Result<u64> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let (mut chunk, mut events) = (vec![0; 64 << 10], 0);
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(events),
            length => events += newlines(&chunk[..length]),
        }
    }
}

/// How many lines end in them.
pub(super) fn newlines(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// How many bytes of lines make up at most so many bytes, or one line.
pub(super) fn first_lines(lines: &[u8], most: u64) -> usize {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let Some(within) = lines.get(..most) else {
        return lines.len();
    };
    let last = within.iter().rposition(|byte| *byte == b'\n');
    let next = || lines.iter().position(|byte| *byte == b'\n');
    last.or_else(next).map_or(lines.len(), |at| at + 1)
}

/// Whole lines between two offsets: at most so many, and not many bytes unless one line has them.
pub(super) fn read(path: &Path, from: u64, to: u64, most: usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut lines = Vec::new();
    let mut bytes = BATCH_BYTES.min(to - from);
    loop {
        let missing = bytes - lines.len() as u64;
        (&mut file).take(missing).read_to_end(&mut lines)?;
        let mut ends = lines.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let end = ends.by_ref().take(most).last().map(|(at, _)| at + 1);
        match end {
            Some(end) => {
                lines.truncate(end);
                return Ok(lines);
            }
            None if bytes < to - from && lines.len() as u64 == bytes => {
                bytes = (bytes * 2).min(to - from);
            }
            None => return Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}
