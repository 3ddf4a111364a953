//! Loading a configuration, from a file or the embedded default.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use sha1::{Digest, Sha1};

use crate::admission::schema::SpecSchemas;
use crate::config::resolve::{self, Settings};
use crate::config::{self, Problems, defaults};

const DEFAULT: &str = include_str!("../config/default.yaml");
const DEFAULT_NAME: &str = "embedded default";

/// Files of more bytes are not read again and again.
const LARGE: u64 = 1 << 20;

/// Loads the configuration at `path`, or the embedded default. Its chain checks specs against
/// `schemas`. Blocks.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: Option<&Path>, schemas: &Arc<SpecSchemas>) -> Result<Settings, Problems> {
    let parsed = match path {
        Some(path) => config::read(path),
        None => config::parse(DEFAULT, DEFAULT_NAME),
    };
    let mut settings = parsed.then(|loaded| resolve::resolve(loaded, SystemTime::now()))?;
    settings.chain.check_specs(Arc::clone(schemas));
    match path {
        Some(path) => settings.inputs.push(path.to_owned()),
        None => settings.state_dir = default_state_dir(settings.state_dir),
    }
    Ok(settings)
}

/// Tells one state of the files at `paths` from another: by their content, so that a swapped symlink
/// counts and a touched file does not; large ones, such as wheels, by their size and times. Blocks,
/// but for no file that does not answer.
pub fn fingerprint(paths: &[PathBuf]) -> [u8; 20] {
    let mut digest = Sha1::new();
    for path in paths {
        let found = fs::metadata(path);
        let content = match &found {
            Ok(found) if !found.is_file() => None,
            Ok(found) if found.len() > LARGE => {
                let times = [
                    found.mtime(),
                    found.mtime_nsec(),
                    found.ctime(),
                    found.ctime_nsec(),
                ];
                Some(times.map(i64::to_be_bytes).concat())
            }
            Ok(_) => fs::read(path).ok(),
            Err(_) => None,
        };
        let size = content
            .as_ref()
            .and(found.ok())
            .map_or(u64::MAX, |found| found.len());
        digest.update(size.to_be_bytes());
        digest.update(content.unwrap_or_default());
    }
    digest.finalize().into()
}

/// Without a configuration there may be nobody who prepared the system's directory: then the
/// user's own is taken.
fn default_state_dir(system: PathBuf) -> PathBuf {
    match fs::create_dir_all(&system).is_ok() && is_writable(&system) {
        true => system,
        false => user_state_dir(),
    }
}

/// The user's own directory for state (XDG base directories), or the system's where there is none.
pub fn user_state_dir() -> PathBuf {
    let state = env::var_os("XDG_STATE_HOME")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    state.or_else(home).map_or_else(
        || PathBuf::from(defaults::STATE_DIR),
        |state| state.join("dstack-admission"),
    )
}

fn is_writable(directory: &Path) -> bool {
    let probe = directory.join(".write-test");
    let written = fs::write(&probe, b"").is_ok();
    let _ = fs::remove_file(probe);
    written
}
