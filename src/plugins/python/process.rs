//! One worker process: how it is started, what it may see of this one, and how it ends with all its
//! children. What it is asked is not known here.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use rustix::param::page_size;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};
use ulid::Ulid;

/// The environment variable by which a worker's processes are known when their parent has gone.
const MARK: &str = "DSTACK_ADMISSION_WORKER";

/// What a worker is started from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Launch {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    /// All that is in its environment.
    pub environment: Vec<(OsString, OsString)>,
    pub directory: PathBuf,
}

impl Launch {
    /// Starts a process whose three standard streams are pipes, in a process group of its own.
    ///
    /// # Errors
    /// The system's.
    pub fn spawn(&self) -> io::Result<(Child, Group)> {
        let mark = Ulid::generate().to_string();
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().cloned())
            .env(MARK, &mark)
            .current_dir(&self.directory)
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn()?;
        let group = Group::of(&child).ok_or_else(|| io::Error::other("it ended at once"))?;
        let mark = format!("{MARK}={mark}").into();
        Ok((
            child,
            Group {
                mark: Some(mark),
                ..group
            },
        ))
    }
}

/// A worker's process group, which bears the process's own id, and all that comes from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    first: Pid,
    /// What stands in the environment of its processes alone.
    mark: Option<Arc<str>>,
}

impl Group {
    /// Of a process that was started as the first of its group.
    pub fn of(child: &Child) -> Option<Self> {
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        pid.map(|first| Self { first, mark: None })
    }

    pub fn pid(&self) -> i32 {
        self.first.as_raw_nonzero().get()
    }

    /// Ends all processes of the group, and those below them that made a group of their own, those
    /// included whose parent has ended.
    pub fn kill(&self) {
        let mut outside = descendants(self.pid());
        // What is gone already cannot be killed, which is all that can go wrong.
        let _ = kill_process_group(self.first, Signal::KILL);
        outside.extend(self.mark.as_deref().map(marked).unwrap_or_default());
        for pid in outside.into_iter().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// The memory of the process that is in RAM, in bytes. None once it is gone.
    pub fn resident_memory(&self) -> Option<u64> {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.pid())).ok()?;
        let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some(pages * page_size() as u64)
    }
}

/// The processes below one.
fn descendants(pid: i32) -> Vec<i32> {
    let parents = parents();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        let children = parents.iter().filter(|(_, of)| *of == parent);
        found.extend(children.map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// The processes that have this in their environment.
fn marked(mark: &str) -> Vec<i32> {
    let is_marked = |directory: &Path| {
        let environment = fs::read(directory.join("environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == mark.as_bytes())
    };
    let marked = |(pid, directory): (i32, PathBuf)| is_marked(&directory).then_some(pid);
    processes().filter_map(marked).collect()
}

/// Every process that can be seen, and its parent.
fn parents() -> Vec<(i32, i32)> {
    let parent = |(pid, directory): (i32, PathBuf)| {
        let stat = fs::read_to_string(directory.join("stat")).ok()?;
        // The name, in parentheses, may hold anything; then come the state and the parent.
        let (_, fields) = stat.rsplit_once(')')?;
        let parent = fields.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some((pid, parent))
    };
    processes().filter_map(parent).collect()
}

/// Every process that can be seen, and where it is shown.
fn processes() -> impl Iterator<Item = (i32, PathBuf)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, entry.path()))
    })
}
