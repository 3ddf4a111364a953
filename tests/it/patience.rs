//! How long a plugin is waited for and how often it is asked: retries, the breaker, the deadline.

use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::json;
use tokio::net::TcpListener;

use crate::harness::certificates::Authority;
use crate::harness::sidecar::SPEC;
use crate::harness::{Fake, Home, Reply, Seen, Sidecar, eventually, with};

/// Passes connections on to a plugin server, but for the first ones, which it cuts.
async fn flaky(to: &Fake, cut: usize) -> (String, tokio::task::JoinHandle<()>) {
    let (to, listener) = (to.address, TcpListener::bind("127.0.0.1:0").await.unwrap());
    let url = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let serving = tokio::spawn(async move {
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            if number < cut {
                continue;
            }
            tokio::spawn(async move {
                let mut onward = tokio::net::TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
            });
        }
    });
    (url, serving)
}

#[rstest]
#[case::once(1, true)]
#[case::twice(2, false)]
#[tokio::test]
async fn a_connection_that_fails_is_tried_once_more(#[case] cut: usize, #[case] allowed: bool) {
    let (home, authority) = (Home::new(), Authority::new("plugins"));
    let fake = Fake::start_tls(authority.server().server_config(None), Seen::allowed).await;
    let (url, _serving) = flaky(&fake, cut).await;
    let ca = home.write("ca.pem", authority.pem());
    let plugin = json!({"name": "judge", "webhook": {"url": url, "caFile": ca}});
    let sidecar = Sidecar::with_plugins([plugin]).await;
    assert_eq!(sidecar.review(SPEC).await.error().is_none(), allowed);
    assert_eq!(fake.calls().len(), usize::from(allowed));
    sidecar.review(SPEC).await.assert_allowed();
}

#[tokio::test]
async fn a_plugin_that_restarted_is_asked_over_a_new_connection() {
    let fake = Fake::start(Seen::allowed).await;
    let sidecar = Sidecar::with_plugins([fake.webhook("judge")]).await;
    sidecar.review(SPEC).await.assert_allowed();
    let fake = fake.restart(|seen| seen.denied("not any more")).await;
    assert!(sidecar.review(SPEC).await.denial().contains("not any more"));
    fake.call();
}

#[tokio::test]
async fn the_breaker_spares_a_failing_plugin_and_tries_it_again() {
    let fake = Fake::start(|_| Reply::text(503, "text/plain", "")).await;
    let breaker = json!({"webhook": {"breaker": {"failures": 2, "openFor": "500ms"}}});
    let sidecar = Sidecar::with_plugins([with(fake.webhook("judge"), breaker)]).await;
    for words in [
        "it answered HTTP 503",
        "it answered HTTP 503",
        "it was not asked, since its last 2 calls failed",
    ] {
        let denial = sidecar.review(SPEC).await.denial();
        assert!(denial.contains(words), "{denial}");
    }
    assert_eq!(fake.calls().len(), 2);
    let open = "plugin_rejection_total{error_type=\"circuit_open\",kind=\"run\",plugin=\"judge\"}";
    sidecar.counted(open, 1.0).await;

    let fake = fake.restart(Seen::allowed).await;
    eventually("it is asked again", async || {
        sidecar.review(SPEC).await.error().is_none()
    })
    .await;
    fake.call();
    sidecar.review(SPEC).await.assert_allowed();
}

#[tokio::test]
async fn the_breaker_opens_on_timeouts_so_that_reviews_stop_waiting() {
    let fake = Fake::start(|_| Reply::Silence).await;
    let keys =
        json!({"timeout": "300ms", "webhook": {"breaker": {"failures": 1, "openFor": "60s"}}});
    let sidecar = Sidecar::with_plugins([with(fake.webhook("judge"), keys)]).await;
    assert!(
        sidecar
            .review(SPEC)
            .await
            .denial()
            .contains("did not answer within 300ms")
    );
    assert!(
        sidecar
            .review(SPEC)
            .await
            .denial()
            .contains("it was not asked")
    );
    assert_eq!(fake.calls().len(), 1);
}

#[tokio::test]
async fn the_breaker_opens_on_a_plugin_that_may_take_all_the_time_there_is() {
    let gone = Fake::start(|_| Reply::Silence).await.url();
    let silent = Fake::start(|_| Reply::Silence).await;
    for (url, words) in [(gone, "no connection"), (silent.url(), "did not answer")] {
        let webhook = json!({"url": url, "breaker": {"failures": 2, "openFor": "60s"}});
        let plugin = json!({"name": "judge", "timeout": "30s", "webhook": webhook});
        let keys = json!({"tls": "off", "deadline": "300ms", "plugins": [plugin]});
        let sidecar = Sidecar::start(keys).await;
        for words in [
            words,
            words,
            "it was not asked, since its last 2 calls failed",
        ] {
            let denial = sidecar.review(SPEC).await.denial();
            assert!(denial.contains(words), "{denial}");
        }
    }
}

#[tokio::test]
async fn answers_of_the_plugin_do_not_open_the_breaker() {
    let fake = Fake::start(|seen| seen.denied("no")).await;
    let breaker = json!({"webhook": {"breaker": {"failures": 1, "openFor": "60s"}}});
    let sidecar = Sidecar::with_plugins([with(fake.webhook("judge"), breaker)]).await;
    for _ in 0..3 {
        assert!(sidecar.review(SPEC).await.denial().contains("- judge: no"));
    }
}

#[tokio::test]
async fn the_deadline_cuts_plugins_that_are_denied_for_it() {
    let fake = Fake::start(|_| Reply::Silence).await;
    let patient = with(fake.webhook("judge"), json!({"timeout": "30s"}));
    let sidecar = Sidecar::start(json!({"deadline": "400ms", "plugins": [patient]})).await;
    let asked = Instant::now();
    let denial = sidecar.review(SPEC).await.denial();
    let took = asked.elapsed();
    assert!(
        took >= Duration::from_millis(390) && took < Duration::from_secs(30),
        "{took:?}"
    );
    assert!(
        denial.contains("that the chain's deadline left"),
        "{denial}"
    );
}

#[tokio::test]
async fn the_deadline_holds_for_the_whole_chain_when_faults_are_passed_over() {
    let fake = Fake::start(|_| Reply::Silence).await;
    let slow = |name| {
        with(
            fake.webhook(name),
            json!({"failurePolicy": "Ignore", "timeout": "300ms"}),
        )
    };
    let plugins = json!([slow("first"), slow("second"), slow("third")]);
    let sidecar = Sidecar::start(json!({"deadline": "500ms", "plugins": plugins})).await;
    let asked = Instant::now();
    sidecar.review(SPEC).await.assert_allowed();
    let took = asked.elapsed();
    assert!(took >= Duration::from_millis(490), "{took:?}");

    let audit = sidecar.audit();
    let said = |index: usize| {
        audit[0]["plugins"][index]["messages"][0]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(said(0), "it did not answer within 300ms");
    assert!(
        said(1).contains("that the chain's deadline left"),
        "{}",
        said(1)
    );
    assert_eq!(
        said(2),
        "it was not asked: the 500ms for all plugins were used up before"
    );
    let calls = fake.calls();
    assert_eq!(calls.len(), 2);
    let left: u64 = calls[1]
        .header("x-dstack-admission-timeout-ms")
        .unwrap()
        .parse()
        .unwrap();
    assert!(left <= 200, "the second is told what is left: {left}");
}
