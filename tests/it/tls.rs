//! Who may connect and ask: TLS versions, certificates made and given, client certificates,
//! credentials, and what may not be served at all.

use http::Method;
use rstest::rstest;
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, SupportedProtocolVersion};
use serde_json::{Value, json};

use crate::harness::certificates::Authority;
use crate::harness::client::{Trust, stream};
use crate::harness::sidecar::{RUN, SPEC, body, post, request};
use crate::harness::{Connection, Home, Protocol, Sidecar, in_time};

#[rstest]
#[tokio::test]
async fn both_versions_of_tls_and_of_http_are_spoken(
    #[values(&TLS12, &TLS13)] version: &'static SupportedProtocolVersion,
    #[values(Protocol::Http1, Protocol::Http2)] protocol: Protocol,
) {
    let mut sidecar = Sidecar::start(json!({})).await;
    sidecar.trust.as_mut().unwrap().versions = vec![version];
    let mut connection = sidecar.connect(protocol).await;
    let answer = connection.send(post(RUN, body(SPEC))).await.unwrap();
    assert_eq!(answer.assert_allowed().spec(), SPEC);
}

#[tokio::test]
async fn a_made_certificate_holds_for_every_name_of_loopback_and_the_given_ones() {
    let sidecar = Sidecar::start(json!({"serverNames": ["admission.example.com"]})).await;
    let trust = sidecar.trust.clone().unwrap();
    let by_address = stream(sidecar.address, Some(&trust), Protocol::Http1).await;
    assert!(by_address.is_ok());
    let said = sidecar.stdout();
    let uri = format!("https://admission.example.com:{}", sidecar.address.port());
    assert_eq!(said[0], format!("DSTACK_PLUGIN_SERVICE_URI={uri}"));
    let state = sidecar.home.path("state");
    assert_eq!(
        said[1],
        format!("REQUESTS_CA_BUNDLE={}/trust", state.display())
    );
    assert_eq!(
        said[2],
        format!("AWS_CA_BUNDLE={}/trust.pem", state.display())
    );
}

#[tokio::test]
async fn a_made_certificate_is_kept_across_restarts() {
    let first = Sidecar::start(json!({})).await;
    let server = first.home.path("state/tls/server.pem");
    let kept = [
        std::fs::read(&server).unwrap(),
        std::fs::read(first.home.path("state/ca.pem")).unwrap(),
    ];
    let trust = first.trust.clone();
    let home = first.stop().await;

    let mut second = Sidecar::start_in(home, json!({})).await;
    let now = [
        std::fs::read(second.home.path("state/tls/server.pem")).unwrap(),
        std::fs::read(second.home.path("state/ca.pem")).unwrap(),
    ];
    assert!(kept == now);
    second.trust = trust;
    second.review(SPEC).await.assert_allowed();
}

#[tokio::test]
async fn certificates_from_files_are_shown_and_read_again_when_they_change() {
    let (home, first, second) = (
        Home::new(),
        Authority::new("first"),
        Authority::new("second"),
    );
    let pair = first.server();
    let tls = json!({
        "certFile": home.write("cert.pem", pair.cert),
        "keyFile": home.write("key.pem", pair.key),
    });
    let mut sidecar = Sidecar::start_in(home, json!({"tls": tls})).await;
    sidecar.trust = Some(Trust::new(first.pem()));
    sidecar.review(SPEC).await.assert_allowed();
    assert_eq!(
        sidecar.stdout().len(),
        1,
        "no trust was made: {:?}",
        sidecar.stdout()
    );

    let pair = second.server();
    sidecar.home.write("cert.pem", pair.cert);
    sidecar.home.write("key.pem", pair.key);
    sidecar.signal(rustix::process::Signal::HUP);
    sidecar
        .counted("config_reload_total{result=\"success\"}", 1.0)
        .await;
    sidecar.trust = Some(Trust::new(second.pem()));
    sidecar.review(SPEC).await.assert_allowed();
}

#[tokio::test]
async fn with_client_ca_file_only_its_clients_may_connect() {
    let (home, ours, strangers) = (
        Home::new(),
        Authority::new("ours"),
        Authority::new("strangers"),
    );
    let ca = home.write("clients.pem", ours.pem());
    let mut sidecar = Sidecar::start_in(home, json!({"tls": {"clientCAFile": ca}})).await;
    for client in [None, Some(strangers.client())] {
        sidecar.trust.as_mut().unwrap().client = client;
        let refused = async {
            let open = Connection::open(sidecar.address, sidecar.trust.as_ref(), Protocol::Http1);
            // TLS 1.3 lets a client send before its certificate is judged.
            match open.await {
                Ok(mut connection) => connection.send(post(RUN, body(SPEC))).await.is_err(),
                Err(_) => true,
            }
        };
        assert!(in_time("an end", refused).await);
    }
    sidecar
        .counted("connection_error_total{reason=\"handshake\"}", 2.0)
        .await;
    sidecar.trust.as_mut().unwrap().client = Some(ours.client());
    sidecar.review(SPEC).await.assert_allowed();
}

#[tokio::test]
async fn nobody_who_does_not_trust_the_made_ca_is_served() {
    let sidecar = Sidecar::start(json!({})).await;
    let stranger = Trust::new(Authority::new("another").pem());
    let error = stream(sidecar.address, Some(&stranger), Protocol::Http1)
        .await
        .err()
        .unwrap();
    let tls = error.get_ref().unwrap().downcast_ref::<rustls::Error>();
    assert_eq!(
        tls,
        Some(&rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer
        ))
    );
}

#[tokio::test]
async fn without_tls_the_port_speaks_plain_http_on_loopback() {
    let sidecar = Sidecar::start(json!({"tls": "off"})).await;
    assert!(sidecar.trust.is_none());
    let uri = format!(
        "DSTACK_PLUGIN_SERVICE_URI=http://localhost:{}",
        sidecar.address.port()
    );
    assert_eq!(sidecar.stdout(), [uri]);
    assert_eq!(sidecar.review(SPEC).await.assert_allowed().spec(), SPEC);
}

const PASSWORD: &str = "pass:wörd";

#[rstest]
// dstack:pass:wörd in UTF-8 and as Python's requests writes it, in Latin-1.
#[case::right("basic", Some("Basic ZHN0YWNrOnBhc3M6d8O2cmQ="), 200)]
#[case::latin1("basic", Some("Basic ZHN0YWNrOnBhc3M6d/ZyZA=="), 200)]
#[case::other_case_of_the_scheme("basic", Some("basic ZHN0YWNrOnBhc3M6d8O2cmQ="), 200)]
#[case::wrong_password("basic", Some("Basic ZHN0YWNrOndyb25n"), 401)]
#[case::not_base64("basic", Some("Basic %%%"), 401)]
#[case::no_credentials("basic", None, 401)]
#[case::only_the_scheme("basic", Some("Basic "), 401)]
#[case::password_as_bearer("basic", Some("Bearer pass:word"), 401)]
#[case::right_token("bearer", Some("Bearer t0ken"), 200)]
#[case::wrong_token("bearer", Some("Bearer t0ken2"), 401)]
#[case::part_of_the_token("bearer", Some("Bearer t0ke"), 401)]
#[case::no_token("bearer", None, 401)]
#[tokio::test]
async fn only_the_right_credentials_are_served(
    #[case] scheme: &str,
    #[case] shown: Option<&str>,
    #[case] status: u16,
) {
    let home = Home::new();
    let auth = match scheme {
        "basic" => {
            json!({"basic": {"username": "dstack", "passwordFile": home.write("secret", format!("{PASSWORD}\n"))}})
        }
        _ => json!({"bearerTokenFile": home.write("secret", "t0ken\n")}),
    };
    let sidecar = Sidecar::start_in(home, json!({"auth": auth})).await;
    let mut request = post(RUN, body(SPEC));
    if let Some(shown) = shown {
        request
            .headers_mut()
            .insert("authorization", shown.parse().unwrap());
    }
    let answer = sidecar.send(request).await;
    assert_eq!(answer.status, status, "{}", answer.text());
    if status == 401 {
        let challenge = answer.header("www-authenticate").unwrap().to_lowercase();
        assert!(challenge.starts_with(scheme), "{challenge}");
        sidecar.counted("http_error_total{code=\"401\"}", 1.0).await;
        assert!(sidecar.audit().is_empty());
    }
    let said = format!("{:?}{}", sidecar.log(), answer.text());
    assert!(
        !said.contains("t0ken") && !said.contains("pass:w"),
        "{said}"
    );
}

#[tokio::test]
async fn strangers_learn_nothing_about_paths() {
    let home = Home::new();
    let auth = json!({"bearerTokenFile": home.write("secret", "t0ken")});
    let sidecar = Sidecar::start_in(home, json!({"auth": auth})).await;
    assert_eq!(
        sidecar
            .send(request(Method::GET, "/nothing", ""))
            .await
            .status,
        401
    );
}

#[rstest]
#[case::no_credentials(json!({"listen": "0.0.0.0:0"}), "set `auth.basic`, `auth.bearerTokenFile` or `tls.clientCAFile`")]
#[case::ipv6(json!({"listen": "[::]:0"}), "set `auth.basic`")]
#[case::one_port(json!({"listen": "127.0.0.1:8443", "admin": "127.0.0.1:8443"}), "admin: 127.0.0.1:8443 is `listen` already")]
#[case::plain_http(json!({"listen": "0.0.0.0:0", "tls": "off", "auth": {"bearerTokenFile": "/dev/null"}}), "plain HTTP is for loopback only")]
#[case::empty_secret(json!({"auth": {"bearerTokenFile": "/dev/null"}}), "/dev/null: it is empty")]
#[case::no_certificate(json!({"tls": {"certFile": "/dev/null", "keyFile": "/dev/null"}}), "no PEM certificate")]
#[tokio::test]
async fn what_would_be_unsafe_is_not_served(#[case] keys: Value, #[case] words: &str) {
    let (code, said) = Home::new().refused(&keys);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains(words), "{said}");
    assert!(said.contains("config.yaml:"), "it names the place: {said}");
}

/// It is served all the same: the alert and readiness of the dstack server tell, and a new file mends it.
#[tokio::test]
async fn an_expired_certificate_is_told_of() {
    let home = Home::new();
    let pair = Authority::new("house CA").server_until(2020);
    let tls = json!({"certFile": home.write("cert.pem", &pair.cert), "keyFile": home.write("key.pem", &pair.key)});
    let sidecar = Sidecar::start_in(home, json!({"tls": tls})).await;
    let told = "tls.certFile: it expired at 2020-01-01T00:00:00Z, and no dstack server takes it";
    sidecar
        .log_line(told, |line| line.to_string().contains(told))
        .await;
}

#[tokio::test]
async fn beyond_loopback_it_serves_those_with_credentials() {
    let home = Home::new();
    let auth = json!({"bearerTokenFile": home.write("secret", "t0ken")});
    let mut sidecar = Sidecar::start_in(home, json!({"listen": "0.0.0.0:0", "auth": auth})).await;
    sidecar.address.set_ip([127, 0, 0, 1].into());
    let mut request = post(RUN, body(SPEC));
    request
        .headers_mut()
        .insert("authorization", "Bearer t0ken".parse().unwrap());
    sidecar.send(request).await.assert_allowed();
}
