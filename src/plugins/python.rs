//! Existing dstack plugins in Python, unchanged, in worker processes of ours.
//!
//! A worker imports the plugin as the dstack server would and is asked over pipes that the plugin
//! does not see. Whatever a plugin does to its process costs the review it is about, and no more.

mod ending;
mod environment;
mod frames;
mod host;
mod meters;
mod output;
mod pool;
mod process;
mod store;
mod transfer;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::text;
use crate::admission::verdict::{Budget, Call, Denial, Fault, FaultKind, Verdict};
pub use environment::Requirement;
use frames::SpecError;
use frames::{Answer, Failure, Reason, Refusal};
pub use frames::{EntryPoint, Ready};
pub use meters::Meters;
use meters::PluginMeters;
use pool::Pool;
use process::Launch;
use store::InUse;

/// How long workers have to end when this process does.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What a plugin's workers are made of. While it stays the same, they go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The plugin's name in the chain.
    pub name: Arc<str>,
    /// The entry point in the group `dstack.plugins`.
    pub plugin: String,
    /// An absolute path.
    pub interpreter: PathBuf,
    /// What is installed into an environment of the plugin's own. Empty: the interpreter's is used.
    pub install: Vec<Requirement>,
    pub workers: usize,
    /// The environment variables that workers inherit, by name.
    pub env: Vec<String>,
    /// Reviews after which a worker is replaced.
    pub recycle_after: Option<u64>,
    /// Bytes that a worker may use.
    pub memory_limit: Option<u64>,
    /// Where workers have their home directories.
    pub state_dir: PathBuf,
}

/// One plugin. [`Pools::start`] gives it its workers.
#[derive(Debug)]
pub struct Python {
    settings: Settings,
    pool: OnceLock<Arc<Pool>>,
    /// The environment that was made for it.
    environment: OnceLock<InUse>,
}

/// Why a plugin's workers did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    pub message: String,
    /// A traceback, or what the worker last wrote.
    pub detail: Option<String>,
    /// The plugins that are installed there, when the one that was asked for is not.
    pub found: Vec<String>,
}

impl StartError {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            detail: None,
            found: Vec::new(),
        }
    }
}

impl From<Refusal> for StartError {
    fn from(refusal: Refusal) -> Self {
        Self {
            message: refusal.message,
            detail: refusal.detail,
            found: refusal.found,
        }
    }
}

impl Python {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            pool: OnceLock::new(),
            environment: OnceLock::new(),
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Has a worker apply the plugin's policies to the spec. What these changed is the plugin's
    /// patch. Whoever calls drops this at the end of the budget, which kills the worker.
    ///
    /// # Errors
    /// When the plugin fails in another way than by raising `ValueError`, which is a denial.
    pub async fn call(&self, call: &Call, budget: Budget) -> Result<Verdict, Fault> {
        let review = &call.review;
        let spec = text::render(&review.spec, &call.spec);
        let request = |id| frames::apply(id, review, &spec);
        match self.pool()?.ask(budget, request).await? {
            Answer::Unchanged => Ok(Verdict::default()),
            Answer::Changed { before, after } => Ok(Verdict {
                patch: transfer::transfer(&call.spec, &before, &after),
                ..Verdict::default()
            }),
            Answer::Denied(message) => Ok(Verdict {
                denials: vec![Denial {
                    message,
                    reason: None,
                }],
                ..Verdict::default()
            }),
            Answer::Failed(failure) => Err(failure.into()),
            Answer::Valid | Answer::Invalid(_) => Err(another_question()),
        }
    }

    /// Has a worker hold the spec against dstack's own models. Each thing that these refuse is a denial.
    /// Whoever calls drops this at the end of the budget, which kills the worker.
    ///
    /// # Errors
    /// When no worker answers.
    pub async fn check(&self, call: &Call, budget: Budget) -> Result<Verdict, Fault> {
        let kind = call.review.kind;
        let spec = text::render(&call.review.spec, &call.spec);
        let request = |id| frames::check(id, kind, &spec);
        match self.pool()?.ask(budget, request).await? {
            Answer::Valid => Ok(Verdict::default()),
            Answer::Invalid(errors) => Ok(Verdict {
                denials: errors.iter().map(SpecError::denial).collect(),
                ..Verdict::default()
            }),
            Answer::Failed(failure) => Err(failure.into()),
            Answer::Unchanged | Answer::Changed { .. } | Answer::Denied(_) => {
                Err(another_question())
            }
        }
    }

    fn pool(&self) -> Result<&Pool, Fault> {
        let pool = self.pool.get().map(Arc::as_ref);
        pool.ok_or_else(|| Fault::new(FaultKind::Crash, "its workers were not started"))
    }
}

impl SpecError {
    fn denial(&self) -> Denial {
        Denial {
            message: self.to_string(),
            reason: None,
        }
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        let kind = match failure.reason {
            Reason::Unreadable => FaultKind::Unreadable,
            Reason::Exception => FaultKind::Exception,
            Reason::InvalidResult => FaultKind::InvalidResult,
        };
        Self {
            kind,
            message: failure.message,
            detail: failure.detail,
        }
    }
}

/// Removes the environments under a state directory that no process uses and none used for a week.
pub async fn remove_unused_environments(state_dir: &Path) {
    let root = environment::root(state_dir);
    let removed =
        tokio::task::spawn_blocking(move || store::remove_unused(&root, SystemTime::now()));
    for environment in removed.await.unwrap_or_default() {
        let environment = environment.display();
        tracing::info!(%environment, "removed an environment that nobody used for a week");
    }
}

fn another_question() -> Fault {
    Fault::new(FaultKind::Undecodable, "it answered another question")
}

/// The workers of all plugins of this process, over all configurations that are in use.
#[derive(Debug)]
pub struct Pools {
    meters: Meters,
    /// With the interpreter that they run: an environment is another when a file that it is made from is.
    running: Mutex<Vec<(Settings, PathBuf, Weak<Pool>)>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Workers that are ready.
#[derive(Clone, Debug)]
pub struct Started {
    /// What they have loaded.
    pub ready: Ready,
    /// Whether they ran before, for a configuration that says the same of the plugin.
    pub carried_over: bool,
}

impl Pools {
    pub fn new(meters: Meters) -> Self {
        Self {
            meters,
            running: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Gives a plugin its workers: those that run with the same settings, else new ones, which are
    /// waited for. They run for as long as a plugin has them.
    ///
    /// # Errors
    /// When a worker does not get ready.
    pub async fn start(&self, python: &Python) -> Result<Started, StartError> {
        let settings = &python.settings;
        let interpreter = match settings.install.as_slice() {
            [] => settings.interpreter.clone(),
            install => {
                let (state_dir, interpreter) = (&settings.state_dir, &settings.interpreter);
                let ready =
                    environment::ready(&settings.name, state_dir, interpreter, install).await;
                let (interpreter, in_use) = ready.map_err(StartError::new)?;
                let _ = python.environment.set(in_use);
                interpreter
            }
        };
        let running = self.of(settings, &interpreter);
        let carried_over = running.is_some();
        let pool = match running {
            Some(pool) => pool,
            None => self.launch(settings, &interpreter).await?,
        };
        let pool = python.pool.get_or_init(|| pool);
        Ok(Started {
            ready: pool.ready.clone(),
            carried_over,
        })
    }

    /// Lets all workers end: those that are busy when they have answered. Waits a few seconds for them.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(STOP_TIMEOUT, self.tasks.wait()).await;
    }

    async fn launch(
        &self,
        settings: &Settings,
        interpreter: &Path,
    ) -> Result<Arc<Pool>, StartError> {
        let (owned, program) = (settings.clone(), interpreter.to_owned());
        let prepared = tokio::task::spawn_blocking(move || host::prepare(&owned, &program)).await;
        let launch = prepared
            .unwrap_or_else(|panic| Err(panic.to_string()))
            .map_err(StartError::new)?;
        self.run(settings, launch).await
    }

    async fn run(&self, settings: &Settings, launch: Launch) -> Result<Arc<Pool>, StartError> {
        let interpreter = launch.program.clone();
        let meters = PluginMeters::new(&settings.name, &self.meters);
        let stop = self.stop.child_token();
        let pool = Arc::new(Pool::start(settings, launch, meters, stop, &self.tasks).await?);
        let mut running = self.running();
        running.retain(|(.., pool)| pool.strong_count() > 0);
        running.push((settings.clone(), interpreter, Arc::downgrade(&pool)));
        Ok(pool)
    }

    fn of(&self, settings: &Settings, interpreter: &Path) -> Option<Arc<Pool>> {
        let running = self.running();
        let mut same = running
            .iter()
            .filter(|(known, program, _)| known == settings && program == interpreter);
        same.find_map(|(.., pool)| pool.upgrade())
    }

    fn running(&self) -> MutexGuard<'_, Vec<(Settings, PathBuf, Weak<Pool>)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
