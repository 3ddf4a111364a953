//! What a replay makes of its logs: lines that are torn, files that are packed, filters, and how
//! little of a long log it keeps.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use flate2::Compression;
use flate2::write::GzEncoder;
use rstest::rstest;
use serde_json::{Value, json};

use super::{command, counts, event, limit, log, replay, run};
use crate::harness::Home;

#[test]
fn torn_lines_are_told_with_their_place_and_end_nothing() {
    let home = Home::new();
    let whole = event("1", json!({})).to_string();
    let torn = &whole[..whole.len() / 2];
    let monitored = event(
        "1",
        json!({"stage": "MonitorComplete", "decision": "would_deny"}),
    );
    let text = format!(
        "DSTACK_PLUGIN_SERVICE_URI=https://localhost:8443\n{whole}\n{torn}\n\n{monitored}\n{}\n{}\n{whole}",
        event("2", json!({"objectRef": {"resource": "pods"}})),
        event("3", json!({"spec": [1]})),
    );
    home.write("audit.log", text);
    let (code, report) = replay(&home, &limit(2.0), &[]);
    assert_eq!(
        (code, counts(&report)),
        (Some(0), [2, 0, 0, 0, 0]),
        "{report:#}"
    );
    assert_eq!(
        (&report["monitorEvents"], &report["lines"]),
        (&json!(1), &json!(7))
    );
    assert_eq!(report["unreadable"]["count"], 4);
    let lines = report["unreadable"]["first"].as_array().unwrap();
    let places = lines.iter().map(|line| {
        (
            line["file"].as_str().unwrap(),
            line["line"].as_u64().unwrap(),
        )
    });
    assert_eq!(
        Vec::from_iter(places),
        [
            ("audit.log", 1),
            ("audit.log", 3),
            ("audit.log", 6),
            ("audit.log", 7)
        ]
    );
    let why = |index: usize| lines[index]["why"].as_str().unwrap();
    assert!(why(0).starts_with("torn, or no JSON: "), "{}", why(0));
    assert!(why(1).contains("EOF"), "{}", why(1));
    assert_eq!(why(2), "unknown resource `pods`");
    assert_eq!(why(3), "the spec is not a JSON object");
}

#[test]
fn logs_are_read_in_turn_packed_or_not_from_files_and_standard_input() {
    let home = Home::new();
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    writeln!(
        packed,
        "{}",
        event("1", json!({"user": {"username": "packed"}}))
    )
    .unwrap();
    let packed = packed.finish().unwrap();
    home.write("audit.log.2.gz", &packed);
    home.write(
        "audit.log.1",
        event("2", json!({"user": {"username": "plain"}})).to_string(),
    );
    home.write(
        "new.yaml",
        home.configuration(&json!({"plugins": limit(1.0)})),
    );
    let arguments = [
        "--audit",
        "audit.log.2.gz",
        "audit.log.1",
        "--audit",
        "-",
        "-c",
        "new.yaml",
        "-o",
        "json",
    ];
    let mut child = command(&home, &arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&packed).unwrap();
    let output = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let examples = report["differences"]["newlyDenied"]["examples"]
        .as_array()
        .unwrap();
    let users = Vec::from_iter(examples.iter().map(|example| &example["user"]));
    assert_eq!(users, ["packed", "plain", "packed"]);
}

#[rstest]
#[case::everything(&[], 4)]
#[case::since(&["--since", "2026-10-02T00:00:00Z"], 3)]
#[case::until(&["--until", "2026-10-02"], 1)]
#[case::between(&["--since", "2026-10-02", "--until", "2026-10-03"], 1)]
#[case::ago(&["--since", "100000d"], 4)]
#[case::kinds(&["--kind", "fleet,volume"], 2)]
#[case::projects(&["--project", "*", "--project", "!main"], 1)]
#[case::users(&["--user", "a*"], 2)]
#[case::all_at_once(&["--user", "a*", "--kind", "run", "--project", "main", "--since", "1970-01-01"], 1)]
fn filters_choose_what_is_replayed(#[case] filters: &[&str], #[case] replayed: u64) {
    let home = Home::new();
    let on = |day: u32| json!(format!("2026-10-0{day}T12:00:00Z"));
    log(
        &home,
        &[
            event("1", json!({"requestReceivedTimestamp": on(1)})),
            event(
                "2",
                json!({"requestReceivedTimestamp": on(2), "objectRef": {"resource": "fleets"}}),
            ),
            event(
                "3",
                json!({"requestReceivedTimestamp": on(3), "objectRef": {"resource": "volumes"}, "user": {"username": "bob"}}),
            ),
            event(
                "4",
                json!({"requestReceivedTimestamp": on(4), "objectRef": {"namespace": "research"}, "user": {"username": "bob"}}),
            ),
        ],
    );
    let (code, report) = replay(&home, &json!([]), filters);
    assert_eq!((code, &report["replayed"]), (Some(0), &json!(replayed)));
    assert_eq!(report["filteredOut"], json!(4 - replayed));
}

#[test]
fn filters_that_leave_nothing_say_so() {
    let home = Home::new();
    log(&home, &[event("1", json!({}))]);
    home.write("new.yaml", home.configuration(&json!({})));
    let output = run(
        &home,
        &["--audit", "audit.log", "-c", "new.yaml", "--user", "nobody"],
    );
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("the filters leave none of 1 reviews"),
        "{said}"
    );
}

/// The most memory that a process ever had, in kilobytes.
fn peak(id: u32) -> u64 {
    let status =
        fs::read_to_string(Path::new("/proc").join(id.to_string()).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.unwrap().trim().strip_suffix(" kB").unwrap();
    number.parse().unwrap()
}

/// Each record differs, is of another user and another project, and is of some size.
#[test]
fn memory_stays_bounded_however_long_the_log() {
    const RECORDS: usize = 3_000;
    let home = Home::new();
    home.write(
        "new.yaml",
        home.configuration(&json!({"plugins": limit(1.0)})),
    );
    let mut child = command(&home, &["--audit", "-", "-c", "new.yaml", "-o", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let commands = "x".repeat(4_000);
    let mut number = 0;
    let mut feed = |records: usize| {
        for _ in 0..records {
            number += 1;
            let more = json!({
                "user": {"username": format!("user-{number}")},
                "objectRef": {"namespace": format!("project-{number}")},
                "spec": {"configuration": {"commands": [commands]}},
            });
            // It waits while the pipe is full, so nearly all of them have been replayed in the end.
            writeln!(stdin, "{}", event(&number.to_string(), more)).unwrap();
        }
        peak(child.id())
    };
    let (short, long) = (feed(RECORDS), feed(3 * RECORDS));
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["differences"]["newlyDenied"]["count"], 4 * RECORDS);
    let users = report["differences"]["newlyDenied"]["users"]
        .as_object()
        .unwrap();
    assert_eq!(
        (users.len(), &users["(others)"]),
        (10_001, &json!(4 * RECORDS - 10_000))
    );
    let examples = &report["differences"]["newlyDenied"]["examples"];
    assert_eq!(examples.as_array().unwrap().len(), 10);
    // Three times as many records more are 40 MB of log.
    assert!(long < 60_000, "{short} kB, then {long} kB");
    assert!(long < short + 5_000, "{short} kB, then {long} kB");
}
