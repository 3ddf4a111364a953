//! What is counted and logged of the audit sinks. Labels are the sinks' names, which are bounded by
//! the configuration. A sink that loses events says so at once and then every ten seconds.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::super::metrics::table::Table;

/// From a write to the page cache to a disk that takes as long as the dstack server waits.
const BUCKETS: [f64; 12] = [
    0.00005, 0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 8.0,
];
/// How often the log repeats that a sink loses events.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// What is counted of audit sinks.
#[derive(Clone)]
pub struct AuditVectors {
    /// Reviews that were denied because a strict sink had not got their record.
    pub requests_rejected: IntCounter,
    errors: IntCounterVec,
    dropped: IntCounterVec,
    waiting: IntGaugeVec,
    write_seconds: HistogramVec,
    shipped: IntCounterVec,
    spool_events: IntGaugeVec,
    spool_bytes: IntGaugeVec,
}

/// The handles of one sink.
pub(super) struct SinkMeters {
    name: String,
    vectors: AuditVectors,
    /// Events that wait in memory.
    pub waiting: IntGauge,
    write_seconds: Histogram,
    said: Mutex<Said>,
}

/// The handles of one spool.
pub(super) struct SpoolMeters {
    pub events: IntGauge,
    pub bytes: IntGauge,
}

#[derive(Default)]
struct Said {
    at: Option<Instant>,
    /// Events lost since then.
    since: u64,
    failing: bool,
}

/// Why events are lost.
pub(super) trait Loss: Display {
    /// In one word, for a label.
    fn reason(&self) -> &'static str;
}

impl AuditVectors {
    /// `errors` is the vector of events that a sink did not take.
    pub(in crate::observe) fn register(
        table: &Table<'_>,
        errors: IntCounterVec,
    ) -> Result<Self, prometheus::Error> {
        Ok(Self {
            requests_rejected: table.counter(
                "audit_requests_rejected_total",
                "Reviews denied because their audit event could not be written.",
            )?,
            errors,
            dropped: table.counters(
                "audit_dropped_total",
                "Audit events that are lost to a sink, by reason: write, backlog, closed, spool_full, spool_damaged, rejected.",
                &["sink", "reason"],
            )?,
            waiting: table.gauges(
                "audit_backlog_events",
                "Audit events that wait in memory to be written now.",
                &["sink"],
            )?,
            write_seconds: table.histograms(
                "audit_write_duration_seconds",
                "Time of one write of a group of audit events, until it was on disk where the mode asks for that.",
                &["sink"],
                &BUCKETS,
            )?,
            shipped: table.counters(
                "audit_shipped_total",
                "Audit events that an HTTP sink's receiver took.",
                &["sink"],
            )?,
            spool_events: table.gauges(
                "audit_spool_events",
                "Audit events that wait on disk for an HTTP sink's receiver now.",
                &["sink"],
            )?,
            spool_bytes: table.gauges(
                "audit_spool_bytes",
                "Bytes on disk of audit events for an HTTP sink's receiver.",
                &["sink"],
            )?,
        })
    }

    pub(super) fn sink(&self, name: &str) -> SinkMeters {
        self.errors.with_label_values(&[name]);
        SinkMeters {
            name: name.to_owned(),
            waiting: self.waiting.with_label_values(&[name]),
            write_seconds: self.write_seconds.with_label_values(&[name]),
            vectors: self.clone(),
            said: Mutex::default(),
        }
    }
}

impl SinkMeters {
    /// Counts events that the sink did not take.
    pub fn failed(&self, events: u64, why: &impl Loss) {
        let errors = self.vectors.errors.with_label_values(&[&self.name]);
        errors.inc_by(events);
        self.lost(events, why);
    }

    /// Counts an event whose answer did not wait for it any longer. It may still be written.
    pub fn late(&self, why: &impl Loss) {
        self.vectors.errors.with_label_values(&[&self.name]).inc();
        self.say(0, why);
    }

    /// Counts events that are gone, and says so in the log, though not each time.
    pub fn lost(&self, events: u64, why: &impl Loss) {
        let labels = [&*self.name, why.reason()];
        self.vectors
            .dropped
            .with_label_values(&labels)
            .inc_by(events);
        self.say(events, why);
    }

    fn say(&self, events: u64, why: &impl Loss) {
        let mut said = self.said();
        said.since += events;
        said.failing = true;
        if said.at.is_some_and(|at| at.elapsed() < SAY_EVERY) {
            return;
        }
        let lost = std::mem::take(&mut said.since);
        said.at = Some(Instant::now());
        drop(said);
        tracing::error!(sink = self.name, %why, lost, "audit events not written");
    }

    /// Notes that the sink takes events, after it may have lost some.
    pub fn recovered(&self) {
        let mut said = self.said();
        if std::mem::take(&mut said.failing) {
            let lost = std::mem::take(&mut said.since);
            drop(said);
            tracing::info!(
                sink = self.name,
                lost,
                "audit events are written again; so many more were lost"
            );
        }
    }

    pub fn wrote(&self, took: Duration) {
        self.write_seconds.observe(took.as_secs_f64());
    }

    pub fn shipped(&self, events: u64) {
        let shipped = self.vectors.shipped.with_label_values(&[&self.name]);
        shipped.inc_by(events);
    }

    pub fn spool(&self) -> SpoolMeters {
        SpoolMeters {
            events: self.vectors.spool_events.with_label_values(&[&self.name]),
            bytes: self.vectors.spool_bytes.with_label_values(&[&self.name]),
        }
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
