//! From a Python plugin's settings as typed to what its workers are made of.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::chain::Build;
use super::defaults;
use super::places::{item, member};
use super::plugin::{Mode, PluginEntry, Python};
use super::requirement::requirement;
use crate::plugins::python::{Requirement, Settings};

/// What is looked for on `PATH` where no interpreter is given.
pub const INTERPRETER: &str = "python3";

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
        let install = self.requirements(&python.install, &member(path, "install"));
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
            install,
            workers: python.workers.unwrap_or(defaults::WORKERS) as usize,
            env: python.env.clone(),
            recycle_after: python.recycle_after.map(u64::from),
            memory_limit: python.memory_limit.map(|limit| limit.0),
            state_dir: self.state_dir.clone(),
        })
    }

    /// Whose workers check the final specs, for which one plugin is enough.
    pub(super) fn spec_check(&mut self, entry: &PluginEntry, python: &Python, path: &str) {
        let (Some(_), Some(name)) = (python.spec_check, &entry.name) else {
            return;
        };
        let place = member(path, "specCheck");
        if entry.mode == Some(Mode::Monitor) {
            let message = "a monitored plugin denies nothing; give it to an enforced one";
            self.notes.problem(place, message);
        } else if let Some(other) = &self.spec_checker {
            let message = format!("`{other}` checks the final specs already, and one is enough");
            self.notes.problem(place, message);
        } else {
            self.spec_checker = Some(name.as_str().into());
        }
    }

    /// The lines of a requirements file, paths made absolute.
    fn requirements(&mut self, given: &[String], path: &str) -> Vec<Requirement> {
        let mut requirements = Vec::new();
        for (index, line) in given.iter().enumerate() {
            let place = item(path, index);
            if let Some(requirement) = self.notes.noted(&place, requirement(line)) {
                requirement
                    .files
                    .iter()
                    .for_each(|file| self.notes.input(file));
                requirements.push(requirement);
            }
        }
        requirements
    }
}

/// The absolute path of an interpreter: a mere name is looked for on `PATH`. Links are kept, since by
/// its own path an interpreter knows the environment that it belongs to.
///
/// # Errors
/// In words, when there is none.
pub fn interpreter(given: &Path) -> Result<PathBuf, String> {
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
    use std::time::SystemTime;

    use rstest::rstest;

    use super::*;
    use crate::config::{self, resolve::resolve};

    /// What is wrong, or warned of, with a plugin whose section has these lines.
    fn said(section: &str) -> Vec<String> {
        let text = format!(
            "apiVersion: dstack-admission/v1\nkind: AdmissionConfiguration\ntls: off\n\
             plugins: [{{name: p, python: {{interpreter: /bin/sh, {section}}}}}]\n"
        );
        let parsed = config::parse(&text, "a.yaml");
        match parsed.then(|loaded| resolve(loaded, SystemTime::UNIX_EPOCH)) {
            Ok(settings) => settings.warnings.iter().map(ToString::to_string).collect(),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        }
    }

    #[rstest]
    #[case::good("plugin: a, workers: 4, recycleAfter: 100, memoryLimit: 1GiB, env: [PATH]", &[])]
    #[case::no_name("plugin: \"\"", &["plugin: name an entry point of the group `dstack.plugins`"])]
    #[case::no_workers("plugin: a, workers: 0", &["workers: must be at least 1"])]
    #[case::unset("plugin: a, env: [NOT_SET]", &["env[0]: the environment variable `NOT_SET` is not set"])]
    #[case::value("plugin: a, env: [A=1]", &["env[0]: write the name of an environment variable; its value is inherited"])]
    #[case::requirement("plugin: a, install: [a==1, /nowhere.whl]", &["install[1]: /nowhere.whl: No such file or directory (os error 2)"])]
    fn what_is_wrong_stands_at_its_place(#[case] section: &str, #[case] expected: &[&str]) {
        let at = |line: &&str| format!("a.yaml:4: plugins[0].python.{line}");
        assert_eq!(said(section), Vec::from_iter(expected.iter().map(at)));
    }

    #[rstest]
    #[case::one(
        "{name: a, python: {plugin: a, interpreter: /bin/sh, specCheck: dstack}}, {name: b, python: {plugin: b, interpreter: /bin/sh}}",
        None
    )]
    #[case::two(
        "{name: a, python: {plugin: a, interpreter: /bin/sh, specCheck: dstack}}, {name: b, python: {plugin: b, interpreter: /bin/sh, specCheck: dstack}}",
        Some("plugins[1].python.specCheck: `a` checks the final specs already, and one is enough")
    )]
    #[case::monitored(
        "{name: a, mode: monitor, python: {plugin: a, interpreter: /bin/sh, specCheck: dstack}}",
        Some(
            "plugins[0].python.specCheck: a monitored plugin denies nothing; give it to an enforced one"
        )
    )]
    fn one_enforced_plugin_checks_the_final_specs(
        #[case] plugins: &str,
        #[case] problem: Option<&str>,
    ) {
        let expected = match problem {
            None => Ok(Some(0)),
            Some(problem) => Err(vec![format!("a.yaml:4: {problem}")]),
        };
        assert_eq!(resolved(plugins), expected);
    }

    /// The index of the plugin that checks final specs, or what is wrong.
    fn resolved(plugins: &str) -> Result<Option<usize>, Vec<String>> {
        let text = format!(
            "apiVersion: dstack-admission/v1\nkind: AdmissionConfiguration\ntls: off\n\
             plugins: [{plugins}]\n"
        );
        let parsed = config::parse(&text, "a.yaml");
        let resolved = parsed.then(|loaded| resolve(loaded, SystemTime::UNIX_EPOCH));
        resolved
            .map(|settings| settings.chain.spec_checker())
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

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
