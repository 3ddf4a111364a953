//! The metrics of Python plugins' worker processes. Whoever runs these counts.

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

use super::metrics::table::Table;

/// Importing dstack alone takes about a second; a worker that is not ready after a minute is given up.
const START_BUCKETS: [f64; 9] = [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];

/// What is counted of workers, by plugin.
pub struct WorkerVectors {
    pub restarts: IntCounterVec,
    pub workers: IntGaugeVec,
    pub queue: IntGaugeVec,
    pub start_seconds: HistogramVec,
    pub memory: IntGaugeVec,
}

impl WorkerVectors {
    pub(super) fn register(table: &Table<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            restarts: table.counters(
                "python_worker_restarts_total",
                "Workers of a Python plugin that ended or were replaced, by reason.",
                &["plugin", "reason"],
            )?,
            workers: table.gauges(
                "python_workers",
                "Workers of a Python plugin that are starting, idle and busy now.",
                &["plugin", "state"],
            )?,
            queue: table.gauges(
                "python_queue_length",
                "Reviews that wait for a worker of a Python plugin now.",
                &["plugin"],
            )?,
            start_seconds: table.histograms(
                "python_worker_start_seconds",
                "Time from a worker's start until it was ready, by plugin.",
                &["plugin"],
                &START_BUCKETS,
            )?,
            memory: table.gauges(
                "python_worker_resident_memory_bytes",
                "Memory of a worker of a Python plugin that is in RAM.",
                &["plugin", "worker"],
            )?,
        })
    }
}
