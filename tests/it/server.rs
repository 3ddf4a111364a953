//! What arrives at the review port, good and bad. After anything bad the next review is served as
//! if nothing had happened, and a metric has counted it.

use std::time::Duration;

use http::{Method, Request};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use rstest::rstest;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::sidecar::{RUN, SPEC, body, post, request};
use crate::harness::{Fake, Home, Protocol, Seen, Sidecar, in_time};

/// What a connection says until it is closed; resets count as its end.
async fn rest_of(mut stream: impl tokio::io::AsyncRead + Unpin) -> String {
    let mut said = Vec::new();
    let _ = in_time("the connection's end", stream.read_to_end(&mut said)).await;
    String::from_utf8_lossy(&said).into_owned()
}

async fn assert_serves(sidecar: &Sidecar) {
    let answer = sidecar.review(SPEC).await;
    assert_eq!(answer.assert_allowed().spec(), SPEC);
}

#[rstest]
#[case::run("/apply_policies/on_run_apply", "run")]
#[case::fleet("/apply_policies/on_fleet_apply", "fleet")]
#[case::volume("/apply_policies/on_volume_apply", "volume")]
#[case::gateway("/apply_policies/on_gateway_apply", "gateway")]
#[case::doubled_slashes("//apply_policies//on_run_apply", "run")]
#[tokio::test]
async fn each_path_is_answered_with_the_very_bytes_of_an_unpatched_spec(
    #[case] path: &str,
    #[case] kind: &str,
) {
    let sidecar = Sidecar::start(json!({})).await;
    let answer = sidecar.post(path, body(SPEC)).await;
    assert_eq!(answer.assert_allowed().spec(), SPEC);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let id = answer.decision();
    assert_eq!(
        answer.header("x-dstack-admission-decision"),
        Some(id.as_str())
    );
    let counted = format!("request_total{{decision=\"allowed\",kind=\"{kind}\"}}");
    sidecar.counted(&counted, 1.0).await;
    assert_eq!(sidecar.audit()[0]["auditID"], json!(id));
}

#[rstest]
#[case::configured("/admission/", "/admission/apply_policies/on_run_apply", 200)]
#[case::doubled_slash("/a/b", "/a//b//apply_policies/on_run_apply", 200)]
#[case::left_out("/admission", RUN, 404)]
#[tokio::test]
async fn a_path_prefix_belongs_to_every_path(
    #[case] prefix: &str,
    #[case] path: &str,
    #[case] status: u16,
) {
    let sidecar = Sidecar::start(json!({"pathPrefix": prefix})).await;
    let uri = &sidecar.stdout()[0];
    assert!(
        uri.ends_with(&format!("/{}", prefix.trim_matches('/'))),
        "{uri}"
    );
    assert_eq!(sidecar.post(path, body(SPEC)).await.status, status);
}

#[rstest]
#[case::no_json(Method::POST, RUN, "{user: alice}".into(), 400, "no review request")]
#[case::empty(Method::POST, RUN, "".into(), 400, "no review request")]
#[case::half_a_character(
    Method::POST,
    RUN,
    body(r#"{"a": "\ud800"}"#),
    400,
    "the spec cannot be read: "
)]
#[case::number_of_no_size(
    Method::POST,
    RUN,
    body(r#"{"a": 1e400}"#),
    400,
    "the spec cannot be read: number out of range"
)]
#[case::a_list(Method::POST, RUN, "[]".into(), 400, "no review request")]
#[case::members_in_a_list(Method::POST, RUN, r#"["alice", "main", {}]"#.into(), 400, "no review request")]
#[case::no_spec(Method::POST, RUN, r#"{"user": "a", "project": "p"}"#.into(), 400, "spec")]
#[case::user_is_a_number(Method::POST, RUN, r#"{"user": 1, "project": "p", "spec": {}}"#.into(), 400, "string")]
#[case::spec_is_a_list(Method::POST, RUN, body("[1]"), 400, "not a JSON object")]
#[case::spec_is_null(Method::POST, RUN, body("null"), 400, "not a JSON object")]
#[case::two_bodies(Method::POST, RUN, body("{}") + "{}", 400, "trailing")]
#[case::too_deep(Method::POST, RUN, body(&(r#"{"a":"#.repeat(500) + "1" + &"}".repeat(500))), 400, "the spec cannot be read: recursion")]
#[case::other_path(
    Method::POST,
    "/apply_policies/on_secret_apply",
    body("{}"),
    404,
    "on_{run,fleet,volume,gateway}_apply"
)]
#[case::below_a_path(
    Method::POST,
    "/apply_policies/on_run_apply/x",
    body("{}"),
    404,
    "nothing here"
)]
#[case::root(Method::GET, "/", "".into(), 404, "nothing here")]
#[case::get(Method::GET, RUN, "".into(), 405, "POST")]
#[case::put(Method::PUT, RUN, body("{}"), 405, "POST")]
#[tokio::test]
async fn what_is_no_review_gets_a_status_that_says_so(
    #[case] method: Method,
    #[case] path: &str,
    #[case] sent: String,
    #[case] status: u16,
    #[case] words: &str,
) {
    let sidecar = Sidecar::start(json!({})).await;
    let mut connection = sidecar.connect(Protocol::Http1).await;
    let answer = connection.send(request(method, path, sent)).await.unwrap();
    assert_eq!(answer.status, status);
    let error = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains(words), "{error}");
    let allow = (status == 405).then_some("POST");
    assert_eq!(answer.header("allow"), allow);

    let next = connection.send(post(RUN, body(SPEC))).await.unwrap();
    assert_eq!(next.assert_allowed().spec(), SPEC);
    let counted = format!("http_error_total{{code=\"{status}\"}}");
    sidecar.counted(&counted, 1.0).await;
    assert_eq!(sidecar.audit().len(), 1, "only the review is recorded");
}

#[rstest]
#[tokio::test]
async fn a_body_declared_too_large_is_refused_before_it_is_sent(
    #[values(Protocol::Http1, Protocol::Http2)] protocol: Protocol,
) {
    let sidecar = Sidecar::start(json!({"limits": {"bodyBytes": "2k"}})).await;
    let mut connection = sidecar.connect(protocol).await;
    let answer = connection
        .send(post(RUN, body(&" ".repeat(3000))))
        .await
        .unwrap();
    assert_eq!(answer.status, 413);
    assert!(
        answer.text().contains("larger than 2000 bytes"),
        "{}",
        answer.text()
    );
    assert_serves(&sidecar).await;
    sidecar.counted("http_error_total{code=\"413\"}", 1.0).await;
}

#[tokio::test]
async fn an_endless_body_is_refused_at_the_limit() {
    let sidecar = Sidecar::start(json!({"limits": {"bodyBytes": "64k"}})).await;
    let chunks = futures_util::stream::repeat_with(|| {
        Ok(Frame::data(bytes::Bytes::from_static(&[b' '; 1024])))
    });
    let request = Request::post(RUN)
        .header("host", "localhost")
        .body(StreamBody::new(chunks).boxed())
        .unwrap();
    let mut connection = sidecar.connect(Protocol::Http1).await;
    // The answer may be lost behind what the client is still sending.
    if let Ok(answer) = in_time("an end", connection.send(request)).await {
        assert_eq!(answer.status, 413);
    }
    assert_serves(&sidecar).await;
    sidecar.counted("http_error_total{code=\"413\"}", 1.0).await;
}

#[tokio::test]
async fn a_body_in_drips_is_cut_off_at_its_timeout() {
    let sidecar = Sidecar::start(json!({"limits": {"bodyTimeout": "300ms"}})).await;
    let mut stream = sidecar.stream().await;
    let head = format!("POST {RUN} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{{");
    stream.write_all(head.as_bytes()).await.unwrap();
    let (read, mut write) = tokio::io::split(stream);
    let dripping = tokio::spawn(async move {
        while write.write_all(b" ").await.is_ok() && write.flush().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let answer = rest_of(read).await;
    dripping.abort();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(
        answer.contains("the body did not arrive within 300ms"),
        "{answer}"
    );
    assert_serves(&sidecar).await;
    sidecar.counted("http_error_total{code=\"408\"}", 1.0).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_review() {
    let sidecar = Sidecar::start(json!({})).await;
    let mut stream = sidecar.stream().await;
    let head = format!("POST {RUN} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{{");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    sidecar.counted("http_error_total{code=\"400\"}", 1.0).await;
    assert_serves(&sidecar).await;
}

/// How a connection goes wrong before there is a request, and the reason that is counted for it.
#[rstest]
#[case::stalled_handshake(false, b"\x16\x03\x01", "handshake_timeout")]
#[case::nothing_at_all(false, b"", "handshake_timeout")]
#[case::garbage(false, b"\x00\xff\xfe\x00\x01 not TLS", "handshake")]
#[case::plain_http(false, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", "plain_http")]
#[case::slow_headers(true, b"POST / HTTP/1.1\r\nhost: x\r\nx-slow: ", "header_timeout")]
#[case::no_request_after_the_handshake(true, b"", "header_timeout")]
#[case::garbage_inside_tls(true, b"\x00\x01\x02\r\n\r\n", "bad_http")]
#[case::endless_headers(true, &[b'a'; 512 * 1024], "bad_http")]
#[tokio::test]
async fn a_bad_connection_is_closed_and_counted(
    #[case] past_tls: bool,
    #[case] bytes: &[u8],
    #[case] reason: &str,
) {
    let limits = json!({"handshakeTimeout": "300ms", "headerTimeout": "300ms"});
    let sidecar = Sidecar::start(json!({"limits": limits})).await;
    let said = if past_tls {
        let mut stream = sidecar.stream().await;
        let _ = stream.write_all(bytes).await;
        rest_of(stream).await
    } else {
        let mut stream = TcpStream::connect(sidecar.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        if reason == "plain_http" {
            stream.shutdown().await.unwrap();
        }
        rest_of(stream).await
    };
    if reason == "plain_http" {
        assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
        assert!(said.contains("use https://"), "{said}");
    }
    let counted = format!("connection_error_total{{reason=\"{reason}\"}}");
    sidecar.counted(&counted, 1.0).await;
    assert_serves(&sidecar).await;
    sidecar.counted("connections", 0.0).await;
}

#[tokio::test]
async fn a_probe_that_connects_and_leaves_is_no_error_of_the_handshake() {
    let sidecar = Sidecar::start(json!({})).await;
    drop(TcpStream::connect(sidecar.address).await.unwrap());
    sidecar
        .counted("connection_error_total{reason=\"closed\"}", 1.0)
        .await;
    assert_eq!(
        sidecar
            .metric("connection_error_total{reason=\"handshake\"}")
            .await,
        0.0
    );
    assert_serves(&sidecar).await;
}

/// What each of a flood's connections sends before it waits.
#[rstest]
#[case::silent(None)]
#[case::handshake_begun(Some(&b"\x16\x03\x01"[..]))]
#[tokio::test]
async fn a_flood_of_connections_keeps_nobody_out(#[case] sent: Option<&[u8]>) {
    let sidecar = Sidecar::start(json!({"limits": {"connections": 8}})).await;
    let mut flood = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(sidecar.address).await.unwrap();
        if let Some(sent) = sent {
            stream.write_all(sent).await.unwrap();
        }
        flood.push(stream);
    }
    let evicted = "connection_error_total{reason=\"evicted\"}";
    sidecar.counted(evicted, 32.0).await;
    sidecar.counted("connections", 8.0).await;
    assert_serves(&sidecar).await;
}

#[tokio::test]
async fn a_flood_of_half_sent_requests_holds_no_more_connections_than_the_limit() {
    let limits = json!({"connections": 4, "headerTimeout": "60s"});
    let sidecar = Sidecar::start(json!({"limits": limits})).await;
    let mut flood = Vec::new();
    for _ in 0..16 {
        let mut stream = sidecar.stream().await;
        stream.write_all(b"POST / HTTP/1.1\r\nx: ").await.unwrap();
        stream.flush().await.unwrap();
        flood.push(stream);
    }
    let evicted = "connection_error_total{reason=\"evicted\"}";
    sidecar.counted(evicted, 12.0).await;
    sidecar.counted("connections", 4.0).await;
    assert_serves(&sidecar).await;
}

#[tokio::test]
async fn an_http2_connection_on_which_nothing_comes_is_closed_and_counted() {
    let limits = json!({"headerTimeout": "300ms"});
    let sidecar = Sidecar::start(json!({"limits": limits})).await;
    let tcp = TcpStream::connect(sidecar.address).await.unwrap();
    let stream = sidecar.secure(tcp, Protocol::Http2).await;
    rest_of(stream).await;
    let late = "connection_error_total{reason=\"header_timeout\"}";
    sidecar.counted(late, 1.0).await;
    assert_serves(&sidecar).await;
}

/// What the process may open, and how many of a hundred silent connections it keeps.
#[rstest]
#[case::raised_to_what_the_system_grants("ulimit -S -n 64", 100.0)]
#[case::not_to_be_raised("ulimit -n 64", 32.0)]
#[tokio::test]
async fn a_flood_leaves_files_for_reviews_and_their_plugins(
    #[case] before: &'static str,
    #[case] kept: f64,
) {
    let fake = Fake::start(Seen::allowed).await;
    let keys = json!({"plugins": [fake.webhook("judge")]});
    let sidecar = Sidecar::start_in(Home::under(before), keys).await;
    let mut flood = Vec::new();
    for _ in 0..100 {
        flood.push(TcpStream::connect(sidecar.address).await.unwrap());
    }
    sidecar.counted("connections", kept).await;
    assert_serves(&sidecar).await;
    assert_eq!(fake.calls().len(), 1);
}

#[rstest]
#[case::a_few_files("ulimit -n 64")]
#[case::many_files("true")]
#[tokio::test]
async fn a_flood_of_the_admin_address_keeps_no_review_and_no_probe_out(
    #[case] before: &'static str,
) {
    let fake = Fake::start(Seen::allowed).await;
    let keys = json!({"plugins": [fake.webhook("judge")]});
    let sidecar = Sidecar::start_in(Home::under(before), keys).await;
    let mut flood = Vec::new();
    for _ in 0..200 {
        flood.push(TcpStream::connect(sidecar.admin).await.unwrap());
    }
    assert_eq!(sidecar.admin("/readyz").await.status, 200);
    assert_serves(&sidecar).await;
    assert_eq!(fake.calls().len(), 1);
    // The first of them made room.
    let mut nothing = [0];
    let read = in_time("an end", flood[0].read(&mut nothing)).await;
    assert!(matches!(read, Ok(0) | Err(_)));
}

#[rstest]
#[tokio::test]
async fn one_connection_carries_many_reviews(
    #[values(Protocol::Http1, Protocol::Http2)] protocol: Protocol,
) {
    let sidecar = Sidecar::start(json!({})).await;
    let mut connection = sidecar.connect(protocol).await;
    for _ in 0..5 {
        let answer = connection.send(post(RUN, body(SPEC))).await.unwrap();
        assert_eq!(answer.assert_allowed().spec(), SPEC);
    }
    assert_eq!(sidecar.metric("connections").await, 1.0);
    drop(connection);
    sidecar.counted("connections", 0.0).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_an_error() {
    let sidecar = Sidecar::start(json!({"limits": {"headerTimeout": "200ms"}})).await;
    let mut connection = sidecar.connect(Protocol::Http1).await;
    connection.send(post(RUN, body(SPEC))).await.unwrap();
    sidecar.counted("connections", 0.0).await;
    let errors = sidecar
        .metric("connection_error_total{reason=\"header_timeout\"}")
        .await;
    assert_eq!(errors, 0.0, "between two requests nobody is late");
    assert_serves(&sidecar).await;
}

#[tokio::test]
async fn a_large_spec_goes_through() {
    let sidecar = Sidecar::start(json!({})).await;
    let env = "x".repeat(4 << 20);
    let spec = format!(r#"{{"configuration": {{"type": "task", "env": "{env}"}}}}"#);
    let answer = sidecar.review(&spec).await;
    assert_eq!(answer.assert_allowed().spec(), spec);
}

#[tokio::test]
async fn text_beyond_ascii_comes_back_as_it_was_written() {
    let sidecar = Sidecar::start(json!({})).await;
    let spec = "{\"configuration\": {\"type\": \"task\", \"env\": {\"Ä\": \"\\u00e4 ä 😀\\ud83d\\ude00\"}}}";
    assert_eq!(sidecar.review(spec).await.assert_allowed().spec(), spec);
}

#[tokio::test]
async fn a_repeated_member_of_a_spec_is_not_lost() {
    let sidecar = Sidecar::start(json!({})).await;
    let spec = r#"{"a": 1, "a": 2}"#;
    let answer = sidecar.review(spec).await;
    assert_eq!(answer.assert_allowed().spec(), spec);
    let _: Value = answer.json();
}
