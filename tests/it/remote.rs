//! How the sidecar shows itself to plugin servers: trust, client certificates, credentials,
//! pooled connections.

use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::certificates::Authority;
use crate::harness::sidecar::SPEC;
use crate::harness::{Fake, Home, Seen, Sidecar};

#[tokio::test]
async fn a_plugin_is_trusted_by_its_ca_file() {
    let (home, authority) = (Home::new(), Authority::new("plugins"));
    let fake = Fake::start_tls(authority.server().server_config(None), Seen::allowed).await;
    let ca = home.write("ca.pem", authority.pem());
    let plugin = json!({"name": "w", "webhook": {"url": fake.url(), "caFile": ca}});
    let sidecar = Sidecar::with_plugins([plugin]).await;
    for _ in 0..3 {
        sidecar.review(SPEC).await.assert_allowed();
    }
    assert!(!fake.calls()[0].certificate);
    assert_eq!(fake.connections(), 1, "connections are pooled");
}

#[rstest]
#[case::shown(true)]
#[case::missing(false)]
#[tokio::test]
async fn a_plugin_may_ask_for_a_client_certificate(#[case] shown: bool) {
    let (home, authority) = (Home::new(), Authority::new("plugins"));
    let tls = authority.server().server_config(Some(&authority));
    let fake = Fake::start_tls(tls, Seen::allowed).await;
    let client = authority.client();
    let mut remote = json!({"url": fake.url(), "caFile": home.write("ca.pem", authority.pem())});
    if shown {
        remote["clientCertFile"] = json!(home.write("client.pem", &client.cert));
        remote["clientKeyFile"] = json!(home.write("client.key", &client.key));
    }
    let sidecar =
        Sidecar::with_plugins([json!({"name": "w", "timeout": "5s", "webhook": remote})]).await;
    let answer = sidecar.review(SPEC).await;
    if shown {
        answer.assert_allowed();
        assert!(fake.call().certificate);
    } else {
        let denial = answer.denial();
        assert!(
            denial.contains("no TLS connection to it could be made"),
            "{denial}"
        );
        assert!(fake.calls().is_empty());
    }
}

#[rstest]
#[case::bearer(|file: Value| json!({"bearerTokenFile": file}), "Bearer s3cret")]
#[case::basic(|file: Value| json!({"basic": {"username": "u", "passwordFile": file}}), "Basic dTpzM2NyZXQ=")]
#[tokio::test]
async fn a_plugin_is_shown_its_credentials_read_again_when_they_change(
    #[case] credentials: fn(Value) -> Value,
    #[case] header: &str,
) {
    let home = Home::new();
    let file = home.write("secret", "s3cret\n");
    let fake = Fake::start(Seen::allowed).await;
    let mut remote = credentials(json!(file));
    remote["url"] = json!(fake.url());
    let keys = json!({"tls": "off", "plugins": [{"name": "r", "webhook": remote}]});
    let sidecar = Sidecar::start_in(home, keys).await;
    sidecar.review(SPEC).await.assert_allowed();
    assert_eq!(fake.call().header("authorization"), Some(header));

    sidecar.home.write("secret", "another");
    sidecar
        .counted("config_reload_total{result=\"success\"}", 1.0)
        .await;
    sidecar.review(SPEC).await.assert_allowed();
    let calls = fake.calls();
    assert!(
        calls[1]
            .header("authorization")
            .is_some_and(|shown| shown != header)
    );
}
