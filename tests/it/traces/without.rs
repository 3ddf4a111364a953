//! A binary that cannot send traces.

use serde_json::json;

use super::{SAMPLED, TRACE, asked};
use crate::harness::{Fake, Home, Sidecar, with};

#[tokio::test]
async fn a_section_is_refused_and_not_ignored() {
    let (code, said) = Home::new().refused(&json!({"tls": "off", "tracing": {"otlp": {}}}));
    assert_eq!(code, Some(2));
    assert!(
        said.contains("tracing.otlp: this binary was built without the feature `otlp`"),
        "{said}"
    );
}

#[tokio::test]
async fn a_variable_that_does_nothing_is_told_of() {
    let home = Home::under("export OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1");
    let sidecar = Sidecar::start_in(home, json!({"tls": "off"})).await;
    let told = |line: &serde_json::Value| {
        line["message"].as_str().is_some_and(|text| {
            text.contains("OTEL_EXPORTER_OTLP_ENDPOINT is set")
                && text.contains("no traces are sent")
        })
    };
    sidecar.log_line("the variable", told).await;
}

#[tokio::test]
async fn a_trace_is_recorded_and_passed_on_where_it_is_asked_for() {
    let (told, untold) = (
        Fake::start(|seen| seen.allowed()).await,
        Fake::start(|seen| seen.allowed()).await,
    );
    let listed = with(
        told.webhook("told"),
        json!({"webhook": {"forwardHeaders": ["traceparent", "tracestate"]}}),
    );
    let sidecar = Sidecar::with_plugins([listed, untold.webhook("untold")]).await;
    let request = asked(&[("traceparent", SAMPLED), ("tracestate", "a=1")]);
    let answer = sidecar.send(request).await;
    answer.assert_allowed();
    let call = told.call();
    assert_eq!(
        (call.header("traceparent"), call.header("tracestate")),
        (Some(SAMPLED), Some("a=1"))
    );
    assert_eq!(untold.call().header("traceparent"), None);
    assert_eq!(sidecar.audit()[0]["traceID"], TRACE);
    assert_eq!(sidecar.logged("decided").await["trace_id"], TRACE);

    sidecar
        .send(asked(&[("traceparent", "00-no-trace-01")]))
        .await
        .assert_allowed();
    assert_eq!(sidecar.audit()[1].get("traceID"), None);
}
