//! Workers that misbehave, for real: a Python program that does as it is told, and not a plugin.

mod misbehaviour;
mod supervision;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts};
use rstest::rstest;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::process::Launch;
use super::*;
use crate::admission::review::{Kind, Review, Spec};
use crate::admission::revision::Revision;
use crate::admission::verdict::Phase;

/// Only a failing test waits this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// What an answer may take where nothing is to time out.
const BUDGET: Budget = Budget {
    limit: PATIENCE,
    cut_short: false,
    is_scant: false,
};

fn meters() -> Meters {
    let opts = |name: &str| Opts::new(name, name);
    let start = HistogramOpts::new("start", "start");
    Meters {
        restarts: IntCounterVec::new(opts("restarts"), &["plugin", "reason"]).unwrap(),
        workers: IntGaugeVec::new(opts("workers"), &["plugin", "state"]).unwrap(),
        queue: IntGaugeVec::new(opts("queue"), &["plugin"]).unwrap(),
        start_seconds: HistogramVec::new(start, &["plugin"]).unwrap(),
        memory: IntGaugeVec::new(opts("memory"), &["plugin", "worker"]).unwrap(),
    }
}

/// A plugin with running workers, and where they live.
struct Fixture {
    python: Python,
    pools: Pools,
    home: TempDir,
}

impl Fixture {
    /// With one worker that starts as `how` says.
    async fn start(how: &str) -> Self {
        Self::start_with(how, |_| {}).await.unwrap()
    }

    async fn start_with(how: &str, change: impl FnOnce(&mut Settings)) -> Result<Self, StartError> {
        let home = tempfile::tempdir().unwrap();
        let mut settings = settings(how, home.path());
        change(&mut settings);
        let pools = Pools::new(meters());
        let python = Python::new(settings);
        let launch = launch(&python.settings, home.path());
        let pool = pools.run(&python.settings, launch).await?;
        python.pool.set(pool).unwrap();
        Ok(Self {
            python,
            pools,
            home,
        })
    }

    async fn call(&self, spec: Value) -> Result<Verdict, Fault> {
        let answer = self.call_within(PATIENCE, spec).await;
        answer.unwrap_or_else(|| panic!("not within {PATIENCE:?}: an answer"))
    }

    /// As the engine calls it.
    async fn call_within(&self, limit: Duration, spec: Value) -> Option<Result<Verdict, Fault>> {
        let budget = Budget {
            limit,
            cut_short: false,
            is_scant: false,
        };
        let call = call(spec);
        let call = self.python.call(&call, budget);
        tokio::time::timeout(limit, call).await.ok()
    }

    /// The process that answers.
    async fn pid(&self) -> i32 {
        let verdict = self.call(json!({"do": "pid"})).await.unwrap();
        verdict.denials[0].message.parse().unwrap()
    }

    fn restarts(&self, reason: &str) -> u64 {
        let restarts = &self.pools.meters.restarts;
        restarts.with_label_values(&["p", reason]).get()
    }

    fn workers(&self, state: &str) -> i64 {
        let workers = &self.pools.meters.workers;
        workers.with_label_values(&["p", state]).get()
    }

    fn queue(&self) -> i64 {
        self.pools.meters.queue.with_label_values(&["p"]).get()
    }
}

fn settings(how: &str, state_dir: &Path) -> Settings {
    Settings {
        name: "p".into(),
        plugin: how.to_owned(),
        interpreter: interpreter(),
        install: Vec::new(),
        workers: 1,
        env: Vec::new(),
        recycle_after: None,
        memory_limit: None,
        state_dir: state_dir.to_owned(),
    }
}

fn interpreter() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let mut candidates = std::env::split_paths(&path).map(|directory| directory.join("python3"));
    candidates
        .find(|path| path.is_file())
        .expect("install python3")
}

fn launch(settings: &Settings, home: &Path) -> Launch {
    let host = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plugins/python/tests/host.py");
    let environment =
        ["PATH", "PYENV_ROOT"].map(|name| Some((name.into(), std::env::var_os(name)?)));
    Launch {
        program: settings.interpreter.clone(),
        arguments: vec![
            "-S".into(),
            "-E".into(),
            host.into(),
            (&settings.plugin).into(),
        ],
        environment: environment.into_iter().flatten().collect(),
        directory: home.to_owned(),
    }
}

fn call(spec: Value) -> Call {
    let text = Bytes::from(spec.to_string());
    let review = Review {
        id: "01J".to_owned(),
        kind: Kind::Run,
        user: "alice".to_owned(),
        project: "main".to_owned(),
        received: SystemTime::now(),
        headers: Vec::new(),
        trace: None,
        spec: Spec::parse(text).unwrap(),
    };
    let value = Arc::clone(review.spec.value());
    let spec = Revision::new(review.kind, Arc::clone(&value), value);
    Call {
        review: Arc::new(review),
        spec: Arc::new(spec),
        phase: Phase::Mutating,
        span: None,
    }
}

async fn eventually(what: &str, mut reached: impl FnMut() -> bool) {
    let wait = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        panic!("not within {PATIENCE:?}: {what}");
    }
}

/// Whether a process runs. One that was killed and is its parent's to clear away does not.
fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with('Z'))
}

#[rstest]
#[case::unchanged(json!({"do": "nothing"}), json!([]), None)]
#[case::changed(
    json!({"do": "tag"}), json!([{"op": "add", "path": "/tags", "value": {"by": "plugin"}}]), None
)]
#[case::already_as_wanted(json!({"do": "tag", "tags": {"by": "plugin"}}), json!([]), None)]
#[tokio::test]
async fn an_answer_becomes_a_verdict(
    #[case] spec: Value,
    #[case] patch: Value,
    #[case] denial: Option<&str>,
) {
    let verdict = Fixture::start("good").await.call(spec).await.unwrap();
    assert_eq!(serde_json::to_value(verdict.patch).unwrap(), patch);
    assert_eq!(
        verdict.denials.first().map(|denial| &*denial.message),
        denial
    );
}

#[rstest]
#[case("exception", FaultKind::Exception)]
#[case("unreadable", FaultKind::Unreadable)]
#[case("invalid-result", FaultKind::InvalidResult)]
#[tokio::test]
async fn a_plugin_that_fails_is_a_fault_and_its_worker_goes_on(
    #[case] reason: &str,
    #[case] kind: FaultKind,
) {
    let fixture = Fixture::start("good").await;
    let pid = fixture.pid().await;
    // More often than the breaker takes from a plugin that does not answer.
    for _ in 0..10 {
        let fault = fixture
            .call(json!({"do": "fail", "with": reason}))
            .await
            .unwrap_err();
        assert_eq!((fault.kind, &*fault.message), (kind, "it failed"));
        assert_eq!(fault.detail.as_deref(), Some("Traceback"));
    }
    assert_eq!(fixture.pid().await, pid);
}

#[tokio::test]
async fn a_spec_is_held_against_the_models_of_the_worker() {
    let fixture = Fixture::start("good").await;
    let check = async |spec| fixture.python.check(&call(spec), BUDGET).await;
    let verdict = check(json!({"do": "invalid"})).await.unwrap();
    assert_eq!(verdict.denials[0].message, "a.b: wrong");
    let fault = check(json!({"do": "pid"})).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Undecodable);
}

#[tokio::test]
async fn a_plugin_without_workers_fails() {
    let python = Python::new(settings("good", Path::new("/")));
    let fault = python.call(&call(json!({})), BUDGET).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Crash);
}

#[test]
fn a_worker_sees_nothing_of_this_process_but_what_is_listed() {
    let home = tempfile::tempdir().unwrap();
    let mut settings = settings("plugin", home.path());
    settings.env = vec!["CARGO_PKG_NAME".to_owned(), "NOT_SET".to_owned()];
    settings.memory_limit = Some(1 << 30);
    let launch = host::prepare(&settings, Path::new("/venv/bin/python3")).unwrap();
    let variables: BTreeMap<_, _> = launch.environment.iter().cloned().collect();
    let names = Vec::from_iter(variables.keys().map(|name| name.to_str().unwrap()));
    assert_eq!(
        names,
        [
            "CARGO_PKG_NAME",
            "DSTACK_ADMISSION_LOG_LEVEL",
            "DSTACK_ADMISSION_MEMORY_LIMIT",
            "HOME",
            "LANG",
            "PATH",
            "PYTHONUNBUFFERED",
        ]
    );
    assert_eq!(
        variables[std::ffi::OsStr::new("PATH")],
        "/venv/bin:/usr/bin:/bin"
    );
    assert_eq!(launch.directory, home.path().join("python/home/p"));
    assert_eq!(
        launch,
        host::prepare(&settings, Path::new("/venv/bin/python3")).unwrap()
    );
}
