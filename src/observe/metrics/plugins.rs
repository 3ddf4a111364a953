//! What is counted of plugins. The names of plugins come from the configuration, and the series of a
//! plugin that a reload has taken away go with it.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use prometheus::{Histogram, HistogramVec, IntCounterVec, IntGaugeVec};

use super::BUCKETS;
use super::table::{Table, retain};
use crate::admission::chain::{FailurePolicy, Member, Mode};
use crate::admission::decision::{Decision, Part, PartResult};
use crate::admission::review::Kind;
use crate::admission::verdict::{FaultKind, Phase};

/// The metrics of all plugins.
#[derive(Clone)]
pub(super) struct PluginVectors {
    info: IntGaugeVec,
    duration: HistogramVec,
    rejection_total: IntCounterVec,
    fail_open_total: IntCounterVec,
    would_deny_total: IntCounterVec,
    monitored_fault_total: IntCounterVec,
    would_patch_total: IntCounterVec,
    patch_conflict_total: IntCounterVec,
    exempted_total: IntCounterVec,
    breaker_open: IntGaugeVec,
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

impl PluginVectors {
    pub fn register(table: &Table<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            info: table.gauges(
                "plugin_info",
                "The plugins of the chain that is in force, with their kind, mode and failure policy; always 1.",
                &["plugin", "type", "mode", "failure_policy"],
            )?,
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
            monitored_fault_total: table.counters(
                "monitored_fault_total",
                "Faults of a monitored plugin, whatever its failurePolicy would have made of them.",
                &["plugin", "kind", "error_type"],
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
            breaker_open: table.gauges(
                "plugin_breaker_open",
                "Whether a remote plugin is not asked for now, since its last calls failed.",
                &["plugin"],
            )?,
        })
    }

    /// The handles of a chain's plugins. Counters that alerts look at begin at 0, since the first
    /// event of a series that was not there before is no increase to Prometheus.
    pub fn of<P>(
        &self,
        members: &[Member<P>],
        kind_of: impl Fn(&P) -> &'static str,
    ) -> PluginMetrics {
        self.forget_all_but(members);
        self.info.reset();
        for member in members {
            self.begin(member, kind_of(&member.plugin));
        }
        let handles = |member: &Member<P>| MemberMetrics {
            name: Arc::clone(&member.name),
            vectors: self.clone(),
            duration: Default::default(),
        };
        PluginMetrics {
            members: members.iter().map(handles).collect(),
        }
    }

    /// Notes whether the circuit breaker of a remote plugin is open.
    pub fn breaker(&self, plugin: &str, is_open: bool) {
        self.breaker_open
            .with_label_values(&[plugin])
            .set(i64::from(is_open));
    }

    fn forget_all_but<P>(&self, members: &[Member<P>]) {
        let names: HashSet<&str> = members.iter().map(|member| &*member.name).collect();
        let wanted = |name: &str| names.contains(name);
        retain(&self.duration, "plugin", wanted);
        retain(&self.breaker_open, "plugin", wanted);
        for counters in [
            &self.rejection_total,
            &self.fail_open_total,
            &self.would_deny_total,
            &self.monitored_fault_total,
            &self.would_patch_total,
            &self.patch_conflict_total,
            &self.exempted_total,
        ] {
            retain(counters, "plugin", wanted);
        }
    }

    fn begin<P>(&self, member: &Member<P>, plugin_kind: &str) {
        let name = &*member.name;
        let (mode, policy) = (member.mode, member.failure_policy);
        let labels = [name, plugin_kind, mode.as_str(), policy.as_str()];
        self.info.with_label_values(&labels).set(1);

        let kinds = member.scope.kinds.as_deref().unwrap_or(&Kind::ALL);
        for kind in kinds.iter().map(|kind| kind.as_str()) {
            match mode {
                Mode::Monitor => {
                    self.would_deny_total.with_label_values(&[name, kind]);
                    self.would_patch_total.with_label_values(&[name, kind]);
                }
                Mode::Enforce => {
                    let labels = [name, kind, "no_error"];
                    self.rejection_total.with_label_values(&labels);
                    for fault in FaultKind::ALL {
                        if policy == FailurePolicy::Ignore {
                            let labels = [name, kind, fault.as_str()];
                            self.fail_open_total.with_label_values(&labels);
                        }
                    }
                }
            }
        }
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
            if let PartResult::Failed(fault) | PartResult::FailedOpen(fault) = &part.result {
                let labels = [&*member.name, kind.as_str(), fault.kind.as_str()];
                let faults = &member.vectors.monitored_fault_total;
                faults.with_label_values(&labels).inc();
            }
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
