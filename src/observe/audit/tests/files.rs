use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rstest::rstest;

use super::super::backups::{Form, Keep};
use super::super::destination::{Destination, Rotation};
use super::super::file::AuditFile;
use super::super::whole::Durability;
use super::{home, text};

fn rotation(max_size: Option<u64>) -> Rotation {
    Rotation {
        max_size,
        every: None,
        keep: Keep {
            max_backups: None,
            max_age: None,
            form: Form::Plain,
        },
    }
}

fn append(file: &mut AuditFile, lines: &str) {
    let appended = file.append(lines.as_bytes(), Durability::OnDisk);
    assert!(appended.error.is_none(), "{appended:?}");
    assert_eq!(appended.whole, lines.len());
}

/// The files beside one, without it, in the order of their names.
fn others(path: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(path.parent().unwrap()).unwrap();
    let mut others: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    others.retain(|other| other != path);
    others.sort();
    others
}

#[test]
fn a_file_that_would_grow_too_large_is_put_aside_whole() {
    let (_directory, path) = home();
    let mut file = AuditFile::open(&path, &rotation(Some(11))).unwrap();
    for lines in [
        "{\"a\":1}\n",
        "{}\n",
        "{\"b\":1}\n",
        "{\"longer than that\":1}\n",
        "{}\n",
    ] {
        append(&mut file, lines);
    }
    let backups = others(&path);
    let backed: Vec<_> = backups.iter().map(|backup| text(backup)).collect();
    let expected = [
        "{\"a\":1}\n{}\n",
        "{\"b\":1}\n",
        "{\"longer than that\":1}\n",
    ];
    assert_eq!(backed, expected);
    assert_eq!(text(&path), "{}\n");
    let name = backups[0].file_name().unwrap().to_str().unwrap();
    assert!(
        name.starts_with("audit-2") && name.ends_with("Z.jsonl"),
        "{name}"
    );
    for file in backups.iter().chain([&path]) {
        let mode = fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file:?}");
    }
}

#[test]
fn a_file_that_grew_old_is_put_aside() {
    let (_directory, path) = home();
    let mut by_age = rotation(None);
    by_age.every = Some(Duration::from_millis(1));
    let mut file = AuditFile::open(&path, &by_age).unwrap();
    append(&mut file, "{\"a\":1}\n");
    thread::sleep(Duration::from_millis(5));
    append(&mut file, "{\"b\":1}\n");
    assert_eq!(text(&others(&path)[0]), "{\"a\":1}\n");
    assert_eq!(text(&path), "{\"b\":1}\n");
}

#[test]
fn old_files_are_compressed_behind_the_writer() {
    let (_directory, path) = home();
    let mut packed = rotation(Some(1));
    packed.keep.form = Form::Gzip;
    let mut file = AuditFile::open(&path, &packed).unwrap();
    append(&mut file, "{}\n");
    append(&mut file, "{}\n");
    let until = Instant::now() + Duration::from_secs(10);
    let is_packed = |backup: &std::path::PathBuf| backup.to_string_lossy().ends_with("Z.jsonl.gz");
    while !(others(&path).len() == 1 && others(&path).iter().all(is_packed)) {
        assert!(Instant::now() < until, "{:?}", others(&path));
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_file_that_cannot_be_rotated_grows_on() {
    let (_directory, path) = home();
    let mut file = AuditFile::open(&path, &rotation(Some(1))).unwrap();
    // What is in the way of the next file cannot be removed as a file.
    fs::create_dir(path.with_file_name("audit.jsonl.next")).unwrap();
    append(&mut file, "{}\n");
    append(&mut file, "{}\n");
    assert_eq!(text(&path), "{}\n{}\n");
}

/// What someone else does to the file between two records.
#[rstest]
#[case::deleted(|path: &Path| fs::remove_file(path).unwrap(), "{\"b\":1}\n")]
#[case::renamed(|path: &Path| fs::rename(path, path.with_extension("1")).unwrap(), "{\"b\":1}\n")]
#[case::replaced(|path: &Path| {
    fs::remove_file(path).unwrap();
    fs::write(path, "{\"x\":1}\n{\"torn").unwrap();
}, "{\"x\":1}\n{\"b\":1}\n")]
#[case::truncated(|path: &Path| fs::write(path, "").unwrap(), "{\"b\":1}\n")]
fn the_next_record_stands_at_the_path(#[case] hand: fn(&Path), #[case] then: &str) {
    let (_directory, path) = home();
    let mut file = AuditFile::open(&path, &rotation(None)).unwrap();
    append(&mut file, "{\"a\":1}\n");
    hand(&path);
    append(&mut file, "{\"b\":1}\n");
    assert_eq!(text(&path), then);
}

#[test]
fn a_file_that_was_moved_goes_on_where_it_is_while_no_other_can_be_made() {
    let (directory, path) = home();
    let below = directory.path().join("below");
    fs::create_dir(&below).unwrap();
    let (path, moved) = (below.join("audit.jsonl"), path);
    let mut file = AuditFile::open(&path, &rotation(None)).unwrap();
    fs::rename(&path, &moved).unwrap();
    fs::remove_dir(&below).unwrap();
    append(&mut file, "{\"a\":1}\n");
    assert_eq!(text(&moved), "{\"a\":1}\n");
    fs::create_dir(&below).unwrap();
    append(&mut file, "{\"b\":1}\n");
    assert_eq!(text(&path), "{\"b\":1}\n");
}

#[test]
fn a_file_that_is_gone_for_good_takes_nothing_until_it_can_be_made_again() {
    let (directory, _path) = home();
    let below = directory.path().join("below");
    fs::create_dir(&below).unwrap();
    let path = below.join("audit.jsonl");
    let mut file = AuditFile::open(&path, &rotation(None)).unwrap();
    fs::remove_dir_all(&below).unwrap();
    let appended = file.append(b"{}\n", Durability::Written);
    assert!(appended.whole == 0 && appended.error.is_some());
    fs::create_dir(&below).unwrap();
    append(&mut file, "{}\n");
    assert_eq!(text(&path), "{}\n");
}

#[test]
fn old_files_are_put_in_order_when_nobody_else_has_work() {
    /// Counted from 1, as proc(5) does, without the number and the name before them.
    const NICE: usize = 19 - 3;
    let (_directory, path) = home();
    let _file = AuditFile::open(&path, &rotation(None)).unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    let niceness = || {
        let threads = fs::read_dir("/proc/self/task").unwrap();
        let stats =
            threads.filter_map(|of| fs::read_to_string(of.unwrap().path().join("stat")).ok());
        let mut tidying = stats.filter(|stat| stat.contains("(audit-backups)"));
        let stat = tidying.next()?;
        let (_, fields) = stat.rsplit_once(") ")?;
        fields.split(' ').nth(NICE).map(str::to_owned)
    };
    while niceness().as_deref() != Some("19") {
        assert!(Instant::now() < until, "{:?}", niceness());
        thread::yield_now();
    }
}
