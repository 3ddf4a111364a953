//! The dstack server: its configuration, its version, and what its API says to the canary's plan.

use rstest::rstest;
use serde_json::{Value, json};

use super::Doctor;
use crate::harness::{Fake, Home, Reply, Sidecar};

/// A dstack server of this version that answers a plan like this.
async fn server(version: &'static str, status: u16, detail: Value) -> Fake {
    Fake::start(move |seen| match seen.target.as_str() {
        "/api/server/get_info" => Reply::json(&json!({"server_version": version})),
        "/api/project/main/runs/get_plan" => {
            let body = json!({"detail": detail.clone()}).to_string();
            Reply::text(status, "application/json", body)
        }
        _ => Reply::text(404, "text/plain", ""),
    })
    .await
}

fn said(message: &str) -> Value {
    json!([{"msg": message, "code": "error"}])
}

/// A doctor who asks this server, besides a sidecar with this chain.
async fn asking(server: &Fake, plugins: &[Value]) -> (Home, Sidecar, Doctor) {
    let home = Home::new();
    let token = home.write("token", "t0ken\n");
    let sidecar = Sidecar::with_plugins(plugins.to_vec()).await;
    let doctor = Doctor::at(format!("http://{}", sidecar.address))
        .arg("--server")
        .arg(server.url())
        .arg("--token-file")
        .arg(token.to_str().unwrap());
    (home, sidecar, doctor)
}

const DENIED: &str = "Apply request rejected: 1 policy denies this run:\n- canary: reviews arrive and are decided here";

#[rstest]
#[case::denied(400, said(DENIED), "ok", "denied through the dstack server")]
#[case::other_policy(
    400,
    said("Apply request rejected: 1 policy could not be checked:\n- quota: no connection"),
    "warn",
    "denied: 1 policy could not be checked: - quota: no connection"
)]
#[case::planned(200, json!(null), "fail", "Enabled plugins not found")]
#[case::refused_later(400, said("No offers"), "fail", "with an underscore")]
#[case::not_reached(
    400,
    said("Could not connect to plugin service at x"),
    "fail",
    "could not connect"
)]
#[case::failed(
    400,
    said("Request to the plugin service failed"),
    "fail",
    "wrong credentials"
)]
#[case::unset(
    400,
    said("DSTACK_PLUGIN_SERVICE_URI is not set"),
    "fail",
    "server's process"
)]
#[case::invalid(
    400,
    said("Plugin service returned an invalid response"),
    "fail",
    "something else"
)]
#[case::token(403, json!("Access denied"), "fail", "--token-file")]
#[case::project(404, json!("Not found"), "fail", "--project")]
#[case::broken(500, json!("oh"), "fail", "log")]
#[tokio::test]
async fn the_server_s_answer_shows_whether_its_plugins_are_loaded(
    #[case] code: u16,
    #[case] detail: Value,
    #[case] status: &str,
    #[case] words: &str,
) {
    let server = server("0.22.5", code, detail).await;
    let canary = json!({"name": "canary", "use": "canary"});
    let (_home, _sidecar, doctor) = asking(&server, &[canary]).await;
    let diagnosis = doctor.run().await;
    diagnosis.assert("plugins", status, words);
    diagnosis.assert("version", "ok", "dstack 0.22.5");
    assert!(!diagnosis.text.contains("t0ken"));
    for call in server.calls() {
        assert_eq!(call.header("authorization"), Some("Bearer t0ken"));
    }
}

/// The sidecar of a pod is on loopback, out of reach for whoever asks from another one.
#[tokio::test]
async fn without_an_address_the_server_alone_is_asked() {
    let server = server("0.22.5", 400, said(DENIED)).await;
    let (_home, _sidecar, doctor) = asking(&server, &[]).await;
    let diagnosis = doctor.without("DSTACK_PLUGIN_SERVICE_URI").run().await;
    diagnosis.assert("uri", "ok", "the server alone is asked");
    diagnosis.assert("plugins", "ok", "denied through the dstack server");
    diagnosis.assert_well();
}

#[tokio::test]
async fn a_plan_shows_nothing_where_no_policy_denies_the_canary() {
    let server = server("0.22.5", 200, json!(null)).await;
    let (_home, _sidecar, doctor) = asking(&server, &[]).await;
    doctor.run().await.assert("plugins", "warn", "use: canary");
}

/// As the test of the chart asks, whose chain has the canary.
#[rstest]
#[case::not_asked(200, json!(null), "rest_plugin")]
#[case::denied_by_another(400, said("Apply request rejected: no"), "another policy")]
#[tokio::test]
async fn a_canary_that_is_named_has_to_be_denied(
    #[case] status: u16,
    #[case] detail: Value,
    #[case] words: &str,
) {
    let server = server("0.22.5", status, detail).await;
    let (_home, _sidecar, doctor) = asking(&server, &[]).await;
    let doctor = doctor.arg("--canary").arg("dstack-admission-canary");
    doctor.run().await.assert("review", "fail", "use: canary");
    let from_elsewhere = doctor.without("DSTACK_PLUGIN_SERVICE_URI").run().await;
    from_elsewhere.assert("plugins", "fail", words);
}

#[rstest]
#[case::known("0.20.29", "ok", "dstack 0.20.29")]
#[case::newer("99.0.0", "warn", "docs/upgrading.md")]
#[case::too_old("0.19.10", "fail", "0.19.11 or later")]
#[case::unreleased("latest", "warn", "no released version")]
#[tokio::test]
async fn a_version_that_the_sidecar_does_not_know_is_told(
    #[case] version: &'static str,
    #[case] status: &str,
    #[case] words: &str,
) {
    let server = server(version, 400, said(DENIED)).await;
    let (_home, _sidecar, doctor) = asking(&server, &[]).await;
    doctor.run().await.assert("version", status, words);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_told() {
    let fake = Fake::start(|_| Reply::HangUp).await;
    let (_home, _sidecar, doctor) = asking(&fake, &[]).await;
    doctor
        .run()
        .await
        .assert("server", "fail", "does not answer");
}

#[rstest]
#[case::good("projects: []\nplugins:\n- rest_plugin\n", "ok", "enables rest_plugin")]
#[case::hyphen("plugins: [rest-plugin]", "fail", "enables `rest-plugin`")]
#[case::together("plugins: [my_plugin, RestPlugin]", "fail", "enables `RestPlugin`")]
#[case::other("plugins: [my_plugin]", "fail", "does not enable rest_plugin")]
#[case::none("projects: []", "fail", "does not enable rest_plugin")]
#[case::empty("", "fail", "does not enable rest_plugin")]
#[case::no_yaml("plugins: [", "fail", "cannot be read")]
#[case::no_list("plugins: rest_plugin", "fail", "cannot be read")]
#[tokio::test]
async fn the_server_s_configuration_must_enable_the_plugin(
    #[case] text: &str,
    #[case] status: &str,
    #[case] words: &str,
) {
    let home = Home::new();
    let file = home.write("config.yml", text);
    let given = Doctor::default()
        .arg("--server-config")
        .arg(file.to_str().unwrap());
    given.run().await.assert("config", status, words);

    let own = home.path(".dstack/server");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(own.join("config.yml"), text).unwrap();
    let found = Doctor::default().with_path("HOME", home.path(""));
    found.run().await.assert("config", status, words);
    let elsewhere = Doctor::default().with_path("DSTACK_SERVER_DIR", own);
    elsewhere.run().await.assert("config", status, words);
}

#[tokio::test]
async fn a_server_that_reads_no_configuration_loads_no_plugins() {
    let doctor = Doctor::default().with("DSTACK_SERVER_CONFIG_DISABLED", "");
    doctor
        .run()
        .await
        .assert("config", "fail", "plugins never load");
}
