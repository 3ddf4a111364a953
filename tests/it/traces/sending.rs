//! Spans on their way to a receiver that is away, slow, full or particular, and whom no review waits
//! for.

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message;
use rstest::rstest;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::asked;
use super::receiver::{Receiver, read, taken};
use crate::harness::certificates::Authority;
use crate::harness::{Fake, Home, Protocol, Reply, Sidecar, eventually, with};

async fn decide(sidecar: &Sidecar, count: usize) {
    let mut connection = sidecar.connect(Protocol::Http1).await;
    for _ in 0..count {
        let answer = connection.send(asked(&[])).await.unwrap();
        answer.assert_allowed();
    }
}

/// What the log says of a receiver that does not take spans.
async fn failing(sidecar: &Sidecar) -> Value {
    sidecar.logged("traces are not exported").await
}

#[tokio::test]
async fn what_waits_is_sent_before_the_process_ends() {
    let receiver = Receiver::start().await;
    let more = json!({"tracing": {"otlp": {"batchMaxWait": "60s", "batchMaxSize": 4}}});
    let sidecar = Sidecar::start(with(receiver.keys(), more)).await;
    decide(&sidecar, 10).await;
    receiver.has(8).await;
    sidecar.counted("trace_spans_waiting", 2.0).await;
    sidecar.counted("trace_spans_exported_total", 8.0).await;
    sidecar.stop().await;
    assert_eq!(receiver.spans().len(), 10);
    let sizes: Vec<usize> = receiver
        .0
        .calls()
        .iter()
        .map(|call| read(call).len())
        .collect();
    assert_eq!(sizes, [4, 4, 2]);
}

#[tokio::test]
async fn a_receiver_that_is_away_costs_spans_and_nothing_else() {
    let receiver = Receiver::start().await;
    let keys = receiver.keys();
    let gone = receiver.0.restart(|_| Reply::HangUp).await;
    let more = json!({"tracing": {"otlp": {"timeout": "200ms"}}});
    let sidecar = Sidecar::start(with(keys, more)).await;
    decide(&sidecar, 3).await;
    eventually("the loss is counted", async || {
        sidecar
            .metric("trace_spans_dropped_total{reason=\"export\"}")
            .await
            == 3.0
    })
    .await;
    let told = failing(&sidecar).await;
    assert_eq!(told["level"], "WARN");

    let back = Receiver(gone.restart(|_| taken()).await);
    decide(&sidecar, 1).await;
    back.has(1).await;
    sidecar.logged("traces are exported again").await;
    let failing = sidecar
        .log()
        .into_iter()
        .filter(|line| line["message"] == "traces are not exported");
    assert_eq!(failing.count(), 1);
}

#[tokio::test]
async fn a_failure_that_passes_costs_nothing() {
    let failures = std::sync::atomic::AtomicUsize::new(2);
    let receiver = Receiver::that(move |_| {
        use std::sync::atomic::Ordering::Relaxed;
        let left = failures.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        match left {
            Ok(_) => Reply::text(503, "text/plain", "not yet"),
            Err(_) => taken(),
        }
    })
    .await;
    let sidecar = Sidecar::start(receiver.keys()).await;
    decide(&sidecar, 1).await;
    sidecar.counted("trace_spans_exported_total", 1.0).await;
    assert_eq!(receiver.0.calls().len(), 3);
}

#[tokio::test]
async fn a_receiver_that_never_answers_holds_up_no_review_and_no_end() {
    let receiver = Receiver::that(|_| Reply::Silence).await;
    let otlp = json!({"timeout": "60s", "queueSize": 5, "batchMaxSize": 2, "batchMaxWait": "60s"});
    let more = json!({"tracing": {"otlp": otlp}});
    let mut sidecar = Sidecar::start(with(receiver.keys(), more)).await;
    let begun = Instant::now();
    decide(&sidecar, 50).await;
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    // One request is on its way, the queue is full, and the rest is gone.
    eventually("the rest is gone", async || {
        let metric = async |name| sidecar.metric(name).await;
        let waiting = metric("trace_spans_waiting").await;
        let dropped = metric("trace_spans_dropped_total{reason=\"queue_full\"}").await;
        waiting == 5.0 && dropped == 43.0
    })
    .await;
    let begun = Instant::now();
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.exit_code().await, Some(0));
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    let told = "the receiver of traces was too slow, and the last spans are lost";
    sidecar.logged(told).await;
}

#[rstest]
#[case::refused(400, Vec::new(), 4.0, 0.0)]
#[case::unauthenticated(401, Vec::new(), 4.0, 0.0)]
#[case::in_part(200, partial(3), 3.0, 1.0)]
#[tokio::test]
async fn what_a_receiver_refuses_is_counted_and_not_sent_again(
    #[case] status: u16,
    #[case] body: Vec<u8>,
    #[case] rejected: f64,
    #[case] exported: f64,
) {
    let receiver =
        Receiver::that(move |_| Reply::text(status, "application/x-protobuf", body.clone())).await;
    let more = json!({"tracing": {"otlp": {"batchMaxWait": "60s", "batchMaxSize": 4}}});
    let sidecar = Sidecar::start(with(receiver.keys(), more)).await;
    decide(&sidecar, 4).await;
    sidecar
        .counted("trace_spans_dropped_total{reason=\"rejected\"}", rejected)
        .await;
    sidecar
        .counted("trace_spans_exported_total", exported)
        .await;
    assert_eq!(receiver.0.calls().len(), 1);
    let why = failing(&sidecar).await["why"].clone();
    let said = if status == 200 {
        "it rejected spans: too old"
    } else {
        "HTTP 4"
    };
    assert!(why.as_str().unwrap().starts_with(said), "{why}");
}

fn partial(rejected_spans: i64) -> Vec<u8> {
    let partial_success = Some(ExportTracePartialSuccess {
        rejected_spans,
        error_message: "too old".to_owned(),
    });
    ExportTraceServiceResponse { partial_success }.encode_to_vec()
}

#[tokio::test]
async fn a_receiver_is_trusted_and_shown_who_sends() {
    let (home, authority) = (Home::new(), Authority::new("receivers"));
    let tls = authority.server().server_config(Some(&authority));
    let receiver = Receiver(Fake::start_tls(tls, |_| taken()).await);
    let client = authority.client();
    let otlp = json!({
        "endpoint": receiver.0.url(),
        "caFile": home.write("ca.pem", authority.pem()),
        "clientCertFile": home.write("client.pem", &client.cert),
        "clientKeyFile": home.write("client.key", &client.key),
        "bearerTokenFile": home.write("token", "s3cret-token\n"),
        "headers": {"x-scope-orgid": "platform"},
        "headerFiles": {"x-api-key": home.write("key", "s3cret-key\n")},
        "compression": "gzip",
        "serviceName": "gate",
        "resourceAttributes": {"deployment.environment.name": "prod"},
        "batchMaxWait": "20ms",
    });
    let keys = json!({"tls": "off", "tracing": {"otlp": otlp}, "log": {"format": "json", "level": "trace"}});
    let sidecar = Sidecar::start_in(home, keys).await;
    decide(&sidecar, 1).await;
    let spans = receiver.has(1).await;
    let call = receiver.0.call();
    assert!(call.certificate);
    assert_eq!(call.target, "/v1/traces");
    assert_eq!(call.header("authorization"), Some("Bearer s3cret-token"));
    assert_eq!(call.header("x-scope-orgid"), Some("platform"));
    assert_eq!(call.header("x-api-key"), Some("s3cret-key"));
    assert_eq!(call.header("content-encoding"), Some("gzip"));
    assert_eq!(
        call.header("user-agent"),
        Some(concat!("dstack-admission/", env!("CARGO_PKG_VERSION")))
    );
    let resource = |key: &str| spans[0].resource.get(key).map_or("", |text| text);
    assert_eq!(resource("service.name"), "gate");
    assert_eq!(resource("service.version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(resource("deployment.environment.name"), "prod");
    let said = format!(
        "{:?}{}",
        sidecar.log(),
        sidecar.admin("/configz").await.text()
    );
    assert!(!said.contains("s3cret"), "{said}");
}

#[tokio::test]
async fn the_variables_of_opentelemetry_hold_without_a_section() {
    let receiver = Receiver::start().await;
    let variables = format!(
        "export OTEL_EXPORTER_OTLP_ENDPOINT={}/base OTEL_EXPORTER_OTLP_HEADERS=api-key=k1,x=a%20b OTEL_SERVICE_NAME=gate \
         OTEL_RESOURCE_ATTRIBUTES=k8s.pod.name=p1,service.name=other OTEL_BSP_SCHEDULE_DELAY=20",
        receiver.0.url()
    );
    let sidecar = Sidecar::start_in(Home::under(variables.leak()), json!({"tls": "off"})).await;
    decide(&sidecar, 1).await;
    let spans = receiver.has(1).await;
    let call = receiver.0.call();
    assert_eq!(call.target, "/base/v1/traces");
    assert_eq!(
        (call.header("api-key"), call.header("x")),
        (Some("k1"), Some("a b"))
    );
    let resource = |key: &str| spans[0].resource.get(key).map_or("", |text| text);
    assert_eq!(
        (resource("service.name"), resource("k8s.pod.name")),
        ("gate", "p1")
    );
}

#[tokio::test]
async fn a_reload_changes_where_spans_go_and_loses_none() {
    let (first, second) = (Receiver::start().await, Receiver::start().await);
    let slow = json!({"tracing": {"otlp": {"batchMaxWait": "60s"}}});
    let sidecar = Sidecar::start(with(first.keys(), slow)).await;
    decide(&sidecar, 2).await;
    sidecar.home.configure(&second.keys());
    sidecar.signal(Signal::HUP);
    sidecar
        .counted("config_reload_total{result=\"success\"}", 1.0)
        .await;
    first.has(2).await;
    decide(&sidecar, 1).await;
    second.has(1).await;

    sidecar.home.configure(&json!({"tls": "off"}));
    sidecar.signal(Signal::HUP);
    sidecar
        .counted("config_reload_total{result=\"success\"}", 2.0)
        .await;
    decide(&sidecar, 1).await;
    sidecar.stop().await;
    assert_eq!((first.spans().len(), second.spans().len()), (2, 1));
}
