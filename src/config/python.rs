//! From a Python plugin's settings as typed to what its workers are made of.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::chain::Build;
use super::defaults;
use super::places::{item, member};
use super::plugin::Python;
use crate::plugins::python::Settings;

/// What is looked for on `PATH` where no interpreter is given.
const INTERPRETER: &str = "python3";

impl Build<'_> {
    /// The settings of a dstack plugin in Python. Notes all that is wrong with them.
    pub(super) fn python(
        &mut self,
        python: &Python,
        name: Option<&str>,
        path: &str,
    ) -> Option<Settings> {
        if python.plugin.trim().is_empty() {
            let message = "name an entry point of the group `dstack.plugins`";
            self.notes.problem(member(path, "plugin"), message);
        }
        for (index, variable) in python.env.iter().enumerate() {
            let place = item(&member(path, "env"), index);
            if variable.is_empty() || variable.contains(['=', '\0']) {
                let message = "write the name of an environment variable; its value is inherited";
                self.notes.problem(place, message);
            } else if env::var_os(variable).is_none() {
                let message = format!("the environment variable `{variable}` is not set");
                self.notes.warning(place, message);
            }
        }
        if !python.install.is_empty() {
            let message = "`install` is not built into this version; install the plugin beside \
                           dstack, and name that `interpreter`";
            self.notes.problem(member(path, "install"), message);
        }
        let given = python.interpreter.as_deref();
        let interpreter = interpreter(given.unwrap_or(Path::new(INTERPRETER)));
        let place = match given {
            Some(_) => member(path, "interpreter"),
            None => path.to_owned(),
        };
        Some(Settings {
            name: name.unwrap_or_default().into(),
            plugin: python.plugin.clone(),
            interpreter: self.notes.noted(&place, interpreter)?,
            workers: python.workers.unwrap_or(defaults::WORKERS) as usize,
            env: python.env.clone(),
            recycle_after: python.recycle_after.map(u64::from),
            memory_limit: python.memory_limit.map(|limit| limit.0),
            state_dir: self.state_dir.clone(),
        })
    }
}

/// The absolute path of an interpreter: a mere name is looked for on `PATH`. Links are kept, since by
/// its own path an interpreter knows the environment that it belongs to.
fn interpreter(given: &Path) -> Result<PathBuf, String> {
    let shown = given.display();
    if given.components().count() > 1 || given.is_absolute() {
        return match is_executable(given) {
            true => std::path::absolute(given).map_err(|e| format!("{shown}: {e}")),
            false => Err(format!("{shown} is no program that can be run")),
        };
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let mut candidates = env::split_paths(&path).map(|directory| directory.join(given));
    candidates
        .find(|candidate| candidate.is_absolute() && is_executable(candidate))
        .ok_or_else(|| format!("there is no `{shown}` on the PATH; name an `interpreter`"))
}

fn is_executable(path: &Path) -> bool {
    let metadata = path.metadata();
    metadata.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::name("sh")]
    #[case::absolute("/bin/sh")]
    fn an_interpreter_is_known_by_its_absolute_path(#[case] given: &str) {
        let found = interpreter(Path::new(given)).unwrap();
        assert!(found.is_absolute() && found.ends_with("sh"), "{found:?}");
    }

    #[rstest]
    #[case::missing("/nowhere/python3", "/nowhere/python3 is no program that can be run")]
    #[case::directory("/bin", "/bin is no program that can be run")]
    #[case::no_program("./Cargo.toml", "./Cargo.toml is no program that can be run")]
    #[case::unknown("python0", "there is no `python0` on the PATH; name an `interpreter`")]
    fn what_cannot_be_run_is_no_interpreter(#[case] given: &str, #[case] why: &str) {
        assert_eq!(interpreter(Path::new(given)), Err(why.to_owned()));
    }
}
