//! What comes back to the canary, from a sidecar and from what is none.

use rstest::rstest;
use serde_json::{Value, json};

use super::Doctor;
use crate::harness::{Fake, Reply, Sidecar};

const CANARY: &str = "canary: reviews arrive and are decided here";

fn answer(more: Value) -> Reply {
    Reply::json(&crate::harness::with(
        json!({"spec": {}, "error": null}),
        more,
    ))
}

fn status(code: u16, headers: &[(&str, &str)]) -> Reply {
    let mut response = http::Response::builder().status(code);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    let body = crate::harness::client::full(format!("answered {code}"));
    Reply::Http(response.body(body).unwrap())
}

#[rstest]
#[case::denied(|| answer(json!({"error": CANARY, "decision": "X"})), "review", "ok", "decision X")]
#[case::allowed(|| answer(json!({"decision": "X"})), "review", "warn", "and allowed")]
#[case::otherwise(|| answer(json!({"error": "no runs on Sundays", "decision": "X"})), "review", "warn", "Sundays")]
#[case::other_server(|| answer(json!({})), "review", "warn", "not dstack-admission")]
#[case::html(|| Reply::text(200, "text/html", "<p>hello"), "review", "fail", "something else")]
#[case::unauthorized(|| status(401, &[]), "review", "fail", "none are sent")]
#[case::not_found(|| status(404, &[]), "review", "fail", "pathPrefix")]
#[case::redirect(|| status(302, &[("location", "https://there")]), "review", "fail", "redirects to https://there")]
#[case::gateway(|| status(502, &[]), "review", "fail", "something between")]
#[case::teapot(|| status(418, &[]), "review", "fail", "answered 418")]
#[case::hung_up(|| Reply::HangUp, "review", "fail", "no answer")]
#[case::broken_off(|| Reply::BreakOff, "review", "fail", "no answer")]
#[case::clock(|| status(200, &[("date", "Sun, 06 Nov 1994 08:49:37 GMT")]), "clock", "warn", "behind")]
#[case::other_clock(|| status(200, &[("date", "Fri, 06 Nov 2099 08:49:37 GMT")]), "clock", "warn", "ahead of")]
#[tokio::test]
async fn an_answer_is_judged_by_what_the_dstack_server_makes_of_it(
    #[case] reply: fn() -> Reply,
    #[case] check: &str,
    #[case] status: &str,
    #[case] words: &str,
) {
    let fake = Fake::start(move |_| reply()).await;
    let diagnosis = Doctor::at(fake.url()).run().await;
    diagnosis.assert(check, status, words);
    let call = fake.call();
    assert_eq!(call.target, "/apply_policies/on_run_apply");
    assert_eq!(call.spec()["run_name"], "dstack-admission-canary");
}

#[tokio::test]
async fn no_answer_is_not_waited_for_longer_than_said() {
    let fake = Fake::start(|_| Reply::Silence).await;
    let began = std::time::Instant::now();
    let doctor = Doctor::at(fake.url()).arg("--timeout").arg("300ms");
    doctor
        .run()
        .await
        .assert("review", "fail", "nothing within 300ms");
    assert!(began.elapsed() < std::time::Duration::from_secs(4));
}

#[tokio::test]
async fn a_chain_without_a_canary_decides_and_is_told_to_have_one() {
    let sidecar = Sidecar::with_plugins([]).await;
    let doctor = Doctor::at(format!("http://{}", sidecar.address));
    doctor.run().await.assert("review", "warn", "use: canary");
    let denying = json!({"name": "no", "cel": {"validations": [{"expression": "false", "message": "never"}]}});
    let sidecar = Sidecar::with_plugins([denying]).await;
    let doctor = Doctor::at(format!("http://{}", sidecar.address));
    doctor
        .run()
        .await
        .assert("review", "warn", "not by its policy");
}

#[tokio::test]
async fn the_canary_is_a_spec_that_every_built_in_policy_can_read() {
    let plugins = [
        "canary",
        "max-price",
        "gpu-limit",
        "allowed-images",
        "name-pattern",
    ];
    let with = |name: &str| match name {
        "max-price" => json!({"limit": 2.0}),
        "gpu-limit" => json!({"max": 8}),
        "allowed-images" => json!({"allow": ["*"]}),
        "name-pattern" => json!({"pattern": "canary"}),
        _ => json!({}),
    };
    let plugin = |name: &&str| json!({"name": name, "use": name, "with": with(name)});
    let sidecar = Sidecar::with_plugins(plugins.iter().map(plugin)).await;
    let doctor = Doctor::at(format!("http://{}", sidecar.address));
    doctor.run().await.assert("review", "ok", "canary");
    let denial = sidecar.audit()[0].to_string();
    assert!(!denial.contains("failed"), "{denial}");
}
