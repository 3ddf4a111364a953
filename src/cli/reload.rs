//! Reloading: the configuration and every file it names are read again when they change or on
//! SIGHUP. A configuration that does not load leaves the last good one in force.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::signal::unix::Signal;

use super::live::{Bound, go_live};
use super::load::{fingerprint, load};
use super::workers;
use crate::admission::schema::SpecSchemas;
use crate::config::resolve::Settings;
use crate::observe::audit::Sinks;
use crate::observe::traces::Traces;
use crate::plugins::python::{Pools, remove_unused_environments};
use crate::server::Shared;

/// Files are looked at this often, by content: a watch on a file misses the symlink swaps of
/// ConfigMaps, and some file systems tell nothing.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Made certificates are renewed and mended this often.
const RENEW_EVERY: Duration = Duration::from_secs(3600);
/// A wall clock that is so far from where it would have run to was set.
const SET_BY: Duration = Duration::from_secs(60);

/// What is watched.
pub(super) struct Watch {
    pub config: Option<PathBuf>,
    pub inputs: Vec<PathBuf>,
    pub schemas: Arc<SpecSchemas>,
    /// The workers of Python plugins; those of a plugin that did not change go on.
    pub pools: Arc<Pools>,
    /// The open audit sinks; those that did not change go on.
    pub sinks: Arc<Sinks>,
    pub traces: Arc<Traces>,
    /// The state of the inputs that is in force.
    pub known: [u8; 20],
    /// As it was before the certificates were made that are in force.
    pub clock: WallClock,
    pub bound: Bound,
}

impl Watch {
    /// Watches for as long as the process serves.
    pub async fn run(mut self, shared: Arc<Shared>, mut hangup: Signal) {
        let mut known = Some(self.known);
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut renew = tokio::time::interval(RENEW_EVERY);
        renew.tick().await;
        loop {
            let forced = tokio::select! {
                _ = look.tick() => self.clock.was_set(),
                _ = renew.tick() => true,
                _ = hangup.recv() => true,
            };
            let found = self.fingerprint().await;
            if !forced && found == known {
                continue;
            }
            let inputs = self.inputs.clone();
            self.reload(&shared).await;
            // Taken before the reload, so that a change during it is seen at the next look.
            known = if inputs == self.inputs {
                found
            } else {
                self.fingerprint().await
            };
        }
    }

    async fn fingerprint(&self) -> Option<[u8; 20]> {
        let inputs = self.inputs.clone();
        tokio::task::spawn_blocking(move || fingerprint(&inputs))
            .await
            .ok()
    }

    async fn reload(&mut self, shared: &Arc<Shared>) {
        match self.load_and_put_in_force(shared).await {
            Ok(inputs) => self.inputs = inputs,
            Err(why) => {
                shared.metrics.reload_failed();
                tracing::error!(
                    "the configuration was not reloaded, the last good one stays in force: {why}"
                );
            }
        }
    }

    /// Returns the files that the configuration depends on.
    async fn load_and_put_in_force(&self, shared: &Arc<Shared>) -> Result<Vec<PathBuf>, String> {
        let (config, schemas) = (self.config.clone(), Arc::clone(&self.schemas));
        let settings = blocking(move || {
            load(config.as_deref(), &schemas).map_err(|problems| problems.to_string())
        })
        .await?;
        for warning in &settings.warnings {
            tracing::warn!("{warning}");
        }
        let bound = &self.bound;
        if (settings.listen, settings.admin) != (bound.listen, bound.admin) {
            tracing::warn!("`listen` and `admin` take effect at the next start");
        }
        if settings.log != bound.log {
            tracing::warn!("`log` takes effect at the next start");
        }
        if settings.limits != *shared.limits() {
            tracing::warn!("`limits` take effect at the next start");
        }
        workers::start(&settings.chain, &self.pools)
            .await
            .map_err(|why| why.to_string())?;
        let (inputs, state_dir) = (settings.inputs.clone(), settings.state_dir.clone());
        let (shared, sinks) = (Arc::clone(shared), Arc::clone(&self.sinks));
        let traces = Arc::clone(&self.traces);
        blocking(move || put_in_force(settings, &shared, &sinks, &traces)).await?;
        remove_unused_environments(&state_dir).await;
        Ok(inputs)
    }
}

/// The wall clock, by which certificates hold. A machine may start with a wrong one and be set right
/// later, and what was made meanwhile holds at no time that clients know.
pub(super) struct WallClock {
    time: SystemTime,
    at: Instant,
}

impl WallClock {
    pub fn now() -> Self {
        Self {
            time: SystemTime::now(),
            at: Instant::now(),
        }
    }

    /// Whether it was set since this was last asked.
    fn was_set(&mut self) -> bool {
        let before = std::mem::replace(self, Self::now());
        let ran = self.at.duration_since(before.at);
        let moved = self.time.duration_since(before.time);
        let by = match moved {
            Ok(forward) => forward.abs_diff(ran),
            Err(back) => back.duration() + ran,
        };
        if by > SET_BY {
            let by = humantime::format_duration(Duration::from_secs(by.as_secs()));
            tracing::warn!(%by, "the clock was set; certificates are looked at");
        }
        by > SET_BY
    }
}

/// Does what waits for files elsewhere.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| Err(panic.to_string()))
}

fn put_in_force(
    settings: Settings,
    shared: &Shared,
    sinks: &Sinks,
    traces: &Traces,
) -> Result<(), String> {
    let in_force =
        go_live(settings, &shared.metrics, sinks, traces).map_err(|error| format!("{error:#}"))?;
    let hash = in_force.live.hash.clone();
    shared.live.store(Arc::new(in_force.live));
    shared.metrics.reloaded(&hash, SystemTime::now());
    tracing::info!(hash, "the configuration was reloaded");
    Ok(())
}
