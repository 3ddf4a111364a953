//! The lines of audit logs, from files and standard input, plain or compressed with gzip. Nothing
//! here looks into a line.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;

use super::Unreadable;

/// Bytes of one line. A spec is a few kilobytes, the largest requests are some megabytes: what is
/// longer was not written by an audit sink, and is not kept in memory.
const LONGEST: u64 = 64 << 20;

/// How gzip's header begins (RFC 1952, section 2.3.1). No JSON does.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The lines of several files, one after the other, without the empty ones. Reading blocks.
pub struct Lines {
    waiting: VecDeque<Unread>,
    current: Option<Log>,
    length: Option<u64>,
    read: Arc<AtomicU64>,
}

/// One line, and where it stands.
#[derive(Debug)]
pub struct Line {
    pub file: Arc<str>,
    /// Counted from 1.
    pub number: u64,
    /// Its text, or why there is none.
    pub text: Result<Bytes, Unreadable>,
}

/// A file that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {error}")]
pub struct Unopened {
    file: String,
    error: io::Error,
}

impl Lines {
    /// Opens every file, so that one that is missing is known before anything is read. `-` is
    /// standard input.
    ///
    /// # Errors
    /// The first file that cannot be opened.
    pub fn open<P: AsRef<Path>>(files: &[P]) -> Result<Self, Unopened> {
        let mut lines = Self {
            waiting: VecDeque::new(),
            current: None,
            length: Some(0),
            read: Arc::default(),
        };
        for file in files.iter().map(AsRef::as_ref) {
            lines.add(file).map_err(|error| Unopened {
                file: file.display().to_string(),
                error,
            })?;
        }
        Ok(lines)
    }

    /// The bytes of all files as they lie on disk, when all of them are plain files.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// How many of these bytes have been read.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    fn add(&mut self, path: &Path) -> io::Result<()> {
        if path == Path::new("-") {
            self.length = None;
            self.wait("standard input", io::stdin());
            return Ok(());
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let length = metadata.is_file().then_some(metadata.len());
        self.length = self.length.zip(length).map(|(sum, length)| sum + length);
        self.wait(&path.display().to_string(), file);
        Ok(())
    }

    fn wait(&mut self, name: &str, from: impl Read + 'static) {
        let read = Arc::clone(&self.read);
        self.waiting.push_back(Unread {
            name: name.into(),
            bytes: Box::new(Counted { from, read }),
        });
    }
}

impl Iterator for Lines {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        loop {
            let log = match &mut self.current {
                Some(log) => log,
                none => none.insert(self.waiting.pop_front()?.begin()),
            };
            match log.line() {
                Ok(None) => self.current = None,
                Ok(Some(text)) if text.is_empty() => {}
                Ok(Some(text)) => return Some(log.at(Ok(text))),
                Err(error) => {
                    let line = log.at(Err(error));
                    if matches!(line.text, Err(Unreadable::Broken(_))) {
                        self.current = None;
                    }
                    return Some(line);
                }
            }
        }
    }
}

struct Unread {
    name: Arc<str>,
    bytes: Box<dyn Read>,
}

struct Log {
    name: Arc<str>,
    number: u64,
    text: Box<dyn BufRead>,
}

impl Unread {
    /// Finds out whether the file is compressed. Standard input is not waited for before its turn.
    fn begin(mut self) -> Log {
        let mut head = Vec::new();
        // An error shows again when the first line is read.
        let _ = (&mut self.bytes).take(2).read_to_end(&mut head);
        let compressed = head == GZIP;
        let whole = BufReader::new(Cursor::new(head).chain(self.bytes));
        Log {
            name: self.name,
            number: 0,
            text: match compressed {
                true => Box::new(BufReader::new(MultiGzDecoder::new(whole))),
                false => Box::new(whole),
            },
        }
    }
}

impl Log {
    /// The next line without its end, or nothing after the last.
    fn line(&mut self) -> Result<Option<Bytes>, Unreadable> {
        self.number += 1;
        let mut line = Vec::new();
        let length = (&mut self.text)
            .take(LONGEST)
            .read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(None);
        }
        if length as u64 == LONGEST && !line.ends_with(b"\n") {
            self.text.skip_until(b'\n')?;
            return Err(Unreadable::TooLong);
        }
        line.truncate(line.trim_ascii_end().len());
        Ok(Some(line.into()))
    }

    fn at(&self, text: Result<Bytes, Unreadable>) -> Line {
        Line {
            file: Arc::clone(&self.name),
            number: self.number,
            text,
        }
    }
}

/// Counts what is read from a file, before it is uncompressed.
struct Counted<R> {
    from: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(into)?;
        self.read.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::PathBuf;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use rstest::rstest;
    use tempfile::TempDir;

    use super::*;

    fn plain(text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }

    fn packed(text: impl AsRef<[u8]>) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_ref()).unwrap();
        encoder.finish().unwrap()
    }

    fn files(contents: &[Vec<u8>]) -> (TempDir, Vec<PathBuf>) {
        let directory = tempfile::tempdir().unwrap();
        let write = |(index, content): (usize, &Vec<u8>)| {
            let path = directory.path().join(index.to_string());
            std::fs::write(&path, content).unwrap();
            path
        };
        let paths = contents.iter().enumerate().map(write).collect();
        (directory, paths)
    }

    fn shown(lines: &mut Lines) -> Vec<String> {
        let show = |line: Line| {
            let file = line.file.rsplit('/').next().unwrap().to_owned();
            let text = match line.text {
                Ok(text) => String::from_utf8(text.to_vec()).unwrap(),
                Err(error) => error.to_string(),
            };
            format!("{file}:{} {text}", line.number)
        };
        lines.map(show).collect()
    }

    #[rstest]
    #[case::plain([plain("a\nb\n")], &["0:1 a", "0:2 b"])]
    #[case::no_last_end([plain("a\nb")], &["0:1 a", "0:2 b"])]
    #[case::empty_lines_count_and_are_left_out([plain("\n a\r\n  \nb\n")], &["0:2  a", "0:4 b"])]
    #[case::several([plain("a\n"), plain(""), plain("b\n")], &["0:1 a", "2:1 b"])]
    #[case::one_byte([plain("a")], &["0:1 a"])]
    #[case::packed([packed("a\nb\n"), plain("c")], &["0:1 a", "0:2 b", "1:1 c"])]
    #[case::packed_in_pieces([[packed("a\nb"), packed("c\n")].concat()], &["0:1 a", "0:2 bc"])]
    fn lines_come_in_order_with_their_places<const N: usize>(
        #[case] contents: [Vec<u8>; N],
        #[case] expected: &[&str],
    ) {
        let (_directory, paths) = files(&contents);
        let mut lines = Lines::open(&paths).unwrap();
        assert_eq!(shown(&mut lines), expected);
        let size: usize = contents.iter().map(|content| content.len()).sum();
        assert_eq!(
            (lines.length(), lines.read()),
            (Some(size as u64), size as u64)
        );
    }

    #[test]
    fn a_file_that_is_cut_off_ends_and_the_next_one_follows() {
        let whole = packed("a\n".to_owned() + &"x".repeat(100));
        let (_directory, paths) = files(&[whole[..whole.len() - 4].to_vec(), plain("b")]);
        let found = shown(&mut Lines::open(&paths).unwrap());
        assert_eq!(found[0], "0:1 a");
        assert!(
            found[1].starts_with("0:2 cannot be read from here on"),
            "{found:?}"
        );
        assert_eq!(found[2..], ["1:1 b"]);
    }

    #[test]
    fn a_line_without_end_is_passed_over_and_not_kept() {
        let long = packed(" ".repeat(LONGEST as usize + 5) + "\nb\n");
        let (_directory, paths) = files(&[long]);
        let found = shown(&mut Lines::open(&paths).unwrap());
        assert_eq!(found, ["0:1 longer than any audit event", "0:2 b"]);
    }

    #[test]
    fn a_file_that_is_missing_is_known_at_once() {
        let (directory, mut paths) = files(&[plain("a")]);
        paths.push(directory.path().join("absent"));
        let error = Lines::open(&paths).err().unwrap().to_string();
        assert!(error.contains("/absent: No such file"), "{error}");
        let error = Lines::open(&[directory.path()]).err().unwrap().to_string();
        assert!(error.contains("is a directory"), "{error}");
    }
}
