//! Workers come and go without a review noticing.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};

use super::*;

fn kill(pid: i32) {
    // One that has gone already is as good.
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

#[tokio::test]
async fn workers_start_at_once() {
    // None of them gets ready before all of them have started.
    let fixture = Fixture::start_with("meets:4", |settings| settings.workers = 4);
    let fixture = fixture.await.unwrap();
    eventually("all are idle", || fixture.workers("idle") == 4).await;
    assert_eq!(fixture.workers("starting"), 0);
    let start = fixture.pools.meters.start_seconds.with_label_values(&["p"]);
    assert_eq!(start.get_sample_count(), 4);
}

#[rstest]
#[case::refuses("missing", "`missing` is not installed", None)]
#[case::dies(
    "dies",
    "it ended before it was ready (exit status: 3)",
    Some("first line\nlast line")
)]
#[case::is_no_worker("talks", "frame size too big", None)]
#[tokio::test]
async fn a_worker_that_does_not_start_says_why(
    #[case] how: &str,
    #[case] message: &str,
    #[case] detail: Option<&str>,
) {
    let error = Fixture::start_with(how, |settings| settings.workers = 2)
        .await
        .err()
        .unwrap();
    assert!(error.message.contains(message), "{error}");
    assert_eq!(error.detail.as_deref(), detail);
    let found: &[&str] = if how == "missing" { &["other"] } else { &[] };
    assert_eq!(error.found, found);
}

#[tokio::test]
async fn an_interpreter_that_cannot_be_started_is_named() {
    let missing = |settings: &mut Settings| settings.interpreter = "/nowhere/python3".into();
    let error = Fixture::start_with("good", missing).await.err().unwrap();
    assert!(
        error
            .message
            .starts_with("/nowhere/python3 cannot be started: "),
        "{error}"
    );
}

#[tokio::test]
async fn reviews_wait_for_a_worker_in_turn() {
    let fixture = Fixture::start("good").await;
    let ended = Mutex::new(Vec::new());
    let review = async |number: u32| {
        fixture
            .call(json!({"do": "sleep", "with": 0.02}))
            .await
            .unwrap();
        ended.lock().unwrap().push(number);
    };
    let reviews = join_all((0..5).map(review));
    let watch = eventually("four of them wait", || fixture.queue() == 4);
    tokio::join!(reviews, watch);
    assert_eq!(*ended.lock().unwrap(), [0, 1, 2, 3, 4]);
    assert_eq!(
        (
            fixture.queue(),
            fixture.workers("busy"),
            fixture.workers("idle")
        ),
        (0, 0, 1)
    );
}

#[tokio::test]
async fn giving_up_before_a_worker_is_free_leaves_it_alone() {
    let fixture = Fixture::start("good").await;
    let pid = fixture.pid().await;
    let busy = fixture.call(json!({"do": "sleep", "with": 0.3}));
    // More often than the breaker takes from a plugin that does not answer.
    let waiting = (0..10).map(|_| fixture.call_within(Duration::from_millis(20), json!({})));
    let (busy, waiting) = tokio::join!(busy, join_all(waiting));
    assert!(busy.is_ok() && waiting.iter().all(Option::is_none));
    assert_eq!(fixture.pid().await, pid);
}

#[tokio::test]
async fn an_idle_worker_that_is_killed_costs_no_review() {
    let fixture = Fixture::start("good").await;
    for restarts in 1..=3 {
        let pid = fixture.pid().await;
        kill(pid);
        eventually("it is seen", || fixture.restarts("crash") == restarts).await;
        assert_ne!(fixture.pid().await, pid);
    }
}

#[tokio::test]
async fn every_review_is_answered_while_workers_are_killed() {
    let fixture = Fixture::start_with("good", |settings| settings.workers = 3)
        .await
        .unwrap();
    let killing = AtomicBool::new(true);
    let reviews = async || {
        let mut answered = 0;
        while killing.load(Ordering::Relaxed) {
            match fixture.call(json!({"do": "pid"})).await {
                Ok(verdict) => answered += usize::from(!verdict.denials.is_empty()),
                Err(fault) => assert!(
                    matches!(fault.kind, FaultKind::Crash | FaultKind::CircuitOpen),
                    "{fault:?}"
                ),
            }
            tokio::task::yield_now().await;
        }
        answered
    };
    let kills = async {
        for _ in 0..10 {
            let verdict = fixture.call(json!({"do": "pid"})).await;
            if let Ok(verdict) = verdict {
                kill(verdict.denials[0].message.parse().unwrap());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        killing.store(false, Ordering::Relaxed);
    };
    let (answered, ()) = tokio::join!(join_all((0..8).map(|_| reviews())), kills);
    assert!(
        answered.iter().all(|answered| *answered > 0),
        "{answered:?}"
    );
    eventually("all are back", || fixture.workers("idle") == 3).await;
}

#[tokio::test]
async fn a_worker_that_is_worn_out_goes_on_until_another_is_ready() {
    let recycle = |settings: &mut Settings| settings.recycle_after = Some(20);
    let fixture = Fixture::start_with("good", recycle).await.unwrap();
    let first = fixture.pid().await;
    let (mut last, mut answered) = (first, 1);
    while last == first {
        last = fixture.pid().await;
        answered += 1;
    }
    assert!(answered > 20, "{answered}");
    eventually("the first has ended", || {
        !runs(first) && fixture.restarts("recycled") == 1
    })
    .await;
    assert_eq!(fixture.workers("idle"), 1);
}

#[tokio::test]
async fn a_worker_that_does_not_start_again_is_tried_again() {
    let fixture = Fixture::start("starts:1").await;
    kill(fixture.pid().await);
    eventually("it is tried twice", || fixture.restarts("start") >= 2).await;
    // Nobody is there to answer, and the budget ends the wait.
    let limit = Duration::from_millis(20);
    assert!(fixture.call_within(limit, json!({})).await.is_none());
    assert_eq!(fixture.workers("idle"), 0);
}

#[test]
fn the_pause_before_a_new_start_doubles_up_to_half_a_minute() {
    let pauses = [0, 1, 2, 3, 9, 10, 1000].map(|failures| pool::pause(failures).as_millis());
    assert_eq!(pauses, [0, 100, 200, 400, 25_600, 30_000, 30_000]);
}

#[tokio::test]
async fn plugins_with_the_same_settings_share_their_workers_until_the_last_is_gone() {
    let fixture = Fixture::start("good").await;
    let pid = fixture.pid().await;
    let same = Python::new(fixture.python.settings.clone());
    let started = fixture.pools.start(&same).await.unwrap();
    assert!(started.carried_over);
    assert_eq!(started.ready.found, ["other"]);

    let Fixture {
        python,
        pools,
        home: _home,
    } = fixture;
    drop(python);
    let verdict = same
        .call(&call(json!({"do": "pid"})), BUDGET)
        .await
        .unwrap();
    assert_eq!(verdict.denials[0].message, pid.to_string());
    drop(same);
    eventually("it has ended", || !runs(pid)).await;
    assert_eq!(
        pools
            .meters
            .restarts
            .with_label_values(&["p", "crash"])
            .get(),
        0
    );
}

#[tokio::test]
async fn a_worker_that_is_busy_answers_before_it_ends() {
    let fixture = Fixture::start("good").await;
    let pid = fixture.pid().await;
    let busy = fixture.call(json!({"do": "sleep", "with": 0.1}));
    let stop = async {
        eventually("it is busy", || fixture.workers("busy") == 1).await;
        fixture.pools.stop().await;
    };
    let (answer, ()) = tokio::join!(busy, stop);
    assert!(answer.is_ok());
    assert!(!runs(pid));
}
