//! Records on their way to a receiver over HTTP, that answers, stalls, refuses and is away.

use std::time::{Duration, Instant};

use rstest::rstest;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::receiver::Receiver;
use super::{file_sink, id, with_sinks};
use crate::harness::certificates::Authority;
use crate::harness::sidecar::{RUN, SPEC, body, post};
use crate::harness::{Fake, Gate, Home, Protocol, Reply, Sidecar, eventually, with};

async fn decide(sidecar: &Sidecar, count: usize) -> Vec<String> {
    let mut connection = sidecar.connect(Protocol::Http1).await;
    let mut ids = Vec::new();
    for _ in 0..count {
        let answer = connection.send(post(RUN, body(SPEC))).await.unwrap();
        ids.push(answer.assert_allowed().decision());
    }
    ids
}

#[rstest]
#[case::loki("loki", json!({"job": "dstack-admission"}))]
#[case::ndjson("ndjson", Value::Null)]
#[tokio::test]
async fn a_receiver_gets_what_the_file_has_in_order(#[case] format: &str, #[case] labels: Value) {
    let (home, receiver) = (Home::new(), Receiver::start().await);
    let keys = with_sinks([file_sink(&home, "blocking"), receiver.sink(format)]);
    let sidecar = Sidecar::start_in(home, keys).await;
    let ids = decide(&sidecar, 50).await;
    receiver.has(50).await;
    assert_eq!(receiver.ids(), ids);
    let requests = receiver.requests();
    assert!(requests.len() < 25, "{} requests", requests.len());
    assert!(requests.iter().all(|(found, _)| *found == labels));
    let sent: Vec<_> = requests
        .into_iter()
        .flat_map(|(_, events)| events)
        .collect();
    assert_eq!(sent, sidecar.audit());
    sidecar
        .counted("audit_shipped_total{sink=\"there\"}", 50.0)
        .await;
    sidecar
        .counted("audit_spool_events{sink=\"there\"}", 0.0)
        .await;
}

#[tokio::test]
async fn labels_size_and_time_of_a_batch_are_as_configured() {
    let receiver = Receiver::start().await;
    let more =
        json!({"http": {"labels": {"cluster": "prod"}, "batchMaxSize": 10, "batchMaxWait": "60s"}});
    let sidecar = Sidecar::start(with_sinks([with(receiver.sink("loki"), more)])).await;
    decide(&sidecar, 25).await;
    receiver.has(20).await;
    for (labels, events) in receiver.requests() {
        assert_eq!((labels, events.len()), (json!({"cluster": "prod"}), 10));
    }
    // What is gathered does not wait for its time when the process ends.
    sidecar.stop().await;
    assert_eq!(receiver.ids().len(), 25);
}

#[tokio::test]
async fn a_receiver_is_trusted_and_shown_who_asks() {
    let (home, authority) = (Home::new(), Authority::new("receivers"));
    let tls = authority.server().server_config(Some(&authority));
    let fake = Fake::start_tls(tls, |_| Reply::text(204, "text/plain", "")).await;
    let client = authority.client();
    let sink = json!({"http": {
        "url": format!("{}/in?tenant=s3cret", fake.url()),
        "batchMaxWait": "20ms",
        "caFile": home.write("ca.pem", authority.pem()),
        "clientCertFile": home.write("client.pem", &client.cert),
        "clientKeyFile": home.write("client.key", &client.key),
        "bearerTokenFile": home.write("token", "s3cret-token\n"),
    }});
    let sidecar = Sidecar::start_in(home, with_sinks([sink])).await;
    decide(&sidecar, 1).await;
    eventually("it arrives", async || !fake.calls().is_empty()).await;
    let call = fake.call();
    assert_eq!(call.target, "/in?tenant=s3cret");
    assert_eq!(call.header("authorization"), Some("Bearer s3cret-token"));
    assert!(call.certificate);
    for path in ["/metrics", "/configz"] {
        let shown = sidecar.admin(path).await;
        assert!(!shown.text().contains("s3cret"), "{path}: {}", shown.text());
    }
}

#[tokio::test]
async fn what_a_receiver_missed_waits_on_disk_over_a_restart_and_arrives_once_and_in_order() {
    let receiver = Receiver::start().await;
    let keys = with_sinks([receiver.sink("loki")]);
    let sidecar = Sidecar::start(keys.clone()).await;
    let mut ids = decide(&sidecar, 5).await;
    receiver.has(5).await;

    let (address, taken) = (receiver.fake.address, receiver.ids());
    let receiver = receiver.hang_up().await;
    let asked = Instant::now();
    ids.extend(decide(&sidecar, 20).await);
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "nobody waits for it"
    );
    sidecar
        .counted("audit_spool_events{sink=\"there\"}", 20.0)
        .await;
    assert!(sidecar.metric("audit_spool_bytes{sink=\"there\"}").await > 0.0);
    let home = sidecar.stop().await;

    let sidecar = Sidecar::start_in(home, keys).await;
    let waiting = "audit events wait in the spool";
    assert_eq!(sidecar.logged(waiting).await["events"], 20);
    ids.extend(decide(&sidecar, 5).await);
    let receiver = receiver.restart().await;
    assert_eq!(
        (receiver.fake.address, &receiver.ids()[..5]),
        (address, &taken[..])
    );
    receiver.has(30).await;
    assert_eq!(receiver.ids(), ids);
    sidecar
        .counted("audit_spool_events{sink=\"there\"}", 0.0)
        .await;
    assert_eq!(
        sidecar.metric("audit_error_total{sink=\"there\"}").await,
        0.0
    );
}

#[tokio::test]
async fn what_was_answered_is_shipped_after_a_kill() {
    let receiver = Receiver::moody(|_| Some(Reply::HangUp)).await;
    let strict = json!({"http": {"mode": "blocking-strict"}});
    let keys = with_sinks([with(receiver.sink("ndjson"), strict)]);
    let sidecar = Sidecar::start(keys.clone()).await;
    let ids = decide(&sidecar, 10).await;
    let home = sidecar.kill().await;
    let receiver = receiver.restart().await;
    let _sidecar = Sidecar::start_in(home, keys).await;
    receiver.has(10).await;
    assert_eq!(receiver.ids(), ids);
}

/// How a receiver answers the first three requests, which it takes later.
#[rstest]
#[case::server_error(|_| Reply::text(503, "text/plain", "later"))]
#[case::too_many(|_| with_retry_after(429))]
#[case::timeout(|_| Reply::text(408, "text/plain", "slow"))]
#[case::hangs_up(|_| Reply::HangUp)]
#[case::credentials_that_are_refused(|_| with_retry_after(401))]
#[case::access_that_is_refused(|_| with_retry_after(403))]
#[case::an_address_that_is_not_there(|_| with_retry_after(404))]
#[case::a_redirection(|_| with_retry_after(302))]
#[tokio::test]
async fn what_is_not_taken_now_is_sent_again(#[case] first: fn(usize) -> Reply) {
    let receiver = Receiver::moody(move |number| (number < 3).then(|| first(number))).await;
    let sidecar = Sidecar::start(with_sinks([receiver.sink("loki")])).await;
    let ids = decide(&sidecar, 5).await;
    receiver.has(5).await;
    assert_eq!(receiver.ids(), ids);
    let away = "audit events are not shipped; they wait on disk";
    sidecar.logged(away).await;
    sidecar.logged("audit events are shipped again").await;
    assert_eq!(
        sidecar.metric("audit_error_total{sink=\"there\"}").await,
        0.0
    );
}

fn with_retry_after(status: u16) -> Reply {
    let Reply::Http(mut response) = Reply::text(status, "text/plain", "") else {
        unreachable!();
    };
    response
        .headers_mut()
        .insert("retry-after", "0".parse().unwrap());
    Reply::Http(response)
}

#[tokio::test]
async fn what_is_refused_for_good_is_counted_and_said_and_holds_up_nothing() {
    let refuse = |number| (number == 0).then(|| Reply::text(400, "text/plain", "no such\ntenant"));
    let receiver = Receiver::moody(refuse).await;
    let sidecar = Sidecar::start(with_sinks([receiver.sink("loki")])).await;
    decide(&sidecar, 1).await;
    let lost = "audit_dropped_total{reason=\"rejected\",sink=\"there\"}";
    sidecar.counted(lost, 1.0).await;
    let lost = "audit events not written";
    assert_eq!(
        sidecar.logged(lost).await["why"],
        "the receiver refused them with HTTP 400 Bad Request: no such tenant"
    );
    let ids = decide(&sidecar, 3).await;
    receiver.has(3).await;
    assert_eq!(receiver.ids(), ids);
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_halved() {
    let gate = Gate::closed();
    let fake = {
        let gate = gate.clone();
        Fake::start(move |seen| {
            let status = if seen.text.lines().count() > 3 {
                413
            } else {
                204
            };
            Reply::text(status, "text/plain", "").when(&gate)
        })
        .await
    };
    let sink = json!({"http": {"url": fake.url(), "batchMaxWait": "20ms"}});
    let sidecar = Sidecar::start(with_sinks([sink])).await;
    let ids = decide(&sidecar, 20).await;
    gate.open();
    let took = |fake: &Fake| {
        let calls = fake.calls();
        let taken = calls.iter().filter(|call| call.text.lines().count() <= 3);
        let lines = taken.flat_map(|call| call.text.lines().map(str::to_owned).collect::<Vec<_>>());
        lines
            .map(|line| id(&serde_json::from_str(&line).unwrap()))
            .collect::<Vec<_>>()
    };
    eventually("all arrive", async || took(&fake).len() >= 20).await;
    assert_eq!(took(&fake), ids);
}

#[tokio::test]
async fn a_slow_receiver_holds_up_no_review() {
    let gate = Gate::closed();
    let until = gate.clone();
    let fake = Fake::start(move |_| Reply::text(204, "text/plain", "").when(&until)).await;
    let sink = json!({"http": {"url": fake.url(), "batchMaxWait": "20ms"}});
    let sidecar = Sidecar::start(with_sinks([sink])).await;
    let asked = Instant::now();
    decide(&sidecar, 50).await;
    assert!(asked.elapsed() < Duration::from_secs(5));
    gate.open();
    let name = fake.address.to_string();
    sidecar
        .counted(&format!("audit_shipped_total{{sink=\"{name}\"}}"), 50.0)
        .await;
}

#[tokio::test]
async fn a_full_spool_drops_the_oldest_and_counts_them() {
    let receiver = Receiver::moody(|_| Some(Reply::text(503, "text/plain", ""))).await;
    let small = json!({"http": {"spool": {"maxSize": "1MiB"}}});
    let mut keys = with_sinks([with(receiver.sink("ndjson"), small)]);
    keys["audit"]["level"] = json!("Spec");
    let sidecar = Sidecar::start(keys).await;
    let filling = "x".repeat(30_000);
    let spec = format!(r#"{{"configuration": {{"type": "task", "commands": ["{filling}"]}}}}"#);
    let mut ids = Vec::new();
    for _ in 0..60 {
        ids.push(sidecar.review(&spec).await.assert_allowed().decision());
    }
    let dropped = "audit_dropped_total{reason=\"spool_full\",sink=\"there\"}";
    eventually("some are dropped", async || {
        sidecar.metric(dropped).await > 10.0
    })
    .await;
    assert!(sidecar.metric("audit_spool_bytes{sink=\"there\"}").await <= f64::from(1 << 20));
    let lost = "audit events not written";
    sidecar.logged(lost).await;

    let receiver = receiver.restart().await;
    sidecar
        .counted("audit_spool_events{sink=\"there\"}", 0.0)
        .await;
    let dropped = sidecar.metric(dropped).await as usize;
    let arrived = receiver.ids();
    assert_eq!(arrived.len() + dropped, 60);
    assert_eq!(arrived.last(), ids.last());
    assert!(arrived.is_sorted(), "in order");
}

#[tokio::test]
async fn a_sink_that_moves_takes_its_spool_along() {
    let (away, there) = (
        Receiver::moody(|_| Some(Reply::HangUp)).await,
        Receiver::start().await,
    );
    let sidecar = Sidecar::start(with_sinks([away.sink("loki")])).await;
    let ids = decide(&sidecar, 5).await;
    sidecar
        .counted("audit_spool_events{sink=\"there\"}", 5.0)
        .await;
    sidecar.home.configure(&with_sinks([there.sink("loki")]));
    sidecar.signal(Signal::HUP);
    there.has(5).await;
    assert_eq!(there.ids(), ids);
}
