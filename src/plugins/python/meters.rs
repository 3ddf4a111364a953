//! What is counted of workers. Whoever owns the registry makes the vectors; each handle is looked up
//! once.

use std::sync::Arc;

use prometheus::{Histogram, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec};

use super::ending::Ending;

/// The vectors, each with the label `plugin`.
#[derive(Clone, Debug)]
pub struct Meters {
    /// By `reason`: workers that ended or were replaced.
    pub restarts: IntCounterVec,
    /// By `state`: workers that are starting, idle and busy now.
    pub workers: IntGaugeVec,
    /// Reviews that wait for a worker now.
    pub queue: IntGaugeVec,
    /// From a worker's start until it was ready.
    pub start_seconds: HistogramVec,
    /// By `worker`, its index: bytes in RAM.
    pub memory: IntGaugeVec,
}

/// The handles of one plugin.
#[derive(Debug)]
pub(super) struct PluginMeters {
    plugin: Arc<str>,
    meters: Meters,
    pub starting: IntGauge,
    pub idle: IntGauge,
    pub busy: IntGauge,
    pub queue: IntGauge,
    pub start_seconds: Histogram,
}

impl PluginMeters {
    pub fn new(plugin: &Arc<str>, meters: &Meters) -> Self {
        let state = |state: &str| meters.workers.with_label_values(&[&**plugin, state]);
        let this = Self {
            plugin: Arc::clone(plugin),
            starting: state("starting"),
            idle: state("idle"),
            busy: state("busy"),
            queue: meters.queue.with_label_values(&[plugin]),
            start_seconds: meters.start_seconds.with_label_values(&[plugin]),
            meters: meters.clone(),
        };
        // Each reason is there from the start, so that its first increase can be seen.
        for reason in Ending::RESTARTS {
            this.restarted_by(reason, 0);
        }
        this
    }

    pub fn restarted(&self, reason: Ending) {
        if Ending::RESTARTS.contains(&reason) {
            self.restarted_by(reason, 1);
        }
    }

    fn restarted_by(&self, reason: Ending, times: u64) {
        let labels = [&*self.plugin, reason.as_str()];
        self.meters
            .restarts
            .with_label_values(&labels)
            .inc_by(times);
    }

    pub fn memory(&self, worker: usize) -> IntGauge {
        let labels = [&*self.plugin, &worker.to_string()];
        self.meters.memory.with_label_values(&labels)
    }
}

/// One that is counted in a gauge until it is dropped.
#[derive(Debug)]
pub(super) struct Counted(IntGauge);

impl Counted {
    pub fn in_gauge(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
