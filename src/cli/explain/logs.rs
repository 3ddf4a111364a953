//! The files of an audit log: the one that is written and those it was rotated to, plain or
//! compressed, in the order in which they were written.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::observe::events::lines::Lines;

/// How often the files are looked for anew when they are rotated at the same moment.
const TRIES: u8 = 5;

/// Opens logs with what they were rotated to. A log that is rotated meanwhile is looked for anew,
/// so that no line is missed.
///
/// # Errors
/// In words, when one has no file at all or cannot be read.
pub fn open(given: &[PathBuf]) -> Result<(Vec<PathBuf>, Lines), String> {
    let mut why = String::new();
    for _ in 0..TRIES {
        let files = find(given)?;
        match Lines::open(&files) {
            Ok(lines) if find(given)? == files => return Ok((files, lines)),
            Ok(_) => "the logs are rotated again and again".clone_into(&mut why),
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}

fn find(given: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut files: Vec<PathBuf> = Vec::new();
    for path in given {
        let family = family(path);
        if family.is_empty() {
            return Err(format!("{}: there is no such file", path.display()));
        }
        for file in family {
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    Ok(files)
}

/// A log and its backups, the oldest first.
fn family(path: &Path) -> Vec<PathBuf> {
    if path == Path::new("-") {
        return vec![path.to_owned()];
    }
    let own = path.exists();
    let mut backups = Vec::new();
    let name = path.file_name().and_then(|name| name.to_str());
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    if let (Some(name), Ok(entries)) = (name, fs::read_dir(directory)) {
        for entry in entries.flatten() {
            let other = entry.file_name();
            if other.to_str().is_some_and(|other| is_backup(name, other)) {
                let modified = entry.metadata().and_then(|metadata| metadata.modified());
                let modified = modified.unwrap_or(SystemTime::UNIX_EPOCH);
                backups.push((modified, path.with_file_name(&other)));
            }
        }
    }
    backups.sort();
    let backups = backups.into_iter().map(|(_, file)| file);
    backups.chain(own.then(|| path.to_owned())).collect()
}

/// Whether a file is what a log was rotated to: `audit.log.1`, `audit.log-20261001.gz`,
/// `audit-2026-10-01T12-00-00.000.log.gz`, or `audit.log-2026100112.backup`, which logrotate makes of
/// what is in the way of a file that it creates.
fn is_backup(log: &str, other: &str) -> bool {
    if other == log {
        return false;
    }
    let other = other.strip_suffix(".gz").unwrap_or(other);
    let other = other.strip_suffix(".backup").unwrap_or(other);
    let (stem, extension) = match log.rsplit_once('.') {
        Some((stem, extension)) => (stem, format!(".{extension}")),
        None => (log, String::new()),
    };
    let after = other.strip_prefix(log);
    let between = other
        .strip_prefix(stem)
        .and_then(|rest| rest.strip_suffix(&extension));
    // The log itself, compressed by hand.
    let whole = after == Some("");
    let numbered = after.into_iter().chain(between).any(|mark| {
        let is_mark = |c: char| c.is_ascii_digit() || "TZ:.+_-".contains(c);
        mark.starts_with(['.', '-'])
            && mark.contains(|c: char| c.is_ascii_digit())
            && mark.chars().all(is_mark)
    });
    numbered || whole
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("audit.log.1", true)]
    #[case("audit.log.12.gz", true)]
    #[case("audit.log-20261001", true)]
    #[case("audit.log-20261001-1760000000.gz", true)]
    #[case("audit-2026-10-01T12-00-00.000.log", true)]
    #[case("audit-2026-10-01T12-00-00.000.log.gz", true)]
    #[case("audit.log.2026-10-01T12:00:00Z", true)]
    #[case("audit.log.gz", true)]
    #[case("audit.1.log.gz", true)]
    #[case("audit-20261001.log", true)]
    #[case("audit.log-2026100112.backup", true)]
    #[case("audit.log.backup.old", false)]
    #[case("audit.log", false)]
    #[case("audit.log.tmp", false)]
    #[case("audit.log.1.tmp", false)]
    #[case("audit.log.lock", false)]
    #[case("audit-old.log", false)]
    #[case("audits.log.1", false)]
    #[case("other.log.1", false)]
    fn what_a_log_was_rotated_to_is_known_by_its_name(#[case] other: &str, #[case] backup: bool) {
        assert_eq!(is_backup("audit.log", other), backup);
    }

    #[test]
    fn backups_come_before_the_log_in_the_order_of_their_writing() {
        let directory = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        for (age, name) in [
            (30, "a.log.2.gz"),
            (20, "a.log.1"),
            (0, "a.log"),
            (0, "b.log.1"),
        ] {
            let file = fs::File::create(directory.path().join(name)).unwrap();
            file.set_modified(now - std::time::Duration::from_secs(age))
                .unwrap();
        }
        let (files, _) = open(&[directory.path().join("a.log")]).unwrap();
        let names = files
            .iter()
            .map(|file| file.file_name().unwrap().to_str().unwrap());
        assert_eq!(Vec::from_iter(names), ["a.log.2.gz", "a.log.1", "a.log"]);
        fs::remove_file(directory.path().join("a.log")).unwrap();
        assert_eq!(open(&[directory.path().join("a.log")]).unwrap().0.len(), 2);
        let error = open(&[directory.path().join("c.log")]).err().unwrap();
        assert!(error.contains("c.log: there is no such file"), "{error}");
    }
}
