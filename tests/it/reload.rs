//! Reloading: what changes while it serves, and what is broken then.

use std::os::unix::fs::symlink;

use rstest::rstest;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::sidecar::{RUN, SPEC, body, post};
use crate::harness::{Fake, Home, Sidecar, eventually};

const RELOADED: &str = "config_reload_total{result=\"success\"}";
const NOT_RELOADED: &str = "config_reload_total{result=\"failure\"}";

fn chain(plugins: &[Value]) -> Value {
    json!({"tls": "off", "plugins": plugins})
}

#[tokio::test]
async fn a_secret_that_does_not_answer_is_a_failure_and_holds_up_nothing() {
    let home = Home::new();
    let secret = home.write("secret", "t0ken");
    let keys = json!({"tls": "off", "auth": {"bearerTokenFile": secret}});
    let mut sidecar = Sidecar::start_in(home, keys).await;
    std::fs::remove_file(&secret).unwrap();
    mknodat(CWD, &secret, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    eventually("it is told", async || {
        sidecar.metric(NOT_RELOADED).await >= 1.0
    })
    .await;
    sidecar.home.write("secret", "other");
    eventually("it is healed", async || {
        sidecar.metric(RELOADED).await >= 1.0
    })
    .await;
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_changed_file_is_in_force_within_seconds() {
    let fake = Fake::denying("by the new chain").await;
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
async fn the_metrics_of_a_plugin_go_with_it() {
    let fake = Fake::denying("no").await;
    let sidecar = Sidecar::start(chain(&[fake.webhook("old"), fake.webhook("kept")])).await;
    sidecar.review(SPEC).await.denial();
    let shown = async || sidecar.admin("/metrics").await.text().to_owned();
    assert!(shown().await.contains("plugin=\"old\""));

    sidecar.home.configure(&chain(&[fake.webhook("kept")]));
    sidecar.counted(RELOADED, 1.0).await;
    assert!(!shown().await.contains("plugin=\"old\""));
    let kept = "plugin_rejection_total{error_type=\"no_error\",kind=\"run\",plugin=\"kept\"}";
    assert!(shown().await.contains(kept));
}

#[tokio::test]
async fn a_config_map_that_is_swapped_as_kubernetes_does_is_in_force_within_seconds() {
    let fake = Fake::denying("by the new chain").await;
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
    let fake = Fake::denying("by the good chain").await;
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
    let wrong = |line: &Value| {
        let said = line["message"].as_str().unwrap_or_default();
        line["level"] == "ERROR"
            && said.contains("last good one stays in force")
            && said.contains(words)
    };
    sidecar.log_line("what is wrong", wrong).await;

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
#[case::log(json!({"log": {"level": "debug"}}), RELOADED, "`log` takes effect at the next start")]
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
    let said = |line: &Value| line["message"].as_str().unwrap_or_default().contains(words);
    sidecar.log_line(words, said).await;
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
    let (fake, gate) = Fake::held().await;
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
    let sidecar = Sidecar::start(json!({})).await;
    std::fs::remove_file(sidecar.home.path("state/tls/server.pem")).unwrap();
    sidecar.signal(Signal::HUP);
    sidecar.counted(RELOADED, 1.0).await;
    sidecar.review(SPEC).await.assert_allowed();
    let ca = std::fs::read_to_string(sidecar.home.path("state/ca.pem")).unwrap();
    assert_eq!(sidecar.trust.as_ref().unwrap().ca_pem, ca, "the CA stays");
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
