//! Reviews in hand: draining them, too many of them, and callers who leave before the end.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rstest::rstest;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::sidecar::{RUN, SPEC, body, post};
use crate::harness::{Connection, Fake, Home, Protocol, Seen, Sidecar, eventually, in_time};

#[rstest]
#[tokio::test]
async fn sigterm_answers_the_reviews_in_hand_and_ends_well(
    #[values(Protocol::Http1, Protocol::Http2)] protocol: Protocol,
) {
    let (fake, gate) = Fake::held().await;
    let mut sidecar = Sidecar::start(json!({"plugins": [fake.webhook("held")]})).await;
    let mut connection = sidecar.connect(protocol).await;
    let idle = sidecar.connect(protocol).await;
    let draining = async {
        eventually("the review is in hand", async || !fake.calls().is_empty()).await;
        sidecar.signal(Signal::TERM);
        eventually("it says that it drains", async || {
            let ready = sidecar.admin("/readyz").await;
            ready.status == 503 && ready.text().contains("draining")
        })
        .await;
        assert_eq!(sidecar.admin("/livez").await.status, 200);
        assert!(
            TcpStream::connect(sidecar.address).await.is_err(),
            "nobody new comes in"
        );
        gate.open();
    };
    let (answer, ()) = tokio::join!(connection.send(post(RUN, body(SPEC))), draining);
    let answer = answer.unwrap();
    answer.assert_allowed();
    let closes = (protocol == Protocol::Http1).then_some("close");
    assert_eq!(answer.header("connection"), closes);
    assert_eq!(sidecar.exit_code().await, Some(0));
    assert_eq!(sidecar.audit().len(), 1);
    drop(idle);
}

/// How far a caller has come when the signal arrives.
#[rstest]
#[case::connected(0)]
#[case::past_the_handshake(1)]
#[case::in_the_headers(2)]
#[case::in_the_body(3)]
#[tokio::test]
async fn sigterm_loses_no_review_of_who_has_connected(#[case] progress: usize) {
    let mut sidecar = Sidecar::start(json!({})).await;
    let text = body(SPEC);
    let whole = format!(
        "POST {RUN} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    );
    let sent = [0, 0, 20, whole.len() - 20][progress];

    let tcp = TcpStream::connect(sidecar.address).await.unwrap();
    sidecar.counted("connections", 1.0).await;
    if progress == 0 {
        sidecar.signal(Signal::TERM);
    }
    let mut stream = sidecar.secure(tcp, Protocol::Http1).await;
    stream.write_all(&whole.as_bytes()[..sent]).await.unwrap();
    stream.flush().await.unwrap();
    if progress > 0 {
        sidecar.signal(Signal::TERM);
    }
    sidecar.logged("draining; a second signal aborts").await;
    stream.write_all(&whole.as_bytes()[sent..]).await.unwrap();
    let mut answer = String::new();
    in_time("an answer", stream.read_to_string(&mut answer))
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains(SPEC), "{answer}");
    assert_eq!(sidecar.exit_code().await, Some(0));
}

#[rstest]
#[tokio::test]
async fn sigterm_does_not_wait_for_callers_who_say_nothing(
    #[values(Protocol::Http1, Protocol::Http2)] protocol: Protocol,
) {
    let limits = json!({"handshakeTimeout": "500ms", "headerTimeout": "500ms"});
    let mut sidecar = Sidecar::start(json!({"limits": limits})).await;
    let silent = TcpStream::connect(sidecar.address).await.unwrap();
    let tcp = TcpStream::connect(sidecar.address).await.unwrap();
    let secured = sidecar.secure(tcp, protocol).await;
    sidecar.counted("connections", 2.0).await;
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.exit_code().await, Some(0));
    drop((silent, secured));
}

#[tokio::test]
async fn sigterm_waits_for_monitored_plugins() {
    let (fake, gate) = Fake::held().await;
    let mut plugin = fake.webhook("watching");
    plugin["mode"] = json!("monitor");
    let mut sidecar = Sidecar::with_plugins([plugin]).await;
    sidecar.review(SPEC).await.assert_allowed();
    eventually("the monitored plugin is asked", async || {
        !fake.calls().is_empty()
    })
    .await;
    sidecar.signal(Signal::TERM);
    eventually("it drains", async || {
        sidecar.admin("/readyz").await.status == 503
    })
    .await;
    gate.open();
    assert_eq!(sidecar.exit_code().await, Some(0));
    assert_eq!(sidecar.audit()[1]["stage"], "MonitorComplete");
}

#[rstest]
#[case::term(Signal::TERM)]
#[case::interrupt(Signal::INT)]
#[tokio::test]
async fn a_second_signal_aborts(#[case] signal: Signal) {
    let (fake, _gate) = Fake::held().await;
    let mut sidecar = Sidecar::with_plugins([fake.webhook("held")]).await;
    let mut connection = sidecar.connect(Protocol::Http1).await;
    let asking = tokio::spawn(async move { connection.send(post(RUN, body(SPEC))).await });
    eventually("the review is in hand", async || !fake.calls().is_empty()).await;
    sidecar.signal(signal);
    eventually("it drains", async || {
        sidecar.admin("/readyz").await.status == 503
    })
    .await;
    sidecar.signal(signal);
    assert_eq!(sidecar.exit_code().await, Some(1));
    assert!(in_time("an end", asking).await.unwrap().is_err());
}

#[tokio::test]
async fn a_log_that_nobody_reads_does_not_hold_up_the_end() {
    let home = Home::new();
    let pipe = home.path("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let reader = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&pipe);
    let reader = reader.unwrap();
    let keys = json!({"tls": "off", "limits": {"gracePeriod": "300ms"}, "log": {"level": "trace"}});
    let config = home.configure(&keys);
    let mut stuck = std::process::Command::new(env!("CARGO_BIN_EXE_dstack-admission"));
    stuck.arg("serve").arg("--config").arg(config);
    stuck
        .stdout(Stdio::piped())
        .stderr(reader.try_clone().unwrap());
    let mut child = stuck.spawn().unwrap();
    // It has begun to serve, and then its pipe is full.
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let port: u16 = line.trim().rsplit_once(':').unwrap().1.parse().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    for _ in 0..200 {
        let mut connection = Connection::open(address, None, Protocol::Http1)
            .await
            .unwrap();
        let answer = connection.send(post(RUN, body(SPEC))).await.unwrap();
        answer.assert_allowed();
    }
    let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    eventually("it ends", async || child.try_wait().unwrap().is_some()).await;
    drop(reader);
}

#[tokio::test]
async fn the_grace_period_ends_a_drain() {
    let (fake, _gate) = Fake::held().await;
    let limits = json!({"gracePeriod": "300ms"});
    let mut sidecar =
        Sidecar::start(json!({"tls": "off", "limits": limits, "plugins": [fake.webhook("held")]}))
            .await;
    let mut connection = sidecar.connect(Protocol::Http1).await;
    let asking = tokio::spawn(async move { connection.send(post(RUN, body(SPEC))).await });
    eventually("the review is in hand", async || !fake.calls().is_empty()).await;
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.exit_code().await, Some(1));
    assert!(in_time("an end", asking).await.unwrap().is_err());
}

#[tokio::test]
async fn too_many_reviews_wait_a_moment_and_are_denied() {
    let (fake, gate) = Fake::held().await;
    let limits = json!({"inFlight": 1, "inFlightWait": "200ms"});
    let sidecar =
        Sidecar::start(json!({"tls": "off", "limits": limits, "plugins": [fake.webhook("held")]}))
            .await;
    let crowding = async {
        eventually("the first is in hand", async || !fake.calls().is_empty()).await;
        assert_eq!(sidecar.metric("in_flight_requests").await, 1.0);
        let asked = Instant::now();
        let answer = sidecar.review(SPEC).await;
        assert!(asked.elapsed() >= Duration::from_millis(200));
        assert_eq!(answer.spec(), SPEC);
        let denial = answer.denial();
        assert!(denial.contains("too many reviews are in hand"), "{denial}");
        assert_eq!(sidecar.audit().len(), 1, "and it is recorded");
        gate.open();
    };
    let (first, ()) = tokio::join!(sidecar.review(SPEC), crowding);
    first.assert_allowed();
    sidecar.counted("shed_total", 1.0).await;
    sidecar.counted("in_flight_requests", 0.0).await;
    sidecar.review(SPEC).await.assert_allowed();
}

#[tokio::test]
async fn a_review_that_gets_its_turn_while_it_waits_is_decided() {
    let (fake, gate) = Fake::held().await;
    let limits = json!({"inFlight": 1, "inFlightWait": "10s"});
    let sidecar = Sidecar::start(json!({"deadline": "9s", "tls": "off", "limits": limits, "plugins": [fake.webhook("held")]})).await;
    let opening = async {
        eventually("the first is in hand", async || !fake.calls().is_empty()).await;
        eventually("the second waits", async || {
            sidecar.metric("connections").await == 2.0
        })
        .await;
        gate.open();
    };
    let (first, second, ()) = tokio::join!(sidecar.review(SPEC), sidecar.review(SPEC), opening);
    first.assert_allowed();
    second.assert_allowed();
    assert_eq!(sidecar.metric("shed_total").await, 0.0);
}

#[tokio::test]
async fn a_caller_who_hangs_up_leaves_a_record_and_frees_the_turn() {
    let (fake, gate) = Fake::held().await;
    let watching = Fake::start(Seen::allowed).await;
    let mut monitored = watching.webhook("watching");
    monitored["mode"] = json!("monitor");
    let limits = json!({"inFlight": 1});
    let keys = json!({"limits": limits, "plugins": [fake.webhook("held"), monitored]});
    let sidecar = Sidecar::start(keys).await;
    let mut stream = sidecar.stream().await;
    let text = body(SPEC);
    let whole = format!(
        "POST {RUN} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    );
    stream.write_all(whole.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    eventually("the review is in hand", async || !fake.calls().is_empty()).await;
    drop(stream);
    sidecar.counted("connections", 0.0).await;
    assert_eq!(
        sidecar.metric("in_flight_requests").await,
        1.0,
        "the plugin is still at it"
    );

    gate.open();
    sidecar.counted("in_flight_requests", 0.0).await;
    sidecar
        .counted("request_total{decision=\"allowed\",kind=\"run\"}", 1.0)
        .await;
    eventually("the monitored plugin is asked too", async || {
        sidecar.audit().len() == 2
    })
    .await;
    assert_eq!(sidecar.audit()[0]["decision"], "allowed");
    sidecar.review(SPEC).await.assert_allowed();
}
