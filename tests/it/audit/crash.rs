//! Killed in the middle of its work, again and again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{events, file_sink, id, log_files, with_sinks};
use crate::harness::sidecar::{RUN, SPEC, body, post};
use crate::harness::{Home, Protocol, Sidecar, eventually, with};

/// Processes that are killed, and how many run side by side.
const KILLS: usize = 100;
const HOMES: usize = 4;
const CONNECTIONS: usize = 8;

type Answers = Arc<Mutex<Vec<String>>>;

/// Has reviews decided over several connections until they break. Every whole answer is kept.
async fn load(sidecar: &Sidecar, answers: &Answers) -> JoinSet<()> {
    let mut asking = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut connection = sidecar.connect(Protocol::Http1).await;
        let answers = Arc::clone(answers);
        asking.spawn(async move {
            while let Ok(answer) = connection.send(post(RUN, body(SPEC))).await {
                answer.assert_allowed();
                answers.lock().unwrap().push(answer.decision());
            }
        });
    }
    asking
}

/// Kills a process in one directory so many times, under load, and gives back what was answered.
async fn killed(mut home: Home, keys: &Value, times: usize) -> (Home, Vec<String>) {
    let answers = Answers::default();
    for round in 0..times {
        let sidecar = Sidecar::start_in(home, keys.clone()).await;
        let asking = load(&sidecar, &answers).await;
        // Soon after the start, and later: 1 to 80 answers.
        let enough = answers.lock().unwrap().len() + 1 + (round * 37) % 80;
        eventually("so many are answered", async || {
            answers.lock().unwrap().len() >= enough
        })
        .await;
        home = sidecar.kill().await;
        asking.join_all().await;
    }
    let answered = std::mem::take(&mut *answers.lock().unwrap());
    (home, answered)
}

/// How often each id stands in the log, after a start that cuts what is torn.
async fn recorded(home: Home, keys: &Value) -> HashMap<String, usize> {
    let sidecar = Sidecar::start_in(home, keys.clone()).await;
    let home = sidecar.stop().await;
    let mut found = HashMap::new();
    for file in log_files(&home) {
        for event in events(&file) {
            assert_eq!(event["decision"], "allowed");
            *found.entry(id(&event)).or_default() += 1;
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_has_its_record_after_a_hundred_kills() {
    let rounds = (0..HOMES).map(async |_| {
        let home = Home::new();
        let small = json!({"file": {"maxSize": "150k", "maxBackups": 0}});
        let keys = with_sinks([with(file_sink(&home, "blocking-strict"), small)]);
        let (home, answered) = killed(home, &keys, KILLS / HOMES).await;
        assert!(log_files(&home).len() > 1, "the log was never rotated");
        let recorded = recorded(home, &keys).await;
        for id in &answered {
            assert_eq!(recorded.get(id), Some(&1), "{id}");
        }
        answered.len()
    });
    let answered: usize = join_all(rounds).await.into_iter().sum();
    assert!(answered >= KILLS, "{answered}");
}

#[tokio::test]
async fn a_blocking_sink_loses_nothing_that_was_answered_either() {
    let home = Home::new();
    let keys = with_sinks([file_sink(&home, "blocking")]);
    let (home, answered) = killed(home, &keys, 3).await;
    let recorded = recorded(home, &keys).await;
    for id in &answered {
        assert_eq!(recorded.get(id), Some(&1), "{id}");
    }
}

#[tokio::test]
async fn what_a_crash_left_torn_is_cut_and_said_so() {
    let home = Home::new();
    let keys = with_sinks([file_sink(&home, "blocking-strict")]);
    let sidecar = Sidecar::start_in(home, keys.clone()).await;
    sidecar.review(SPEC).await.assert_allowed();
    let home = sidecar.kill().await;
    let whole = std::fs::read_to_string(home.path("audit.log")).unwrap();
    std::fs::write(home.path("audit.log"), whole.clone() + &whole[..100]).unwrap();
    let sidecar = Sidecar::start_in(home, keys).await;
    let cut = "cut a torn last line off the audit log";
    assert_eq!(sidecar.logged(cut).await["bytes"], 100);
    sidecar.review(SPEC).await.assert_allowed();
    assert_eq!(sidecar.audit().len(), 2);
}
