//! A receiver of OTLP over HTTP that reads what is sent with the protocol's own types.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1;
use prost::Message;
use serde_json::{Value, json};

use crate::harness::{Fake, Reply, Seen, eventually};

/// A running receiver.
pub struct Receiver(pub Fake);

/// One span, as it was sent.
#[derive(Clone, Debug)]
pub struct Span {
    pub span: v1::Span,
    pub attributes: BTreeMap<String, String>,
    pub resource: BTreeMap<String, String>,
}

impl Receiver {
    /// One that takes everything.
    pub async fn start() -> Self {
        Self(Fake::start(|_| taken()).await)
    }

    pub async fn that(behaviour: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self(Fake::start(behaviour).await)
    }

    pub fn endpoint(&self) -> String {
        format!("{}/v1/traces", self.0.url())
    }

    /// The keys that send spans here, soon.
    pub fn keys(&self) -> Value {
        let otlp = json!({"endpoint": self.endpoint(), "batchMaxWait": "20ms"});
        json!({"tls": "off", "tracing": {"otlp": otlp}})
    }

    /// Every span it got, in the order of their beginning.
    pub fn spans(&self) -> Vec<Span> {
        let mut spans: Vec<Span> = self.0.calls().iter().flat_map(read).collect();
        spans.sort_by_key(|span| (span.span.start_time_unix_nano, span.span.kind != 2));
        spans
    }

    /// Waits until there are so many spans.
    pub async fn has(&self, count: usize) -> Vec<Span> {
        let what = format!("{count} spans have come");
        eventually(&what, async || self.spans().len() >= count).await;
        let spans = self.spans();
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }
}

impl Span {
    pub fn id(&self) -> String {
        hex(&self.span.span_id)
    }

    pub fn trace(&self) -> String {
        hex(&self.span.trace_id)
    }

    pub fn parent(&self) -> String {
        hex(&self.span.parent_span_id)
    }

    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", |text| text)
    }

    /// The words of its status, if it is an error.
    pub fn error(&self) -> Option<String> {
        let status = self.span.status.clone().unwrap_or_default();
        (status.code == v1::status::StatusCode::Error as i32).then_some(status.message)
    }

    pub fn time(&self) -> std::ops::Range<u64> {
        self.span.start_time_unix_nano..self.span.end_time_unix_nano
    }
}

/// The answer to what is taken.
pub fn taken() -> Reply {
    Reply::text(200, "application/x-protobuf", "")
}

/// The spans of one request.
pub fn read(seen: &Seen) -> Vec<Span> {
    assert_eq!(seen.header("content-type"), Some("application/x-protobuf"));
    let mut bytes = seen.bytes.to_vec();
    if seen.header("content-encoding") == Some("gzip") {
        bytes.clear();
        GzDecoder::new(&*seen.bytes)
            .read_to_end(&mut bytes)
            .unwrap();
    }
    let request = ExportTraceServiceRequest::decode(&*bytes).unwrap();
    let mut spans = Vec::new();
    for of_resource in request.resource_spans {
        let resource = texts(&of_resource.resource.unwrap().attributes);
        for of_scope in of_resource.scope_spans {
            assert_eq!(of_scope.scope.unwrap().name, "dstack-admission");
            let span = |span: v1::Span| Span {
                attributes: texts(&span.attributes),
                resource: resource.clone(),
                span,
            };
            spans.extend(of_scope.spans.into_iter().map(span));
        }
    }
    spans
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.clone().unwrap().value.unwrap() {
        any_value::Value::StringValue(text) => text,
        any_value::Value::IntValue(number) => number.to_string(),
        any_value::Value::BoolValue(is) => is.to_string(),
        other => panic!("{other:?}"),
    };
    let pair = |pair: &KeyValue| (pair.key.clone(), text(&pair.value));
    attributes.iter().map(pair).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
