use serde_json::json;

use super::*;

fn told(decision: Option<&Value>, monitored: Option<&Value>) -> String {
    let texts = [decision, monitored].map(|event| event.map(Value::to_string));
    let [decision, monitored] = texts.each_ref().map(|text| {
        text.as_ref()
            .map(|text| Event::parse(text.as_bytes()).unwrap())
    });
    let mut out = Vec::new();
    let events = Events {
        decision,
        monitored,
    };
    story(&mut out, &events).unwrap();
    String::from_utf8(out).unwrap()
}

fn event(more: Value) -> Value {
    let mut event = json!({
        "kind": "Event", "apiVersion": "dstack-admission/v1", "level": "Patch", "auditID": "01JD4X",
        "stage": "ResponseComplete", "requestReceivedTimestamp": "2026-10-01T12:00:00.123456Z",
        "user": {"username": "alice"}, "decision": "patched", "durationSeconds": 0.0042,
        "objectRef": {"apiGroup": "dstack.ai", "resource": "runs", "namespace": "main", "name": "train"},
        "responseStatus": {"code": 200}, "configuration": "5ba93c9d",
    });
    event
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    event
}

#[test]
fn a_decision_is_told_from_who_asked_to_who_set_what() {
    let decision = event(json!({
        "repeatOf": "01JD4W",
        "plugins": [
            {"name": "cost", "phase": "mutating", "verdict": "patched", "durationSeconds": 0.0004, "rules": ["mutations[0]"],
             "patch": [{"op": "add", "path": "/configuration/max_price", "value": 2.0}],
             "changes": [{"path": "/configuration/max_price", "was": null, "now": 2.0}]},
            {"name": "quota", "phase": "mutating", "verdict": "failed_open", "durationSeconds": 2.0, "errorType": "timeout",
             "messages": ["it did not answer within 2s"]},
            {"name": "house", "phase": "mutating", "verdict": "patched", "durationSeconds": 0.001,
             "patch": [{"op": "replace", "path": "/configuration/max_price", "value": 1.5}, {"op": "remove", "path": "/configuration/x"}],
             "changes": [{"path": "/configuration/max_price", "was": 2.0, "now": 1.5}, {"path": "/configuration/x", "was": [1]},
                         {"path": "/configuration/tags", "now": {"a": "b"}}]},
            {"name": "gpus", "phase": "validating", "verdict": "exempt", "durationSeconds": 0.0,
             "messages": ["launch week, TICKET-12"], "exemptUntil": "2026-12-31T00:00:00.000000Z"},
            {"name": "night", "phase": "validating", "verdict": "skipped", "durationSeconds": 0.0, "messages": ["at night"]},
            {"name": "old", "phase": "validating", "verdict": "allowed", "durationSeconds": 0.0, "warnings": ["soon gone\u{1b}[2J"]},
        ],
        "redacted": ["/configuration/env/A"],
    }));
    let monitored = event(json!({
        "stage": "MonitorComplete", "decision": "would_deny",
        "plugins": [{"name": "new-rule", "phase": "validating", "verdict": "denied", "durationSeconds": 0.0001, "messages": ["too large\nby far"]}],
    }));
    insta::assert_snapshot!(told(Some(&decision), Some(&monitored)), @r#"
    decision 01JD4X: patched
      who       alice in main
      what      run train
      when      2026-10-01T12:00:00.123Z, decided in 4.2 ms
      by        configuration 5ba93c9d, recorded at the level Patch
      repeats   01JD4W, probably: the same spec of the same user shortly before, as plan and apply are

    plugins, in the order in which they were asked:
      1. cost: patched (mutating, 0.4 ms, mutations[0])
         add /configuration/max_price 2.0
      2. quota: FAILED OPEN: passed over by its failure policy (timeout) (mutating, 2.00 s)
         it did not answer within 2s
      3. house: patched (mutating, 1.0 ms)
         replace /configuration/max_price 1.5
         remove /configuration/x
      4. gpus: exempt (validating, 0.0 ms)
         launch week, TICKET-12, until 2026-12-31T00:00:00.000000Z
      5. night: skipped (validating, 0.0 ms)
         its condition `at night` was false
      6. old: allowed (validating, 0.0 ms)
         warning: soon gone [2J

    fields that were changed:
      /configuration/max_price 1.5, set by house after cost; was null
      /configuration/x taken away by house; was [1]
      /configuration/tags {"a":"b"}, set by house; was absent

    monitored plugins, asked after the answer: would_deny
      1. new-rule: DENIED (validating, 0.1 ms)
         too large
         by far

    secrets were redacted in: /configuration/env/A
    "#);
}

#[test]
fn a_record_of_an_older_version_tells_what_it_can() {
    let old = event(json!({
        "decision": "denied", "responseStatus": {"code": 403, "message": "1 policy denies this run:\n- gpus: too many"},
        "plugins": [
            {"name": "cost", "phase": "mutating", "verdict": "patched", "durationSeconds": 0.0004,
             "patch": [{"op": "add", "path": "/configuration/max_price", "value": 2.0}]},
            {"name": "gpus", "phase": "validating", "verdict": "denied", "durationSeconds": 0.0, "messages": ["too many"]},
        ],
    }));
    insta::assert_snapshot!(told(Some(&old), None), @r#"
    decision 01JD4X: denied
      who       alice in main
      what      run train
      when      2026-10-01T12:00:00.123Z, decided in 4.2 ms
      by        configuration 5ba93c9d, recorded at the level Patch
      answer    1 policy denies this run:
                - gpus: too many

    plugins, in the order in which they were asked:
      1. cost: patched (mutating, 0.4 ms)
         add /configuration/max_price 2.0
      2. gpus: DENIED (validating, 0.0 ms)
         too many

    fields that were changed before it was denied, to no effect:
      /configuration/max_price 2.0, set by cost
    "#);
}
