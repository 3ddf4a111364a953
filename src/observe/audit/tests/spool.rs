use std::path::Path;
use std::sync::Arc;

use prometheus::Registry;

use super::super::destination::Destination;
use super::super::spool::Spool;
use super::super::whole::Durability;
use super::{meters, metric};

fn open(directory: &Path, limit: u64) -> (Arc<Spool>, Registry) {
    let (meters, registry) = meters();
    let spool = Spool::open(directory, limit, meters).unwrap();
    (Arc::new(spool), registry)
}

fn add(spool: &Arc<Spool>, lines: &str) {
    let appended = Arc::clone(spool).append(lines.as_bytes(), Durability::OnDisk);
    assert!(appended.error.is_none(), "{appended:?}");
}

fn numbered(range: std::ops::Range<u32>) -> String {
    range
        .map(|number| format!("{{\"n\":{number:04}}}\n"))
        .collect()
}

/// Takes everything in batches of at most so many events.
fn drain(spool: &Spool, most: usize) -> String {
    let mut taken = String::new();
    while let Some(batch) = spool.batch(most).unwrap() {
        assert!(batch.events as usize <= most);
        taken += str::from_utf8(&batch.lines).unwrap();
        spool.done(&batch).unwrap();
    }
    taken
}

#[test]
fn events_leave_in_order_and_once() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, registry) = open(directory.path(), 1 << 20);
    for start in [0, 10, 20] {
        add(&spool, &numbered(start..start + 10));
    }
    assert_eq!(metric(&registry, "audit_spool_events", "sink"), 30.0);
    assert_eq!(drain(&spool, 7), numbered(0..30));
    add(&spool, &numbered(30..33));
    assert_eq!(drain(&spool, 7), numbered(30..33));
    assert_eq!(metric(&registry, "audit_spool_events", "sink"), 0.0);
}

#[test]
fn what_was_not_taken_survives_a_restart_and_what_was_does_not_come_again() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path(), 1 << 20);
    add(&spool, &numbered(0..10));
    let batch = spool.batch(4).unwrap().unwrap();
    spool.done(&batch).unwrap();
    // One that is under way when the process ends was not taken.
    spool.batch(4).unwrap().unwrap();
    drop(spool);
    let last = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "ndjson"))
        .unwrap();
    let torn = std::fs::read_to_string(&last).unwrap() + "{\"torn";
    std::fs::write(&last, torn).unwrap();

    let (spool, registry) = open(directory.path(), 1 << 20);
    assert_eq!(spool.events(), 6);
    assert_eq!(metric(&registry, "audit_spool_events", "sink"), 6.0);
    add(&spool, &numbered(10..12));
    assert_eq!(drain(&spool, 100), numbered(4..12));
    drop(spool);
    let (spool, _) = open(directory.path(), 1 << 20);
    assert_eq!(spool.events(), 0);
    assert!(spool.batch(1).unwrap().is_none());
}

#[test]
fn a_full_spool_drops_the_oldest_segment_and_counts_it() {
    let directory = tempfile::tempdir().unwrap();
    // Lines of 11 bytes; a segment has 100 bytes, so nine lines.
    let (spool, registry) = open(directory.path(), 1600);
    for start in (0..300).step_by(10) {
        add(&spool, &numbered(start..start + 10));
    }
    let dropped = metric(&registry, "audit_dropped_total", "spool_full") as u32;
    assert!(dropped >= 150, "{dropped}");
    assert!(metric(&registry, "audit_spool_bytes", "sink") <= 1600.0);
    assert_eq!(drain(&spool, 100), numbered(dropped..300));
}

#[test]
fn a_batch_under_way_is_not_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, registry) = open(directory.path(), 1600);
    add(&spool, &numbered(0..10));
    let batch = spool.batch(3).unwrap().unwrap();
    for start in (10..300).step_by(10) {
        add(&spool, &numbered(start..start + 10));
    }
    let dropped = metric(&registry, "audit_dropped_total", "spool_full") as u32;
    spool.done(&batch).unwrap();
    let rest = drain(&spool, 100);
    // Nine lines fill a segment of 100 bytes.
    assert_eq!(rest, numbered(3..9) + &numbered(9 + dropped..300));
}

#[test]
fn many_lines_at_once_fill_many_segments() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, registry) = open(directory.path(), 1600);
    add(&spool, &numbered(0..500));
    let dropped = metric(&registry, "audit_dropped_total", "spool_full") as u32;
    assert!(metric(&registry, "audit_spool_bytes", "sink") <= 1600.0);
    assert_eq!(drain(&spool, 100), numbered(dropped..500));
}

#[test]
fn a_line_that_never_fits_is_not_taken() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path(), 1600);
    add(&spool, &numbered(0..10));
    let line = [&[b' '; 2000][..], b"\n"].concat();
    let appended = Arc::clone(&spool).append(&line, Durability::Written);
    assert!(appended.whole == 0 && appended.error.is_some());
}

#[test]
fn what_somebody_deletes_from_a_spool_is_counted_and_holds_up_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, registry) = open(&directory.path().join("spool"), 1 << 20);
    add(&spool, &numbered(0..3));
    std::fs::remove_dir_all(directory.path().join("spool")).unwrap();
    assert_eq!(drain(&spool, 7), "");
    let lost = metric(&registry, "audit_dropped_total", "spool_damaged");
    assert_eq!(lost, 3.0);
    add(&spool, &numbered(3..6));
    assert_eq!(drain(&spool, 7), numbered(3..6));
}

#[test]
fn notes_that_cannot_be_written_lose_nothing_and_keep_no_segment() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path(), 1600);
    add(&spool, &numbered(0..9));
    spool.done(&spool.batch(4).unwrap().unwrap()).unwrap();
    let in_the_way = directory.path().join("taken.new");
    std::fs::create_dir(&in_the_way).unwrap();
    let rest = spool.batch(9).unwrap().unwrap();
    assert!(spool.done(&rest).is_err());
    add(&spool, &numbered(9..12));
    assert!(spool.batch(9).is_err(), "the first segment goes");
    assert_eq!(
        spool.batch(9).unwrap().unwrap().lines,
        numbered(9..12).as_bytes()
    );
    drop(spool);
    let (spool, _) = open(directory.path(), 1600);
    std::fs::remove_dir(in_the_way).unwrap();
    assert_eq!(drain(&spool, 9), numbered(9..12));
}

#[test]
fn a_note_of_a_segment_that_is_gone_is_not_taken_for_one_of_the_next() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("taken"), "0 44\n").unwrap();
    let (spool, _) = open(directory.path(), 1600);
    add(&spool, &numbered(0..9));
    drop(spool);
    let (spool, _) = open(directory.path(), 1600);
    assert_eq!(drain(&spool, 9), numbered(0..9));
}
