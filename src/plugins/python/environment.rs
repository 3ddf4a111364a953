//! Environments of Python that are made for a plugin, under the state directory.
//!
//! An environment is known by the hash of what it is made from: the interpreter's version, the
//! requirements and the files among them. One that is there is used as it is, without the network.
//! It is made where it stays, since its scripts name their interpreter by its path, and is whole
//! once a file in it says so; what a crash left half-made is made anew.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::host::make;
use super::output::Lines;
use super::process::Group;
use super::store::{self, Found, InUse, ToBeMade};

/// How long one program may take that makes an environment.
const LIMIT: Duration = Duration::from_secs(600);
/// The lines that are kept to tell why it failed.
const KEPT: usize = 20;

/// What installers need of this process's environment: where packages come from, and the way there.
const INHERITED: [&str; 13] = [
    "ALL_PROXY",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NETRC",
    "NO_PROXY",
    "PATH",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
];
const INHERITED_PREFIXES: [&str; 2] = ["PIP_", "UV_"];

/// One line of a requirements file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub line: String,
    /// The files that it names, whose content counts.
    pub files: Vec<PathBuf>,
}

/// Where the environments are, under a state directory.
pub(super) fn root(state_dir: &Path) -> PathBuf {
    state_dir.join("python/environments")
}

/// The interpreter of an environment with these requirements, which is made if it is not there. It stays
/// for as long as what is returned beside does.
///
/// # Errors
/// In words, with the last lines of what failed.
pub(super) async fn ready(
    plugin: &Arc<str>,
    state_dir: &Path,
    interpreter: &Path,
    requirements: &[Requirement],
) -> Result<(PathBuf, InUse), String> {
    let version = version(interpreter).await?;
    let (owned, root) = (requirements.to_vec(), root(state_dir));
    let taken = tokio::task::spawn_blocking(move || {
        make(&root)?;
        let directory = root.join(digest(&version, &owned)?);
        Ok((store::take(&directory)?, directory))
    });
    let taken = taken.await.unwrap_or_else(|panic| Err(panic.to_string()));
    let (found, directory) = taken?;
    let own = directory.join("bin/python");
    let place = match found {
        Found::Whole(in_use) => {
            let environment = directory.display();
            // Progress is what is logged of this module itself.
            tracing::info!(target: "dstack_admission::plugins::python", %plugin, %environment, "the environment is there already");
            return Ok((own, in_use));
        }
        Found::Nothing(place) => place,
    };
    let install = Install {
        plugin,
        interpreter,
        directory: &directory,
        requirements,
    };
    Ok((own, install.run(place).await?))
}

struct Install<'i> {
    plugin: &'i Arc<str>,
    interpreter: &'i Path,
    directory: &'i Path,
    requirements: &'i [Requirement],
}

impl Install<'_> {
    async fn run(&self, place: ToBeMade) -> Result<InUse, String> {
        let plugin = self.plugin;
        let environment = self.directory.display();
        tracing::info!(%plugin, %environment, "making an environment");
        let lines = self
            .requirements
            .iter()
            .map(|one| format!("{}\n", one.line));
        let list = self.directory.with_extension("txt");
        let at = |path: &Path, e: io::Error| format!("{}: {e}", path.display());
        fs::write(&list, lines.collect::<String>()).map_err(|e| at(&list, e))?;

        match uv() {
            None => self.with_pip(&list).await?,
            // It does not read pip's settings, which may say where packages come from.
            Some(uv) => {
                if let Err(why) = self.with_uv(&uv, &list).await {
                    tracing::warn!(%plugin, %why, "uv did not make the environment; trying pip");
                    self.with_pip(&list).await?;
                }
            }
        }
        let in_use = place.made(&list)?;
        tracing::info!(%plugin, %environment, "the environment is made");
        Ok(in_use)
    }

    async fn with_uv(&self, uv: &Path, list: &Path) -> Result<(), String> {
        let (directory, interpreter) = (self.directory.as_os_str(), self.interpreter.as_os_str());
        let mut make = words(&["venv", "--no-project", "--clear", "--python"]);
        make.extend([interpreter, directory]);
        self.program(uv, make).await?;
        let own = self.directory.join("bin/python");
        let mut install = words(&["pip", "install", "--compile-bytecode", "--python"]);
        install.push(own.as_os_str());
        self.program(uv, self.with_list(install, list)).await
    }

    async fn with_pip(&self, list: &Path) -> Result<(), String> {
        let mut make = words(&["-m", "venv", "--clear"]);
        make.push(self.directory.as_os_str());
        self.program(self.interpreter, make).await?;
        let own = self.directory.join("bin/python");
        let install = [
            "--disable-pip-version-check",
            "--no-input",
            "--progress-bar=off",
        ];
        let install = words(&[&["-m", "pip", "install"][..], &install].concat());
        self.program(&own, self.with_list(install, list)).await
    }

    fn with_list<'a>(&self, mut arguments: Vec<&'a OsStr>, list: &'a Path) -> Vec<&'a OsStr> {
        if self.has_hashes() {
            arguments.push("--require-hashes".as_ref());
        }
        arguments.extend([OsStr::new("--requirement"), list.as_os_str()]);
        arguments
    }

    fn has_hashes(&self) -> bool {
        let lists = self
            .requirements
            .iter()
            .filter(|requirement| requirement.line.starts_with('-'));
        let mut listed = lists.flat_map(|requirement| &requirement.files);
        let mut lines = self.requirements.iter();
        lines.any(|requirement| requirement.line.contains("--hash="))
            // What is no text is a package.
            || listed.any(|file| fs::read_to_string(file).is_ok_and(|text| text.contains("--hash=")))
    }

    /// Runs a program to its end and logs what it says.
    async fn program(&self, program: &Path, arguments: Vec<&OsStr>) -> Result<(), String> {
        let shown = program.display();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(inherited(env::vars_os()))
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|e| format!("{shown} cannot be started: {e}"))?;
        let _group = Group::of(&child).map(KilledOnDrop);
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let work = async {
            let (out, err, status) = tokio::join!(self.log(out), self.log(err), child.wait());
            (status, [out, err].concat())
        };
        let ended = tokio::time::timeout(LIMIT, work).await;
        let (status, said) = ended.map_err(|_| {
            let limit = humantime::format_duration(LIMIT);
            format!("{shown} did not end within {limit}")
        })?;
        let status = status.map_err(|e| format!("{shown}: {e}"))?;
        match status.success() {
            true => Ok(()),
            false => Err(format!(
                "its environment cannot be made: {shown} ended with {status}\n{}",
                said[said.len().saturating_sub(KEPT)..].join("\n")
            )),
        }
    }

    /// Logs each line, and returns the last ones.
    async fn log(&self, from: Option<impl AsyncRead + Unpin>) -> Vec<String> {
        let (mut lines, mut said) = (Lines::default(), Vec::new());
        let mut buffer = vec![0; 8192];
        let Some(mut from) = from else { return said };
        let mut say = |line: String| {
            tracing::info!(plugin = %self.plugin, "{line}");
            if said.len() == KEPT {
                said.remove(0);
            }
            said.push(line);
        };
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            lines.feed(&buffer[..read], &mut say);
        }
        lines.finish(&mut say);
        said
    }
}

fn words<'a>(words: &[&'a str]) -> Vec<&'a OsStr> {
    words.iter().copied().map(OsStr::new).collect()
}

/// Ends a process group when it is dropped.
struct KilledOnDrop(Group);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// Asks an interpreter what it is.
async fn version(interpreter: &Path) -> Result<String, String> {
    let mut command = Command::new(interpreter);
    command
        .args([
            "-I",
            "-c",
            "import sys; print(sys.version, sys.base_prefix)",
        ])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let asked = tokio::time::timeout(LIMIT, command.output()).await;
    let shown = interpreter.display();
    let output = asked.map_err(|_| format!("{shown} does not tell its version"))?;
    let output = output.map_err(|e| format!("{shown} cannot be started: {e}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!(
            "{shown} does not tell its version ({})",
            output.status
        )),
    }
}

/// The name of the environment that is made from this.
fn digest(version: &str, requirements: &[Requirement]) -> Result<String, String> {
    let mut digest = Sha1::new();
    let mut add = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_be_bytes());
        digest.update(bytes);
    };
    add(version.as_bytes());
    for requirement in requirements {
        add(requirement.line.as_bytes());
        for file in &requirement.files {
            let content = fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
            add(&content);
        }
    }
    Ok(format!("{:x}", digest.finalize()))
}

/// What of an environment an installer gets.
fn inherited(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> impl Iterator<Item = (OsString, OsString)> {
    variables.filter(|(name, _)| {
        let name = name.to_string_lossy();
        let upper = name.to_ascii_uppercase();
        INHERITED.contains(&&*upper)
            || INHERITED_PREFIXES
                .iter()
                .any(|prefix| upper.starts_with(prefix))
    })
}

/// `uv`, which installs faster than pip, where it is on the `PATH`.
fn uv() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let mut candidates = env::split_paths(&path).map(|directory| directory.join("uv"));
    candidates.find(|path| path.is_absolute() && path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installer_gets_no_more_of_the_environment_than_it_needs() {
        let names = [
            "HOME",
            "PIP_INDEX_URL",
            "https_proxy",
            "AWS_SECRET_ACCESS_KEY",
            "UV_INDEX",
            "PYTHONPATH",
        ];
        let variables = names.map(|name| (name.into(), OsString::from("x")));
        let inherited = inherited(variables.into_iter()).map(|(name, _)| name);
        let expected = ["HOME", "PIP_INDEX_URL", "https_proxy", "UV_INDEX"];
        assert!(inherited.eq(expected.map(OsString::from)));
    }

    #[test]
    fn another_content_is_another_environment() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.whl");
        let requirement = |line: &str, file: Option<&Path>| Requirement {
            line: line.to_owned(),
            files: file.map(Path::to_owned).into_iter().collect(),
        };
        fs::write(&file, "1").unwrap();
        let wheel = [requirement("a", Some(&file))];
        let first = digest("3.11", &wheel).unwrap();
        assert_eq!(digest("3.11", &wheel).unwrap(), first);
        assert_ne!(digest("3.12", &wheel).unwrap(), first);
        assert_ne!(digest("3.11", &[requirement("a", None)]).unwrap(), first);
        fs::write(&file, "2").unwrap();
        assert_ne!(digest("3.11", &wheel).unwrap(), first);
        fs::remove_file(&file).unwrap();
        assert!(digest("3.11", &wheel).unwrap_err().contains("a.whl"));
    }
}
