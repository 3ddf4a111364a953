//! The environment that the dstack server has: this process's own, or another's as `/proc` shows it. Only read, never
//! changed.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::Context;

/// Environment variables, and where the paths in them lead.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// The directory in `/proc` of the process whose environment it is, unless it is our own.
    process: Option<PathBuf>,
    /// Paths of the command line, which are this process's.
    ours: BTreeSet<PathBuf>,
}

impl Environment {
    /// The environment of this process.
    pub fn own() -> Self {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let variables = env::vars_os().map(|(name, value)| (text(name), text(value)));
        Self {
            variables: variables.collect(),
            ..Self::default()
        }
    }

    /// The environment that another process was started with.
    ///
    /// # Errors
    /// When there is no such process, or it is another user's.
    pub fn of(process: u32) -> anyhow::Result<Self> {
        let process = PathBuf::from(format!("/proc/{process}"));
        let path = process.join("environ");
        let text = fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        let text = String::from_utf8_lossy(&text);
        let variables = text.split('\0').filter_map(|pair| pair.split_once('='));
        Ok(Self {
            variables: variables
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            process: Some(process),
            ours: BTreeSet::new(),
        })
    }

    /// With a variable of the command line in place of what the environment says.
    pub fn set(&mut self, name: &str, value: String) {
        self.variables.insert(name.to_owned(), value);
    }

    /// Like [`Self::set`], for a path as the command line has it.
    pub fn set_path(&mut self, name: &str, path: &Path) {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        self.set(name, path.to_string_lossy().into_owned());
        self.ours.insert(path);
    }

    /// A variable that is set and not empty, as Python's `os.environ.get(…) or …` has it.
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.variables.get(name).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }

    /// Whether a variable is set, be it empty.
    pub fn has(&self, name: &str) -> bool {
        self.variables.contains_key(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.variables.iter();
        pairs.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Where to read what the process calls `path`: it may live in a container.
    pub fn place(&self, path: &Path) -> PathBuf {
        let process = self.process.as_ref();
        let Some(process) = process.filter(|_| !self.ours.contains(path)) else {
            return path.to_owned();
        };
        match path.strip_prefix("/") {
            Ok(below) => process.join("root").join(below),
            Err(_) => process.join("cwd").join(path),
        }
    }

    /// A path with the user's home in place of a leading `~`, as `os.path.expanduser` has it.
    pub fn expand(&self, path: &str) -> PathBuf {
        let path = Path::new(path);
        let mut parts = path.components();
        match (parts.next(), self.get("HOME")) {
            (Some(Component::Normal(first)), Some(home)) if first == "~" => {
                Path::new(home).join(parts.as_path())
            }
            _ => path.to_owned(),
        }
    }

    /// Whether loopback is another one there than here.
    pub fn is_elsewhere(&self) -> bool {
        let namespace = |process: &Path| fs::read_link(process.join("ns/net")).ok();
        self.process.as_deref().is_some_and(|process| {
            let theirs = namespace(process);
            theirs.is_some() && theirs != namespace(Path::new("/proc/self"))
        })
    }
}

#[cfg(test)]
impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(pairs: [(&str, &str); N]) -> Self {
        let mut environment = Self::default();
        for (name, value) in pairs {
            environment.set(name, value.to_owned());
        }
        environment
    }
}
