//! Writing what a migration makes: a new file, and another text for a file that a server reads.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// What becomes of a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Refuse,
    Overwrite,
}

/// Refuses what [`write_new`] and [`replace`] would refuse, before anything is written.
pub fn check(new: &Path, replaced: &Path, existing: Existing) -> Result<(), String> {
    let backup = backup_of(replaced);
    let is_same = |path: &Path| path.canonicalize().ok() == replaced.canonicalize().ok();
    if new.exists() && is_same(new) {
        let shown = new.display();
        return Err(format!(
            "{shown} is the server's own configuration; name another --output"
        ));
    }
    for path in [new, &backup] {
        if existing == Existing::Refuse && path.symlink_metadata().is_ok() {
            let shown = path.display();
            return Err(format!(
                "{shown} is there already; move it away, or say --force to overwrite it"
            ));
        }
    }
    Ok(())
}

/// Writes a file that is not there yet, unless it may be overwritten.
pub fn write_new(path: &Path, text: &str, existing: Existing) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    match existing {
        Existing::Refuse => options.write(true).create_new(true),
        Existing::Overwrite => options.write(true).create(true).truncate(true),
    };
    let written = options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| path.display().to_string())
}

/// Gives a file another text in one step, and keeps the old one beside it. Owner and mode stay. Returns
/// where the old one is.
pub fn replace(path: &Path, old: &str, new: &str) -> anyhow::Result<PathBuf> {
    // A link stays one.
    let path = path
        .canonicalize()
        .with_context(|| path.display().to_string())?;
    let backup = backup_of(&path);
    copy(&path, &backup).with_context(|| backup.display().to_string())?;
    if fs::read_to_string(&backup).with_context(|| backup.display().to_string())? != old {
        bail!(
            "{} was changed meanwhile; it is left as it is",
            path.display()
        );
    }
    let fresh = beside(&path, ".new");
    let replaced = write_like(&path, &fresh, new).and_then(|()| fs::rename(&fresh, &path));
    if replaced.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    replaced.with_context(|| format!("{} cannot be replaced", path.display()))?;
    Ok(backup)
}

fn backup_of(path: &Path) -> PathBuf {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    beside(&path, ".bak")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let text = fs::read_to_string(from)?;
    write_like(from, to, &text)
}

/// Writes a file with the owner and mode of another: it may hold secrets, and the server has to read it.
fn write_like(model: &Path, path: &Path, text: &str) -> io::Result<()> {
    let model = model.metadata()?;
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.set_permissions(model.permissions())?;
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (model.uid(), model.gid()) {
        chown(path, Some(model.uid()), Some(model.gid()))?;
    }
    file.write_all(text.as_bytes())?;
    File::sync_all(&file)
}
