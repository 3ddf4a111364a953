//! The workers of a chain's Python plugins, which are ready before the chain is in force.

use std::fmt;
use std::sync::Arc;

use futures_util::future::join_all;

use crate::admission::chain::Chain;
use crate::config::suggest::nearest;
use crate::observe::logs::{self, Format, Log};
use crate::observe::metrics::Metrics;
use crate::plugins::python::{Meters, Pools, Python, StartError, Started};
use crate::plugins::{Backend, Plugin};

/// A Python plugin that was loaded.
pub(super) struct Loaded {
    pub name: Arc<str>,
    pub started: Started,
}

/// Plugins that were not loaded, and why.
#[derive(Debug)]
pub(super) struct NotLoaded(Vec<(Arc<str>, String, StartError)>);

/// Workers that are counted in these metrics.
pub(super) fn pools(metrics: &Metrics) -> Pools {
    let vectors = &metrics.workers;
    Pools::new(Meters {
        restarts: vectors.restarts.clone(),
        workers: vectors.workers.clone(),
        queue: vectors.queue.clone(),
        start_seconds: vectors.start_seconds.clone(),
        memory: vectors.memory.clone(),
    })
}

/// Workers for a command that ends by itself. While the first value lives, standard error shows how
/// environments are made, which takes long; such a command logs nothing else.
pub(super) fn offline() -> anyhow::Result<(Log, Pools)> {
    let filter = "off,dstack_admission::plugins::python::environment=info";
    let progress = logs::start(Format::Text, filter)?;
    Ok((progress, pools(&Metrics::new()?)))
}

/// Gives each Python plugin of a chain its workers and waits until all are ready. Says in the log what
/// was loaded, as the dstack server does.
pub(super) async fn start(chain: &Chain<Plugin>, pools: &Pools) -> Result<Vec<Loaded>, NotLoaded> {
    let plugins = Vec::from_iter(python(chain));
    let starting = plugins.iter().map(|(_, python)| pools.start(python));
    let (mut loaded, mut failed) = (Vec::new(), Vec::new());
    for ((name, python), started) in plugins.iter().zip(join_all(starting).await) {
        let name = Arc::clone(name);
        match started {
            Ok(started) => loaded.push(Loaded { name, started }),
            Err(error) => failed.push((name, python.settings().plugin.clone(), error)),
        }
    }
    if !failed.is_empty() {
        return Err(NotLoaded(failed));
    }
    let is_enabled = |name: &str| {
        plugins
            .iter()
            .any(|(_, python)| python.settings().plugin == name)
    };
    for plugin in &loaded {
        let ready = &plugin.started.ready;
        let carried_over = plugin.started.carried_over;
        tracing::info!(
            plugin = %plugin.name, entry_point = ready.plugin.name, version = ready.plugin.version,
            dstack = ready.dstack, python = ready.python, carried_over,
            "loaded plugin"
        );
        for found in ready.found.iter().filter(|name| !is_enabled(name)) {
            tracing::info!(plugin = %plugin.name, found, "found a plugin that is not enabled");
        }
    }
    Ok(loaded)
}

fn python(chain: &Chain<Plugin>) -> impl Iterator<Item = (&Arc<str>, &Python)> {
    chain
        .members()
        .iter()
        .filter_map(|member| match &member.plugin.backend {
            Backend::Python(python) => Some((&member.name, python)),
            _ => None,
        })
}

/// Each plugin with its reason, and below it what there is to know beyond.
impl fmt::Display for NotLoaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, wanted, error)) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "plugin `{name}` was not loaded: {error}")?;
            if !error.found.is_empty() {
                write!(f, "; found: {}", error.found.join(", "))?;
            }
            if let Some(near) = nearest(wanted, error.found.iter().map(String::as_str)) {
                write!(f, "; did you mean `{near}`?")?;
            }
            for line in error.detail.iter().flat_map(|detail| detail.lines()) {
                write!(f, "\n    {line}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for NotLoaded {}
