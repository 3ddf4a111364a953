//! The Prometheus metrics, shaped after the Kubernetes API server's. Users, runs and projects are
//! never labels; each handle is looked up once.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::audit::AuditVectors;
use super::workers::WorkerVectors;
use crate::admission::decision::{Decision, Part, PartResult};
use crate::admission::review::Kind;
use crate::admission::verdict::Phase;

/// Up to the 8 s after which the dstack server gives up.
const BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 8.0,
];

const DECISIONS: [&str; 3] = ["allowed", "patched", "denied"];

/// Every metric of the process, in a registry of its own.
pub struct Metrics {
    registry: Registry,
    request_total: [[IntCounter; 3]; 4],
    request_duration: [Histogram; 4],
    plugin: PluginVectors,
    pub in_flight: IntGauge,
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
    /// Worker processes of Python plugins.
    pub workers: WorkerVectors,
}

#[derive(Clone)]
struct PluginVectors {
    duration: HistogramVec,
    rejection_total: IntCounterVec,
    fail_open_total: IntCounterVec,
    would_deny_total: IntCounterVec,
    would_patch_total: IntCounterVec,
    patch_conflict_total: IntCounterVec,
    exempted_total: IntCounterVec,
}

/// The handles of one chain's plugins, by the member's index.
pub struct PluginMetrics {
    members: Vec<MemberMetrics>,
}

struct MemberMetrics {
    name: Arc<str>,
    vectors: PluginVectors,
    /// By kind, phase and whether it rejected.
    duration: [[[OnceLock<Histogram>; 2]; 2]; 4],
}

impl Metrics {
    /// # Errors
    /// When a metric cannot be registered, which is a defect of this table.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let table = Table::of(&registry);

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
        let plugin = PluginVectors {
            duration: table.histograms(
                "plugin_duration_seconds",
                "Time of one call of a plugin, by plugin, phase, kind and whether it rejected.",
                &["plugin", "phase", "kind", "rejected"],
                &BUCKETS,
            )?,
            rejection_total: table.counters(
                "plugin_rejection_total",
                "Reviews that a plugin denied or that its fault denied; error_type is no_error for a denial.",
                &["plugin", "kind", "error_type"],
            )?,
            fail_open_total: table.counters(
                "plugin_fail_open_total",
                "Faults of a plugin that its failurePolicy Ignore passed over.",
                &["plugin", "kind", "error_type"],
            )?,
            would_deny_total: table.counters(
                "would_deny_total",
                "Reviews that a monitored plugin would have denied.",
                &["plugin", "kind"],
            )?,
            would_patch_total: table.counters(
                "would_patch_total",
                "Reviews that a monitored plugin would have changed.",
                &["plugin", "kind"],
            )?,
            patch_conflict_total: table.counters(
                "patch_conflict_total",
                "Patches of a fanOut that conflicted with another plugin's.",
                &["plugin", "kind"],
            )?,
            exempted_total: table.counters(
                "plugin_exempted_total",
                "Reviews that an exemption kept from a plugin.",
                &["plugin", "kind"],
            )?,
        };
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
            plugin,
            in_flight: table.gauge("in_flight_requests", "Reviews in hand now.")?,
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
            workers: WorkerVectors::register(&table)?,
            registry: registry.clone(),
        };
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        for result in ["success", "failure"] {
            metrics.config_reload_total.with_label_values(&[result]);
        }
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

    /// The handles of a chain's plugins.
    pub fn plugins(&self, names: impl Iterator<Item = Arc<str>>) -> PluginMetrics {
        let member = |name| MemberMetrics {
            name,
            vectors: self.plugin.clone(),
            duration: Default::default(),
        };
        PluginMetrics {
            members: names.map(member).collect(),
        }
    }

    /// Counts an answered review. `took` is from the whole request to the answer.
    pub fn decided(&self, decision: &Decision, took: Duration) {
        let kind = decision.review.kind as usize;
        let name = decision.as_str();
        if let Some(index) = DECISIONS.iter().position(|known| *known == name) {
            self.request_total[kind][index].inc();
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

impl PluginMetrics {
    /// Counts the parts of an enforced decision.
    pub fn decided(&self, decision: &Decision) {
        self.observe(decision, |member, part, kind| match &part.result {
            PartResult::Denied(_) => member.rejected(kind, "no_error"),
            PartResult::Failed(fault) => member.rejected(kind, fault.kind.as_str()),
            PartResult::FailedOpen(fault) => {
                let labels = [&*member.name, kind.as_str(), fault.kind.as_str()];
                member
                    .vectors
                    .fail_open_total
                    .with_label_values(&labels)
                    .inc();
            }
            PartResult::Conflict { .. } => {
                member.rejected(kind, "patch_conflict");
                member.count(&member.vectors.patch_conflict_total, kind);
            }
            PartResult::Exempt(_) => member.count(&member.vectors.exempted_total, kind),
            PartResult::Allowed | PartResult::Skipped(_) => {}
        });
    }

    /// Counts what monitored plugins would have done.
    pub fn monitored(&self, decision: &Decision) {
        self.observe(decision, |member, part, kind| {
            if part.result.denies() {
                member.count(&member.vectors.would_deny_total, kind);
            } else if !part.patch.is_empty() {
                member.count(&member.vectors.would_patch_total, kind);
            }
        });
    }

    fn observe(&self, decision: &Decision, count: impl Fn(&MemberMetrics, &Part, Kind)) {
        let kind = decision.review.kind;
        for part in &decision.parts {
            let Some(member) = self.members.get(part.member) else {
                continue;
            };
            if !matches!(part.result, PartResult::Exempt(_)) {
                member
                    .duration(kind, part.phase, part.result.denies())
                    .observe(part.took.as_secs_f64());
            }
            count(member, part, kind);
        }
    }
}

impl MemberMetrics {
    fn duration(&self, kind: Kind, phase: Phase, rejected: bool) -> &Histogram {
        self.duration[kind as usize][phase as usize][usize::from(rejected)].get_or_init(|| {
            let rejected = if rejected { "true" } else { "false" };
            let labels = [&*self.name, phase.as_str(), kind.as_str(), rejected];
            self.vectors.duration.with_label_values(&labels)
        })
    }

    fn rejected(&self, kind: Kind, error_type: &str) {
        let labels = [&*self.name, kind.as_str(), error_type];
        self.vectors
            .rejection_total
            .with_label_values(&labels)
            .inc();
    }

    fn count(&self, vector: &IntCounterVec, kind: Kind) {
        vector
            .with_label_values(&[&*self.name, kind.as_str()])
            .inc();
    }
}

/// Makes metrics under this program's name and registers each.
pub(super) struct Table<'r> {
    registry: &'r Registry,
}

impl<'r> Table<'r> {
    pub fn of(registry: &'r Registry) -> Self {
        Self { registry }
    }

    pub fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(opts(name, help), labels)?)
    }

    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::with_opts(opts(name, help))?)
    }

    pub fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(opts(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::with_opts(opts(name, help))?)
    }

    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        self.register(HistogramVec::new(opts, labels)?)
    }

    fn register<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C, prometheus::Error> {
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("dstack_admission")
}

fn seconds(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64)
}
