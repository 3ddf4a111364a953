//! A file that holds whole lines only, whatever becomes of a write: what a crash or a full disk
//! leaves torn is cut off again, or at least ended before the next line begins.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How far lines go before they count as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// To the operating system: they survive the end of this process.
    Written,
    /// To the disk: they survive the end of the machine's power.
    OnDisk,
}

/// What came of appending lines.
#[derive(Debug)]
pub(super) struct Appended {
    /// How many bytes of them are there, all of whole lines.
    pub whole: usize,
    /// Why not all are.
    pub error: Option<io::Error>,
}

impl Appended {
    pub fn nothing(error: io::Error) -> Self {
        Self {
            whole: 0,
            error: Some(error),
        }
    }
}

/// An open file of lines, to whose end lines are added.
#[derive(Debug)]
pub(super) struct WholeLines {
    file: File,
    /// Its bytes. Whoever knows of another writer sets this before appending.
    pub length: u64,
    /// Whether it ends within a line that could not be cut off.
    torn: bool,
    regular: bool,
}

/// A process that was killed keeps its lock until the kernel has put it away.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

impl WholeLines {
    /// Opens a file for its owner alone, making it where it is missing, and cuts a torn last line.
    /// While it is open no other process of this program takes it.
    ///
    /// # Errors
    /// When it cannot be opened, or another process writes to it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        Self::of(options.open(path)?, path)
    }

    /// Begins an empty file.
    ///
    /// # Errors
    /// As [`WholeLines::open`].
    pub fn begin(path: &Path) -> io::Result<Self> {
        // What stands here is what a crash left of an earlier beginning.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create_new(true).mode(0o600);
        Self::of(options.open(path)?, path)
    }

    /// Lines to a stream, such as standard output, of which nothing can be taken back.
    pub fn stream(file: File) -> Self {
        Self {
            file,
            length: 0,
            torn: false,
            regular: false,
        }
    }

    fn of(mut file: File, path: &Path) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(Self::stream(file));
        }
        lock(&file)?;
        let length = file.metadata()?.len();
        let whole = whole_length(&mut file, length)?;
        if whole < length {
            file.set_len(whole)?;
            let bytes = length - whole;
            tracing::warn!(file = %path.display(), bytes, "cut a torn last line off the audit log");
        }
        Ok(Self {
            file,
            length: whole,
            torn: false,
            regular: true,
        })
    }

    pub fn is_regular(&self) -> bool {
        self.regular
    }

    /// The device and the inode.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        let metadata = self.file.metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }

    /// Whether it still stands in a directory. A file that was deleted takes lines as before.
    pub fn is_linked(&self) -> bool {
        self.file
            .metadata()
            .is_ok_and(|metadata| metadata.nlink() > 0)
    }

    /// Sets the length to what the file has now.
    pub fn measure(&mut self) -> io::Result<()> {
        self.length = self.file.metadata()?.len();
        Ok(())
    }

    /// Adds whole lines with one write. Lines that fit before an error stay.
    pub fn append(&mut self, lines: &[u8], durability: Durability) -> Appended {
        if self.torn {
            match self.file.write_all(b"\n") {
                Ok(()) => (self.torn, self.length) = (false, self.length + 1),
                Err(error) => return Appended::nothing(error),
            }
        }
        let before = self.length;
        let (written, mut error) = write(&mut self.file, lines);
        let mut whole = match error {
            None => written,
            Some(_) => lines[..written]
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |at| at + 1),
        };
        if written > whole {
            self.cut(before + whole as u64);
        }
        if whole > 0
            && durability == Durability::OnDisk
            && let Err(unsynced) = self.file.sync_data()
        {
            // What the disk did not take must not be read as recorded: who waits for it is denied.
            self.cut(before);
            (whole, error) = (0, Some(unsynced));
        }
        self.length = before + whole as u64;
        Appended { whole, error }
    }

    fn cut(&mut self, to: u64) {
        self.torn = !self.regular || self.file.set_len(to).is_err();
    }
}

/// Puts on disk which files a directory has.
///
/// # Errors
/// When the system does not.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    match File::open(directory)?.sync_all() {
        // Some file systems have no such thing.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::InvalidInput | ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// Writes until the end or an error, and tells how far it came.
fn write(to: &mut impl Write, bytes: &[u8]) -> (usize, Option<io::Error>) {
    let mut written = 0;
    while written < bytes.len() {
        match to.write(&bytes[written..]) {
            Ok(0) => return (written, Some(ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (written, Some(error)),
        }
    }
    (written, None)
}

fn lock(file: &File) -> io::Result<()> {
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("another process or sink writes to it"));
            }
            // Some network file systems have no locks.
            Err(TryLockError::Error(_)) => return Ok(()),
        }
    }
}

/// The bytes up to the end of the last whole line.
fn whole_length(file: &mut File, length: u64) -> io::Result<u64> {
    const STEP: u64 = 64 << 10;
    let mut chunk = Vec::new();
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(STEP);
        file.seek(SeekFrom::Start(start))?;
        chunk.clear();
        file.take(end - start).read_to_end(&mut chunk)?;
        if let Some(at) = chunk.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::none("{\"a\":1}\n{\"b\":", "{\"a\":1}\n{\"c\":1}\n")]
    #[case::whole("{\"a\":1}\n", "{\"a\":1}\n{\"c\":1}\n")]
    #[case::empty("", "{\"c\":1}\n")]
    #[case::one_torn_line("{\"a\"", "{\"c\":1}\n")]
    fn a_torn_last_line_is_cut_when_a_file_is_opened(#[case] there: &str, #[case] then: &str) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        fs::write(&path, there).unwrap();
        let mut lines = WholeLines::open(&path).unwrap();
        let appended = lines.append(b"{\"c\":1}\n", Durability::OnDisk);
        assert!(appended.error.is_none() && appended.whole == 8);
        assert_eq!(fs::read_to_string(&path).unwrap(), then);
    }

    #[test]
    fn a_torn_line_of_any_length_is_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        fs::write(&path, "{}\n".to_owned() + &"x".repeat(3 << 20)).unwrap();
        drop(WholeLines::open(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}\n");
    }

    #[test]
    fn two_do_not_write_to_one_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let first = WholeLines::open(&path).unwrap();
        let error = WholeLines::open(&path).unwrap_err();
        assert!(error.to_string().contains("another process"), "{error}");
        drop(first);
        WholeLines::open(&path).unwrap();
    }

    #[test]
    fn a_line_that_was_torn_for_good_is_ended_before_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let mut lines = WholeLines::open(&path).unwrap();
        lines.append(b"{\"a\":", Durability::Written);
        lines.torn = true;
        lines.append(b"{}\n", Durability::Written);
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"a\":\n{}\n");
        assert_eq!(lines.length, 9);
    }

    #[test]
    fn a_stream_that_takes_nothing_says_why() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let appended = WholeLines::stream(full).append(b"{}\n{}\n", Durability::Written);
        assert_eq!(appended.whole, 0);
        assert_eq!(appended.error.unwrap().kind(), ErrorKind::StorageFull);
    }
}
