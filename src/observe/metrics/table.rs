//! Makes metrics under this program's name, registers each, and remembers what it is for the
//! documentation. It counts nothing itself.

use std::cell::RefCell;
use std::collections::HashMap;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::proto::MetricType;
use prometheus::{
    Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// What one metric is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Described {
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    pub labels: Vec<String>,
    pub help: String,
}

/// Makes and registers metrics.
pub(in crate::observe) struct Table<'r> {
    registry: &'r Registry,
    described: RefCell<Vec<Described>>,
}

impl<'r> Table<'r> {
    pub fn of(registry: &'r Registry) -> Self {
        Self {
            registry,
            described: RefCell::default(),
        }
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

    pub fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::with_opts(opts(name, help))?)
    }

    /// A gauge of a number that need not be whole.
    pub fn real_gauge(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        self.register(Gauge::with_opts(opts(name, help))?)
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
        self.describe(&metric);
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    /// Registers metrics that make themselves.
    pub fn adopt(&self, metrics: impl Collector + 'static) -> Result<(), prometheus::Error> {
        self.describe(&metrics);
        self.registry.register(Box::new(metrics))
    }

    /// Every metric that was registered, by name.
    pub fn described(self) -> Vec<Described> {
        let mut described = self.described.into_inner();
        described.sort();
        described
    }

    fn describe(&self, metrics: &impl Collector) {
        let kinds: HashMap<_, _> = metrics
            .collect()
            .iter()
            .map(|family| (family.name().to_owned(), kind(family.get_field_type())))
            .collect();
        let described = metrics.desc().into_iter().map(|desc| Described {
            kind: kinds.get(&desc.fq_name).copied().unwrap_or("untyped"),
            name: desc.fq_name.clone(),
            labels: desc.variable_labels.clone(),
            help: desc.help.clone(),
        });
        self.described.borrow_mut().extend(described);
    }
}

/// Drops the series of a metric whose `label` has a value that is not wanted any more.
pub(super) fn retain<B: MetricVecBuilder>(
    vector: &MetricVec<B>,
    label: &str,
    wanted: impl Fn(&str) -> bool,
) {
    for family in vector.collect() {
        for metric in family.get_metric() {
            let labels = metric.get_label();
            let labels: HashMap<_, _> = labels.iter().map(|l| (l.name(), l.value())).collect();
            if labels.get(label).is_some_and(|value| !wanted(value)) {
                // Gone already if another reload was quicker.
                let _ = vector.remove(&labels);
            }
        }
    }
}

fn kind(of: MetricType) -> &'static str {
    match of {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        MetricType::SUMMARY => "summary",
        MetricType::UNTYPED => "untyped",
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("dstack_admission")
}
