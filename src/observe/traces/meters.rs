//! What is counted and logged of the sender of spans. A receiver that fails is told of once, and once
//! more when it takes spans again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::super::metrics::table::Table;

/// What is counted of spans.
#[derive(Clone)]
pub struct TraceMeters {
    /// Spans that wait to be sent.
    pub waiting: IntGauge,
    /// Spans that were taken.
    pub exported: IntCounter,
    dropped: IntCounterVec,
    failing: Arc<AtomicBool>,
}

/// Why spans are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// As many wait as may.
    QueueFull,
    /// The receiver was not reached, or failed.
    Export,
    /// The receiver refused them.
    Rejected,
    /// The process ended.
    Closed,
}

impl Lost {
    pub const ALL: [Lost; 4] = [Lost::QueueFull, Lost::Export, Lost::Rejected, Lost::Closed];

    pub const fn as_str(self) -> &'static str {
        match self {
            Lost::QueueFull => "queue_full",
            Lost::Export => "export",
            Lost::Rejected => "rejected",
            Lost::Closed => "closed",
        }
    }
}

impl TraceMeters {
    pub(in crate::observe) fn register(table: &Table<'_>) -> Result<Self, prometheus::Error> {
        let meters = Self {
            waiting: table.gauge(
                "trace_spans_waiting",
                "Spans that wait to be sent to the receiver of traces now.",
            )?,
            exported: table.counter(
                "trace_spans_exported_total",
                "Spans that the receiver of traces took.",
            )?,
            dropped: table.counters(
                "trace_spans_dropped_total",
                "Spans that are lost, by reason: queue_full, export, rejected, closed.",
                &["reason"],
            )?,
            failing: Arc::default(),
        };
        for lost in Lost::ALL {
            meters.dropped.with_label_values(&[lost.as_str()]);
        }
        Ok(meters)
    }

    /// Counts spans that are lost.
    pub fn lost(&self, spans: usize, why: Lost) {
        let dropped = self.dropped.with_label_values(&[why.as_str()]);
        dropped.inc_by(spans as u64);
    }

    /// Says that spans are not taken, unless that is known.
    pub fn failing(&self, endpoint: &str, why: &str) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(endpoint, why, "traces are not exported");
        }
    }

    /// Says that spans are taken, if they were not.
    pub fn recovered(&self, endpoint: &str) {
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!(endpoint, "traces are exported again");
        }
    }
}
