//! What a replay says: the report that a person reads, and exit code 2 with its reason.

use rstest::rstest;
use serde_json::{Value, json};

use super::{counts, event, limit, log, replay, run};
use crate::harness::{Home, with};

#[test]
fn a_person_reads_totals_then_who_and_why() {
    let home = Home::new();
    let dear = json!({"user": {"username": "bob"}, "spec": {"configuration": {"max_price": 9.0}}});
    let patched = json!({
        "decision": "patched", "objectRef": {"namespace": "research"},
        "patch": [{"op": "add", "path": "/configuration/x", "value": 1}],
        "plugins": [{"name": "defaults", "verdict": "patched", "patch": [{"op": "add", "path": "/configuration/x", "value": 1}]}],
    });
    let secret = json!({"redacted": ["/configuration/env/T"], "requestReceivedTimestamp": "2026-10-08T09:30:00.5Z"});
    log(
        &home,
        &[
            event("same", json!({})),
            event("dear-1", dear.clone()),
            event(
                "dear-2",
                with(dear, json!({"objectRef": {"namespace": "research"}})),
            ),
            denied(
                "cheap",
                "old-price",
                "too dear,\u{1b}[31m\n  by far",
                secret,
            ),
            event("patched", patched),
            denied("quota-1", "quota", "over", json!({})),
            event("no-spec", json!({"level": "Patch", "spec": null})),
            event("monitored", json!({"stage": "MonitorComplete"})),
            json!({"message": "a line of another log"}),
        ],
    );
    let mut plugins = limit(2.0);
    let quota = json!({"name": "quota", "webhook": {"url": "http://127.0.0.1:1"}});
    plugins.as_array_mut().unwrap().push(quota);
    home.write("new.yaml", home.configuration(&json!({"plugins": plugins})));
    let output = run(
        &home,
        &["--audit", "audit.log", "-c", "new.yaml", "--show", "1"],
    );
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap(), @r"
    replayed 6 of 7 reviews, 2026-10-01T12:00:00Z to 2026-10-08T09:30:00Z, with new.yaml
           1  decided the same
           2  newly denied
           1  newly allowed
           1  patched otherwise
           1  not comparable (1 denied by a plugin that was not asked)

    - 1 review recorded without a spec: `audit.level` was not `Spec`
    - 1 review with redacted secrets: rules on secrets may decide otherwise
    - not asked, since old reviews would be sent to them: quota (webhook); `--call-remote` asks them
    - 1 line without an audit event
        audit.log:9: no audit event of dstack-admission/v1: missing field `kind` at line 1 column 35

    newly denied: 2
      plugins   price 2
      projects  main 1, research 1
      users     bob 2
      dear-1 2026-10-01T12:00:00Z bob in main: run dear-1
          price: too dear
      and 1 more

    newly allowed: 1
      plugins   old-price 1
      projects  main 1
      users     alice 1
      cheap 2026-10-08T09:30:00Z alice in main: run cheap
          old-price: too dear, [31m by far

    patched otherwise: 1
      plugins   defaults 1
      projects  research 1
      users     alice 1
      patched 2026-10-01T12:00:00Z alice in research: run patched
          /configuration/x 1 → (absent)
    ");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

/// An exemption that ended before today holds for what was reviewed before its end.
#[test]
fn exemptions_hold_against_the_time_of_the_record() {
    let home = Home::new();
    let dear = |day: &str| json!({"requestReceivedTimestamp": day, "spec": {"configuration": {"max_price": 9.0}}});
    log(
        &home,
        &[
            event("before", dear("2020-05-01T00:00:00Z")),
            event("after", dear("2020-07-01T00:00:00Z")),
        ],
    );
    let exemption =
        json!({"plugins": ["price"], "match": {}, "reason": "launch", "expires": "2020-06-01"});
    home.write(
        "new.yaml",
        home.configuration(&json!({"plugins": limit(2.0), "exemptions": [exemption]})),
    );
    let output = run(
        &home,
        &["--audit", "audit.log", "-c", "new.yaml", "-o", "json"],
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(counts(&report), [1, 1, 0, 0, 0]);
    assert_eq!(
        report["differences"]["newlyDenied"]["examples"][0]["id"],
        "after"
    );
}

#[test]
fn a_plugin_that_fails_open_is_counted() {
    let home = Home::new();
    log(&home, &[event("1", json!({})), event("2", json!({}))]);
    let rule = json!({"expression": "spec.no_such_key > 1"});
    let plugin =
        json!([{"name": "broken", "failurePolicy": "Ignore", "cel": {"validations": [rule]}}]);
    let (code, report) = replay(&home, &plugin, &[]);
    assert_eq!((code, counts(&report)), (Some(0), [2, 0, 0, 0, 0]));
    assert_eq!(report["failedOpen"], json!({"broken": 2}));
}

#[rstest]
#[case::no_such_log(&["--audit", "absent.log", "-c", "new.yaml"], "absent.log: No such file")]
#[case::no_such_configuration(&["--audit", "audit.log", "-c", "absent.yaml"], "absent.yaml")]
#[case::broken_configuration(&["--audit", "audit.log", "-c", "broken.yaml"], "1 problem in the configuration")]
#[case::no_moment(&["--audit", "audit.log", "-c", "new.yaml", "--since", "monday"], "how long ago like `7d`")]
#[case::no_glob(&["--audit", "audit.log", "-c", "new.yaml", "--user", "[a"], "is no glob")]
#[case::no_change(&["--audit", "audit.log", "-c", "new.yaml", "--allow", "anything"], "newly-denied, newly-allowed, patched")]
#[case::empty_log(&["--audit", "empty.log", "-c", "new.yaml"], "there is no review among the audit events")]
fn what_cannot_be_replayed_is_exit_code_2(#[case] arguments: &[&str], #[case] why: &str) {
    let home = Home::new();
    log(&home, &[event("1", json!({}))]);
    home.write("empty.log", "");
    home.write("new.yaml", home.configuration(&json!({})));
    home.write(
        "broken.yaml",
        home.configuration(&json!({"plugins": [{"name": "p", "cel": {"rules": []}}]})),
    );
    let output = run(&home, arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(why), "{said}");
}

fn denied(id: &str, by: &str, why: &str, more: Value) -> Value {
    let message = format!("1 policy denies this run (decision {id}):\n- {by}: {why}");
    let denial = json!({
        "decision": "denied", "responseStatus": {"code": 403, "message": message},
        "plugins": [{"name": by, "phase": "validating", "verdict": "denied", "messages": [why]}],
    });
    event(id, with(denial, more))
}
