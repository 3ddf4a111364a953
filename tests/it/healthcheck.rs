//! `healthcheck`, as a container engine or the kubelet runs it beside the sidecar.

use std::process::Command;
use std::time::{Duration, Instant};

use rstest::rstest;
use rustix::process::Signal;
use serde_json::json;

use crate::harness::certificates::Authority;
use crate::harness::sidecar::SPEC;
use crate::harness::{Fake, Home, Reply, Sidecar, eventually};

/// Runs it without an environment. Returns its exit code and what it says.
async fn healthcheck(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dstack-admission"));
    command.env_clear().arg("healthcheck").args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = output.await.unwrap();
    assert!(output.stdout.is_empty(), "{output:?}");
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn assert_says(said: &str, what: &str) {
    assert!(said.contains(what), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[tokio::test]
async fn a_ready_sidecar_is_healthy_by_its_configuration_and_by_its_address() {
    let sidecar = Sidecar::start(json!({"tls": "off"})).await;
    let admin = sidecar.admin.to_string();
    let everywhere = format!("0.0.0.0:{}", sidecar.admin.port());
    // The file has port 0; this one says where the sidecar really is, and is wrong in what is not read.
    let config = json!({"admin": everywhere, "plugins": [{"use": "no-such-policy"}]});
    let config = sidecar.home.write("told.yaml", config.to_string());
    let config = config.to_str().unwrap();
    for arguments in [
        &["--admin", &admin][..],
        &["--admin", &format!("http://{admin}"), "--live"],
        &["--config", config],
        &["--config", config, "--live"],
    ] {
        assert_eq!(healthcheck(arguments).await, (Some(0), String::new()));
    }
}

#[tokio::test]
async fn one_that_is_not_ready_is_unhealthy_and_says_why() {
    let draining = |path: &str| match path {
        "/livez" => Reply::text(200, "text/plain", "ok\n"),
        _ => Reply::text(503, "text/plain", "not ready: draining\nmore\n"),
    };
    let fake = Fake::start(move |seen| draining(&seen.target)).await;
    let admin = fake.url();
    let (code, said) = healthcheck(&["--admin", &admin]).await;
    assert_eq!(code, Some(1));
    assert_says(&said, "/readyz: HTTP 503: not ready: draining");
    assert_eq!(healthcheck(&["--admin", &admin, "--live"]).await.0, Some(0));
}

#[tokio::test]
async fn one_that_drains_is_alive_and_not_ready() {
    let (held, gate) = Fake::held().await;
    let sidecar = Sidecar::with_plugins([held.webhook("held")]).await;
    let admin = sidecar.admin.to_string();
    let review = sidecar.review(SPEC);
    let drained = async {
        eventually("the review is in hand", async || held.calls().len() == 1).await;
        sidecar.signal(Signal::TERM);
        eventually("it drains", async || {
            let (code, said) = healthcheck(&["--admin", &admin]).await;
            code == Some(1) && said.contains("draining")
        })
        .await;
        assert_eq!(healthcheck(&["--admin", &admin, "--live"]).await.0, Some(0));
        gate.open();
    };
    let (answer, ()) = tokio::join!(review, drained);
    answer.assert_allowed();
}

#[tokio::test]
async fn one_that_demands_client_certificates_is_asked_without_any() {
    let clients = Authority::new("clients");
    let home = Home::new();
    let server = Authority::new("servers").server();
    let cert = home.write("server.pem", server.cert);
    let key = home.write("server.key", server.key);
    let ca = home.write("clients.pem", clients.pem());
    let tls = json!({"certFile": cert, "keyFile": key, "clientCAFile": ca});
    let sidecar = Sidecar::start_in(home, json!({"tls": tls})).await;
    let admin = sidecar.admin.to_string();
    assert_eq!(
        healthcheck(&["--admin", &admin]).await,
        (Some(0), String::new())
    );
}

#[tokio::test]
async fn one_whose_configuration_is_no_yaml_any_more_stays_healthy() {
    let sidecar = Sidecar::start(json!({"tls": "off"})).await;
    let text = format!("admin: {}\nplugins: [\n", sidecar.admin);
    let config = sidecar.home.write("told.yaml", text);
    let config = config.to_str().unwrap();
    for arguments in [&["--config", config][..], &["--config", config, "--live"]] {
        assert_eq!(healthcheck(arguments).await, (Some(0), String::new()));
    }
}

#[rstest]
#[case::hangs_up(|| Reply::HangUp)]
#[case::breaks_off(|| Reply::BreakOff)]
#[case::elsewhere(|| Reply::text(302, "text/plain", ""))]
#[tokio::test]
async fn one_that_does_not_answer_as_it_should_is_unhealthy(#[case] reply: fn() -> Reply) {
    let fake = Fake::start(move |_| reply()).await;
    let (code, said) = healthcheck(&["--admin", &fake.url()]).await;
    assert_eq!(code, Some(1));
    assert_says(&said, &format!("{}/readyz: ", fake.url()));
}

#[tokio::test]
async fn one_that_never_answers_is_unhealthy_after_the_timeout() {
    let fake = Fake::start(|_| Reply::Silence).await;
    let began = Instant::now();
    let (code, said) = healthcheck(&["--admin", &fake.url(), "--timeout", "200ms"]).await;
    assert_eq!(code, Some(1));
    assert_says(&said, "no answer within 200ms");
    assert!(began.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn one_that_ended_is_unhealthy() {
    let sidecar = Sidecar::start(json!({"tls": "off"})).await;
    let admin = sidecar.admin.to_string();
    let _home = sidecar.stop().await;
    let (code, said) = healthcheck(&["--admin", &admin]).await;
    assert_eq!(code, Some(1));
    assert_says(&said, "Connection refused");
}

#[rstest]
#[case::off("admin: off", "admin: `off` is no address")]
#[case::any_port("admin: 127.0.0.1:0", "port 0 is any free one")]
#[tokio::test]
async fn a_configuration_that_does_not_tell_where_says_so(
    #[case] text: &str,
    #[case] expected: &str,
) {
    let home = Home::new();
    let config = home.write("config.yaml", text);
    let (code, said) = healthcheck(&["--config", config.to_str().unwrap()]).await;
    assert_eq!(code, Some(1));
    assert_says(&said, expected);
}

#[tokio::test]
async fn a_configuration_that_is_not_there_says_so() {
    let (code, said) = healthcheck(&["--config", "/nowhere/config.yaml"]).await;
    assert_eq!(code, Some(1));
    assert_says(&said, "/nowhere/config.yaml cannot be read");
}
