//! A chain by itself, for whoever decides specs without serving: nothing of the server's settings is
//! looked at, no file of theirs is opened, and plugins that are called over HTTP are left out. Those in Python have their workers.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::chain::{self, Remote, Resolved};
use super::file::AdmissionConfiguration;
use super::notes::Notes;
use super::plugin::PluginEntry;
use super::{Loaded, Places, Problems, defaults};
use crate::admission::chain::Chain;
use crate::plugins::Plugin;

/// A chain that runs in process.
pub struct Offline {
    pub chain: Chain<Plugin>,
    pub deadline: Duration,
    /// The names of the plugins that are called over HTTP and so are missing here.
    pub left_out: Vec<String>,
}

/// The chain of a configuration, with its exemptions. `state_dir` is where it names none.
///
/// # Errors
/// Everything that is wrong with either.
pub fn of_configuration(
    loaded: Loaded<AdmissionConfiguration>,
    state_dir: &Path,
    now: SystemTime,
) -> Result<Offline, Problems> {
    let Loaded { file, places, .. } = loaded;
    let mut notes = Notes::new(places);
    let resolved = chain::resolve(
        &file.plugins,
        "plugins",
        &file.exemptions,
        file.state_dir.as_deref().unwrap_or(state_dir),
        now,
        Remote::LeftOut,
        &mut notes,
    );
    finished(
        resolved,
        file.deadline.unwrap_or(defaults::DEADLINE).0,
        notes,
    )
}

/// The chain of a list of plugins that stands at the key path `at` of some file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn of_plugins(
    entries: &[PluginEntry],
    at: &str,
    places: &Places,
    state_dir: &Path,
    now: SystemTime,
) -> Result<Offline, Problems> {
    let mut notes = Notes::new(places.clone());
    let resolved = chain::resolve(
        entries,
        at,
        &[],
        state_dir,
        now,
        Remote::LeftOut,
        &mut notes,
    );
    finished(resolved, defaults::DEADLINE.0, notes)
}

fn finished(resolved: Resolved, deadline: Duration, notes: Notes) -> Result<Offline, Problems> {
    if !notes.problems.is_empty() {
        return Err(notes.problems.into_iter().collect());
    }
    Ok(Offline {
        chain: resolved.chain,
        deadline,
        left_out: resolved.left_out,
    })
}
