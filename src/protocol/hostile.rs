//! Whatever is sent, reading it ends in a value or an error.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;

use super::admission_review::decode_response;
use super::dstack::{decode_answer, decode_request};
use crate::admission::patch;
use crate::admission::review::Spec;
use crate::admission::verdict::Phase;

const REQUEST: &str = r#"{"user": "u\u00e9", "project": "p", "spec": {"a": [1.0, {"b": null}], "é": "\ud83d\ude00"}}"#;
const RESPONSE: &str = r#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {
    "uid": "u", "allowed": true, "patchType": "JSONPatch", "patch": "W3sib3AiOiJhZGQiLCJwYXRoIjoiL3NwZWMvYSIsInZhbHVlIjoxfV0=",
    "status": {"message": "m", "reason": "r", "code": 403}, "warnings": ["w"], "auditAnnotations": {"k": "v"}}}"#;

/// A text with some of its bytes cut out, doubled or replaced.
fn damaged(text: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let damage = (
        any::<prop::sample::Index>(),
        0..4_usize,
        prop::collection::vec(any::<u8>(), 0..4),
    );
    prop::collection::vec(damage, 1..4).prop_map(move |damages| {
        let mut bytes = text.as_bytes().to_vec();
        for (at, cut, put) in damages {
            let at = at.index(bytes.len() + 1);
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, put);
        }
        bytes
    })
}

/// Something near to JSON.
fn tokens() -> impl Strategy<Value = Vec<u8>> {
    let token = prop::sample::select(
        &[
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "\"",
            "\\",
            "\\u",
            "d800",
            "null",
            "1e400",
            "-",
            "0",
            "\"spec\"",
            "\"user\"",
            "\"project\"",
            "\"response\"",
            "\"uid\"",
            "\"allowed\"",
            "\u{0}",
            " ",
            "\u{feff}",
        ][..],
    );
    prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat().into_bytes())
}

fn bytes_like(text: &'static str) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => damaged(text),
        2 => tokens(),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

/// The answer of a webhook with these bytes as its patch.
fn with_patch(patch: &[u8]) -> String {
    let (before, rest) = RESPONSE.split_once("W3si").unwrap();
    let (_, after) = rest.split_once('"').unwrap();
    format!("{before}{}\"{after}", BASE64_STANDARD.encode(patch))
}

proptest! {
    #[test]
    fn a_request_is_read_or_refused(body in bytes_like(REQUEST)) {
        let body = Bytes::from(body);
        if let Ok(request) = decode_request(&body) {
            let text = request.spec.text();
            let place = text.as_ptr() as usize - body.as_ptr() as usize;
            prop_assert_eq!(&body[place..place + text.len()], &text[..]);
            let alone = Spec::parse(text.clone()).unwrap();
            prop_assert_eq!(alone.value(), request.spec.value());
        }
    }

    #[test]
    fn an_answer_of_a_webhook_is_read_or_refused(
        body in bytes_like(RESPONSE),
        mutating in any::<bool>(),
    ) {
        let phase = if mutating { Phase::Mutating } else { Phase::Validating };
        if let Ok(verdict) = decode_response(&body, "u", phase) {
            prop_assert!(mutating || verdict.patch.is_empty());
        }
    }

    #[test]
    fn a_patch_of_a_webhook_is_applied_or_refused(
        patch in damaged(r#"[{"op": "move", "from": "/spec/o/p", "path": "/spec/o"}, {"op": "copy", "from": "/spec", "path": "/spec/l/0"}, {"op": "test", "path": "/spec/l/-", "value": 1}]"#),
    ) {
        let spec = serde_json::json!({"o": {"p": 1}, "l": [1, 2]});
        if let Ok(verdict) = decode_response(with_patch(&patch).as_bytes(), "u", Phase::Mutating)
            && let Ok(after) = patch::apply(&spec, &verdict.patch)
        {
            prop_assert!(after.is_object());
        }
    }

    #[test]
    fn an_answer_of_a_plugin_server_is_read_or_refused(
        body in bytes_like(r#"{"spec": {"a": [1.0]}, "error": null}"#),
    ) {
        let _: Result<_, String> = decode_answer(&body);
    }
}

#[test]
fn what_the_damage_begins_with_is_whole() {
    assert!(decode_request(&Bytes::from_static(REQUEST.as_bytes())).is_ok());
    let verdict = decode_response(RESPONSE.as_bytes(), "u", Phase::Mutating).unwrap();
    assert_eq!(verdict.patch.len(), 1);
    let verdict = decode_response(with_patch(b"[]").as_bytes(), "u", Phase::Mutating).unwrap();
    assert!(verdict.patch.is_empty());
}

#[test]
fn nesting_ends_in_an_error_and_not_on_the_stack() {
    let deep = "[".repeat(1_000_000);
    let body = Bytes::from(format!(r#"{{"user": "u", "project": "p", "spec": {deep}"#));
    assert!(decode_request(&body).is_err());
    let closed = "[".repeat(100_000) + &"]".repeat(100_000);
    let body = Bytes::from(format!(
        r#"{{"user": "u", "project": "p", "spec": {closed}}}"#
    ));
    assert!(decode_request(&body).is_err());
    assert!(decode_response(deep.as_bytes(), "u", Phase::Mutating).is_err());
    assert!(serde_json::from_str::<Value>(&closed).is_err());
}
