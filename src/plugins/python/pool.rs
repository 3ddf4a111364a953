//! The workers of one plugin: reviews wait for one in the order in which they came, and a worker
//! that ends is followed by another.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::ending::Ending;
use super::frames::{Answer, Ready};
use super::host;
use super::meters::{Counted, PluginMeters};
use super::output::Label;
use super::process::Launch;
use super::worker::{Channel, Lost, Memory, Process, Worker};
use super::{Settings, StartError};
use crate::admission::verdict::{Budget, Fault, FaultKind};
use crate::plugins::breaker::{self, Breaker};

/// The first pause before a worker that failed is started again. Each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Running workers. Dropped, they end once they have answered.
#[derive(Debug)]
pub(super) struct Pool {
    /// What the first of them said.
    pub ready: Ready,
    breaker: Breaker,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Shared {
    plugin: Arc<str>,
    settings: Settings,
    launch: Launch,
    recycle_after: Option<u64>,
    memory_limit: Option<u64>,
    meters: PluginMeters,
    idle: Mutex<Vec<Channel>>,
    /// One for each that is idle. Who waits for one gets it in turn.
    turns: Semaphore,
    /// Workers that are ready, busy or not.
    alive: AtomicUsize,
    requests: AtomicU64,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Pool {
    /// Starts all workers at once and waits until each is ready. `stop` ends them.
    ///
    /// # Errors
    /// When one of them does not get ready. The others are ended then.
    pub async fn start(
        settings: &Settings,
        launch: Launch,
        meters: PluginMeters,
        stop: CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<Self, StartError> {
        let shared = Arc::new(Shared {
            plugin: Arc::clone(&settings.name),
            settings: settings.clone(),
            launch,
            recycle_after: settings.recycle_after,
            memory_limit: settings.memory_limit,
            meters,
            idle: Mutex::default(),
            turns: Semaphore::new(0),
            alive: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            stop: stop.clone(),
            tasks: tasks.clone(),
        });
        let starting = (0..settings.workers).map(|index| shared.start(index));
        let mut said = None;
        for (index, started) in try_join_all(starting).await?.into_iter().enumerate() {
            said.get_or_insert_with(|| started.ready.clone());
            tasks.spawn(Arc::clone(&shared).supervise(index, started));
        }
        Ok(Self {
            ready: said.ok_or_else(|| StartError::new("it has no workers"))?,
            breaker: Breaker::new(breaker::Settings::default()),
            shared,
            _stop: stop.drop_guard(),
        })
    }

    /// Asks the first worker that is free. Whoever calls drops this at the end of the budget, which
    /// kills the worker that is asked.
    ///
    /// # Errors
    /// When no worker answers.
    pub async fn ask(
        &self,
        budget: Budget,
        request: impl Fn(u64) -> Option<Vec<u8>>,
    ) -> Result<Answer, Fault> {
        let Some(mut attempt) = self.breaker.attempt() else {
            let failures = self.breaker.failures();
            let message =
                format!("it was not asked, since its last {failures} calls failed; try again soon");
            return Err(Fault::new(FaultKind::CircuitOpen, message));
        };
        let mut retried = false;
        loop {
            // Workers that are busy with other reviews say nothing about the plugin.
            let busy = self.shared.alive.load(Ordering::Relaxed) > 0;
            attempt.inconclusive_if(budget.is_scant || busy);
            let mut lease = self.lease().await;
            attempt.inconclusive_if(budget.is_scant);
            let id = self.shared.requests.fetch_add(1, Ordering::Relaxed);
            let Some(frame) = request(id) else {
                let message = "the spec is too large to be sent";
                return Err(Fault::new(FaultKind::Undecodable, message));
            };
            match lease.ask(id, &frame).await {
                Ok(answer) => {
                    attempt.succeeded();
                    return Ok(answer);
                }
                // As with a connection that is refused, nothing can have come of it.
                Err(Lost::Unasked) if !retried => retried = true,
                Err(_) => {
                    attempt.failed();
                    let message = "its process ended before it answered";
                    let fault = Fault::new(FaultKind::Crash, message);
                    return Err(fault.with_detail(lease.epitaph()));
                }
            }
        }
    }

    async fn lease(&self) -> Lease<'_> {
        let shared = &self.shared;
        let _waiting = Counted::in_gauge(&shared.meters.queue);
        loop {
            // It is never closed.
            if let Ok(turn) = shared.turns.acquire().await {
                turn.forget();
            }
            // Empty when the worker of this turn has just ended.
            if let Some(mut channel) = shared.idle().pop() {
                channel.state = Counted::in_gauge(&shared.meters.busy);
                return Lease {
                    shared,
                    channel: Some(channel),
                    asking: false,
                };
            }
        }
    }
}

/// A worker in the hands of one review. Dropped while it is asked, it is killed; else it is free for
/// the next.
struct Lease<'p> {
    shared: &'p Shared,
    channel: Option<Channel>,
    asking: bool,
}

impl Lease<'_> {
    async fn ask(&mut self, id: u64, frame: &[u8]) -> Result<Answer, Lost> {
        let Some(channel) = &mut self.channel else {
            return Err(Lost::Unasked);
        };
        self.asking = true;
        let answer = channel.ask(id, frame).await?;
        self.asking = false;
        Ok(answer)
    }

    /// How the worker ended.
    fn epitaph(&self) -> &str {
        let channel = self.channel.as_ref();
        let epitaph = channel.and_then(|channel| channel.process.epitaph());
        epitaph.unwrap_or("it is not known how it ended")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        match self.channel.take() {
            Some(channel) if self.asking => channel.process.kill(Ending::Timeout),
            Some(channel) => self.shared.put_back(channel),
            None => {}
        }
    }
}

/// A worker that is ready and not yet free for reviews.
struct Started {
    worker: Worker,
    channel: Channel,
    ready: Ready,
}

impl Shared {
    async fn start(&self, index: usize) -> Result<Started, StartError> {
        let began = Instant::now();
        let label = Label {
            plugin: Arc::clone(&self.plugin),
            worker: index,
        };
        let state = Counted::in_gauge(&self.meters.starting);
        let (mut worker, channel) = Worker::spawn(&self.launch, label, state)?;
        let ready = worker.ready().await?;
        self.meters
            .start_seconds
            .observe(began.elapsed().as_secs_f64());
        Ok(Started {
            worker,
            channel,
            ready,
        })
    }

    /// Starts another worker, and sees to it that what it is started with is still there.
    async fn start_again(&self, index: usize) -> Result<Started, StartError> {
        let (settings, interpreter) = (self.settings.clone(), self.launch.program.clone());
        let preparing = tokio::task::spawn_blocking(move || host::prepare(&settings, &interpreter));
        if let Ok(Err(why)) = preparing.await {
            return Err(StartError::new(why));
        }
        self.start(index).await
    }

    /// Has a worker at this place until all are to stop.
    async fn supervise(self: Arc<Self>, index: usize, first: Started) {
        let mut started = first;
        let mut failures = 0;
        let mut outworn: Option<Arc<Process>> = None;
        loop {
            let process = Arc::clone(&started.worker.process);
            let life = Arc::clone(&self).live(index, started.worker);
            let mut life = self.tasks.spawn(life);
            self.put_back(started.channel);
            // Only now that there is another in its place, so that no review waits for it.
            if let Some(outworn) = outworn.take() {
                self.retire(&outworn);
            }
            tokio::select! {
                _ = &mut life => {
                    let useful = process.answered.load(Ordering::Relaxed) > 0;
                    failures = if useful { 1 } else { failures + 1 };
                }
                () = process.replace.notified() => {
                    // One that nobody asked anything is outworn by being there, and so will the next be.
                    let useful = process.answered.load(Ordering::Relaxed) > 0;
                    failures = if useful { 0 } else { failures + 1 };
                    outworn = Some(Arc::clone(&process));
                }
                () = self.stop.cancelled() => {}
            }
            match self.successor(index, &mut failures).await {
                Some(successor) => started = successor,
                None => return self.retire(&process),
            }
        }
    }

    /// Starts workers until one gets ready, or nothing when all are to stop.
    async fn successor(&self, index: usize, failures: &mut u32) -> Option<Started> {
        let starting = async {
            loop {
                tokio::time::sleep(pause(*failures)).await;
                let error = match self.start_again(index).await {
                    Ok(started) => return started,
                    Err(error) => error,
                };
                *failures = failures.saturating_add(1);
                self.meters.restarted(Ending::Start);
                let again_in = humantime::format_duration(pause(*failures));
                tracing::error!(
                    plugin = %self.plugin, worker = index, %error, detail = error.detail, %again_in,
                    "a worker did not start"
                );
            }
        };
        self.stop.run_until_cancelled(starting).await
    }

    /// The life of one worker, which is counted and cleared away when it is over.
    async fn live(self: Arc<Self>, index: usize, worker: Worker) {
        let process = Arc::clone(&worker.process);
        let memory = Memory {
            limit: self.memory_limit,
            gauge: self.meters.memory(index),
        };
        self.alive.fetch_add(1, Ordering::Relaxed);
        let ending = worker.live(&memory).await;
        self.alive.fetch_sub(1, Ordering::Relaxed);
        self.retire(&process);
        self.meters.restarted(ending);
        // When it was replaced, the gauge is the other's already.
        if !matches!(ending, Ending::Recycled | Ending::Memory) {
            memory.gauge.set(0);
        }
    }

    /// Makes a worker free for the next review, unless it is to have none.
    fn put_back(&self, mut channel: Channel) {
        let answered = channel.process.answered.load(Ordering::Relaxed);
        if self.recycle_after.is_some_and(|limit| answered >= limit) {
            channel.process.ask_for_replacement(Ending::Recycled);
        }
        channel.state = Counted::in_gauge(&self.meters.idle);
        let mut idle = self.idle();
        if !channel.process.retired.load(Ordering::Relaxed) {
            idle.push(channel);
            self.turns.add_permits(1);
        }
    }

    /// Sees to it that a worker gets no further review. It ends by itself when it is free.
    fn retire(&self, process: &Arc<Process>) {
        let mut idle = self.idle();
        process.retired.store(true, Ordering::Relaxed);
        let own = |channel: &Channel| Arc::ptr_eq(&channel.process, process);
        if let Some(index) = idle.iter().position(own) {
            let channel = idle.swap_remove(index);
            self.turns.forget_permits(1);
            drop(idle);
            drop(channel);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Channel>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long to wait after so many failures in a row.
pub(super) fn pause(failures: u32) -> Duration {
    match failures.checked_sub(1) {
        None => Duration::ZERO,
        Some(doubled) => FIRST_PAUSE
            .saturating_mul(2_u32.saturating_pow(doubled))
            .min(LONGEST_PAUSE),
    }
}
