//! What is left of a decision: the audit record, metrics, and what the admin port shows. Secrets are in none.

use std::os::unix::fs::PermissionsExt;

use rstest::rstest;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::sidecar::{RUN, SPEC, metrics};
use crate::harness::{Fake, Home, Reply, Seen, Sidecar, eventually, with};

#[rstest]
#[tokio::test]
async fn each_decision_is_one_line_of_a_private_audit_file(
    #[values("batch", "blocking", "blocking-strict")] mode: &str,
) {
    let home = Home::new();
    let sink = json!({"file": {"path": home.path("audit.log"), "mode": mode}});
    let keys = json!({"tls": "off", "audit": {"level": "Spec", "sinks": [sink]}});
    let sidecar = Sidecar::start_in(home, keys).await;
    let reviews = futures_util::future::join_all((0..20).map(|_| sidecar.review(SPEC))).await;
    eventually("all are written", async || sidecar.audit().len() == 20).await;
    let audit = sidecar.audit();
    for answer in &reviews {
        let id = json!(answer.decision());
        assert_eq!(
            audit.iter().filter(|event| event["auditID"] == id).count(),
            1
        );
    }
    let event = &audit[0];
    assert_eq!(event["user"]["username"], "alice");
    let object =
        json!({"apiGroup": "dstack.ai", "resource": "runs", "namespace": "main", "name": "r1"});
    assert_eq!(event["objectRef"], object);
    let file = std::fs::metadata(sidecar.home.path("audit.log")).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    sidecar.counted("audit_event_total", 20.0).await;
}

#[tokio::test]
async fn audit_to_standard_output_ends_with_the_last_decision() {
    let mut sidecar =
        Sidecar::start(json!({"tls": "off", "audit": {"sinks": [{"stdout": {}}]}})).await;
    let id = sidecar.review(SPEC).await.decision();
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.exit_code().await, Some(0));
    let [_, record] = &sidecar.stdout()[..] else {
        panic!("{:?}", sidecar.stdout());
    };
    let event: Value = serde_json::from_str(record).unwrap();
    assert_eq!(event["auditID"], json!(id));
}

/// On a disk that is full.
#[rstest]
#[case::strict("blocking-strict", true)]
#[case::blocking("blocking", false)]
#[tokio::test]
async fn a_record_that_cannot_be_written_denies_only_where_it_must_be_there(
    #[case] mode: &str,
    #[case] denied: bool,
) {
    let sink = json!({"file": {"path": "/dev/full", "mode": mode}});
    let mut sidecar = Sidecar::start(json!({"tls": "off", "audit": {"sinks": [sink]}})).await;
    let answer = sidecar.review(SPEC).await;
    assert_eq!(answer.spec(), SPEC);
    match answer.error() {
        Some(error) => assert!(
            denied && error.contains("its audit record could not be written"),
            "{error}"
        ),
        None => assert!(!denied),
    }
    sidecar
        .counted("audit_error_total{sink=\"/dev/full\"}", 1.0)
        .await;
    assert_eq!(sidecar.metric("audit_event_total").await, 1.0);
    let failed = sidecar.metric("request_failed_total").await;
    assert_eq!(failed, f64::from(u8::from(denied)));

    // The log has one line, which says what was answered.
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.exit_code().await, Some(0));
    let id = answer.decision();
    let log = sidecar.log();
    let of_it = |line: &&Value| line["message"] == "decided" && line["id"] == *id;
    let lines: Vec<_> = log.iter().filter(of_it).collect();
    let said = if denied { "denied" } else { "allowed" };
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["decision"], said);
    assert_eq!(lines[0]["why"].as_str(), answer.error().as_deref());
}

#[tokio::test]
async fn secrets_of_a_spec_reach_neither_audit_nor_log() {
    let spec = r#"{"configuration": {"type": "task", "env": {"HF_TOKEN": "hf-s3cret"}, "registry_auth": {"username": "u", "password": "reg-s3cret"}}}"#;
    let patch =
        json!([{"op": "add", "path": "/spec/configuration/env/KEY", "value": "key-s3cret"}]);
    let fake = Fake::start(move |seen| seen.patched(patch.clone())).await;
    let home = Home::new();
    let sink = json!({"file": {"path": home.path("audit.log")}});
    let keys = json!({
        "tls": "off", "audit": {"level": "Spec", "sinks": [sink]}, "plugins": [fake.webhook("env")],
        "log": {"format": "json", "level": "trace"},
    });
    let sidecar = Sidecar::start_in(home, keys).await;
    let answer = sidecar.review(spec).await;
    assert!(answer.assert_allowed().spec().contains("key-s3cret"));
    sidecar.logged("decided").await;
    let said = format!("{:?}{:?}", sidecar.audit(), sidecar.log());
    assert!(!said.contains("s3cret"), "{said}");
}

#[tokio::test]
async fn the_admin_port_shows_what_is_in_force_and_no_secret() {
    let home = Home::new();
    let fake = Fake::start(|_| Reply::Silence).await;
    let remote = json!({
        "url": format!("{}/hook?key=s3cret-query", fake.url()),
        "basic": {"username": "u", "passwordFile": home.write("plugin-password", "s3cret-plugin")},
    });
    let auth = json!({"basic": {"username": "dstack", "passwordFile": home.write("password", "s3cret-auth")}});
    let keys =
        json!({"auth": auth, "plugins": [{"name": "judge", "timeout": "1s", "webhook": remote}]});
    let sidecar = Sidecar::start_in(home, keys).await;
    assert_eq!(sidecar.admin("/livez").await.text(), "ok\n");
    assert_eq!(sidecar.admin("/readyz").await.text(), "ok\n");
    let configz = sidecar.admin("/configz").await;
    assert_eq!(configz.json()["plugins"][0]["name"], "judge");
    assert_eq!(configz.json()["plugins"][0]["failurePolicy"], "Fail");
    for path in ["/configz", "/metrics", "/", "/debug"] {
        let shown = sidecar.admin(path).await;
        assert!(!shown.text().contains("s3cret"), "{path}: {}", shown.text());
    }
    assert_eq!(sidecar.admin("/").await.status, 404);
}

#[tokio::test]
async fn metrics_are_prometheus_text_with_help_for_each() {
    let fake = Fake::denying("no").await;
    let mut sidecar = Sidecar::start(json!({"plugins": [fake.webhook("judge")]})).await;
    sidecar.review(SPEC).await;
    let answer = sidecar.admin("/metrics").await;
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; version=0.0.4")
    );
    let samples = metrics(answer.text());
    for name in [
        "dstack_admission_request_total{decision=\"denied\",kind=\"run\"}",
        "dstack_admission_request_duration_seconds_count{kind=\"run\"}",
        "dstack_admission_plugin_duration_seconds_count{kind=\"run\",phase=\"mutating\",plugin=\"judge\",rejected=\"true\"}",
        "dstack_admission_plugin_rejection_total{error_type=\"no_error\",kind=\"run\",plugin=\"judge\"}",
        "dstack_admission_certificate_expiration_timestamp_seconds{certificate=\"server\"}",
        "process_resident_memory_bytes",
    ] {
        assert!(
            samples.get(name).is_some_and(|value| *value > 0.0),
            "{name}:\n{}",
            answer.text()
        );
    }
    for line in answer
        .text()
        .lines()
        .filter(|line| line.starts_with("# TYPE "))
    {
        let name = line.split(' ').nth(2).unwrap();
        assert!(answer.text().contains(&format!("# HELP {name} ")), "{name}");
    }
    assert!(sidecar.ended().is_none());
}

#[tokio::test]
async fn projects_are_counted_only_where_asked_and_so_many_at_most() {
    let review =
        |project: &str| format!(r#"{{"user": "u", "project": "{project}", "spec": {SPEC}}}"#);
    let quiet = Sidecar::start(json!({"tls": "off"})).await;
    quiet.post(RUN, review("a")).await;
    assert!(!quiet.admin("/metrics").await.text().contains("project"));

    let sidecar = Sidecar::start(json!({"tls": "off", "metrics": {"projects": 2}})).await;
    let long = "x".repeat(51);
    for project in ["a", "no name", &long, "b", "c", "a", "d", "b"] {
        sidecar.post(RUN, review(project)).await.assert_allowed();
    }
    for (project, count) in [("a", 2.0), ("b", 2.0), ("(other)", 4.0)] {
        let name = format!("project_request_total{{decision=\"allowed\",project=\"{project}\"}}");
        assert_eq!(sidecar.metric(&name).await, count, "{project}");
    }
    let text = sidecar.admin("/metrics").await.text().to_owned();
    let series = text
        .matches("dstack_admission_project_request_total{")
        .count();
    assert_eq!(series, 9, "{text}");
}

/// A first event in a series that was not there before is no increase to Prometheus.
#[tokio::test]
async fn what_alerts_look_at_is_there_before_it_happens() {
    let fake = Fake::start(Seen::allowed).await;
    let open = with(
        fake.webhook("open"),
        json!({"failurePolicy": "Ignore", "match": {"kinds": ["run"]}}),
    );
    let trial = with(fake.webhook("trial"), json!({"mode": "monitor"}));
    let sidecar = Sidecar::start(json!({"tls": "off", "plugins": [open, trial]})).await;
    let text = sidecar.admin("/metrics").await.text().to_owned();
    let samples = metrics(&text);
    for name in [
        "connection_error_total{reason=\"handshake\"}",
        "http_error_total{code=\"401\"}",
        "plugin_breaker_open{plugin=\"open\"}",
        "plugin_fail_open_total{error_type=\"timeout\",kind=\"run\",plugin=\"open\"}",
        "plugin_rejection_total{error_type=\"no_error\",kind=\"run\",plugin=\"open\"}",
        "request_failed_total",
        "request_total{decision=\"denied\",kind=\"gateway\"}",
        "would_deny_total{kind=\"fleet\",plugin=\"trial\"}",
    ] {
        let value = samples.get(&format!("dstack_admission_{name}"));
        assert_eq!(value, Some(&0.0), "{name}:\n{text}");
    }
    assert!(!text.contains("kind=\"fleet\",plugin=\"open\""), "{text}");
    for info in [
        "failure_policy=\"Ignore\",mode=\"enforce\",plugin=\"open\",type=\"webhook\"",
        "failure_policy=\"Fail\",mode=\"monitor\",plugin=\"trial\",type=\"webhook\"",
    ] {
        assert_eq!(sidecar.metric(&format!("plugin_info{{{info}}}")).await, 1.0);
    }
    assert_eq!(sidecar.metric("deadline_seconds").await, 5.0);
    assert_eq!(sidecar.metric("in_flight_requests_limit").await, 256.0);
}

#[tokio::test]
async fn a_plugin_that_is_not_asked_for_now_is_shown() {
    let fake = Fake::start(|_| Reply::text(500, "text/plain", "")).await;
    let breaker = json!({"webhook": {"breaker": {"failures": 1, "openFor": "1h"}}});
    let sidecar =
        Sidecar::start(json!({"tls": "off", "plugins": [with(fake.webhook("judge"), breaker)]}))
            .await;
    assert_eq!(
        sidecar
            .metric("plugin_breaker_open{plugin=\"judge\"}")
            .await,
        0.0
    );
    sidecar.review(SPEC).await.denial();
    assert_eq!(
        sidecar
            .metric("plugin_breaker_open{plugin=\"judge\"}")
            .await,
        1.0
    );
}
