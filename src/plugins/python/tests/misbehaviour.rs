//! Whatever a worker does, it costs the review it is about and no more: there is an answer, and the
//! next review gets one from a worker that is well.

use super::*;

#[tokio::test]
async fn a_hung_worker_is_killed_with_its_children_when_the_budget_ends() {
    let fixture = Fixture::start("good").await;
    let hung = fixture.pid().await;
    let file = fixture.home.path().join("children");
    let written = || std::fs::read_to_string(&file).unwrap_or_default();
    let giving_up = eventually("it has children", || written().lines().count() == 2);
    tokio::select! {
        _ = fixture.call(json!({"do": "hang"})) => panic!("it answered"),
        () = giving_up => {}
    }

    for pid in written()
        .lines()
        .map(|pid| pid.parse().unwrap())
        .chain([hung])
    {
        eventually("none of them runs", || !runs(pid)).await;
    }
    assert_ne!(fixture.pid().await, hung);
    assert_eq!(fixture.restarts("timeout"), 1);
}

#[tokio::test]
async fn what_a_worker_that_ended_left_behind_is_ended_too() {
    let fixture = Fixture::start("good").await;
    let left = fixture.home.path().join("children");
    assert!(fixture.call(json!({"do": "leave a child"})).await.is_err());
    let pid = std::fs::read_to_string(&left)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    eventually("it does not run", || !runs(pid)).await;
}

#[rstest]
#[case::exit("exit", "exit status: 3; its last lines:\none\ntwo")]
#[case::segfault("segfault", "signal: 11")]
#[case::closes_descriptors("close", "signal: 9")]
#[case::garbage("garbage", "expected")]
#[case::endless_frame("endless frame", "frame size")]
#[case::answers_unasked("answer twice", "pid")]
#[tokio::test]
async fn a_worker_that_breaks_is_a_crash_and_is_replaced(#[case] how: &str, #[case] detail: &str) {
    let fixture = Fixture::start("good").await;
    let pid = fixture.pid().await;
    let fault = fixture.call(json!({"do": how})).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Crash);
    assert_eq!(fault.message, "its process ended before it answered");
    let said = fault.detail.unwrap();
    assert!(
        said.contains(&format!("pid {pid}")) && said.contains(detail),
        "{said}"
    );
    assert!(!runs(pid));
    assert_ne!(fixture.pid().await, pid);
    assert_eq!(fixture.restarts("crash"), 1);
}

#[rstest]
#[case::chatty("print")]
#[case::endless_stderr("flood")]
#[case::logging("log")]
#[tokio::test]
async fn a_worker_that_writes_a_lot_goes_on(#[case] how: &str) {
    let fixture = Fixture::start("good").await;
    let pid = fixture.pid().await;
    fixture.call(json!({"do": how})).await.unwrap();
    for _ in 0..100 {
        fixture.call(json!({"do": "nothing"})).await.unwrap();
    }
    assert_eq!(fixture.pid().await, pid);
}

#[tokio::test]
async fn a_worker_that_leaks_is_replaced() {
    let limit = 100 << 20;
    let fixture = Fixture::start_with("good", |settings| settings.memory_limit = Some(limit));
    let fixture = fixture.await.unwrap();
    let pid = fixture.pid().await;
    fixture
        .call(json!({"do": "leak", "with": limit}))
        .await
        .unwrap();
    eventually("it is replaced", || {
        fixture.restarts("memory") == 1 && !runs(pid)
    })
    .await;
    assert_ne!(fixture.pid().await, pid);
}

#[tokio::test]
async fn a_worker_that_says_that_it_ends_gets_no_further_review() {
    let fixture = Fixture::start("good").await;
    for _ in 0..3 {
        let pid = fixture.pid().await;
        fixture.call(json!({"do": "last"})).await.unwrap();
        assert_ne!(fixture.pid().await, pid);
    }
}

#[tokio::test]
async fn a_large_spec_goes_over_whole() {
    let fixture = Fixture::start("good").await;
    let verdict = fixture
        .call(json!({"do": "tag", "large": "x".repeat(4 << 20)}))
        .await;
    assert_eq!(verdict.unwrap().patch.len(), 1);
}

#[tokio::test]
async fn a_plugin_whose_workers_keep_crashing_is_not_asked_for_a_while() {
    let fixture = Fixture::start("good").await;
    for _ in 0..5 {
        let fault = fixture.call(json!({"do": "exit"})).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Crash);
    }
    let fault = fixture.call(json!({"do": "nothing"})).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::CircuitOpen);
}
