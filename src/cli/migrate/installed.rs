//! What is installed beside the dstack server: its Python is asked which plugins it finds, in which order.
//!
//! No plugin is imported.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;

const SCRIPT: &str = include_str!("entry_points.py");
/// How long the answer may take.
const LIMIT: Duration = Duration::from_secs(60);

/// What the server's Python says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Installed {
    /// Python's version.
    pub python: String,
    /// The version of dstack.
    pub dstack: Option<String>,
    /// The plugins, in the order in which the server runs those that are enabled.
    pub found: Vec<Found>,
}

/// An entry point of the group `dstack.plugins`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Found {
    pub name: String,
    /// The package that it comes from.
    pub package: Option<String>,
    pub version: Option<String>,
    /// Whether that was installed from a file or a folder.
    pub local: bool,
}

impl Installed {
    pub fn plugin(&self, name: &str) -> Option<&Found> {
        self.found.iter().find(|found| found.name == name)
    }
}

/// Asks the Python at `interpreter`.
///
/// # Errors
/// In words, when it does not answer or has no dstack.
pub async fn ask(interpreter: &Path) -> Result<Installed, String> {
    let shown = interpreter.display();
    let mut command = Command::new(interpreter);
    command
        .args(["-B", "-c", SCRIPT])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let asked = tokio::time::timeout(LIMIT, command.output()).await;
    let output = asked.map_err(|_| format!("{shown} does not answer"))?;
    let output = output.map_err(|error| format!("{shown} cannot be started: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.trim().lines().next_back().unwrap_or_default();
        return Err(format!("{shown} ended with {}: {last}", output.status));
    }
    let installed: Installed = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{shown} does not tell what is installed: {error}"))?;
    match installed.dstack {
        Some(_) => Ok(installed),
        None => Err(format!("{shown} has no dstack")),
    }
}
