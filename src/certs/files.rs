//! Files that are replaced as a whole and the lock around them; never decides what is in them.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::CertsError;

/// Modes of what only the owner may see and of what any user may read.
pub(super) const PRIVATE: u32 = 0o600;
pub(super) const PUBLIC: u32 = 0o644;
pub(super) const PRIVATE_DIR: u32 = 0o700;
pub(super) const PUBLIC_DIR: u32 = 0o755;

/// Turns an I/O error into one that names the path and what was tried.
pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CertsError {
    let path = path.to_owned();
    move |why| CertsError::Io { action, path, why }
}

/// Makes a directory of this mode, whatever the umask; one that exists keeps its mode.
pub(super) fn directory(path: &Path, mode: u32) -> Result<(), CertsError> {
    if path.is_dir() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
        .map_err(failed("make the directory", path))
}

/// Waits for the lock of a directory. It ends with the returned file, or with the process.
pub(super) fn lock(dir: &Path) -> Result<File, CertsError> {
    let path = dir.join(".lock");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    let file = options.mode(PRIVATE).open(&path);
    file.and_then(|file| file.lock().map(|()| file))
        .map_err(failed("lock", &path))
}

/// The content of a file, or nothing where there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, CertsError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// Puts a file in place in one step: a reader sees the old content or the new, never a part, and
/// so does the next start after a power cut. The caller holds the directory's lock.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CertsError> {
    replace(path, bytes, mode)?;
    path.parent().map_or(Ok(()), sync)
}

/// Like [`write`], for many files of one directory, which [`sync`] then makes lasting at once.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CertsError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // A crash leaves this file; the next write of the same file overwrites it.
    let beside = path.with_file_name(format!(".{name}.new"));
    let put = || {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(mode);
        let mut file = options.open(&beside)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    put().map_err(failed("write", path))
}

/// Makes lasting which files a directory has.
pub(super) fn sync(dir: &Path) -> Result<(), CertsError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(failed("write", dir))
}

/// Writes a file only if its content is another, and says whether it did.
pub(super) fn update(path: &Path, bytes: &[u8], mode: u32) -> Result<bool, CertsError> {
    if read(path)?.as_deref() == Some(bytes) {
        return Ok(false);
    }
    write(path, bytes, mode).map(|()| true)
}

/// Removes a file; one that is gone already is no error.
pub(super) fn remove(path: &Path) -> Result<(), CertsError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}
