//! The page of the latest decisions.

use http::{Method, StatusCode};
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::sidecar::{RUN, SPEC, request};
use crate::harness::{Fake, Protocol, Sidecar, client, eventually, in_time};

/// A run whose names are markup.
const MARKUP: &str = r#"{"run_name": "<script>alert(1)</script>", "configuration": {"type": "task", "env": {"PASSWORD": "s3cret-s3cret"}}}"#;

async fn shown(sidecar: &Sidecar) -> Vec<Value> {
    let page = sidecar.admin("/decisions?format=json").await;
    page.json()["decisions"].as_array().unwrap().clone()
}

#[tokio::test]
async fn each_decision_is_on_the_page_with_what_came_of_it() {
    let fake = Fake::denying("not today, s3cret-s3cret").await;
    let monitored = json!({"name": "later", "mode": "monitor", "cel": {"validations": [{"expression": "false", "message": "never"}]}});
    let sidecar = Sidecar::with_plugins([fake.webhook("judge"), monitored]).await;
    let body = json!({"user": "al<b>ice", "project": "main\"'", "spec": serde_json::from_str::<Value>(MARKUP).unwrap()});
    let first = sidecar.post(RUN, body.to_string()).await.decision();
    let again = sidecar.post(RUN, body.to_string()).await.decision();
    eventually("the monitored plugins are told", async || {
        shown(&sidecar)
            .await
            .iter()
            .all(|entry| entry["monitored"]["decision"] == "would_deny")
    })
    .await;
    let entries = shown(&sidecar).await;
    assert_eq!(entries.len(), 2);
    assert_eq!(
        (&entries[0]["auditID"], &entries[1]["auditID"]),
        (&json!(again), &json!(first))
    );
    assert_eq!(entries[0]["repeatOf"], json!(first));
    assert_eq!(entries[0]["decision"], "denied");
    assert_eq!(entries[0]["plugins"][0]["verdict"], "denied");

    let page = sidecar.admin("/decisions").await;
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; style-src 'self'"),
        "{policy}"
    );
    let html = page.text();
    assert!(
        html.contains(&first) && html.contains("not today, [redacted]"),
        "{html}"
    );
    assert!(
        html.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && html.contains("al&lt;b&gt;ice")
    );
    for bad in ["<script", "<b>ice", "s3cret"] {
        assert!(!html.contains(bad), "{bad}: {html}");
    }
    assert!(html.contains("http-equiv=\"refresh\""));
    let still = sidecar.admin("/decisions?refresh=off").await;
    assert!(!still.text().contains("http-equiv=\"refresh\""));
    let style = sidecar.admin("/decisions.css").await;
    assert_eq!(style.header("content-type"), Some("text/css"));
}

#[tokio::test]
async fn the_page_keeps_only_the_latest() {
    let sidecar = Sidecar::start(
        json!({"tls": "off", "audit": {"level": "None", "sinks": [{"stdout": {}}]}}),
    )
    .await;
    let mut connection = sidecar.connect(Protocol::Http1).await;
    let mut last = String::new();
    for _ in 0..505 {
        let review = connection.send(crate::harness::sidecar::post(
            RUN,
            crate::harness::sidecar::body(SPEC),
        ));
        last = in_time("an answer", review).await.unwrap().decision();
    }
    let entries = shown(&sidecar).await;
    assert_eq!(entries.len(), 500);
    assert_eq!(entries[0]["auditID"], json!(last));
    // What the dstack server needs, and no event.
    assert_eq!(sidecar.stdout().len(), 1);
}

#[rstest]
#[case::by_another_name("evil.example", StatusCode::MISDIRECTED_REQUEST)]
#[case::by_a_name_that_begins_alike("localhost.evil.example", StatusCode::MISDIRECTED_REQUEST)]
#[case::by_name("localhost:9443", StatusCode::OK)]
#[case::by_address("127.0.0.1:9443", StatusCode::OK)]
#[tokio::test]
async fn on_loopback_the_page_is_refused_to_pages_of_other_sites(
    #[case] host: &str,
    #[case] status: StatusCode,
) {
    let sidecar = Sidecar::start(json!({"tls": "off"})).await;
    for path in ["/decisions", "/configz"] {
        let mut connection = client::Connection::open(sidecar.admin, None, Protocol::Http1)
            .await
            .unwrap();
        let mut request = request(Method::GET, path, "");
        request.headers_mut().insert("host", host.parse().unwrap());
        let answer = in_time("an answer", connection.send(request))
            .await
            .unwrap();
        assert_eq!(answer.status, status, "{path}");
    }
}

#[rstest]
#[tokio::test]
async fn each_path_of_the_admin_port_is_only_read(
    #[values(
        "/metrics",
        "/livez",
        "/readyz",
        "/configz",
        "/decisions",
        "/decisions.css"
    )]
    path: &str,
) {
    let sidecar = Sidecar::start(json!({"tls": "off"})).await;
    let asked = async |method: Method| {
        let mut connection = client::Connection::open(sidecar.admin, None, Protocol::Http1)
            .await
            .unwrap();
        let request = request(method, path, "");
        in_time("an answer", connection.send(request))
            .await
            .unwrap()
    };
    for method in [
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ] {
        let answer = asked(method).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(answer.header("allow"), Some("GET, HEAD"));
        assert_eq!(answer.text(), "only GET\n");
    }
    assert_eq!(asked(Method::GET).await.status, StatusCode::OK);
    let head = asked(Method::HEAD).await;
    assert_eq!((head.status, head.text()), (StatusCode::OK, ""));
}

#[rstest]
#[case::on_loopback("127.0.0.1:0", json!(null), 200)]
#[case::on_loopback_when_off("127.0.0.1:0", json!(false), 404)]
#[case::beyond_loopback("0.0.0.0:0", json!(null), 404)]
#[case::beyond_loopback_when_on("0.0.0.0:0", json!(true), 200)]
#[tokio::test]
async fn beyond_loopback_the_page_has_to_be_wanted(
    #[case] admin: &str,
    #[case] wanted: Value,
    #[case] status: u16,
) {
    let mut keys = json!({"tls": "off", "admin": admin});
    if !wanted.is_null() {
        keys["decisionsPage"] = wanted;
    }
    let sidecar = Sidecar::start(keys).await;
    assert_eq!(sidecar.admin("/decisions").await.status, status);
    assert_eq!(sidecar.admin("/livez").await.status, 200);
}
