//! Sends spans to a receiver of OTLP over HTTP, in batches, from a queue that is bounded. Whoever
//! has spans never waits: what finds no place in the queue is dropped and counted.

mod client;
mod spans;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanKind, TraceState};
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, Sampler as RootSampler, SamplingDecision, ShouldSample,
    SpanData, SpanExporter,
};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::meters::{Lost, TraceMeters};
use super::{Ended, Sampler, Settings};
use crate::admission::trace::{SpanId, Trace, TraceId};
use crate::identity::outgoing::address;
use client::Client;
pub(super) use spans::Facts;

/// What the service is called where nobody says otherwise.
const SERVICE_NAME: &str = env!("CARGO_PKG_NAME");

/// One configuration's way from a decision to the receiver.
pub(super) struct Pipeline {
    queue: Arc<Queue>,
    facts: Facts,
    sampler: Sampler,
    /// Without it the sender sends what it has, and ends.
    _open: DropGuard,
}

/// The senders that run.
#[derive(Default)]
pub(super) struct Tasks {
    running: TaskTracker,
    /// No more spans come: what is there is sent.
    closing: CancellationToken,
    /// Nothing more is sent.
    abort: CancellationToken,
}

/// Spans that wait to be sent.
struct Queue {
    waiting: Mutex<Waiting>,
    grown: Notify,
    max: usize,
    batch: usize,
    meters: TraceMeters,
}

#[derive(Default)]
struct Waiting {
    spans: Vec<SpanData>,
    closed: bool,
}

/// Sends what a queue holds.
struct Sender {
    queue: Arc<Queue>,
    exporter: opentelemetry_otlp::SpanExporter,
    client: Arc<Client>,
    /// As the log shows it.
    endpoint: String,
    timeout: Duration,
    wait: Duration,
    closing: CancellationToken,
    abort: CancellationToken,
}

impl Pipeline {
    /// Reads certificates and secrets, and starts a sender.
    ///
    /// # Errors
    /// In words, naming the file.
    pub fn start(
        settings: &Settings,
        facts: Facts,
        meters: &TraceMeters,
        tasks: &Tasks,
    ) -> Result<Self, String> {
        let client = Arc::new(Client::new(settings)?);
        let queue = Arc::new(Queue {
            waiting: Mutex::default(),
            grown: Notify::new(),
            max: settings.queue_size,
            batch: settings.batch_max_size,
            meters: meters.clone(),
        });
        let closing = tasks.closing.child_token();
        let sender = Sender {
            queue: Arc::clone(&queue),
            exporter: exporter(settings, &client)?,
            client,
            endpoint: address(&settings.endpoint),
            timeout: settings.timeout,
            wait: settings.batch_max_wait,
            closing: closing.clone(),
            abort: tasks.abort.clone(),
        };
        tasks.running.spawn(sender.run());
        Ok(Self {
            queue,
            facts,
            sampler: settings.sampler,
            _open: closing.drop_guard(),
        })
    }

    /// The place of a review below its caller's, or of one that begins a trace.
    pub fn name(&self, parent: Option<Trace>) -> Option<Trace> {
        let ids = RandomIdGenerator::default();
        let span = SpanId::new(u64::from_be_bytes(ids.new_span_id().to_bytes()))?;
        let (mut trace, decided) = match parent {
            Some(parent) => {
                let decided = self.sampler.parent_based.then(|| parent.sampled());
                let state = parent.state.filter(|state| is_state(state));
                let span = Some(span);
                let trace = Trace {
                    span,
                    state,
                    ..parent
                };
                (trace, decided)
            }
            None => {
                let id = TraceId::new(u128::from_be_bytes(ids.new_trace_id().to_bytes()))?;
                (Trace::begin(id, span), None)
            }
        };
        trace.set_sampled(decided.unwrap_or_else(|| self.samples(trace.id)));
        Some(trace)
    }

    pub fn decided(&self, ended: &Ended<'_>) {
        self.queue.push(|| self.facts.of_review(ended), ended);
    }

    pub fn monitored(&self, ended: &Ended<'_>) {
        self.queue.push(|| self.facts.of_plugins(ended), ended);
    }

    /// Whether a trace is recorded about which no caller has decided.
    fn samples(&self, id: TraceId) -> bool {
        let sampler = RootSampler::TraceIdRatioBased(self.sampler.ratio);
        let id = id.get().into();
        let sampled = sampler.should_sample(None, id, "", &SpanKind::Server, &[], &[]);
        sampled.decision == SamplingDecision::RecordAndSample
    }
}

impl Tasks {
    pub async fn close(&self, patience: Duration) {
        self.closing.cancel();
        self.running.close();
        if timeout(patience, self.running.wait()).await.is_err() {
            self.abort.cancel();
            self.running.wait().await;
            tracing::warn!("the receiver of traces was too slow, and the last spans are lost");
        }
    }
}

impl Queue {
    /// Takes the spans of a review that is recorded, all or none.
    fn push(&self, make: impl FnOnce() -> Vec<SpanData>, of: &Ended<'_>) {
        if !of
            .decision
            .review
            .trace
            .as_ref()
            .is_some_and(Trace::sampled)
        {
            return;
        }
        let spans = make();
        let count = spans.len();
        let mut waiting = self.waiting();
        let lost = match waiting.closed {
            true => Some(Lost::Closed),
            false => (waiting.spans.len() + count > self.max).then_some(Lost::QueueFull),
        };
        if let Some(lost) = lost {
            drop(waiting);
            return self.meters.lost(count, lost);
        }
        let begins = waiting.spans.is_empty();
        waiting.spans.extend(spans);
        let full = waiting.spans.len() >= self.batch;
        self.meters.waiting.add(count as i64);
        drop(waiting);
        if begins || full {
            self.grown.notify_one();
        }
    }

    fn len(&self) -> usize {
        self.waiting().spans.len()
    }

    /// The spans of one request.
    fn take(&self) -> Vec<SpanData> {
        let mut waiting = self.waiting();
        let count = waiting.spans.len().min(self.batch);
        let taken: Vec<_> = waiting.spans.drain(..count).collect();
        self.meters.waiting.sub(count as i64);
        taken
    }

    /// Takes nothing any more. What waits is lost.
    fn close(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        let left = std::mem::take(&mut waiting.spans).len();
        drop(waiting);
        self.meters.waiting.sub(left as i64);
        self.meters.lost(left, Lost::Closed);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sender {
    async fn run(self) {
        while self.gather().await {
            let batch = self.queue.take();
            let count = batch.len();
            tokio::select! {
                () = self.send(batch) => {}
                () = self.abort.cancelled() => self.queue.meters.lost(count, Lost::Closed),
            }
        }
        self.queue.close();
    }

    /// Waits for spans worth a request. False when there is nothing more to do.
    async fn gather(&self) -> bool {
        while self.queue.len() == 0 {
            if self.closing.is_cancelled() {
                return false;
            }
            tokio::select! {
                () = self.queue.grown.notified() => {}
                () = self.closing.cancelled() => {}
            }
        }
        let full = async {
            while self.queue.len() < self.queue.batch {
                self.queue.grown.notified().await;
            }
        };
        tokio::select! {
            () = full => {}
            () = sleep(self.wait) => {}
            () = self.closing.cancelled() => {}
        }
        !self.abort.is_cancelled()
    }

    async fn send(&self, batch: Vec<SpanData>) {
        let (count, meters) = (batch.len(), &self.queue.meters);
        let sent = timeout(self.timeout, self.exporter.export(batch)).await;
        let answer = self.client.answer();
        match sent {
            Ok(Ok(())) => {
                let rejected = answer.rejected.min(count);
                meters.exported.inc_by((count - rejected) as u64);
                match rejected {
                    0 => meters.recovered(&self.endpoint),
                    _ => {
                        meters.lost(rejected, Lost::Rejected);
                        meters.failing(&self.endpoint, &answer.why);
                    }
                }
            }
            Ok(Err(error)) => {
                let lost = match answer.refused {
                    true => Lost::Rejected,
                    false => Lost::Export,
                };
                meters.lost(count, lost);
                match &*answer.why {
                    "" => meters.failing(&self.endpoint, &error.to_string()),
                    why => meters.failing(&self.endpoint, why),
                }
            }
            Err(_) => {
                meters.lost(count, Lost::Export);
                let patience = humantime::format_duration(self.timeout);
                meters.failing(&self.endpoint, &format!("no answer within {patience}"));
            }
        }
    }
}

fn exporter(
    settings: &Settings,
    client: &Arc<Client>,
) -> Result<opentelemetry_otlp::SpanExporter, String> {
    let mut exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_shared_http_client(Arc::clone(client) as _)
        .with_endpoint(settings.endpoint.to_string())
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(settings.timeout)
        .build()
        .map_err(|e| e.to_string())?;
    exporter.set_resource(&resource(settings));
    Ok(exporter)
}

/// What this process is: what is said later holds.
fn resource(settings: &Settings) -> Resource {
    let given = settings.resource.iter();
    let given = given.map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let name = settings.service_name.iter();
    let name = name.map(|name| KeyValue::new("service.name", name.clone()));
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attribute(KeyValue::new("service.name", SERVICE_NAME))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_detector(Box::new(EnvResourceDetector::new()))
        .with_attributes(given)
        .with_attributes(name)
        .build()
}

/// Whether tracing systems can read a `tracestate`.
fn is_state(text: &str) -> bool {
    text.parse::<TraceState>().is_ok()
}
