//! dstack's REST plugin protocol, as its builtin `rest_plugin` speaks it: inbound from the dstack
//! server, and outbound to REST plugin servers in the chain.
//!
//! `POST …/apply_policies/on_{run,fleet,volume,gateway}_apply` with `{user, project, spec}`, answered
//! by `{spec, error}`.

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::json::{Members, object};
use crate::admission::review::{Kind, Spec};

/// The kind of spec that a request path is about, below `prefix`; doubled slashes count as one.
pub fn kind_of_path(path: &str, prefix: &str) -> Option<Kind> {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    for expected in prefix.split('/').filter(|segment| !segment.is_empty()) {
        if segments.next() != Some(expected) {
            return None;
        }
    }
    let (root, leaf) = (segments.next()?, segments.next()?);
    if root != "apply_policies" || segments.next().is_some() {
        return None;
    }
    Kind::ALL.into_iter().find(|kind| leaf == endpoint(*kind))
}

/// The last segment of a kind's path.
pub const fn endpoint(kind: Kind) -> &'static str {
    match kind {
        Kind::Run => "on_run_apply",
        Kind::Fleet => "on_fleet_apply",
        Kind::Volume => "on_volume_apply",
        Kind::Gateway => "on_gateway_apply",
    }
}

/// What the dstack server asks: who applies which spec where.
#[derive(Debug)]
pub struct Request {
    pub user: String,
    pub project: String,
    /// Its text is a part of the body it came in.
    pub spec: Spec,
}

#[derive(Deserialize)]
struct RequestBody<'b> {
    user: String,
    project: String,
    #[serde(borrow)]
    spec: &'b RawValue,
}

/// Reads a request body.
///
/// # Errors
/// In words, when it is no JSON or lacks what a review needs.
pub fn decode_request(body: &Bytes) -> Result<Request, String> {
    if let Some(request) = decode_in_one_pass(body) {
        return Ok(request);
    }
    let parsed: RequestBody<'_> =
        object(body).map_err(|e| format!("this is no review request: {e}"))?;
    let spec = body.slice_ref(parsed.spec.get().as_bytes());
    Ok(Request {
        user: parsed.user,
        project: parsed.project,
        spec: Spec::parse(spec).map_err(|e| e.to_string())?,
    })
}

/// Reads a request as the dstack server writes it, and the spec on the way. Where that is not
/// possible, [`decode_request`] finds out why.
fn decode_in_one_pass(body: &Bytes) -> Option<Request> {
    let mut members = Members::of(body)?;
    let (mut user, mut project, mut spec) = (None, None, None);
    while let Some(name) = members.name()? {
        let again = match name {
            "user" => user.replace(members.value()?.0).is_some(),
            "project" => project.replace(members.value()?.0).is_some(),
            "spec" => {
                let (value, place) = members.value()?;
                let parsed = Spec::parsed(body.slice(place), value).ok()?;
                spec.replace(parsed).is_some()
            }
            _ => members.value::<IgnoredAny>().is_none(),
        };
        if again {
            return None;
        }
    }
    Some(Request {
        user: user?,
        project: project?,
        spec: spec?,
    })
}

/// Writes the answer to the dstack server: the spec's text as it is, and the denial if there is one.
/// `decision` and `warnings` are members that the server ignores.
pub fn encode_answer(
    spec: &[u8],
    error: Option<&str>,
    decision: &str,
    warnings: &[String],
) -> Bytes {
    let mut body = Vec::with_capacity(spec.len() + 128);
    body.extend_from_slice(b"{\"spec\": ");
    body.extend_from_slice(spec);
    body.extend_from_slice(b", \"error\": ");
    write(&mut body, &error);
    body.extend_from_slice(b", \"decision\": ");
    write(&mut body, &decision);
    if !warnings.is_empty() {
        body.extend_from_slice(b", \"warnings\": ");
        write(&mut body, &warnings);
    }
    body.push(b'}');
    body.into()
}

/// Writes a request to a REST plugin server.
pub fn encode_request(user: &str, project: &str, spec: &[u8]) -> Bytes {
    let mut body = Vec::with_capacity(spec.len() + 128);
    body.extend_from_slice(b"{\"user\": ");
    write(&mut body, &user);
    body.extend_from_slice(b", \"project\": ");
    write(&mut body, &project);
    body.extend_from_slice(b", \"spec\": ");
    body.extend_from_slice(spec);
    body.push(b'}');
    body.into()
}

/// What a REST plugin server answers.
#[derive(Debug, PartialEq)]
pub enum Answer {
    Spec(Value),
    Error(String),
}

#[derive(Deserialize)]
struct AnswerBody {
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    error: Option<String>,
}

/// Reads the answer of a REST plugin server as the dstack server would.
///
/// # Errors
/// In words, when the dstack server would refuse it: no JSON, no object as `spec`, an empty `error`.
pub fn decode_answer(body: &[u8]) -> Result<Answer, String> {
    let answer: AnswerBody = object(body).map_err(|e| e.to_string())?;
    match answer.error {
        Some(error) if error.trim().is_empty() => Err("`error` is an empty text".to_owned()),
        Some(error) => Ok(Answer::Error(error)),
        None if answer.spec.is_object() => Ok(Answer::Spec(answer.spec)),
        None => Err("`spec` is no object".to_owned()),
    }
}

/// Appends a value as JSON, which cannot fail for texts.
fn write(body: &mut Vec<u8>, value: &impl Serialize) {
    let _ = serde_json::to_writer(body, value);
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case("/apply_policies/on_run_apply", "", Some(Kind::Run))]
    #[case("//apply_policies//on_fleet_apply/", "", Some(Kind::Fleet))]
    #[case("/a/b/apply_policies/on_volume_apply", "/a/b/", Some(Kind::Volume))]
    #[case("/a//b//apply_policies/on_gateway_apply", "a/b", Some(Kind::Gateway))]
    #[case("/apply_policies/on_run_apply", "/a", None)]
    #[case("/a/apply_policies/on_run_apply", "", None)]
    #[case("/apply_policies/on_job_apply", "", None)]
    #[case("/apply_policies/on_run_apply/x", "", None)]
    #[case("/", "", None)]
    fn paths_name_kinds(#[case] path: &str, #[case] prefix: &str, #[case] kind: Option<Kind>) {
        assert_eq!(kind_of_path(path, prefix), kind);
    }

    #[test]
    fn the_text_of_the_spec_is_a_part_of_the_body() {
        let body =
            Bytes::from_static(br#"{"user": "u", "spec": {"a" : 1.0}, "project": "p", "x": 1}"#);
        let request = decode_request(&body).unwrap();
        assert_eq!(
            (request.user.as_str(), request.project.as_str()),
            ("u", "p")
        );
        assert_eq!(request.spec.text(), r#"{"a" : 1.0}"#);
    }

    #[rstest]
    #[case::as_dstack_writes_it(r#"{"user": "u", "project": "p", "spec": {"a": 1}}"#)]
    #[case::no_spaces(r#"{"user":"u","project":"p","spec":{"a":1}}"#)]
    #[case::lines("\n{ \"spec\"\t:{\"a\":1} ,\r\n\"user\":\"u\",\"project\":\"p\" }\n")]
    #[case::more_members(r#"{"x": [1, {"y": 2}], "n": -1e5, "user": "u", "project": "p", "spec": {"a": 1}, "b": false}"#)]
    #[case::escaped_names(r#"{"us\u0065r": "u", "project": "p", "spec": {"a": 1}}"#)]
    fn a_review_is_read_however_it_is_written(#[case] body: &str) {
        let request = decode_request(&Bytes::copy_from_slice(body.as_bytes())).unwrap();
        assert_eq!((&*request.user, &*request.project), ("u", "p"));
        assert_eq!(**request.spec.value(), json!({"a": 1}));
    }

    #[rstest]
    #[case("")]
    #[case("[]")]
    #[case(r#"{"user": "u", "project": "p", "spec": {},}"#)]
    #[case(r#"{"user": "u" "project": "p", "spec": {}}"#)]
    #[case(r#"{"user": "u", "user": "v", "project": "p", "spec": {}}"#)]
    #[case(r#"{"user": "u", "project": "p", "spec": {}, "x": 1e}"#)]
    #[case(r#"{"user": "u", "project": "p", "spec": []}"#)]
    #[case(r#"["u", "p", {}]"#)]
    #[case("{\"user\": \"u\"}")]
    #[case("{\"user\": 1, \"project\": \"p\", \"spec\": {}}")]
    #[case("{\"user\": \"u\", \"project\": \"p\", \"spec\": {}} x")]
    fn what_is_no_review_is_refused(#[case] body: &str) {
        assert!(decode_request(&Bytes::copy_from_slice(body.as_bytes())).is_err());
    }

    #[test]
    fn an_answer_is_json_whatever_the_denial_says() {
        let body = encode_answer(b"{\"a\":1.0}", Some("no \"x\"\n"), "01J", &["w".to_owned()]);
        let value: Value = serde_json::from_slice(&body).unwrap();
        let expected = json!({"spec": {"a": 1.0}, "error": "no \"x\"\n", "decision": "01J", "warnings": ["w"]});
        assert_eq!(value, expected);
    }

    #[rstest]
    #[case(r#"{"spec": {"a": 1}, "error": null}"#, Ok(Answer::Spec(json!({"a": 1}))))]
    #[case(r#"{"spec": {"a": 1}}"#, Ok(Answer::Spec(json!({"a": 1}))))]
    #[case(r#"{"spec": null, "error": "no"}"#, Ok(Answer::Error("no".to_owned())))]
    #[case(r#"{"spec": {}, "error": ""}"#, Err("`error` is an empty text".to_owned()))]
    #[case(r#"{"spec": null, "error": null}"#, Err("`spec` is no object".to_owned()))]
    fn answers_are_read_as_the_server_reads_them(
        #[case] body: &str,
        #[case] expected: Result<Answer, String>,
    ) {
        assert_eq!(decode_answer(body.as_bytes()), expected);
    }

    #[rstest]
    #[case("<html>")]
    #[case("[]")]
    #[case("[{}, null]")]
    #[case("")]
    fn an_answer_that_is_no_json_object_is_refused(#[case] body: &str) {
        assert!(decode_answer(body.as_bytes()).is_err());
    }
}
