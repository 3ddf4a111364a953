use std::io;
use std::iter;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use super::super::Mode;
use super::super::destination::Destination;
use super::super::whole::{Appended, Durability};
use super::super::writer::{Failure, Gathering, Given, Writer};
use super::{meters, metric};

type Written = Arc<Mutex<Vec<(String, Durability)>>>;

/// A disk that writes when it is told to, and as much as it is told.
struct Disk {
    written: Written,
    begun: Sender<()>,
    go_on: Receiver<usize>,
}

fn disk() -> (Box<Disk>, Written, Receiver<()>, Sender<usize>) {
    let (written, (begun, begins), (tell, go_on)) =
        (Written::default(), mpsc::channel(), mpsc::channel());
    let disk = Disk {
        written: Arc::clone(&written),
        begun,
        go_on,
    };
    (Box::new(disk), written, begins, tell)
}

impl Destination for Disk {
    fn append(&mut self, lines: &[u8], durability: Durability) -> Appended {
        self.begun.send(()).unwrap();
        let whole = self.go_on.recv().unwrap().min(lines.len());
        let text = String::from_utf8(lines[..whole].to_vec()).unwrap();
        self.written.lock().unwrap().push((text, durability));
        let error = (whole < lines.len()).then(|| io::Error::from(Errno::NOSPC));
        Appended { whole, error }
    }
}

fn told(given: Given) -> Result<(), Failure> {
    match given {
        Given::Done(done) => done,
        Given::Waits(told) => told.blocking_recv().unwrap(),
    }
}

#[test]
fn reviews_that_come_while_the_disk_is_busy_share_the_next_write() {
    let (disk, written, begins, tell) = disk();
    let (writer, thread) = Writer::start(disk, meters().0, Gathering::default()).unwrap();
    let first = writer.give(b"0\n", Mode::BlockingStrict);
    begins.recv().unwrap();
    let waiting: Vec<_> = (1..=64)
        .map(|n| writer.give(format!("{n}\n").as_bytes(), Mode::BlockingStrict))
        .collect();
    tell.send(usize::MAX).unwrap();
    tell.send(usize::MAX).unwrap();
    assert!(told(first).is_ok());
    assert!(waiting.into_iter().all(|given| told(given).is_ok()));
    drop(writer);
    thread.join().unwrap();
    let written = written.lock().unwrap();
    let rest: String = (1..=64).map(|n| format!("{n}\n")).collect();
    assert_eq!(
        *written,
        [
            ("0\n".to_owned(), Durability::OnDisk),
            (rest, Durability::OnDisk)
        ]
    );
}

#[test]
fn reviews_that_come_back_together_share_a_write_again() {
    // On a busy machine a caller takes its time to come back.
    let gathering = Gathering {
        at_most: Duration::from_secs(60),
        quiet: Duration::from_secs(60),
    };
    let (disk, written, begins, tell) = disk();
    let (writer, _thread) = Writer::start(disk, meters().0, gathering).unwrap();
    let give = || writer.give(b"{}\n", Mode::BlockingStrict);
    let first = give();
    begins.recv().unwrap();
    let others: Vec<_> = (1..8).map(|_| give()).collect();
    // A disk that takes a while: so long may be waited for the next group.
    thread::sleep(Duration::from_millis(500));
    for _write in 0..3 {
        tell.send(usize::MAX).unwrap();
    }
    assert!(told(first).is_ok());
    let all = iter::once(give()).chain(others);
    assert!(all.map(told).all(|done| done.is_ok()));
    assert_eq!(written.lock().unwrap().len(), 2);
}

#[test]
fn each_review_of_a_group_is_told_what_became_of_its_own_line() {
    let (disk, _, begins, tell) = disk();
    let (meters, registry) = meters();
    let (writer, _thread) = Writer::start(disk, meters, Gathering::default()).unwrap();
    let first = writer.give(b"a\n", Mode::BlockingStrict);
    begins.recv().unwrap();
    let fits = writer.give(b"b\n", Mode::BlockingStrict);
    let does_not = writer.give(b"c\n", Mode::BlockingStrict);
    assert!(told(writer.give(b"d\n", Mode::Batch)).is_ok());
    tell.send(2).unwrap();
    tell.send(2).unwrap();
    assert!(told(first).is_ok() && told(fits).is_ok());
    let failure = told(does_not).unwrap_err();
    assert_eq!(failure.for_the_user(), "No space left on device");
    assert_eq!(metric(&registry, "audit_error_total", "sink"), 2.0);
    assert_eq!(metric(&registry, "audit_dropped_total", "write"), 2.0);
    assert_eq!(metric(&registry, "audit_backlog_events", "sink"), 0.0);
}

#[test]
fn lines_that_nobody_waits_for_are_written_without_being_synced_and_before_the_end() {
    let (disk, written, _begins, tell) = disk();
    let (writer, thread) = Writer::start(disk, meters().0, Gathering::default()).unwrap();
    for _ in 0..1000 {
        assert!(told(writer.give(b"{}\n", Mode::Batch)).is_ok());
    }
    (0..1000).for_each(|_| tell.send(usize::MAX).unwrap());
    drop(writer);
    thread.join().unwrap();
    let written = written.lock().unwrap();
    let lines: usize = written.iter().map(|(text, _)| text.lines().count()).sum();
    assert_eq!(lines, 1000);
    assert!(written.len() < 20, "{}", written.len());
    assert!(written.iter().all(|(_, how)| *how == Durability::Written));
}

#[test]
fn more_than_may_wait_is_refused_and_counted() {
    let (disk, _, begins, tell) = disk();
    let (meters, registry) = meters();
    let (writer, _thread) = Writer::start(disk, meters, Gathering::default()).unwrap();
    let line = [&[b' '; (8 << 20) - 1][..], b"\n"].concat();
    let first = writer.give(b"{}\n", Mode::BlockingStrict);
    begins.recv().unwrap();
    assert!(told(writer.give(&line, Mode::Batch)).is_ok());
    assert!(told(writer.give(&line, Mode::Batch)).is_ok());
    let refused = told(writer.give(b"{}\n", Mode::BlockingStrict)).unwrap_err();
    assert!(matches!(refused, Failure::Backlog));
    assert_eq!(metric(&registry, "audit_dropped_total", "backlog"), 1.0);
    tell.send(usize::MAX).unwrap();
    tell.send(usize::MAX).unwrap();
    assert!(told(first).is_ok());
}

#[test]
fn a_closed_writer_takes_nothing() {
    let (disk, ..) = disk();
    let (writer, thread) = Writer::start(disk, meters().0, Gathering::default()).unwrap();
    writer.close();
    thread.join().unwrap();
    let refused = told(writer.give(b"{}\n", Mode::Blocking)).unwrap_err();
    assert!(matches!(refused, Failure::Closed));
}
