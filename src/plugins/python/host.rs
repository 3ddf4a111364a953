//! The program that every worker runs, which this binary brings along, and what it is started with.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};
use tracing::level_filters::LevelFilter;
use ulid::Ulid;

use super::Settings;
use super::process::Launch;

/// Python 3.9 or newer runs it, with the standard library alone until it loads the plugin.
const SOURCE: &str = include_str!("host.py");

/// Prepares what the workers of a plugin need under the state directory. Blocks.
///
/// # Errors
/// In words, naming the path that cannot be written.
pub(super) fn prepare(settings: &Settings, interpreter: &Path) -> Result<Launch, String> {
    let root = settings.state_dir.join("python");
    let directory = root.join("home").join(folder(&settings.name));
    make(&directory)?;
    let program = install(&root.join("host"))?;
    let arguments = [
        "-s".into(),
        "-B".into(),
        program.into(),
        (&settings.plugin).into(),
    ];
    Ok(Launch {
        program: interpreter.to_owned(),
        arguments: arguments.to_vec(),
        environment: environment(settings, interpreter, &directory),
        directory,
    })
}

/// Writes the program, unless it is there: into a directory that holds nothing else, since Python looks
/// for modules beside it.
fn install(directory: &Path) -> Result<PathBuf, String> {
    let path = directory.join(format!("host-{:.12}.py", hash(SOURCE)));
    if fs::read(&path).is_ok_and(|found| found == SOURCE.as_bytes()) {
        return Ok(path);
    }
    make(directory)?;
    // A name of its own, and renamed when complete: another process may do the same now.
    let new = directory.join(format!("{}.new", Ulid::generate()));
    let written = fs::write(&new, SOURCE).and_then(|()| fs::rename(&new, &path));
    written.map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}

/// Makes a directory for this user alone.
pub(super) fn make(directory: &Path) -> Result<(), String> {
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory);
    made.map_err(|e| {
        let directory = directory.display();
        format!("{directory}: {e}; set `stateDir` to a directory that this user can write")
    })
}

/// A folder's name that stands for one plugin's name alone.
fn folder(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match name.chars().all(plain) && !name.starts_with('.') && name.len() <= 64 {
        true => name.to_owned(),
        false => format!(".{}", hash(name)),
    }
}

fn hash(text: &str) -> String {
    format!("{:x}", Sha1::digest(text))
}

/// All that a worker's environment holds: nothing of this process but what the plugin's `env` lists.
fn environment(
    settings: &Settings,
    interpreter: &Path,
    directory: &Path,
) -> Vec<(OsString, OsString)> {
    let mut path = OsString::new();
    if let Some(own) = interpreter.parent() {
        path.push(own);
        path.push(":");
    }
    path.push("/usr/bin:/bin");
    let mut variables: Vec<(OsString, OsString)> = vec![
        ("PATH".into(), path),
        ("HOME".into(), directory.into()),
        ("LANG".into(), "C.UTF-8".into()),
        ("PYTHONUNBUFFERED".into(), "1".into()),
        ("DSTACK_ADMISSION_LOG_LEVEL".into(), log_level().into()),
    ];
    if let Some(limit) = settings.memory_limit {
        let limit = limit.to_string();
        variables.push(("DSTACK_ADMISSION_MEMORY_LIMIT".into(), limit.into()));
    }
    let listed = settings
        .env
        .iter()
        .filter_map(|name| Some((name.into(), env::var_os(name)?)));
    variables.extend(listed);
    variables
}

/// Python's name for the level of this process's log.
fn log_level() -> &'static str {
    match LevelFilter::current() {
        LevelFilter::TRACE | LevelFilter::DEBUG => "debug",
        LevelFilter::INFO => "info",
        LevelFilter::WARN => "warning",
        _ => "error",
    }
}
