//! Replaying an audit log: what the sidecar recorded, decided by another configuration.

mod logs;
mod report;

use std::fs;
use std::process::{Command, Output, Stdio};

use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::sidecar::post;
use crate::harness::{Fake, Home, Seen, Sidecar, eventually, tags, with};

/// The chain that decides first.
fn chain() -> Value {
    json!([
        {"name": "price", "match": {"kinds": ["run"]}, "cel": {"validations": [
            {"expression": "spec.configuration.max_price <= 2.0", "message": "at most 2.0 an hour"},
        ]}},
        {"name": "tags", "match": {"kinds": ["run"]}, "cel": {"mutations": [
            {"mergeMap": {"path": "/configuration/tags", "value": {"managed-by": "platform"}}},
        ]}},
    ])
}

/// What a team thinks of next: other prices, other tags, and rules that are new.
fn changed_chain() -> Value {
    json!([
        {"name": "price", "match": {"kinds": ["run"]}, "cel": {"validations": [
            {"expression": "spec.configuration.max_price <= 5.0", "message": "at most 5.0 an hour"},
        ]}},
        {"name": "no-privileged", "match": {"kinds": ["run"]}, "cel": {"validations": [
            {"expression": "!has(spec.configuration.privileged)", "message": "privileged is forbidden"},
        ]}},
        {"name": "tags", "match": {"kinds": ["run"]}, "cel": {"mutations": [
            {"mergeMap": {"path": "/configuration/tags", "value": {"managed-by": "operations"}}},
        ]}},
        {"name": "volume-size", "match": {"kinds": ["volume"]}, "cel": {"validations": [
            {"expression": "spec.configuration.no_such_key > 1", "message": "too small"},
        ]}},
        {"name": "new-rule", "mode": "monitor", "cel": {"validations": [
            {"expression": "kind != 'gateway'", "message": "no gateways"},
        ]}},
    ])
}

fn at_level(home: &Home, level: &str, plugins: Value) -> Value {
    let sink = json!({"file": {"path": home.path("audit.log")}});
    json!({"tls": "off", "plugins": plugins, "audit": {"level": level, "sinks": [sink]}})
}

/// Has one spec of each kind reviewed, and leaves their log.
async fn recorded(level: &str, plugins: Value) -> Home {
    let home = Home::new();
    let keys = at_level(&home, level, plugins);
    let sidecar = Sidecar::start_in(home, keys).await;
    let task = |more| with(json!({"type": "task", "max_price": 1.5}), more);
    let reviews = [
        ("run", "alice", "main", task(json!({"name": "cheap"}))),
        (
            "run",
            "bob",
            "main",
            task(json!({"name": "dear", "max_price": 4.0})),
        ),
        (
            "run",
            "bob",
            "research",
            task(json!({"name": "root", "privileged": true, "env": {"T": "s3cret"}})),
        ),
        (
            "fleet",
            "alice",
            "main",
            json!({"type": "fleet", "name": "f"}),
        ),
        (
            "volume",
            "alice",
            "main",
            json!({"type": "volume", "name": "v"}),
        ),
        (
            "gateway",
            "carol",
            "main",
            json!({"type": "gateway", "name": "g"}),
        ),
    ];
    let count = reviews.len();
    for (kind, user, project, configuration) in reviews {
        let body =
            json!({"user": user, "project": project, "spec": {"configuration": configuration}});
        let path = format!("/apply_policies/on_{kind}_apply");
        sidecar.send(post(&path, body.to_string())).await;
    }
    eventually("all are recorded", async || sidecar.audit().len() >= count).await;
    sidecar.stop().await
}

fn command(home: &Home, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dstack-admission"));
    command
        .arg("replay")
        .args(arguments)
        .env_clear()
        .current_dir(home.path(""))
        .stdin(Stdio::null());
    command
}

fn run(home: &Home, arguments: &[&str]) -> Output {
    command(home, arguments).output().unwrap()
}

/// Replays `audit.log` with this chain. Returns the exit code and the report.
fn replay(home: &Home, plugins: &Value, arguments: &[&str]) -> (Option<i32>, Value) {
    home.write("new.yaml", home.configuration(&json!({"plugins": plugins})));
    let fixed = ["--config", "new.yaml", "--output", "json"];
    let log = ["--audit", "audit.log"];
    let own: &[&str] = if arguments.contains(&"--audit") {
        &[]
    } else {
        &log
    };
    let output = run(home, &[&fixed, own, arguments].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout);
    (
        output.status.code(),
        report.unwrap_or_else(|e| panic!("{e}: {said}")),
    )
}

fn counts(report: &Value) -> [u64; 5] {
    let count = |place: &str| report.pointer(place).and_then(Value::as_u64).unwrap();
    [
        "/same",
        "/differences/newlyDenied/count",
        "/differences/newlyAllowed/count",
        "/differences/patchedOtherwise/count",
        "/notComparable/count",
    ]
    .map(count)
}

#[tokio::test]
async fn the_configuration_that_decided_decides_the_same() {
    let home = recorded("Spec", chain()).await;
    let (code, report) = replay(&home, &chain(), &[]);
    assert_eq!(
        (code, counts(&report)),
        (Some(0), [6, 0, 0, 0, 0]),
        "{report:#}"
    );
    assert_eq!(report["replayed"], 6);
    assert_eq!(report["redacted"], 1);
}

#[tokio::test]
async fn another_configuration_shows_what_changes_and_for_whom() {
    let home = recorded("Spec", chain()).await;
    let (code, report) = replay(&home, &changed_chain(), &[]);
    assert_eq!(
        (code, counts(&report)),
        (Some(1), [2, 2, 1, 1, 0]),
        "{report:#}"
    );

    let denied = &report["differences"]["newlyDenied"];
    assert_eq!(
        denied["plugins"],
        json!({"no-privileged": 1, "volume-size": 1})
    );
    assert_eq!(denied["failed"], json!({"volume-size": 1}));
    assert_eq!(denied["byFailure"], 1);
    assert_eq!(denied["projects"], json!({"main": 1, "research": 1}));
    assert_eq!(denied["users"], json!({"alice": 1, "bob": 1}));
    let (root, volume) = (&denied["examples"][0], &denied["examples"][1]);
    assert_eq!(
        (&root["name"], &root["kind"]),
        (&json!("root"), &json!("run"))
    );
    assert_eq!(
        (&root["user"], &root["project"]),
        (&json!("bob"), &json!("research"))
    );
    let message = root["message"].as_str().unwrap();
    assert!(
        message.contains("- no-privileged: privileged is forbidden"),
        "{message}"
    );
    assert_eq!(
        (&volume["name"], &volume["failed"]),
        (&json!("v"), &json!(["volume-size"]))
    );

    let allowed = &report["differences"]["newlyAllowed"];
    assert_eq!(allowed["plugins"], json!({"price": 1}));
    assert_eq!(allowed["examples"][0]["name"], "dear");
    let log = fs::read_to_string(home.path("audit.log")).unwrap();
    assert!(log.contains(allowed["examples"][0]["id"].as_str().unwrap()));

    let patched = &report["differences"]["patchedOtherwise"];
    assert_eq!(patched["plugins"], json!({"tags": 1}));
    let words = "/configuration/tags/managed-by \"platform\" → \"operations\"";
    assert_eq!(patched["examples"][0]["message"], words);

    assert_eq!(report["monitored"]["wouldDeny"], json!({"new-rule": 1}));
    let (code, _) = replay(
        &home,
        &changed_chain(),
        &["--allow", "newly-denied,newly-allowed,patched"],
    );
    assert_eq!(code, Some(0));
    let (code, _) = replay(
        &home,
        &changed_chain(),
        &["--allow", "newly-allowed,patched"],
    );
    assert_eq!(code, Some(1));
}

/// An audit event of a run as the sidecar writes it, with other members where `more` has some.
fn event(id: &str, more: Value) -> Value {
    let least = json!({
        "kind": "Event", "apiVersion": "dstack-admission/v1", "level": "Spec", "auditID": id,
        "stage": "ResponseComplete", "requestReceivedTimestamp": "2026-10-01T12:00:00.000000Z",
        "user": {"username": "alice"},
        "objectRef": {"apiGroup": "dstack.ai", "resource": "runs", "namespace": "main", "name": id},
        "responseStatus": {"code": 200}, "decision": "allowed", "plugins": [],
        "spec": {"configuration": {"type": "task", "max_price": 1.5}},
    });
    with(least, more)
}

fn log(home: &Home, events: &[Value]) {
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    home.write("audit.log", lines);
}

fn limit(price: f64) -> Value {
    let rule = json!({"expression": format!("spec.configuration.max_price <= {price:?}"), "message": "too dear"});
    json!([{"name": "price", "cel": {"validations": [rule]}}])
}

#[rstest]
#[case::metadata("Metadata")]
#[case::patch("Patch")]
#[tokio::test]
async fn without_specs_nothing_is_guessed(#[case] level: &str) {
    let home = recorded(level, chain()).await;
    home.write("new.yaml", home.configuration(&json!({})));
    let output = run(&home, &["--audit", "audit.log", "-c", "new.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = "nothing was replayed: none of the 6 reviews was recorded with its spec: `audit.level` must be `Spec`";
    assert!(said.contains(expected), "{said}");
    let (_, report) = replay(&home, &chain(), &[]);
    assert_eq!(report["withoutSpec"], 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_plugins_are_not_asked_unless_the_caller_says_so() {
    let judge = Fake::start(
        |seen: &Seen| match seen.spec().pointer("/configuration/name") {
            Some(name) if name == "dear" => seen.denied("over quota"),
            _ => seen.allowed(),
        },
    );
    let (judge, tagger) = (judge.await, Fake::start(tags("team", "a")).await);
    let with_tags = json!([{"name": "empty", "cel": {"mutations": [
        {"setDefault": {"path": "/configuration/tags", "value": {}}},
    ]}}, {"name": "rules", "cel": {"validations": [{"expression": "user != 'carol'"}]}}]);
    let mut plugins = with_tags.as_array().unwrap().clone();
    let fan_out = json!({"fanOut": [judge.webhook("judge"), tagger.webhook("tagger")]});
    plugins.insert(1, fan_out);
    let plugins = json!(plugins);
    let home = recorded("Spec", plugins.clone()).await;
    let asked = judge.calls().len() + tagger.calls().len();
    assert_eq!(asked, 12);

    let (code, report) = replay(&home, &plugins, &[]);
    assert_eq!(judge.calls().len() + tagger.calls().len(), asked);
    // One was denied by the judge, one by the rules, and the others were tagged.
    assert_eq!(
        (code, counts(&report)),
        (Some(0), [1, 0, 0, 0, 5]),
        "{report:#}"
    );
    assert_eq!(report["notComparable"]["deniedByLeftOut"], 1);
    assert_eq!(
        report["notComparable"]["plugins"],
        json!({"tagger": 4, "judge": 1})
    );
    let left_out =
        json!([{"plugin": "judge", "kind": "webhook"}, {"plugin": "tagger", "kind": "webhook"}]);
    assert_eq!(report["leftOut"], left_out);

    let (code, report) = replay(&home, &plugins, &["--call-remote"]);
    assert_eq!(
        (code, counts(&report)),
        (Some(0), [6, 0, 0, 0, 0]),
        "{report:#}"
    );
    assert_eq!((&report["leftOut"], judge.calls().len()), (&json!([]), 12));
}
