use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::admission::review::{Kind, Review, Spec};
use crate::admission::verdict::{Denial, Fault, FaultKind, Phase};

const TOKEN: &str = "ghp_FAKEfakeFAKEfakeFAKEfakeFAKEfakeFAKE";

fn part(plugin: &str, result: PartResult) -> Part {
    Part {
        warnings: vec!["hunter2hunter2 is weak".to_owned()],
        annotations: vec![("saw".to_owned(), "hunter2hunter2".to_owned())],
        ..Part::new(0, &plugin.into(), Phase::Mutating, result)
    }
}

fn decision(spec: &Value, message: &str) -> Decision {
    let review = Arc::new(Review {
        id: "01JD4X".to_owned(),
        kind: Kind::Run,
        user: "alice".to_owned(),
        project: "research-team".to_owned(),
        received: SystemTime::UNIX_EPOCH,
        headers: Vec::new(),
        trace: None,
        spec: Spec::parse(Bytes::from(spec.to_string())).unwrap(),
    });
    let denial = Denial {
        message: message.to_owned(),
        reason: Some("hunter2hunter2".to_owned()),
    };
    let fault = Fault::new(FaultKind::Exception, "ValueError: hunter2hunter2")
        .with_detail(format!("near {TOKEN}"));
    let parts = vec![
        part("echo", PartResult::Denied(vec![denial])),
        part("broken", PartResult::FailedOpen(fault)),
    ];
    let spec = Arc::clone(review.spec.value());
    Decision::new(review, spec, parts, Vec::new())
}

#[test]
fn what_plugins_repeat_of_a_secret_is_taken_out_of_all_their_texts() {
    let spec = json!({"configuration": {"env": {"PASSWORD": "hunter2hunter2"}, "commands": ["x"]}});
    let mut decision = decision(&spec, &format!("do not write hunter2hunter2 or {TOKEN}"));
    let found = redact(&mut decision, &Secrets::default());
    let said = format!("{:?}{:?}", decision.verdict, decision.parts);
    assert!(!said.contains("hunter2") && !said.contains(TOKEN), "{said}");
    assert!(
        decision
            .denial()
            .unwrap()
            .contains("do not write [redacted] or [redacted]")
    );
    for place in [
        "message",
        "plugins/echo/messages",
        "plugins/echo/warnings",
        "plugins/broken/messages",
        "annotations/echo/saw",
    ] {
        assert!(
            found.iter().any(|found| found == place),
            "{place}: {found:?}"
        );
    }
}

#[test]
fn what_is_in_clear_elsewhere_stays_in_words() {
    let spec = json!({"configuration": {
        "env": {"IMAGE": "python:3.12-slim", "TEAM": "research-team", "WHO": "alice", "MODE": "fast"},
        "image": "python:3.12-slim",
    }});
    let words = "alice of research-team may not use python:3.12-slim, however fast";
    let mut decision = decision(&spec, words);
    redact(&mut decision, &Secrets::default());
    assert!(decision.denial().unwrap().contains(words));
}

#[test]
fn a_text_that_cannot_be_redacted_is_withheld() {
    let mut decision = decision(&json!({"configuration": {}}), "hunter2hunter2");
    let found = redact_with(&mut decision, |text| match text.contains("hunter2") {
        true => panic!("as a fault in an expression would"),
        false => None,
    });
    let said = format!("{:?}{:?}", decision.verdict, decision.parts);
    assert!(!said.contains("hunter2"), "{said}");
    assert_eq!(decision.denial(), Some(WITHHELD));
    assert!(found.len() > 5, "{found:?}");
}
