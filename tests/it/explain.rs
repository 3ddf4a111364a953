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

/// A line that a careless or hostile hand left in a log.
#[rstest]
#[case::binary(b"\x00\x9b\xff\xfe binary \x1b[2J", "audit.log:2: torn, or no JSON")]
#[case::another_log(br#"{"level":"INFO","message":"decided"}"#, "missing field `kind`")]
#[case::another_event(
    br#"{"kind":"Event\u001b[2J","apiVersion":"audit.k8s.io/v1"}"#,
    "audit.log:2: no audit event"
)]
#[case::no_time(br#"{"kind":"Event","apiVersion":"dstack-admission/v1","auditID":"01Z","stage":"ResponseComplete","requestReceivedTimestamp":"\u001b[2J"}"#, "audit.log:2: no audit event")]
#[case::torn(br#"{"kind":"Event","apiVer"#, "audit.log:2: torn, or no JSON: EOF")]
fn a_line_that_is_no_event_is_told_wherever_it_stands_and_steers_nothing(
    #[case] line: &[u8],
    #[case] why: &str,
    #[values(true, false)] in_the_middle: bool,
) {
    let home = Home::new();
    let events = ["01A", "01B"].map(|id| format!("{}\n", event(id, json!({}))).into_bytes());
    let after = if in_the_middle { &events[1][..] } else { b"" };
    home.write("audit.log", [&events[0], line, b"\n", after].concat());
    let output = explain(&home, &["01A", "--audit", "audit.log"]);
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stderr).unwrap();
    // A log that ends within a line is being written.
    let is_quiet = !in_the_middle && why.ends_with("EOF");
    assert_eq!(said.contains(why), !is_quiet, "{said}");
    let steers = |c: char| c.is_control() && c != '\n';
    assert!(!said.contains(steers), "{said:?}");

    let shown = told(&home, &["01A", "-o", "json", "--audit", "audit.log"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let unreadable = shown["searched"]["unreadable"].as_array().unwrap();
    assert_eq!(unreadable.len(), usize::from(!is_quiet), "{unreadable:?}");
}

#[test]
fn a_backup_that_ends_too_early_is_told() {
    let home = Home::new();
    let whole = packed(&format!("{}\n{}", event("01A", json!({})), "x".repeat(99)));
    home.write("audit.log.2.gz", &whole[..whole.len() - 4]);
    home.write(
        "audit.log.1",
        format!("{}\n{{\"ki", event("01B", json!({}))),
    );
    home.write("audit.log", format!("{}\n{{\"ki", event("01C", json!({}))));
    for id in ["01A", "01B", "01C"] {
        let output = explain(&home, &[id, "--audit", "audit.log"]);
        assert_eq!(output.status.code(), Some(0));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("audit.log.2.gz:2: cannot be read from here on"));
        assert!(said.contains("audit.log.1:2: torn, or no JSON"));
        assert_eq!(said.lines().count(), 2, "{said}");
    }
}

#[test]
fn what_is_wrong_with_a_huge_line_is_told_in_few_words() {
    let home = Home::new();
    let kind = "k".repeat(1 << 20);
    let foreign = with(event("01A", json!({})), json!({"kind": kind}));
    home.write(
        "audit.log",
        format!("{foreign}\n{}\n", event("01A", json!({}))),
    );
    let output = explain(&home, &["01A", "--audit", "audit.log"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        output
            .stderr
            .starts_with(b"dstack-admission: audit.log:1: no audit event")
    );
    assert!(output.stderr.len() < 500);
}

#[test]
fn the_decisions_of_a_trace_are_found_by_its_name() {
    let home = Home::new();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let other = "0af7651916cd43dd8448eb211c80319d";
    let lines = [
        event("01A", json!({"traceID": trace})),
        event("01B", json!({"traceID": other})),
        event(
            "01C",
            json!({"traceID": trace, "user": {"username": "bob"}}),
        ),
        event("01D", json!({})),
    ];
    home.write(
        "audit.log",
        lines.map(|event| format!("{event}\n")).concat(),
    );
    let list = told(&home, &["--trace", trace, "--audit", "audit.log"]);
    let ids = list.lines().filter_map(|line| line.split_once(" 2026"));
    assert_eq!(Vec::from_iter(ids.map(|(id, _)| id)), ["01A", "01C"]);
    // In capitals, with what else is wanted.
    let capitals = trace.to_uppercase();
    let story = told(
        &home,
        &[
            "--trace",
            &capitals,
            "--user",
            "bob",
            "--audit",
            "audit.log",
        ],
    );
    assert!(story.starts_with("decision 01C: "), "{story}");
    assert!(story.contains(&format!("trace     {trace}")), "{story}");
    let none = "00000000000000000000000000000001";
    let said = refused(&home, &["--trace", none, "--audit", "audit.log"], 1);
    assert!(
        said.contains("no such decision among 4 audit events"),
        "{said}"
    );
}

#[test]
fn as_json_it_is_said_in_json_that_there_is_nothing() {
    let home = Home::new();
    home.write(
        "audit.log",
        format!("{}\nno JSON\n", event("01JD4XA", json!({}))),
    );
    for (arguments, near) in [
        (&["01JD4XB"][..], json!(["01JD4XA"])),
        (&["--user", "bob"], json!([])),
    ] {
        let more = ["-o", "json", "--audit", "audit.log"];
        let output = explain(&home, &[arguments, &more].concat());
        assert_eq!(output.status.code(), Some(1));
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&shown["decisions"], &shown["matched"]),
            (&json!([]), &json!(0))
        );
        assert_eq!(shown["near"], near);
        assert_eq!(shown["searched"]["events"], 1);
        assert_eq!(shown["searched"]["unreadable"].as_array().unwrap().len(), 1);
        assert!(!output.stderr.is_empty());
    }
}

#[rstest]
#[case::nowhere(&["01JD4X"], "say where the audit log is")]
#[case::no_file(&["01JD4X", "--audit", "none.log"], "none.log: there is no such file")]
#[case::id_last(&["--audit", "config.yaml", "01JD4X"], "01JD4X: there is no such file; a decision's id stands before `--audit`")]
#[case::no_file_sink(&["01JD4X", "--config", "config.yaml"], "config.yaml records to no file")]
#[case::no_glob(&["--run", "[", "--audit", "none.log"], "no glob")]
#[case::no_trace(&["--trace", "0af7", "--audit", "none.log"], "a trace is 32 hex digits")]
#[case::zero_trace(&["--trace", "00000000000000000000000000000000", "--audit", "none.log"], "not all of them 0")]
#[case::no_time(&["--since", "soon", "--audit", "none.log"], "write a time like")]
#[case::no_show(&["--show", "0", "--audit", "none.log"], "--show")]
#[case::backwards(&["--since", "2026-10-02", "--until", "2026-10-01", "--audit", "none.log"],
    "nothing lies between `--since` 2026-10-02T00:00:00Z and `--until` 2026-10-01T00:00:00Z")]
fn what_cannot_be_searched_is_refused(#[case] arguments: &[&str], #[case] why: &str) {
    let home = Home::new();
    home.configure(&json!({"audit": {"sinks": [{"stdout": {}}]}}));
    let said = refused(&home, arguments, 2);
    assert!(said.contains(why), "{said}");
}

/// As rules of the audit may have it: the decision at the level None, what was monitored at another.
#[test]
fn a_decision_of_which_only_the_monitored_part_is_recorded_is_found() {
    let home = Home::new();
    let monitored = json!({"stage": "MonitorComplete", "decision": "would_deny"});
    let line = event(
        "01JD4XA",
        with(json!({"user": {"username": "ada"}}), monitored),
    );
    fs::write(home.path("audit.log"), format!("{line}\n")).unwrap();
    for arguments in [&["01JD4XA"][..], &["--user", "ada"], &["--last"]] {
        let shown = told(&home, &[arguments, &["--audit", "audit.log"]].concat());
        assert!(
            shown.contains("only what monitored plugins said"),
            "{shown}"
        );
        assert!(!shown.contains("decided in"), "{shown}");
    }
    let output = explain(&home, &["01JD4XA", "--user", "bob", "--audit", "audit.log"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("01JD4XA is there, but not what else was asked for"),
        "{said}"
    );
}

#[test]
fn nothing_of_a_log_steers_the_terminal() {
    let home = Home::new();
    let hostile = "\u{1b}]0;owned\u{7}\n\u{9b}2J\u{202e}evil\u{2066}";
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
            .filter(|c| c.is_control() && *c != '\n' || "\u{202e}\u{2066}".contains(*c))
            .collect();
        assert!(controls.is_empty(), "{shown:?}");
    }
}
