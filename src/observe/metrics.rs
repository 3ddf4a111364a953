//! The Prometheus metrics, shaped after the Kubernetes API server's. Users, runs and projects are
//! never labels; each handle is looked up once.

mod plugins;
mod projects;
pub(super) mod table;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
};

use super::audit::AuditVectors;
pub use plugins::PluginMetrics;
pub use table::Described;

use super::traces::meters::TraceMeters;
use super::workers::WorkerVectors;
use crate::admission::chain::Member;
use crate::admission::review::Kind;
use plugins::PluginVectors;
use projects::Projects;
use table::Table;

/// Up to the 8 s after which the dstack server gives up, and finer where it is about to.
const BUCKETS: [f64; 17] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0,
    8.0,
];

const DECISIONS: [&str; 3] = ["allowed", "patched", "denied"];

/// The ways in which a connection ends badly.
const CONNECTION_ERRORS: [&str; 9] = [
    "accept",
    "bad_http",
    "closed",
    "evicted",
    "handshake",
    "handshake_timeout",
    "header_timeout",
    "plain_http",
    "too_many",
];

/// The statuses of what is no review.
const HTTP_ERRORS: [&str; 6] = ["400", "401", "404", "405", "408", "413"];

/// Every metric of the process, in a registry of its own.
pub struct Metrics {
    registry: Registry,
    described: Vec<Described>,
    request_total: [[IntCounter; 3]; 4],
    request_duration: [Histogram; 4],
    projects: Projects,
    plugin: PluginVectors,
    pub in_flight: IntGauge,
    pub in_flight_limit: IntGauge,
    deadline: Gauge,
    /// One number for all reasons, so that it is there before the first of them.
    pub request_failed_total: IntCounter,
    pub shed_total: IntCounter,
    pub connections: IntGauge,
    pub connection_error_total: IntCounterVec,
    pub http_error_total: IntCounterVec,
    config_reload_total: IntCounterVec,
    config_reload_successful: IntGauge,
    config_reload_timestamp: IntGauge,
    config_info: IntGaugeVec,
    certificate_expiration: IntGaugeVec,
    pub audit_event_total: IntCounter,
    /// What becomes of audit events.
    pub audit: AuditVectors,
    /// What becomes of spans.
    pub traces: TraceMeters,
    /// Worker processes of Python plugins.
    pub workers: WorkerVectors,
}

impl Metrics {
    /// # Errors
    /// When a metric cannot be registered, which is a defect of this table.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let table = Table::of(&registry);
        table.adopt(ProcessCollector::for_self())?;

        let requests = table.counters(
            "request_total",
            "Reviews answered, by kind and decision.",
            &["kind", "decision"],
        )?;
        let durations = table.histograms(
            "request_duration_seconds",
            "Time from a whole request to its answer, by kind.",
            &["kind"],
            &BUCKETS,
        )?;
        let build_info = table.gauges(
            "build_info",
            "The version that runs; always 1.",
            &["version"],
        )?;
        build_info
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);

        let metrics = Self {
            request_total: Kind::ALL.map(|kind| {
                DECISIONS.map(|decision| requests.with_label_values(&[kind.as_str(), decision]))
            }),
            request_duration: Kind::ALL.map(|kind| durations.with_label_values(&[kind.as_str()])),
            projects: Projects::register(&table, &DECISIONS)?,
            plugin: PluginVectors::register(&table)?,
            in_flight: table.gauge("in_flight_requests", "Reviews in hand now.")?,
            in_flight_limit: table.gauge(
                "in_flight_requests_limit",
                "How many reviews may be in hand at once.",
            )?,
            deadline: table.real_gauge(
                "deadline_seconds",
                "How long the chain that is in force may take.",
            )?,
            request_failed_total: table.counter(
                "request_failed_total",
                "Reviews denied though no policy denies them: a plugin failed, patches conflicted, too many were in hand, the audit event was not written, or an internal error.",
            )?,
            shed_total: table.counter(
                "shed_total",
                "Reviews denied because too many were in hand.",
            )?,
            connections: table.gauge("connections", "Connections open now.")?,
            connection_error_total: table.counters(
                "connection_error_total",
                "Connections that ended badly, by reason.",
                &["reason"],
            )?,
            http_error_total: table.counters(
                "http_error_total",
                "Requests that were no review, by the HTTP status they got.",
                &["code"],
            )?,
            config_reload_total: table.counters(
                "config_reload_total",
                "Reloads of the configuration, by result.",
                &["result"],
            )?,
            config_reload_successful: table.gauge(
                "config_reload_last_successful",
                "Whether the last reload succeeded; 0 while the last good configuration goes on.",
            )?,
            config_reload_timestamp: table.gauge(
                "config_reload_last_success_timestamp_seconds",
                "When a configuration was last loaded, in seconds since 1970.",
            )?,
            config_info: table.gauges(
                "config_info",
                "The hash of the loaded configuration.",
                &["hash"],
            )?,
            certificate_expiration: table.gauges(
                "certificate_expiration_timestamp_seconds",
                "When a certificate of this server expires, in seconds since 1970.",
                &["certificate"],
            )?,
            audit_event_total: table.counter(
                "audit_event_total",
                "Audit events given to the sinks, whether these took them or not.",
            )?,
            audit: AuditVectors::register(
                &table,
                table.counters(
                    "audit_error_total",
                    "Audit events that a sink did not take.",
                    &["sink"],
                )?,
            )?,
            traces: TraceMeters::register(&table)?,
            workers: WorkerVectors::register(&table)?,
            described: table.described(),
            registry: registry.clone(),
        };
        let begin = |vector: &IntCounterVec, values: &[&str]| {
            for value in values {
                vector.with_label_values(&[value]);
            }
        };
        begin(&metrics.config_reload_total, &["success", "failure"]);
        begin(&metrics.connection_error_total, &CONNECTION_ERRORS);
        begin(&metrics.http_error_total, &HTTP_ERRORS);
        Ok(metrics)
    }

    /// The exposition text and its content type.
    ///
    /// # Errors
    /// When a metric cannot be written.
    pub fn render(&self) -> Result<(Vec<u8>, String), prometheus::Error> {
        let encoder = TextEncoder::new();
        let mut text = Vec::new();
        encoder.encode(&self.registry.gather(), &mut text)?;
        Ok((text, encoder.format_type().to_owned()))
    }

    /// What each metric is, by name, for the documentation.
    pub fn described(&self) -> &[Described] {
        &self.described
    }

    /// The handles of a chain's plugins; `kind_of` names the kind of a plugin. What was counted of
    /// plugins that are not among them is forgotten.
    pub fn plugins<P>(
        &self,
        members: &[Member<P>],
        kind_of: impl Fn(&P) -> &'static str,
    ) -> PluginMetrics {
        self.plugin.of(members, kind_of)
    }

    /// Notes whether the circuit breaker of a remote plugin is open.
    pub fn breaker(&self, plugin: &str, is_open: bool) {
        self.plugin.breaker(plugin, is_open);
    }

    /// Counts decisions by project, for so many projects at most; 0 counts none.
    pub fn count_projects(&self, limit: usize) {
        self.projects.limit(limit);
    }

    /// Notes how long the chain in force may take.
    pub fn deadline(&self, deadline: Duration) {
        self.deadline.set(deadline.as_secs_f64());
    }

    /// Counts an answered review by the name of its decision. `took` is from the whole request to the answer.
    pub fn decided(&self, kind: Kind, project: &str, name: &str, took: Duration) {
        let kind = kind as usize;
        if let Some(index) = DECISIONS.iter().position(|known| *known == name) {
            self.request_total[kind][index].inc();
            self.projects.decided(project, index);
        }
        self.request_duration[kind].observe(took.as_secs_f64());
    }

    /// Notes that a configuration of this hash is in force since `now`.
    pub fn loaded(&self, hash: &str, now: SystemTime) {
        self.config_reload_successful.set(1);
        self.config_reload_timestamp.set(seconds(now));
        self.config_info.reset();
        self.config_info.with_label_values(&[hash]).set(1);
    }

    pub fn reloaded(&self, hash: &str, now: SystemTime) {
        self.config_reload_total
            .with_label_values(&["success"])
            .inc();
        self.loaded(hash, now);
    }

    pub fn reload_failed(&self) {
        self.config_reload_total
            .with_label_values(&["failure"])
            .inc();
        self.config_reload_successful.set(0);
    }

    pub fn certificate_expires(&self, certificate: &str, at: SystemTime) {
        self.certificate_expiration
            .with_label_values(&[certificate])
            .set(seconds(at));
    }
}

fn seconds(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64)
}
