//! Disks that are full, slow or gone, and files that somebody else moves.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rstest::rstest;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use serde_json::json;

use super::{events, file_sink, id, with_sinks};
use crate::harness::sidecar::SPEC;
use crate::harness::{Home, Sidecar, eventually};

/// No file of the process may have more than 4 KiB: the write that would cross that is cut short in
/// the middle of a line.
const FULL: &str = "ulimit -f 8";

#[tokio::test]
async fn a_strict_sink_on_a_full_disk_denies_and_leaves_no_torn_line() {
    let home = Home::under(FULL);
    let sinks = [file_sink(&home, "blocking-strict"), json!({"stdout": {}})];
    let sidecar = Sidecar::start_in(home, with_sinks(sinks)).await;
    let mut allowed = Vec::new();
    let denied = loop {
        let answer = sidecar.review(SPEC).await;
        assert_eq!(answer.spec(), SPEC);
        match answer.error() {
            None => allowed.push(answer.decision()),
            Some(_) => break answer,
        }
    };
    let denial = denied.denial();
    assert!(
        denial.contains("its audit record could not be written: File too large"),
        "{denial}"
    );
    let path = sidecar.home.path("audit.log");
    let recorded: Vec<_> = events(&path).iter().map(id).collect();
    assert_eq!(recorded, allowed, "what was answered, and nothing else");
    let rejected = "audit_requests_rejected_total";
    assert_eq!(sidecar.metric(rejected).await, 1.0);
    let lost = format!("audit_error_total{{sink=\"{}\"}}", path.display());
    assert_eq!(sidecar.metric(&lost).await, 1.0);
    // The other sink says what the user was told, once.
    let lines = sidecar.told(allowed.len() + 2).await;
    let said: serde_json::Value = serde_json::from_str(lines.last().unwrap()).unwrap();
    assert_eq!(
        (id(&said), &said["decision"]),
        (denied.decision(), &json!("denied"))
    );

    // Somebody makes room.
    fs::rename(&path, sidecar.home.path("old.log")).unwrap();
    sidecar.review(SPEC).await.assert_allowed();
    assert_eq!(sidecar.audit().len(), 1);
    let again = "audit events are written again; so many more were lost";
    sidecar.logged(again).await;
}

#[rstest]
#[tokio::test]
async fn other_sinks_on_a_full_disk_count_what_is_lost(#[values("batch", "blocking")] mode: &str) {
    let home = Home::under(FULL);
    let keys = with_sinks([file_sink(&home, mode)]);
    let sidecar = Sidecar::start_in(home, keys).await;
    let mut answered = Vec::new();
    for _ in 0..20 {
        let answer = sidecar.review(SPEC).await;
        answer.assert_allowed();
        answered.push(answer.decision());
    }
    let path = sidecar.home.path("audit.log");
    let sink = path.display().to_string();
    let lost = format!("audit_dropped_total{{reason=\"write\",sink=\"{sink}\"}}");
    eventually("each is written or counted", async || {
        events(&path).len() as f64 + sidecar.metric(&lost).await == 20.0
    })
    .await;
    assert!(sidecar.metric(&lost).await > 0.0);
    let recorded: Vec<_> = events(&path).iter().map(id).collect();
    assert_eq!(recorded, answered[..recorded.len()]);
    let lost = "audit events not written";
    assert_eq!(sidecar.logged(lost).await["sink"], json!(sink));
    assert_eq!(sidecar.metric("audit_requests_rejected_total").await, 0.0);
}

/// What somebody does to the file between two records.
#[rstest]
#[tokio::test]
async fn a_file_that_is_moved_or_deleted_is_begun_anew(
    #[values("batch", "blocking", "blocking-strict")] mode: &str,
    #[values(true, false)] kept: bool,
) {
    let home = Home::new();
    let keys = with_sinks([file_sink(&home, mode)]);
    let sidecar = Sidecar::start_in(home, keys).await;
    let (path, moved) = (sidecar.home.path("audit.log"), sidecar.home.path("moved"));
    let first = sidecar.review(SPEC).await.decision();
    eventually("it is written", async || events(&path).len() == 1).await;
    if kept {
        fs::rename(&path, &moved).unwrap();
    } else {
        fs::remove_file(&path).unwrap();
    }
    let second = sidecar.review(SPEC).await;
    second.assert_allowed();
    eventually("the next is written", async || {
        path.exists() && events(&path).len() == 1
    })
    .await;
    assert_eq!(id(&events(&path)[0]), second.decision());
    if kept {
        assert_eq!(id(&events(&moved)[0]), first);
    }
}

#[rstest]
#[case::strict("blocking-strict", true)]
#[case::blocking("blocking", false)]
#[tokio::test]
async fn a_directory_that_is_gone_denies_where_it_must_and_is_found_again(
    #[case] mode: &str,
    #[case] denied: bool,
) {
    let home = Home::new();
    let below = home.path("logs");
    fs::create_dir(&below).unwrap();
    let path = below.join("audit.log");
    let keys = with_sinks([json!({"file": {"path": path, "mode": mode}})]);
    let sidecar = Sidecar::start_in(home, keys).await;
    sidecar.review(SPEC).await.assert_allowed();
    fs::remove_dir_all(&below).unwrap();
    let error = sidecar.review(SPEC).await.error();
    assert_eq!(error.is_some(), denied, "{error:?}");
    let lost = format!("audit_error_total{{sink=\"{}\"}}", path.display());
    assert_eq!(sidecar.metric(&lost).await, 1.0);
    fs::create_dir(&below).unwrap();
    let answer = sidecar.review(SPEC).await;
    answer.assert_allowed();
    assert_eq!(id(&events(&path)[0]), answer.decision());
}

/// A disk that takes nothing for a while: a pipe that is full.
fn stuck(path: &Path) -> fs::File {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let mut options = fs::OpenOptions::new();
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    options.read(true).write(true).custom_flags(nonblocking);
    let mut pipe = options.open(path).unwrap();
    while pipe.write(&[b' '; 4096]).is_ok() {}
    pipe
}

#[rstest]
#[case::strict("blocking-strict", true)]
#[case::blocking("blocking", false)]
#[tokio::test]
async fn a_disk_that_is_stuck_holds_an_answer_for_two_seconds(
    #[case] mode: &str,
    #[case] denied: bool,
) {
    let home = Home::new();
    let pipe = stuck(&home.path("audit.log"));
    let keys = with_sinks([file_sink(&home, mode)]);
    let sidecar = Sidecar::start_in(home, keys).await;
    let asked = Instant::now();
    let reviews = futures_util::future::join_all((0..8).map(|_| sidecar.review(SPEC))).await;
    let took = asked.elapsed();
    assert!((2.0..10.0).contains(&took.as_secs_f64()), "{took:?}");
    for answer in reviews {
        match answer.error() {
            Some(error) => assert!(
                denied && error.contains("could not be written: the disk is too slow"),
                "{error}"
            ),
            None => assert!(!denied),
        }
    }
    assert_eq!(sidecar.admin("/livez").await.status, 200);
    let sink = sidecar.home.path("audit.log").display().to_string();
    let late = format!("audit_error_total{{sink=\"{sink}\"}}");
    assert_eq!(sidecar.metric(&late).await, 8.0);
    drop(pipe);
}

#[tokio::test]
async fn a_stuck_disk_holds_up_nobody_who_does_not_wait_for_it() {
    let home = Home::new();
    let _pipe = stuck(&home.path("audit.log"));
    let keys = with_sinks([file_sink(&home, "batch")]);
    let mut sidecar = Sidecar::start_in(home, keys).await;
    let asked = Instant::now();
    for _ in 0..20 {
        sidecar.review(SPEC).await.assert_allowed();
    }
    assert!(asked.elapsed() < Duration::from_secs(20));
    let sink = sidecar.home.path("audit.log").display().to_string();
    let waiting = format!("audit_backlog_events{{sink=\"{sink}\"}}");
    assert!(sidecar.metric(&waiting).await > 0.0);
    sidecar.signal(rustix::process::Signal::TERM);
    assert_eq!(sidecar.exit_code().await, Some(0), "nor the end");
}

#[rstest]
#[case::no_directory("/nowhere/audit.log", "/nowhere: No such file or directory")]
#[case::a_directory("/tmp", "/tmp: is a directory")]
#[case::below_a_file("/etc/hostname/audit.log", "/etc/hostname is no directory")]
fn a_file_that_cannot_be_written_is_a_problem_with_its_place(
    #[case] path: &str,
    #[case] why: &str,
) {
    let (code, said) = Home::new().refused(&with_sinks([json!({"file": {"path": path}})]));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("audit.sinks[0].file.path: "), "{said}");
    assert!(
        said.contains("config.yaml:") && said.contains(why),
        "{said}"
    );
}

#[test]
fn a_file_that_another_process_writes_is_refused() {
    let home = Home::new();
    let other = fs::File::create(home.path("audit.log")).unwrap();
    other.lock().unwrap();
    let (code, said) = home.refused(&with_sinks([file_sink(&home, "batch")]));
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("another process or sink writes to it"),
        "{said}"
    );
}
