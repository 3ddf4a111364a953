//! The spans of a review: their parents, times, names and attributes, and what plugins are told.

use std::fmt::Write as _;

use rstest::rstest;
use serde_json::{Value, json};

use super::receiver::{Receiver, Span};
use super::{SAMPLED, TRACE, asked};
use crate::harness::{Fake, Gate, Reply, Sidecar, eventually, tags, with};

/// The trace as a person draws it: spans below their parents, in the order of their beginning.
fn drawn(spans: &[Span]) -> String {
    let mut picture = String::new();
    let is_root = |span: &&Span| !spans.iter().any(|other| other.id() == span.parent());
    for root in spans.iter().filter(is_root) {
        draw(root, spans, 0, &mut picture);
    }
    picture
}

fn draw(span: &Span, spans: &[Span], depth: usize, picture: &mut String) {
    let kind = match span.span.kind {
        1 => "internal",
        2 => "server",
        3 => "client",
        other => panic!("kind {other}"),
    };
    let _ = write!(picture, "{}{} ({kind}", "  ".repeat(depth), span.span.name);
    if let Some(error) = span.error() {
        let _ = write!(picture, ", error: {error}");
    }
    let own = span.attributes.iter();
    let own = own.filter(|(key, _)| {
        !["audit_id", "configuration", "port", "host"]
            .iter()
            .any(|end| key.ends_with(end))
    });
    let own: Vec<_> = own
        .map(|(key, value)| format!("{}={value}", key.trim_start_matches("dstack_admission.")))
        .collect();
    let _ = writeln!(picture, ") {}", own.join(" "));
    for child in spans.iter().filter(|child| child.parent() == span.id()) {
        draw(child, spans, depth + 1, picture);
    }
}

fn named<'s>(spans: &'s [Span], name: &str) -> &'s Span {
    let found = spans.iter().find(|span| span.span.name == name);
    found.unwrap_or_else(|| panic!("no `{name}` among {spans:#?}"))
}

#[tokio::test]
async fn a_review_is_a_span_and_each_plugin_a_child() {
    let receiver = Receiver::start().await;
    let (allowing, tagging) = (
        Fake::start(|seen| seen.allowed()).await,
        Fake::start(tags("by", "us")).await,
    );
    let answering = Fake::start(|seen| seen.answered(|_| {})).await;
    let watching = Fake::denying("never").await;
    let rule = json!({"name": "house-rules", "cel": {"validations": [{"expression": "true"}]}});
    let elsewhere = json!({"name": "elsewhere", "match": {"conditions": [{"name": "big", "expression": "false"}]}, "cel": {"validations": [{"expression": "false"}]}});
    let plugins = json!([
        {"fanOut": [allowing.webhook("quota"), tagging.webhook("tagging")]},
        answering.rest("legacy"),
        rule,
        elsewhere,
        with(watching.webhook("new-rule"), json!({"mode": "monitor"})),
    ]);
    let keys = with(receiver.keys(), json!({"plugins": plugins}));
    let sidecar = Sidecar::start(keys).await;
    let answer = sidecar
        .send(asked(&[("traceparent", SAMPLED), ("tracestate", "a=1")]))
        .await;
    answer.assert_allowed();
    let spans = receiver.has(7).await;
    insta::assert_snapshot!(drawn(&spans), @r"
    POST /apply_policies/on_run_apply (server) decision=patched kind=run project=main http.request.method=POST http.response.status_code=200 http.route=/apply_policies/on_run_apply url.path=/apply_policies/on_run_apply url.scheme=http user.name=alice
      plugin quota (client) plugin.kind=webhook plugin.mode=enforce plugin.name=quota plugin.phase=mutating plugin.verdict=allowed http.request.method=POST server.address=127.0.0.1
      plugin tagging (client) plugin.kind=webhook plugin.mode=enforce plugin.name=tagging plugin.phase=mutating plugin.verdict=patched http.request.method=POST server.address=127.0.0.1
      plugin legacy (client) plugin.kind=rest plugin.mode=enforce plugin.name=legacy plugin.phase=mutating plugin.verdict=allowed http.request.method=POST server.address=127.0.0.1
      plugin house-rules (internal) plugin.kind=cel plugin.mode=enforce plugin.name=house-rules plugin.phase=validating plugin.verdict=allowed
      plugin elsewhere (internal) plugin.kind=cel plugin.mode=enforce plugin.name=elsewhere plugin.phase=validating plugin.verdict=skipped
      plugin new-rule (client) plugin.kind=webhook plugin.mode=monitor plugin.name=new-rule plugin.phase=mutating plugin.verdict=denied http.request.method=POST server.address=127.0.0.1
    ");
    assert!(
        spans
            .iter()
            .all(|span| span.trace() == TRACE && span.span.trace_state == "a=1")
    );
    let review = &spans[0];
    assert_eq!(review.parent(), "00f067aa0ba902b7");
    assert_eq!(
        review.attribute("dstack_admission.audit_id"),
        answer.decision()
    );

    // What is called goes on with the span of its own call.
    for (fake, name) in [
        (&allowing, "quota"),
        (&tagging, "tagging"),
        (&answering, "legacy"),
        (&watching, "new-rule"),
    ] {
        let span = named(&spans, &format!("plugin {name}"));
        assert_eq!(span.parent(), review.id());
        let call = fake.call();
        assert_eq!(
            call.header("traceparent").unwrap(),
            format!("00-{TRACE}-{}-01", span.id())
        );
        assert_eq!(call.header("tracestate"), Some("a=1"));
        assert_eq!(
            span.attribute("server.port"),
            fake.address.port().to_string()
        );
    }

    // A decision leads to its trace, and what was said after it too.
    eventually("both are recorded", async || sidecar.audit().len() == 2).await;
    for event in sidecar.audit() {
        assert_eq!(event["traceID"], TRACE);
        assert_eq!(
            event["configuration"],
            review.attribute("dstack_admission.configuration")
        );
    }
    assert_eq!(sidecar.logged("decided").await["trace_id"], TRACE);
}

#[tokio::test]
async fn spans_last_as_long_as_what_they_are_about() {
    let receiver = Receiver::start().await;
    let gate = Gate::closed();
    let held = |gate: &Gate| {
        let gate = gate.clone();
        Fake::start(move |seen| seen.allowed().when(&gate))
    };
    let (one, other) = (held(&gate).await, held(&gate).await);
    let late = Gate::closed();
    let watching = held(&late).await;
    let plugins = json!([
        {"fanOut": [one.webhook("one"), other.webhook("other")]},
        with(watching.webhook("late"), json!({"mode": "monitor"})),
    ]);
    let sidecar = Sidecar::start(with(receiver.keys(), json!({"plugins": plugins}))).await;
    let opening = async {
        eventually("both are asked", async || {
            one.calls().len() + other.calls().len() == 2
        })
        .await;
        gate.open();
    };
    let (answer, ()) = tokio::join!(sidecar.send(asked(&[])), opening);
    answer.assert_allowed();
    eventually("the last is asked", async || watching.calls().len() == 1).await;
    late.open();
    let spans = receiver.has(4).await;
    let [review, one, other, late] = [
        "POST /apply_policies/on_run_apply",
        "plugin one",
        "plugin other",
        "plugin late",
    ]
    .map(|name| named(&spans, name).time());
    for inner in [&one, &other] {
        assert!(
            review.start <= inner.start && inner.end <= review.end,
            "{spans:#?}"
        );
    }
    assert!(
        one.start < other.end && other.start < one.end,
        "they overlap"
    );
    assert!(
        late.start >= other.end && late.end > review.end,
        "it came after the answer"
    );
}

#[rstest]
#[case::a_denial_is_none(Reply::Silence, json!({"cel": {"validations": [{"expression": "false", "message": "secret words"}]}}), None, None)]
#[case::a_plugin_that_failed(Reply::HangUp, json!({}), Some("transport"), Some("transport"))]
#[case::a_plugin_that_failed_open(Reply::HangUp, json!({"failurePolicy": "Ignore"}), None, Some("transport"))]
#[tokio::test]
async fn an_error_is_what_failed(
    #[case] reply: Reply,
    #[case] more: Value,
    #[case] of_review: Option<&str>,
    #[case] of_plugin: Option<&str>,
) {
    let reply = std::sync::Mutex::new(Some(reply));
    let fake = Fake::start(move |_| reply.lock().unwrap().take().unwrap_or(Reply::HangUp)).await;
    let plugin = match more.get("cel") {
        Some(_) => with(json!({"name": "it"}), more),
        None => with(fake.webhook("it"), more),
    };
    let receiver = Receiver::start().await;
    let sidecar = Sidecar::start(with(receiver.keys(), json!({"plugins": [plugin]}))).await;
    sidecar.send(asked(&[])).await;
    let spans = receiver.has(2).await;
    let (review, plugin) = (&spans[0], named(&spans, "plugin it"));
    assert_eq!(
        (review.error().as_deref(), plugin.error().as_deref()),
        (of_review, of_plugin)
    );
    assert_eq!(
        plugin.attribute("error.type"),
        of_plugin.unwrap_or_default()
    );
    let open = plugin.attribute("dstack_admission.plugin.failed_open") == "true";
    assert_eq!(open, of_review.is_none() && of_plugin.is_some());
    assert!(!format!("{spans:?}").contains("secret words"));
}

#[tokio::test]
async fn a_request_never_has_two_traceparents() {
    let receiver = Receiver::start().await;
    let fake = Fake::start(|seen| seen.allowed()).await;
    let listed = json!({"webhook": {"forwardHeaders": ["traceparent", "tracestate", "baggage"]}});
    let plugins = json!([with(fake.webhook("it"), listed)]);
    let sidecar = Sidecar::start(with(receiver.keys(), json!({"plugins": plugins}))).await;
    let request = asked(&[
        ("traceparent", SAMPLED),
        ("tracestate", "a=1"),
        ("tracestate", "b=2"),
        ("baggage", "x=1"),
    ]);
    sidecar.send(request).await.assert_allowed();
    let spans = receiver.has(2).await;
    let call = fake.call();
    let sent: Vec<_> = call.headers.get_all("traceparent").iter().collect();
    assert_eq!(
        sent,
        [&format!(
            "00-{TRACE}-{}-01",
            named(&spans, "plugin it").id()
        )]
    );
    let sent: Vec<_> = call.headers.get_all("tracestate").iter().collect();
    assert_eq!(sent, ["a=1,b=2"]);
    assert_eq!(call.header("baggage"), Some("x=1"));
}

#[rstest]
#[case::none(&[])]
#[case::no_hex(&[("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01")])]
#[case::zeros(&[("traceparent", "00-00000000000000000000000000000000-00f067aa0ba902b7-01")])]
#[case::two(&[("traceparent", SAMPLED), ("traceparent", SAMPLED)])]
#[case::state_alone(&[("tracestate", "a=1")])]
#[tokio::test]
async fn without_a_valid_parent_a_trace_begins(#[case] headers: &[(&'static str, &str)]) {
    let receiver = Receiver::start().await;
    let sidecar = Sidecar::start(receiver.keys()).await;
    sidecar.send(asked(headers)).await.assert_allowed();
    sidecar.send(asked(headers)).await.assert_allowed();
    let spans = receiver.has(2).await;
    assert!(
        spans
            .iter()
            .all(|span| span.parent().is_empty() && span.trace() != TRACE)
    );
    assert!(spans.iter().all(|span| span.span.trace_state.is_empty()));
    assert_ne!(spans[0].trace(), spans[1].trace());
}

#[rstest]
#[case::as_the_caller_decided(json!({}), "00", false)]
#[case::a_part_is_for_those_that_begin(json!({"samplerRatio": 0.0}), "01", true)]
#[case::all_whatever_the_caller_says(json!({"sampler": "always_on"}), "00", true)]
#[case::none_whatever_the_caller_says(json!({"sampler": "always_off"}), "01", false)]
#[case::a_part_whatever_the_caller_says(json!({"sampler": "traceidratio", "samplerRatio": 1.0}), "00", true)]
#[tokio::test]
async fn a_sampler_decides(#[case] more: Value, #[case] flags: &str, #[case] sampled: bool) {
    let receiver = Receiver::start().await;
    let fake = Fake::start(|seen| seen.allowed()).await;
    let more = json!({"tracing": {"otlp": more}, "plugins": [fake.webhook("it")]});
    let sidecar = Sidecar::start(with(receiver.keys(), more)).await;
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-{flags}");
    sidecar
        .send(asked(&[("traceparent", &parent)]))
        .await
        .assert_allowed();
    let told = fake.call().header("traceparent").unwrap().to_owned();
    assert!(told.starts_with(&format!("00-{TRACE}-")) && !told.contains("00f067aa0ba902b7"));
    assert!(
        told.ends_with(if sampled { "-01" } else { "-00" }),
        "{told}"
    );
    // Once it has ended there is nothing more to come.
    sidecar.stop().await;
    assert_eq!(receiver.spans().len(), if sampled { 2 } else { 0 });
}
