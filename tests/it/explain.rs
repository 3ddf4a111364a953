//! `explain`: what the audit log tells of a decision, found by its id or by who asked for what.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::sidecar::{RUN, SPEC, body};
use crate::harness::{Fake, Home, Reply, Sidecar, eventually, with};

fn explain(home: &Home, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dstack-admission"));
    command
        .arg("explain")
        .args(arguments)
        .env_clear()
        .current_dir(home.path(""))
        .stdin(Stdio::null());
    command.output().unwrap()
}

/// What it prints when it must find something.
fn told(home: &Home, arguments: &[&str]) -> String {
    let output = explain(home, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it says when there is nothing to tell.
fn refused(home: &Home, arguments: &[&str], code: i32) -> String {
    let output = explain(home, arguments);
    assert_eq!(output.status.code(), Some(code));
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

/// An audit event as the first version wrote it.
fn event(id: &str, more: Value) -> Value {
    with(
        json!({
            "kind": "Event", "apiVersion": "dstack-admission/v1", "level": "Patch", "auditID": id,
            "stage": "ResponseComplete", "requestReceivedTimestamp": "2026-10-01T12:00:00.000000Z",
            "stageTimestamp": "2026-10-01T12:00:00.000000Z", "verb": "apply",
            "user": {"username": "alice"}, "decision": "allowed", "durationSeconds": 0.001,
            "objectRef": {"apiGroup": "dstack.ai", "resource": "runs", "namespace": "main", "name": "train"},
            "responseStatus": {"code": 200}, "configuration": "abc",
            "plugins": [{"name": "cost", "phase": "mutating", "verdict": "patched", "durationSeconds": 0.001,
                         "patch": [{"op": "add", "path": "/configuration/max_price", "value": 2.0}]}],
        }),
        more,
    )
}

fn packed(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_decision_is_explained_from_the_log_that_was_written_of_it() {
    let silent = Fake::start(|_| Reply::Silence).await;
    let quota = with(
        silent.webhook("quota"),
        json!({"failurePolicy": "Ignore", "timeout": "50ms"}),
    );
    let set = json!({"name": "cost", "cel": {"mutations": [{"set": {"path": "/configuration/max_price", "value": 1.0}}, {"mergeMap": {"path": "/configuration/tags", "value": {"by": "us"}}}]}});
    let exempt = json!({"name": "gpus", "cel": {"validations": [{"expression": "false"}]}});
    let monitored = json!({"name": "soon", "mode": "monitor", "cel": {"validations": [{"expression": "false", "message": "not any more"}]}});
    let sidecar = Sidecar::start(json!({
        "tls": "off", "plugins": [set, quota, exempt, monitored],
        "exemptions": [{"plugins": ["gpus"], "match": {"users": ["alice"]}, "reason": "launch week", "expires": "2099-12-31"}],
    }))
    .await;
    let plan = sidecar.review(SPEC).await.decision();
    let apply = sidecar.review(SPEC).await.decision();
    eventually("all is recorded", async || sidecar.audit().len() == 4).await;

    let story = told(&sidecar.home, &[&apply, "--config", "config.yaml"]);
    for words in [
        &format!("decision {apply}: patched"),
        "who       alice in main",
        "what      run r1",
        &format!("repeats   {plan}, probably"),
        "1. cost: patched (mutating, ",
        "2. quota: FAILED OPEN: passed over by its failure policy (timeout)",
        "3. gpus: exempt",
        "launch week, until 2100-01-01T00:00:00",
        "/configuration/max_price 1.0, set by cost; was 1.5",
        "/configuration/tags/by \"us\", set by cost; was absent",
        "monitored plugins, asked after the answer: would_deny",
        "not any more",
    ] {
        assert!(story.contains(words), "{words}:\n{story}");
    }
    // In any letter case, by its beginning, and as JSON.
    let beginning = apply[..apply.len() - 1].to_lowercase();
    let shown = told(
        &sidecar.home,
        &[&beginning, "-o", "json", "--audit", "audit.log"],
    );
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let decision = &shown["decisions"][0];
    assert_eq!(decision["event"]["auditID"], json!(apply));
    assert_eq!(decision["monitored"]["decision"], "would_deny");
    let field =
        json!({"path": "/configuration/max_price", "was": 1.5, "now": 1.0, "setBy": ["cost"]});
    assert_eq!(decision["fields"][0], field);
    // The latest, by who asked for what.
    let body = body(SPEC).replace("alice", "bob");
    let other = sidecar.post(RUN, body).await.decision();
    eventually("it is recorded", async || sidecar.audit().len() == 6).await;
    let last = told(
        &sidecar.home,
        &[
            "--last",
            "--run",
            "r*",
            "--user",
            "!bob",
            "--audit",
            "audit.log",
        ],
    );
    assert!(last.starts_with(&format!("decision {apply}: ")), "{last}");
    let list = told(
        &sidecar.home,
        &["--project", "main", "--since", "1h", "--audit", "audit.log"],
    );
    let ids: Vec<_> = list
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(&ids[..3], [&*plan, &*apply, &*other], "{list}");
    assert!(
        list.contains("bob in main: run r1: denied (would_deny)"),
        "{list}"
    );
}

#[test]
fn rotated_and_compressed_logs_are_read_and_a_line_that_is_being_written_is_not() {
    let home = Home::new();
    let line = |id: &str| format!("{}\n", event(id, json!({})));
    home.write("audit.log.2.gz", packed(&line("01A")));
    home.write("audit-2026-10-01T12-00-00.000.log", line("01B"));
    // While it is being compressed a log is there twice.
    home.write("audit.log.1", line("01C"));
    home.write("audit.log.1.gz", packed(&line("01C")));
    home.write("audit.log", format!("{}{{\"kind\":\"Ev", line("01D")));
    for id in ["01A", "01B", "01C", "01D"] {
        let output = explain(&home, &[id, "--audit", "audit.log"]);
        let story = String::from_utf8(output.stdout).unwrap();
        assert!(
            story.starts_with(&format!("decision {id}: allowed")),
            "{story}"
        );
        assert!(
            story.contains("/configuration/max_price 2.0, set by cost\n"),
            "{story}"
        );
        assert!(output.stderr.is_empty());
    }
    let list = told(&home, &["--audit", "audit.log", "--show", "3"]);
    assert!(
        list.starts_with("the latest 3 of 4 decisions:\n01B "),
        "{list}"
    );
}

#[test]
fn of_two_records_of_a_decision_the_last_one_tells_what_the_user_was_told() {
    let home = Home::new();
    let late = event("01A", json!({}));
    let denial = event("01A", json!({"decision": "denied"}));
    home.write("audit.log", format!("{late}\n{denial}\n"));
    let story = told(&home, &["01A", "--audit", "audit.log"]);
    assert!(story.starts_with("decision 01A: denied"), "{story}");
}

#[test]
fn an_id_that_is_not_there_is_told_with_what_was_searched_and_what_is_near() {
    let home = Home::new();
    let ids = ["01JD4XAAAAAAAAAAAAAAAAAAAA", "01JD4XBBBBBBBBBBBBBBBBBBBB"];
    let lines = ids.map(|id| format!("{}\nno JSON\n", event(id, json!({}))));
    home.write("audit.log", lines.concat());
    home.write("audit.log.1", "");
    let said = refused(
        &home,
        &["01JD4XAAAAAAAAAAAAAAAAAAAB", "--audit", "audit.log"],
        1,
    );
    let expected = "no decision 01JD4XAAAAAAAAAAAAAAAAAAAB among 2 audit events of\n  audit.log.1\n  audit.log\nnear it: 01JD4XAAAAAAAAAAAAAAAAAAAA\naudit.log:2: torn, or no JSON: ";
    assert!(said.contains(expected), "{said}");
    let said = refused(&home, &["--user", "bob", "--audit", "audit.log"], 1);
    assert!(
        said.contains("no such decision among 2 audit events"),
        "{said}"
    );
}

#[rstest]
#[case::nowhere(&["01JD4X"], "say where the audit log is")]
#[case::no_file(&["01JD4X", "--audit", "none.log"], "none.log: there is no such file")]
#[case::no_file_sink(&["01JD4X", "--config", "config.yaml"], "config.yaml records to no file")]
#[case::no_glob(&["--run", "[", "--audit", "none.log"], "no glob")]
fn what_cannot_be_searched_is_refused(#[case] arguments: &[&str], #[case] why: &str) {
    let home = Home::new();
    home.configure(&json!({"audit": {"sinks": [{"stdout": {}}]}}));
    let said = refused(&home, arguments, 2);
    assert!(said.contains(why), "{said}");
}

#[test]
fn nothing_of_a_log_steers_the_terminal() {
    let home = Home::new();
    let hostile = "\u{1b}]0;owned\u{7}\n\u{9b}2J";
    let plugin = json!([{"name": hostile, "phase": hostile, "verdict": hostile, "messages": [hostile], "rules": [hostile],
        "warnings": [hostile], "exemptUntil": hostile, "changes": [{"path": hostile, "was": hostile, "now": {hostile: hostile}}]}]);
    let more = json!({"user": {"username": hostile}, "objectRef": {"namespace": hostile, "name": hostile}, "repeatOf": hostile,
        "configuration": hostile, "level": hostile, "decision": hostile, "responseStatus": {"message": hostile},
        "plugins": plugin, "redacted": [hostile], "unsettled": [hostile], "annotations": {hostile: hostile}});
    let monitored = with(more.clone(), json!({"stage": "MonitorComplete"}));
    let lines = [
        event("01A", more),
        event("01A", monitored),
        event("01B", json!({"user": {"username": hostile}})),
    ];
    fs::write(
        home.path("audit.log"),
        lines.map(|event| format!("{event}\n")).concat(),
    )
    .unwrap();
    for arguments in [
        ["01A", "--audit", "audit.log"],
        ["--show", "9", "--audit=audit.log"],
    ] {
        let shown = told(&home, &arguments);
        let controls: Vec<_> = shown
            .chars()
            .filter(|c| c.is_control() && *c != '\n')
            .collect();
        assert!(controls.is_empty(), "{shown:?}");
    }
}
