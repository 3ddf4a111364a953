//! Credentials: where Python's `requests` takes them from, and what a sidecar says to them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rstest::rstest;
use serde_json::json;

use super::Doctor;
use crate::harness::certificates::Authority;
use crate::harness::{Home, Sidecar};

const RIGHT: &str = "machine localhost login dstack password p4ss\n";

/// A sidecar that wants dstack:p4ss.
async fn asking() -> Sidecar {
    let home = Home::new();
    let password = home.write("password", "p4ss\n");
    let auth = json!({"basic": {"username": "dstack", "passwordFile": password}});
    let plugins = json!([{"name": "canary", "use": "canary"}]);
    Sidecar::start_in(home, json!({"auth": auth, "plugins": plugins})).await
}

#[rstest]
#[case::right(RIGHT, 0o600, "review", "ok", "canary")]
#[case::right_found(RIGHT, 0o600, "netrc", "ok", "an entry for localhost")]
#[case::default("default login dstack password p4ss", 0o600, "review", "ok", "canary")]
#[case::wrong(
    "machine localhost login dstack password other",
    0o600,
    "review",
    "fail",
    "credentials are refused"
)]
#[case::other_host(
    "machine elsewhere login dstack password p4ss",
    0o600,
    "review",
    "fail",
    "none are sent"
)]
#[case::other_host_found(
    "machine elsewhere login a password b",
    0o600,
    "netrc",
    "ok",
    "no entry for localhost"
)]
#[case::readable(RIGHT, 0o644, "netrc", "warn", "chmod 600")]
#[case::broken(
    "machine localhost login dstack p4ss",
    0o600,
    "netrc",
    "fail",
    "silently sends nothing"
)]
#[tokio::test]
async fn a_netrc_file_is_read_as_requests_does(
    #[case] text: &str,
    #[case] mode: u32,
    #[case] check: &str,
    #[case] status: &str,
    #[case] words: &str,
) {
    let sidecar = asking().await;
    // Once as the user's own, once by its name.
    let own = sidecar.home.write(".netrc", text);
    let named = sidecar.home.write("named", text);
    for file in [&own, &named] {
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
    }
    let doctor = Doctor::of(&sidecar);
    let by_name = doctor
        .clone()
        .with("HOME", "/nowhere")
        .with_path("NETRC", &named);
    for doctor in [doctor, by_name] {
        let diagnosis = doctor.run().await;
        diagnosis.assert(check, status, words);
        assert!(!diagnosis.text.contains("p4ss"), "{}", diagnosis.text);
    }
}

#[tokio::test]
async fn without_a_netrc_file_a_sidecar_that_asks_is_not_satisfied() {
    let sidecar = asking().await;
    let doctor = Doctor::of(&sidecar);
    let diagnosis = doctor.run().await;
    diagnosis.assert("netrc", "ok", "there is none");
    diagnosis.assert("review", "fail", "machine localhost login USER");
    let missing = doctor.with("NETRC", "/nowhere/netrc").run().await;
    missing.assert("netrc", "fail", "/nowhere/netrc, which is not there");
}

#[tokio::test]
async fn credentials_in_the_address_work_and_are_a_failure_all_the_same() {
    let sidecar = asking().await;
    let port = sidecar.address.port();
    let uri = format!("https://dstack:p4ss@localhost:{port}");
    let doctor = Doctor::of(&sidecar).with("DSTACK_PLUGIN_SERVICE_URI", uri);
    let diagnosis = doctor.run().await;
    diagnosis.assert("uri", "fail", "shows them to every user");
    diagnosis.assert("review", "ok", "canary");
    assert!(!diagnosis.text.contains("p4ss"));

    let netrc = sidecar
        .home
        .write("netrc", "machine localhost login dstack password other");
    fs::set_permissions(&netrc, fs::Permissions::from_mode(0o600)).unwrap();
    let overridden = doctor.with_path("NETRC", netrc).run().await;
    overridden.assert("netrc", "warn", "overrides the URI's credentials");
    overridden.assert("review", "fail", "credentials are refused");
}

#[tokio::test]
async fn a_client_certificate_is_nothing_that_the_dstack_server_has() {
    let home = Home::new();
    let clients = home.write("clients.pem", Authority::new("clients").pem());
    let keys = json!({"tls": {"clientCAFile": clients}});
    let config = home.configure(&keys);
    let sidecar = Sidecar::start_with(home, &config).await;
    let diagnosis = Doctor::of(&sidecar).run().await;
    diagnosis.assert("review", "fail", "auth.basic");
}
