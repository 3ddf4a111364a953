use std::time::SystemTime;

use bytes::Bytes;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::admission::review::{Kind, Spec};

fn answer(response: Value) -> Vec<u8> {
    json!({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response})
        .to_string()
        .into()
}

fn patch(operations: Value) -> String {
    BASE64_STANDARD.encode(operations.to_string())
}

#[test]
fn a_request_is_what_the_api_server_would_send() {
    let text = r#"{"run_name":"r1","n":1.0}"#;
    let review = Review {
        id: "01J".into(),
        kind: Kind::Run,
        user: "alice".into(),
        project: "main".into(),
        received: SystemTime::UNIX_EPOCH,
        headers: vec![],
        trace: None,
        spec: Spec::parse(Bytes::from_static(text.as_bytes())).unwrap(),
    };
    let body = encode_request(&review, "u-1", text.as_bytes()).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let resource = json!({"group": "dstack.ai", "version": "v1", "resource": "runs"});
    let kind = json!({"group": "dstack.ai", "version": "v1", "kind": "Run"});
    let expected = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u-1", "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
            "name": "r1", "namespace": "main", "operation": "CREATE", "userInfo": {"username": "alice"},
            "object": {"apiVersion": "dstack.ai/v1", "kind": "Run",
                       "metadata": {"name": "r1", "namespace": "main"}, "spec": {"run_name": "r1", "n": 1.0}},
            "oldObject": null, "dryRun": false,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
        }
    });
    assert_eq!(body, expected);
}

#[test]
fn an_allowing_answer_brings_its_patch_warnings_and_annotations() {
    let body = answer(json!({
        "uid": "u", "allowed": true, "patchType": "JSONPatch",
        "patch": patch(json!([{"op": "move", "from": "/spec/a", "path": "/spec/b"}])),
        "warnings": ["w"], "auditAnnotations": {"k": "v"},
    }));
    let verdict = decode_response(&body, "u", Phase::Mutating).unwrap();
    let operations = serde_json::to_value(&verdict.patch).unwrap();
    assert_eq!(
        operations,
        json!([{"op": "move", "from": "/a", "path": "/b"}])
    );
    assert_eq!(verdict.warnings, ["w"]);
    assert_eq!(verdict.annotations, [("k".to_owned(), "v".to_owned())]);
    assert!(verdict.denials.is_empty());
}

#[rstest]
#[case::message(json!({"message": "no", "reason": "Forbidden"}), "no")]
#[case::reason(json!({"reason": "Forbidden"}), "Forbidden")]
#[case::nothing(json!(null), "denied without explanation")]
fn a_denying_answer_says_why(#[case] status: Value, #[case] words: &str) {
    let body = answer(json!({"uid": "u", "allowed": false, "status": status}));
    let verdict = decode_response(&body, "u", Phase::Mutating).unwrap();
    assert_eq!(verdict.denials[0].message, words);
}

#[rstest]
#[case::no_verdict(json!({"uid": "u"}))]
#[case::null(json!({"uid": "u", "allowed": null}))]
#[case::with_a_patch_nobody_reads(json!({"uid": "u", "allowed": false, "patchType": "X", "patch": "%%"}))]
fn whatever_does_not_allow_denies(#[case] response: Value) {
    let verdict = decode_response(&answer(response), "u", Phase::Mutating).unwrap();
    assert_eq!((verdict.denials.len(), verdict.patch.len()), (1, 0));
}

#[rstest]
#[case::other_uid(json!({"uid": "x", "allowed": true}), FaultKind::WrongUid)]
#[case::no_uid(json!({"allowed": true}), FaultKind::WrongUid)]
#[case::patch_without_type(json!({"uid": "u", "allowed": true, "patch": "W10="}), FaultKind::PatchType)]
#[case::type_without_patch(json!({"uid": "u", "allowed": true, "patchType": "JSONPatch"}), FaultKind::PatchType)]
#[case::merge_patch(json!({"uid": "u", "allowed": true, "patchType": "MergePatch", "patch": "e30="}), FaultKind::PatchType)]
#[case::no_base64(json!({"uid": "u", "allowed": true, "patchType": "JSONPatch", "patch": "%%"}), FaultKind::Undecodable)]
#[case::no_operations(json!({"uid": "u", "allowed": true, "patchType": "JSONPatch", "patch": "e30="}), FaultKind::Undecodable)]
#[case::outside_spec(
    json!({"uid": "u", "allowed": true, "patchType": "JSONPatch",
           "patch": patch(json!([{"op": "add", "path": "/metadata/labels", "value": {}}]))}),
    FaultKind::PatchApply
)]
#[case::beside_spec(
    json!({"uid": "u", "allowed": true, "patchType": "JSONPatch",
           "patch": patch(json!([{"op": "add", "path": "/specific", "value": {}}]))}),
    FaultKind::PatchApply
)]
fn what_the_api_server_refuses_is_a_fault(#[case] response: Value, #[case] kind: FaultKind) {
    assert_eq!(
        decode_response(&answer(response), "u", Phase::Mutating)
            .unwrap_err()
            .kind,
        kind
    );
}

#[rstest]
#[case::added(json!({"op": "add", "path": "/metadata/labels", "value": {}}), "changes `/metadata/labels`; only what is below /spec can be changed")]
#[case::moved(json!({"op": "move", "from": "/kind", "path": "/spec/a"}), "changes `/kind`; only what is below /spec can be changed")]
#[case::tested(json!({"op": "test", "path": "/kind", "value": "Run"}), "reads `/kind`; only what is below /spec can be read")]
#[case::copied(json!({"op": "copy", "from": "/kind", "path": "/spec/a"}), "reads `/kind`; only what is below /spec can be read")]
#[case::copied_there(json!({"op": "copy", "from": "/spec/a", "path": "/kind"}), "changes `/kind`; only what is below /spec can be changed")]
#[case::all(json!({"op": "replace", "path": "", "value": {}}), "changes the whole object; only what is below /spec can be changed")]
fn a_patch_outside_of_the_spec_is_told_what_it_does_there(
    #[case] operation: Value,
    #[case] words: &str,
) {
    let fault = below_spec(serde_json::from_value(operation).unwrap()).unwrap_err();
    assert_eq!(fault.message, format!("its patch {words}"));
}

#[rstest]
#[case::empty("[]")]
#[case::a_list_that_go_never_made("null")]
fn a_patch_without_operations_changes_nothing(#[case] patch: &str) {
    let patch = BASE64_STANDARD.encode(patch);
    let body =
        answer(json!({"uid": "u", "allowed": true, "patchType": "JSONPatch", "patch": patch}));
    let verdict = decode_response(&body, "u", Phase::Mutating).unwrap();
    assert_eq!(verdict, Verdict::default());
}

#[test]
fn line_breaks_in_base64_are_skipped() {
    let patch = patch(json!([{"op": "add", "path": "/spec/a", "value": 1}]));
    let lines = format!("{}\r\n{}\n", &patch[..20], &patch[20..]);
    let body =
        answer(json!({"uid": "u", "allowed": true, "patchType": "JSONPatch", "patch": lines}));
    let verdict = decode_response(&body, "u", Phase::Mutating).unwrap();
    assert_eq!(verdict.patch.len(), 1);
}

#[test]
fn a_validating_webhook_may_not_patch() {
    let body =
        answer(json!({"uid": "u", "allowed": true, "patchType": "JSONPatch", "patch": "W10="}));
    let fault = decode_response(&body, "u", Phase::Validating).unwrap_err();
    assert_eq!(fault.kind, FaultKind::PatchNotAllowed);
}

#[rstest]
#[case(json!({"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "response": {"uid": "u", "allowed": true}}))]
#[case(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}))]
#[case(json!([]))]
fn another_document_is_undecodable(#[case] body: Value) {
    let fault = decode_response(body.to_string().as_bytes(), "u", Phase::Mutating).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Undecodable);
}

#[test]
fn warnings_are_cut_as_the_api_server_cuts_them() {
    let kept = shortened(vec!["x".repeat(300); 20]);
    assert_eq!((kept.len(), kept[0].len()), (16, 256));
}
