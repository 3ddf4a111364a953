//! The environments on disk. Who uses one holds a lock on it, in whichever process; one that nobody used
//! for a week is removed. It knows nothing of what is in them.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How long an environment stays that nobody uses, so that a configuration can be taken back without
/// the network.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// The file that says that an environment is whole. It holds the requirements, and its time is that of
/// the last use.
const COMPLETE: &str = "dstack-admission-complete";

/// An environment that stays for as long as this does.
#[derive(Debug)]
pub(super) struct InUse {
    /// Shared by all who use the environment.
    _lock: File,
    directory: PathBuf,
}

/// What was found at an environment's place.
#[derive(Debug)]
pub(super) enum Found {
    Whole(InUse),
    /// Nothing any more: whoever has this makes it.
    Nothing(ToBeMade),
}

/// The place of an environment, and that nobody else makes it now.
#[derive(Debug)]
pub(super) struct ToBeMade {
    lock: File,
    pub directory: PathBuf,
}

/// Takes the environment at `directory`, and clears away what is half-made there. Waits for another that
/// makes it. Blocks.
///
/// # Errors
/// In words, naming the path.
pub(super) fn take(directory: &Path) -> Result<Found, String> {
    let lock = lock_file(directory);
    let lock = File::create(&lock).map_err(|e| at(&lock, &e))?;
    let directory = directory.to_owned();
    lock.lock_shared().map_err(|e| at(&directory, &e))?;
    if !is_whole(&directory) {
        lock.unlock()
            .and_then(|()| lock.lock())
            .map_err(|e| at(&directory, &e))?;
        // Another may have made it meanwhile.
        if !is_whole(&directory) {
            if directory.exists() {
                fs::remove_dir_all(&directory).map_err(|e| at(&directory, &e))?;
            }
            return Ok(Found::Nothing(ToBeMade { lock, directory }));
        }
    }
    InUse::new(lock, directory).map(Found::Whole)
}

impl ToBeMade {
    /// It is made, from the requirements in the file `list`.
    ///
    /// # Errors
    /// In words, naming the path.
    pub fn made(self, list: &Path) -> Result<InUse, String> {
        let complete = self.directory.join(COMPLETE);
        fs::rename(list, &complete).map_err(|e| at(&complete, &e))?;
        InUse::new(self.lock, self.directory)
    }
}

impl InUse {
    fn new(lock: File, directory: PathBuf) -> Result<Self, String> {
        // In between, nobody removes what was used just now.
        touch(&directory);
        lock.unlock()
            .and_then(|()| lock.lock_shared())
            .map_err(|e| at(&directory, &e))?;
        Ok(Self {
            _lock: lock,
            directory,
        })
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        touch(&self.directory);
    }
}

/// Removes the environments below `root` that nobody uses and nobody used for a week, and returns
/// them. What cannot be removed stays for the next time. Blocks.
pub(super) fn remove_unused(root: &Path, now: SystemTime) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root) else {
        return Vec::new();
    };
    let paths = entries.flatten().map(|entry| entry.path());
    paths
        .filter(|path| path.is_dir() && lock_file(path).is_file())
        .filter(|path| is_old(path, now) && remove(path, now).is_ok_and(|removed| removed))
        .collect()
}

/// Removes an environment unless somebody has it.
fn remove(directory: &Path, now: SystemTime) -> io::Result<bool> {
    let lock = File::create(lock_file(directory))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    if !is_old(directory, now) {
        return Ok(false);
    }
    // First, so that a crash leaves nothing that seems whole. The lock's file stays: others may wait for it.
    match fs::remove_file(directory.join(COMPLETE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::remove_dir_all(directory)?,
    }
    Ok(true)
}

fn is_old(directory: &Path, now: SystemTime) -> bool {
    let complete = directory.join(COMPLETE);
    let used = complete
        .metadata()
        .or_else(|_| directory.metadata())
        .and_then(|metadata| metadata.modified());
    used.is_ok_and(|used| {
        let unused_for = now.duration_since(used).unwrap_or_default();
        unused_for > KEPT_FOR
    })
}

fn is_whole(directory: &Path) -> bool {
    directory.join(COMPLETE).is_file()
}

/// Notes that the environment is used now. Where that cannot be written, nothing can be removed either.
fn touch(directory: &Path) {
    let complete = File::options().append(true).open(directory.join(COMPLETE));
    let _ = complete.and_then(|file| file.set_modified(SystemTime::now()));
}

fn lock_file(directory: &Path) -> PathBuf {
    directory.with_extension("lock")
}

fn at(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn make(root: &TempDir, name: &str) -> InUse {
        let directory = root.path().join(name);
        let Found::Nothing(place) = take(&directory).unwrap() else {
            panic!("{name} is there");
        };
        fs::create_dir(&directory).unwrap();
        let list = directory.with_extension("txt");
        fs::write(&list, "a==1").unwrap();
        place.made(&list).unwrap()
    }

    fn names(removed: &[PathBuf]) -> Vec<&str> {
        let mut names = Vec::from_iter(removed.iter().map(|path| path.file_name().unwrap()));
        names.sort();
        names.into_iter().filter_map(|name| name.to_str()).collect()
    }

    fn in_a_week() -> SystemTime {
        SystemTime::now() + KEPT_FOR + Duration::from_secs(60)
    }

    #[test]
    fn what_is_half_made_is_cleared_away_and_what_is_whole_stays() {
        let root = tempfile::tempdir().unwrap();
        drop(make(&root, "whole"));
        let half = root.path().join("half");
        fs::create_dir(&half).unwrap();
        assert!(matches!(take(&half), Ok(Found::Nothing(_))));
        assert!(!half.exists());
        let whole = take(&root.path().join("whole"));
        assert!(matches!(whole, Ok(Found::Whole(_))));
    }

    #[test]
    fn an_environment_is_used_by_several_at_once() {
        let root = tempfile::tempdir().unwrap();
        let first = make(&root, "a");
        let second = take(&root.path().join("a")).unwrap();
        assert!(matches!(second, Found::Whole(_)));
        drop(first);
        assert!(remove_unused(root.path(), in_a_week()).is_empty());
        drop(second);
        assert_eq!(names(&remove_unused(root.path(), in_a_week())), ["a"]);
    }

    #[test]
    fn what_nobody_used_for_a_week_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let _used = make(&root, "used");
        drop(make(&root, "unused"));
        drop(make(&root, "crashed"));
        fs::remove_file(root.path().join("crashed").join(COMPLETE)).unwrap();
        fs::create_dir(root.path().join("of-others")).unwrap();

        assert!(remove_unused(root.path(), SystemTime::now()).is_empty());
        let removed = remove_unused(root.path(), in_a_week());
        assert_eq!(names(&removed), ["crashed", "unused"]);
        assert!(removed.iter().all(|path| !path.exists()));
        assert!(root.path().join("used").join(COMPLETE).exists());
        assert!(root.path().join("of-others").exists());
    }

    #[test]
    fn an_environment_counts_as_used_until_it_is_given_up() {
        let root = tempfile::tempdir().unwrap();
        let used = make(&root, "a");
        let complete = root.path().join("a").join(COMPLETE);
        let long_ago = SystemTime::now() - 2 * KEPT_FOR;
        let file = File::options().append(true).open(complete).unwrap();
        file.set_modified(long_ago).unwrap();
        assert!(remove_unused(root.path(), SystemTime::now()).is_empty());
        drop(used);
        assert!(remove_unused(root.path(), SystemTime::now()).is_empty());
    }

    #[test]
    fn where_nothing_was_ever_made_nothing_is_removed() {
        let root = tempfile::tempdir().unwrap();
        assert!(remove_unused(&root.path().join("none"), in_a_week()).is_empty());
    }
}
