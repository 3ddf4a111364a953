//! The failure table: whatever goes wrong with a plugin denies the review, naming the plugin and
//! why, or is passed over and counted, as the plugin's failure policy says. There is an answer in
//! every case, before the deadline.

use std::time::{Duration, Instant};

use http::Response;
use rstest::rstest;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::certificates::{Authority, Pair};
use crate::harness::client::full;
use crate::harness::sidecar::SPEC;
use crate::harness::{Fake, Home, Reply, Seen, Sidecar, with};

/// For the whole chain, where the configuration says nothing.
const DEADLINE: Duration = Duration::from_secs(5);

/// Has a run reviewed by one broken plugin named `judge`, under both failure policies.
async fn assert_fault(plugin: &Value, error_type: &str, words: &str) {
    for policy in ["Fail", "Ignore"] {
        let plugin = with(plugin.clone(), json!({"failurePolicy": policy}));
        let sidecar = Sidecar::with_plugins([plugin]).await;
        let asked = Instant::now();
        let answer = sidecar.review(SPEC).await;
        assert!(asked.elapsed() < DEADLINE, "answered in time");
        assert_eq!(answer.spec(), SPEC);

        let audit = sidecar.audit();
        let part = &audit[0]["plugins"][0];
        assert_eq!(part["errorType"], error_type, "{part}");
        let labels = format!("{{error_type=\"{error_type}\",kind=\"run\",plugin=\"judge\"}}");
        if policy == "Fail" {
            let denial = answer.denial();
            assert!(denial.contains("- judge: "), "{denial}");
            assert!(denial.contains(words), "{denial}");
            assert!(
                !denial.contains("127.0.0.1"),
                "users read no address: {denial}"
            );
            assert_eq!(part["verdict"], "failed");
            assert_eq!(audit[0]["decision"], "denied");
            sidecar
                .counted(&format!("plugin_rejection_total{labels}"), 1.0)
                .await;
            sidecar
                .counted("request_total{decision=\"denied\",kind=\"run\"}", 1.0)
                .await;
            sidecar.counted("request_failed_total", 1.0).await;
        } else {
            answer.assert_allowed();
            assert_eq!(part["verdict"], "failed_open");
            assert_eq!(audit[0]["decision"], "allowed");
            sidecar
                .counted(&format!("plugin_fail_open_total{labels}"), 1.0)
                .await;
            sidecar
                .counted("request_total{decision=\"allowed\",kind=\"run\"}", 1.0)
                .await;
        }
        let fault = sidecar.logged("plugin fault").await;
        assert_eq!(
            (&fault["plugin"], &fault["error_type"]),
            (&json!("judge"), &json!(error_type))
        );
        assert!(fault["detail"].as_str().is_some(), "{fault}");
    }
}

fn html(_: &Seen) -> Reply {
    Reply::text(200, "text/html", "<html>Welcome to nginx!</html>")
}

fn empty(_: &Seen) -> Reply {
    Reply::text(200, "application/json", "")
}

fn huge(_: &Seen) -> Reply {
    Reply::json(&json!({"spec": {"a": "x".repeat(200_000)}, "error": null}))
}

/// What both kinds of remote plugin may do wrong.
#[rstest]
#[case::silent(|_: &Seen| Reply::Silence, "timeout", "it did not answer within 300ms")]
#[case::internal_error(|_: &Seen| Reply::text(500, "text/plain", "Traceback: secret"), "status", "it answered HTTP 500 Internal Server Error")]
#[case::unauthorized(|_: &Seen| Reply::text(401, "text/plain", ""), "status", "it answered HTTP 401 Unauthorized")]
#[case::not_found(|_: &Seen| Reply::text(404, "text/plain", ""), "status", "it answered HTTP 404 Not Found")]
#[case::hangs_up(|_: &Seen| Reply::HangUp, "transport", "the connection to it broke before it answered")]
#[case::breaks_off(|_: &Seen| Reply::BreakOff, "transport", "its answer broke off")]
#[case::html(html, "undecodable", "its answer is not")]
#[case::empty(empty, "undecodable", "its answer is not")]
#[case::no_content(|_: &Seen| Reply::text(204, "application/json", ""), "undecodable", "its answer is not")]
#[case::a_list(|_: &Seen| Reply::json(&json!([])), "undecodable", "its answer is not")]
#[case::members_in_a_list(|_: &Seen| Reply::json(&json!([{}, null])), "undecodable", "its answer is not")]
#[case::another_shape(|_: &Seen| Reply::json(&json!({"detail": "ok"})), "undecodable", "its answer is not")]
#[case::not_utf8(|_: &Seen| Reply::text(200, "application/json", &b"{\"spec\": \"\xff\"}"[..]), "undecodable", "its answer is not")]
#[case::too_large(huge, "too_large", "its answer is larger than 100000 bytes")]
#[tokio::test]
async fn a_plugin_that_breaks_is_a_fault_by_its_failure_policy(
    #[case] behaviour: fn(&Seen) -> Reply,
    #[case] error_type: &str,
    #[case] words: &str,
    #[values("webhook", "rest")] kind: &str,
) {
    let fake = Fake::start(behaviour).await;
    let plugin = match kind {
        "webhook" => fake.webhook("judge"),
        _ => fake.rest("judge"),
    };
    let keys = json!({"timeout": "300ms", kind: {"maxResponseBytes": "100k"}});
    assert_fault(&with(plugin, keys), error_type, words).await;
    assert_eq!(fake.calls().len(), 2, "once under each policy, never again");
}

/// The rules of the API server for what a webhook may answer, and those of the chain.
#[rstest]
#[case::other_uid(|seen: &Seen| seen.reviewed(json!({"uid": "other"})), "wrong_uid", "the uid differs")]
#[case::no_verdict(|seen: &Seen| seen.reviewed(json!({"allowed": "yes"})), "undecodable", "not an AdmissionReview")]
#[case::unknown_patch_type(|seen: &Seen| seen.reviewed(json!({"patchType": "MergePatch", "patch": "e30="})), "patch_type", "its patchType is `MergePatch`")]
#[case::patch_without_type(|seen: &Seen| seen.reviewed(json!({"patch": "W10="})), "patch_type", "no patchType")]
#[case::no_base64(|seen: &Seen| seen.reviewed(json!({"patchType": "JSONPatch", "patch": "[]"})), "undecodable", "not base64")]
#[case::does_not_apply(|seen: &Seen| seen.patched(json!([{"op": "remove", "path": "/spec/nothing"}])), "patch_apply", "does not apply")]
#[case::test_fails(|seen: &Seen| seen.patched(json!([{"op": "test", "path": "/spec/run_name", "value": "x"}])), "patch_apply", "does not apply")]
#[case::outside_of_spec(|seen: &Seen| seen.patched(json!([{"op": "add", "path": "/metadata/labels", "value": {}}])), "patch_apply", "only what is below /spec")]
#[case::spec_made_a_list(|seen: &Seen| seen.patched(json!([{"op": "replace", "path": "/spec", "value": []}])), "patch_apply", "its patch")]
#[tokio::test]
async fn a_webhook_that_breaks_the_rules_is_a_fault(
    #[case] behaviour: fn(&Seen) -> Reply,
    #[case] error_type: &str,
    #[case] words: &str,
) {
    let fake = Fake::start(behaviour).await;
    assert_fault(&fake.webhook("judge"), error_type, words).await;
}

/// What the dstack server itself would not take from a REST plugin server.
#[rstest]
#[case::empty_error(|_: &Seen| Reply::json(&json!({"spec": {}, "error": ""})), "`error` is an empty text")]
#[case::no_spec(|_: &Seen| Reply::json(&json!({"spec": null, "error": null})), "`spec` is no object")]
#[case::spec_is_a_list(|_: &Seen| Reply::json(&json!({"spec": []})), "`spec` is no object")]
#[case::error_is_an_object(|_: &Seen| Reply::json(&json!({"spec": {}, "error": {}})), "not one that dstack would take")]
#[tokio::test]
async fn a_rest_plugin_that_answers_what_dstack_refuses_is_a_fault(
    #[case] behaviour: fn(&Seen) -> Reply,
    #[case] words: &str,
) {
    let fake = Fake::start(behaviour).await;
    assert_fault(&fake.rest("judge"), "undecodable", words).await;
}

#[rstest]
#[case(301)]
#[case(307)]
#[case(308)]
#[tokio::test]
async fn a_redirect_is_not_followed(#[case] status: u16) {
    let elsewhere = Fake::start(Seen::allowed).await;
    let location = format!("{}/validate", elsewhere.url());
    let fake = Fake::start(move |_| {
        let response = Response::builder()
            .status(status)
            .header("location", &location);
        Reply::Http(response.body(full("")).unwrap())
    })
    .await;
    let words = format!("it redirects (HTTP {status}), which is not followed");
    assert_fault(&fake.webhook("judge"), "status", &words).await;
    assert!(elsewhere.calls().is_empty());
}

#[rstest]
#[tokio::test]
async fn a_validating_plugin_may_not_change_the_spec(#[values("webhook", "rest")] kind: &str) {
    let webhook = |seen: &Seen| seen.patched(json!([{"op": "add", "path": "/spec/x", "value": 1}]));
    let fake = match kind {
        "webhook" => Fake::start(webhook).await,
        _ => Fake::start(|seen| seen.answered(|spec| spec["x"] = json!(1))).await,
    };
    let plugin = if kind == "webhook" {
        fake.webhook("judge")
    } else {
        fake.rest("judge")
    };
    let words = "it answered with a patch, which the validating phase does not take";
    assert_fault(
        &with(plugin, json!({"phase": "validating"})),
        "patch_not_allowed",
        words,
    )
    .await;
}

#[rstest]
#[case::run_name("/run_name", json!("r2"))]
#[case::repo("/repo_id", json!("other"))]
#[case::new_repo_member("/repo_code_hash", json!("x"))]
#[case::ssh_key("/ssh_key_pub", json!("ssh-rsa A"))]
#[case::files("/file_archives", json!([]))]
#[case::kind("/configuration/type", json!("service"))]
#[case::name("/configuration/name", json!("n"))]
#[tokio::test]
async fn what_identifies_an_object_is_changed_only_with_a_grant(
    #[case] path: &str,
    #[case] value: Value,
) {
    let operations = json!([{"op": "add", "path": format!("/spec{path}"), "value": value}]);
    let fake = Fake::start(move |seen| seen.patched(operations.clone())).await;
    let words = format!("its patch changes {path}, which is protected (`mayPatch` grants it)");
    assert_fault(&fake.webhook("judge"), "protected", &words).await;

    let granted = with(fake.webhook("judge"), json!({"mayPatch": [path]}));
    let sidecar = Sidecar::with_plugins([granted]).await;
    let answer = sidecar.review(SPEC).await;
    let spec: Value = serde_json::from_str(answer.assert_allowed().spec()).unwrap();
    assert_eq!(spec.pointer(path), Some(&value));
}

#[tokio::test]
async fn a_grant_ends_at_its_path() {
    let fake = Fake::start(|seen| seen.answered(|spec| spec["repo_id"] = json!("other"))).await;
    let granted = with(fake.rest("judge"), json!({"mayPatch": ["/run_name"]}));
    assert_fault(&granted, "protected", "its patch changes /repo_id").await;
}

#[rstest]
#[tokio::test]
async fn a_plugin_that_is_down_is_a_fault(#[values("webhook", "rest")] kind: &str) {
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let plugin = json!({"name": "judge", kind: {"url": format!("http://{port}")}});
    assert_fault(
        &plugin,
        "connect",
        "no connection to it could be made (connection refused)",
    )
    .await;
}

#[tokio::test]
async fn a_plugin_whose_name_is_unknown_is_a_fault() {
    let plugin = json!({"name": "judge", "webhook": {"url": "https://nowhere.invalid/"}});
    let message = "no connection to it could be made (unknown host)";
    assert_fault(&plugin, "connect", message).await;
}

#[rstest]
#[case::public_roots_only(false)]
#[case::another_ca(true)]
#[tokio::test]
async fn a_plugin_of_an_unknown_ca_is_a_fault(#[case] ca_file: bool) {
    let home = Home::new();
    let fake = Fake::start_tls(
        Authority::new("unknown").server().server_config(None),
        Seen::allowed,
    )
    .await;
    let mut plugin = fake.webhook("judge");
    if ca_file {
        let other = home.write("ca.pem", Authority::new("other").pem());
        plugin = with(plugin, json!({"webhook": {"caFile": other}}));
    }
    let message =
        "no TLS connection to it could be made: its certificate is from an unknown issuer";
    assert_fault(&plugin, "tls", message).await;
    assert!(fake.calls().is_empty(), "the spec went nowhere");
}

#[rstest]
#[case::for_another_name(Authority::server_elsewhere, "for another name")]
#[case::expired(|authority: &Authority| authority.server_until(2020), "expired")]
#[case::not_for_servers(Authority::client, "not one for servers")]
#[tokio::test]
async fn a_plugin_whose_certificate_is_wrong_is_a_fault_that_says_why(
    #[case] pair: fn(&Authority) -> Pair,
    #[case] why: &str,
) {
    let (home, authority) = (Home::new(), Authority::new("plugins"));
    let fake = Fake::start_tls(pair(&authority).server_config(None), Seen::allowed).await;
    let ca = home.write("ca.pem", authority.pem());
    let plugin = with(fake.webhook("judge"), json!({"webhook": {"caFile": ca}}));
    assert_fault(&plugin, "tls", why).await;
}

#[tokio::test]
async fn a_plugin_that_speaks_plain_http_on_its_https_port_is_a_fault() {
    let fake = Fake::start(Seen::allowed).await;
    let url = format!("https://{}", fake.address);
    let plugin = json!({"name": "judge", "rest": {"url": url}});
    let message = "no TLS connection to it could be made: it does not speak TLS";
    assert_fault(&plugin, "tls", message).await;
}

/// JSON Patches that grow what they copy, or nest it deeper with every step.
#[rstest]
#[case::doubling(doubling())]
#[case::nesting(nesting())]
#[tokio::test]
async fn a_patch_that_explodes_is_a_fault(#[case] operations: Value) {
    let fake = Fake::start(move |seen| seen.patched(operations.clone())).await;
    let words = "its patch does not apply to the spec";
    assert_fault(&fake.webhook("judge"), "patch_apply", words).await;
}

fn doubling() -> Value {
    let copy = json!({"op": "copy", "from": "/spec/x", "path": "/spec/x/-"});
    let mut operations = vec![json!({"op": "add", "path": "/spec/x", "value": ["x".repeat(1000)]})];
    operations.extend(std::iter::repeat_n(copy, 40));
    json!(operations)
}

fn nesting() -> Value {
    let mut operations = vec![json!({"op": "add", "path": "/spec/x", "value": {}})];
    for _ in 0..3_000 {
        operations.extend([
            json!({"op": "add", "path": "/spec/y", "value": {}}),
            json!({"op": "move", "from": "/spec/x", "path": "/spec/y/a"}),
            json!({"op": "move", "from": "/spec/y", "path": "/spec/x"}),
        ]);
    }
    json!(operations)
}
