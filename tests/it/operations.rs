//! Running it: reload, drain, too much work, the record, and what the admin port shows.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant};

use rstest::rstest;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::client::Trust;
use crate::harness::sidecar::{RUN, SPEC, body, metrics, post};
use crate::harness::{Fake, Gate, Home, Protocol, Reply, Seen, Sidecar, eventually, in_time};

const RELOADED: &str = "config_reload_total{result=\"success\"}";
const NOT_RELOADED: &str = "config_reload_total{result=\"failure\"}";

fn chain(plugins: &[Value]) -> Value {
    json!({"tls": "off", "plugins": plugins})
}

async fn denying(message: &'static str) -> Fake {
    Fake::start(move |seen| seen.denied(message)).await
}

/// A plugin whose answers wait for a gate.
async fn held() -> (Fake, Gate) {
    let gate = Gate::closed();
    let until = gate.clone();
    let fake = Fake::start(move |seen| seen.allowed().when(&until)).await;
    (fake, gate)
}

#[tokio::test]
async fn a_changed_file_is_in_force_within_seconds() {
    let fake = denying("by the new chain").await;
    let sidecar = Sidecar::start(chain(&[])).await;
    sidecar.review(SPEC).await.assert_allowed();
    let before = sidecar.admin("/configz").await.json()["hash"].clone();

    sidecar.home.configure(&chain(&[fake.webhook("new")]));
    sidecar.counted(RELOADED, 1.0).await;
    assert!(
        sidecar
            .review(SPEC)
            .await
            .denial()
            .contains("by the new chain")
    );
    let after = sidecar.admin("/configz").await.json()["hash"].clone();
    assert_ne!(before, after);
    assert_eq!(sidecar.audit()[1]["configuration"], after);
    assert_eq!(
        sidecar
            .metric(&format!("config_info{{hash={after}}}"))
            .await,
        1.0
    );
    assert_eq!(
        sidecar
            .metric(&format!("config_info{{hash={before}}}"))
            .await,
        0.0
    );
}

#[tokio::test]
async fn a_config_map_that_is_swapped_as_kubernetes_does_is_in_force_within_seconds() {
    let fake = denying("by the new chain").await;
    let home = Home::new();
    let version = |name: &str, keys: &Value| {
        std::fs::create_dir(home.path(name)).unwrap();
        home.write(&format!("{name}/config.yaml"), home.configuration(keys));
    };
    // config.yaml -> ..data/config.yaml, ..data -> ..v1; an update makes ..v2 and swaps ..data.
    version("..v1", &chain(&[]));
    version("..v2", &chain(&[fake.webhook("new")]));
    symlink("..v1", home.path("..data")).unwrap();
    symlink("..data/config.yaml", home.path("config.yaml")).unwrap();
    let config = home.path("config.yaml");
    let sidecar = Sidecar::start_with(home, &config).await;
    sidecar.review(SPEC).await.assert_allowed();

    symlink("..v2", sidecar.home.path("..data_tmp")).unwrap();
    std::fs::rename(sidecar.home.path("..data_tmp"), sidecar.home.path("..data")).unwrap();
    std::fs::remove_dir_all(sidecar.home.path("..v1")).unwrap();
    sidecar.counted(RELOADED, 1.0).await;
    assert!(
        sidecar
            .review(SPEC)
            .await
            .denial()
            .contains("by the new chain")
    );
}

#[tokio::test]
async fn sighup_reloads_even_what_did_not_change() {
    let sidecar = Sidecar::start(chain(&[])).await;
    sidecar.signal(Signal::HUP);
    sidecar.counted(RELOADED, 1.0).await;
    sidecar.review(SPEC).await.assert_allowed();
}

/// What stands in the place of a good file.
#[rstest]
#[case::no_yaml("{{{", "config.yaml")]
#[case::unknown_key(
    "apiVersion: dstack-admission/v1\nkind: AdmissionConfiguration\nplugin: []\n",
    "did you mean `plugins`?"
)]
#[case::empty("", "config.yaml")]
#[tokio::test]
async fn a_broken_file_leaves_the_last_good_one_in_force(
    #[case] broken: &str,
    #[case] words: &str,
) {
    let fake = denying("by the good chain").await;
    let good = chain(&[fake.webhook("good")]);
    let sidecar = Sidecar::start(good.clone()).await;
    sidecar.home.write("config.yaml", broken);
    sidecar.signal(Signal::HUP);
    eventually("a failed reload is counted", async || {
        sidecar.metric(NOT_RELOADED).await >= 1.0
    })
    .await;
    assert_eq!(sidecar.metric("config_reload_last_successful").await, 0.0);
    assert!(
        sidecar
            .review(SPEC)
            .await
            .denial()
            .contains("by the good chain")
    );
    assert_eq!(sidecar.admin("/readyz").await.status, 200);
    eventually("the log says what is wrong", async || {
        sidecar.log().iter().any(|line| {
            let said = line["message"].as_str().unwrap_or_default();
            line["level"] == "ERROR"
                && said.contains("last good one stays in force")
                && said.contains(words)
        })
    })
    .await;

    sidecar.home.configure(&chain(&[]));
    sidecar.signal(Signal::HUP);
    eventually("it is healed", async || {
        sidecar.metric("config_reload_last_successful").await == 1.0
    })
    .await;
    sidecar.review(SPEC).await.assert_allowed();
}

#[tokio::test]
async fn a_removed_file_leaves_the_last_good_one_in_force() {
    let sidecar = Sidecar::start(chain(&[])).await;
    std::fs::remove_file(sidecar.home.path("config.yaml")).unwrap();
    sidecar.counted(NOT_RELOADED, 1.0).await;
    sidecar.review(SPEC).await.assert_allowed();
}

/// What loads but cannot be put in force, or only at the next start.
#[rstest]
#[case::audit_file(json!({"audit": {"sinks": [{"file": {"path": "/nowhere/audit.log"}}]}}), NOT_RELOADED, "/nowhere/audit.log")]
#[case::listen(json!({"listen": "127.0.0.1:1"}), RELOADED, "`listen` and `admin` take effect at the next start")]
#[case::limits(json!({"limits": {"connections": 1}}), RELOADED, "`limits` take effect at the next start")]
#[tokio::test]
async fn what_cannot_be_changed_while_serving_is_said(
    #[case] keys: Value,
    #[case] counted: &str,
    #[case] words: &str,
) {
    let sidecar = Sidecar::start(chain(&[])).await;
    let mut changed = chain(&[]);
    let own = keys.as_object().unwrap().clone();
    changed.as_object_mut().unwrap().extend(own);
    sidecar.home.configure(&changed);
    sidecar.signal(Signal::HUP);
    eventually("the reload is counted", async || {
        sidecar.metric(counted).await >= 1.0
    })
    .await;
    eventually("the log says so", async || {
        let said = |line: &Value| line["message"].as_str().unwrap_or_default().contains(words);
        sidecar.log().iter().any(said)
    })
    .await;
    sidecar.review(SPEC).await.assert_allowed();
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = Home::new().refused(&json!({"listen": address}));
    assert_eq!(code, Some(1));
    assert!(
        said.contains(&format!("cannot listen on {address}")),
        "{said}"
    );
}

#[tokio::test]
async fn changed_credentials_are_in_force_within_seconds() {
    let home = Home::new();
    let auth = json!({"bearerTokenFile": home.write("token", "old")});
    let sidecar = Sidecar::start_in(home, json!({"tls": "off", "auth": auth})).await;
    let status = async |token: &str| {
        let mut request = post(RUN, body(SPEC));
        let value = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("authorization", value);
        sidecar.send(request).await.status
    };
    assert_eq!(
        (status("old").await.as_u16(), status("new").await.as_u16()),
        (200, 401)
    );
    sidecar.home.write("token", "new");
    sidecar.counted(RELOADED, 1.0).await;
    assert_eq!(
        (status("old").await.as_u16(), status("new").await.as_u16()),
        (401, 200)
    );
}

#[tokio::test]
async fn a_review_ends_under_the_configuration_it_began_with() {
    let (fake, gate) = held().await;
    let sidecar = Sidecar::start(chain(&[fake.webhook("held")])).await;
    let changing = async {
        eventually("the review is in hand", async || !fake.calls().is_empty()).await;
        sidecar.home.configure(&chain(&[]));
        sidecar.signal(Signal::HUP);
        sidecar.counted(RELOADED, 1.0).await;
        gate.open();
    };
    let (answer, ()) = tokio::join!(sidecar.review(SPEC), changing);
    answer.assert_allowed();
    assert_eq!(sidecar.audit()[0]["plugins"][0]["name"], "held");
    let now = sidecar.admin("/configz").await.json()["hash"].clone();
    assert_ne!(sidecar.audit()[0]["configuration"], now);
}

#[tokio::test]
async fn a_made_certificate_that_was_lost_is_made_again_on_reload() {
    let mut sidecar = Sidecar::start(json!({})).await;
    std::fs::remove_file(sidecar.home.path("state/tls/server.pem")).unwrap();
    sidecar.signal(Signal::HUP);
    sidecar.counted(RELOADED, 1.0).await;
    sidecar.review(SPEC).await.assert_allowed();
    let ca = std::fs::read_to_string(sidecar.home.path("state/ca.pem")).unwrap();
    assert_eq!(sidecar.trust.as_ref().unwrap().ca_pem, ca, "the CA stays");
    sidecar.trust = Some(Trust::new(ca));
}

#[rstest]
#[tokio::test]
async fn sigterm_answers_the_reviews_in_hand_and_ends_well(
    #[values(Protocol::Http1, Protocol::Http2)] protocol: Protocol,
) {
    let (fake, gate) = held().await;
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
    eventually("it drains", async || {
        sidecar.logged("draining; a second signal aborts").is_some()
    })
    .await;
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
    let (fake, gate) = held().await;
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
    let (fake, _gate) = held().await;
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
async fn the_grace_period_ends_a_drain() {
    let (fake, _gate) = held().await;
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
    let (fake, gate) = held().await;
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
    let (fake, gate) = held().await;
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
    let (fake, gate) = held().await;
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
    eventually("the record is out", async || sidecar.stdout().len() == 2).await;
    let event: Value = serde_json::from_str(&sidecar.stdout()[1]).unwrap();
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
    let sidecar = Sidecar::start(json!({"tls": "off", "audit": {"sinks": [sink]}})).await;
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
}

#[tokio::test]
async fn an_audit_file_moved_away_by_logrotate_is_opened_again_on_sighup() {
    let sidecar = Sidecar::start(chain(&[])).await;
    sidecar.review(SPEC).await;
    std::fs::rename(
        sidecar.home.path("audit.log"),
        sidecar.home.path("audit.log.1"),
    )
    .unwrap();
    sidecar.signal(Signal::HUP);
    sidecar.counted(RELOADED, 1.0).await;
    sidecar.review(SPEC).await;
    assert_eq!(sidecar.audit().len(), 1);
    let moved = std::fs::read_to_string(sidecar.home.path("audit.log.1")).unwrap();
    assert_eq!(moved.lines().count(), 1);
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
    eventually("it is logged", async || sidecar.logged("decided").is_some()).await;
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
    let fake = denying("no").await;
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
