//! Sinks that come, go and change while reviews go on.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use rstest::rstest;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{events, file_sink, id, log_files, with_sinks};
use crate::harness::sidecar::{RUN, SPEC, body, post};
use crate::harness::{Home, Protocol, Sidecar, eventually, with};

const RELOADED: &str = "config_reload_total{result=\"success\"}";

async fn reload(sidecar: &Sidecar, keys: &Value) {
    let before = sidecar.metric(RELOADED).await;
    sidecar.home.configure(keys);
    sidecar.signal(Signal::HUP);
    eventually("it is reloaded", async || {
        sidecar.metric(RELOADED).await > before
    })
    .await;
}

#[tokio::test]
async fn one_file_under_changing_modes_has_each_record_once_and_whole() {
    let home = Home::new();
    let sink = |mode: &str, size: &str| {
        let rotation = json!({"file": {"maxSize": size, "maxBackups": 0, "compress": false}});
        with_sinks([with(file_sink(&home, mode), rotation)])
    };
    let steps = [
        sink("batch", "100k"),
        sink("blocking-strict", "20k"),
        sink("blocking", "30k"),
        sink("batch", "15k"),
    ];
    let first = steps[0].clone();
    let sidecar = Sidecar::start_in(home, first).await;
    let stop = Arc::new(AtomicBool::new(false));
    let asking = (0..4).map(async |_| {
        let mut connection = sidecar.connect(Protocol::Http1).await;
        let mut ids = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let answer = connection.send(post(RUN, body(SPEC))).await.unwrap();
            ids.push(answer.assert_allowed().decision());
        }
        ids
    });
    let changing = async {
        for keys in &steps[1..] {
            reload(&sidecar, keys).await;
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (ids, ()) = tokio::join!(join_all(asking), changing);
    let ids: Vec<_> = ids.concat();
    let home = sidecar.stop().await;
    let mut recorded: HashMap<String, usize> = HashMap::new();
    for file in log_files(&home) {
        for event in events(&file) {
            *recorded.entry(id(&event)).or_default() += 1;
        }
    }
    assert_eq!(recorded.len(), ids.len());
    assert!(ids.iter().all(|id| recorded[id] == 1));
}

#[rstest]
#[tokio::test]
async fn a_sink_that_goes_has_all_that_it_was_given(#[values("batch", "blocking")] mode: &str) {
    let home = Home::new();
    let other = with_sinks([json!({"file": {"path": home.path("other.log")}})]);
    let keys = with_sinks([file_sink(&home, mode)]);
    let sidecar = Sidecar::start_in(home, keys.clone()).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(sidecar.review(SPEC).await.decision());
    }
    reload(&sidecar, &other).await;
    let path = sidecar.home.path("audit.log");
    eventually("all are written", async || events(&path).len() == 20).await;
    let recorded: Vec<_> = events(&path).iter().map(id).collect();
    assert_eq!(recorded, ids);
    // And when it comes back it goes on behind them.
    reload(&sidecar, &keys).await;
    sidecar.review(SPEC).await;
    eventually("one more", async || events(&path).len() == 21).await;
}

#[tokio::test]
async fn a_sink_that_cannot_be_opened_leaves_the_others_as_they_were() {
    let home = Home::new();
    let keys = with_sinks([file_sink(&home, "blocking-strict")]);
    let taken = std::fs::File::create(home.path("taken.log")).unwrap();
    taken.lock().unwrap();
    let more = json!({"file": {"path": home.path("taken.log")}});
    let broken = with_sinks([file_sink(&home, "batch"), more]);
    let sidecar = Sidecar::start_in(home, keys).await;
    sidecar.home.configure(&broken);
    sidecar.signal(Signal::HUP);
    eventually("the reload fails", async || {
        sidecar
            .metric("config_reload_total{result=\"failure\"}")
            .await
            >= 1.0
    })
    .await;
    let answer = sidecar.review(SPEC).await;
    answer.assert_allowed();
    assert_eq!(id(&sidecar.audit()[0]), answer.decision());
}
