//! What goes over a worker's pipes: frames of JSON, and what they say. It knows no process.
//!
//! A frame is four bytes of length, the highest first, then that many bytes: one JSON object.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::AsyncRead;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use crate::admission::review::{Kind, Review};

/// Bytes of one frame, the length not counted.
const LONGEST: usize = 64 << 20;

/// The frames that come over a pipe. One that is longer than any may be is an error.
pub(super) type Frames<R> = FramedRead<R, LengthDelimitedCodec>;

pub(super) fn frames<R: AsyncRead>(from: R) -> Frames<R> {
    LengthDelimitedCodec::builder()
        .max_frame_length(LONGEST)
        .new_read(from)
}

/// What a worker says.
#[derive(Debug, PartialEq)]
pub(super) enum Message {
    Ready(Ready),
    Refused(Refusal),
    Log(Record),
    Answer {
        /// Of the request.
        id: u64,
        answer: Answer,
        /// Whether the worker ends now, since it is out of memory.
        is_last: bool,
    },
}

/// A worker that has loaded its plugin, and what it found there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Ready {
    /// Python's version.
    pub python: String,
    /// The version of the dstack package whose models the plugin uses.
    pub dstack: String,
    pub plugin: EntryPoint,
    /// Other entry points of the group `dstack.plugins`.
    #[serde(default)]
    pub found: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct EntryPoint {
    pub name: String,
    /// The version of the package that it comes from.
    #[serde(default)]
    pub version: Option<String>,
}

/// Why a worker cannot load its plugin.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Refusal {
    /// One sentence for whoever configured the plugin.
    pub message: String,
    /// The traceback, if there is one.
    #[serde(default)]
    pub detail: Option<String>,
    #[serde(default)]
    pub found: Vec<String>,
}

/// What the plugin logged.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Record {
    pub level: Level,
    pub logger: String,
    pub message: String,
    #[serde(default)]
    pub detail: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Debug,
    Warning,
    Error,
    #[serde(other)]
    Info,
}

/// What a worker says to a request.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    Unchanged,
    /// The spec as the worker's models write it, before and after the plugin.
    Changed {
        before: Value,
        after: Value,
    },
    Denied(String),
    Failed(Failure),
    Valid,
    Invalid(Vec<SpecError>),
}

/// A plugin that did not do its part.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub reason: Reason,
    /// One sentence that a user may read.
    pub message: String,
    /// The traceback or the models' errors, for the log.
    pub detail: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Reason {
    Unreadable,
    InvalidResult,
    #[serde(other)]
    Exception,
}

/// What dstack's own models do not take.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SpecError {
    /// The field, as `configuration.max_price`. Empty for the spec as a whole.
    pub path: String,
    pub message: String,
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.message),
            path => write!(f, "{path}: {}", self.message),
        }
    }
}

/// The members of all messages. Which are there tells what it is.
#[derive(Deserialize)]
struct Wire {
    ready: Option<ReadyWire>,
    failed: Option<Refusal>,
    log: Option<Record>,
    id: Option<u64>,
    result: Option<Outcome>,
    before: Option<Value>,
    after: Option<Value>,
    message: Option<String>,
    reason: Option<Reason>,
    detail: Option<String>,
    #[serde(default)]
    errors: Vec<SpecError>,
    #[serde(default)]
    last: bool,
}

#[derive(Deserialize)]
struct ReadyWire {
    protocol: u64,
    #[serde(flatten)]
    ready: Ready,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Unchanged,
    Changed,
    Denied,
    Failed,
    Valid,
    Invalid,
}

/// The version of the protocol, which both ends bring along together.
const PROTOCOL: u64 = 1;

/// Reads one frame.
///
/// # Errors
/// In words, when it is not one of the protocol.
pub(super) fn decode(frame: &[u8]) -> Result<Message, String> {
    let wire: Wire = serde_json::from_slice(frame).map_err(|e| e.to_string())?;
    match wire {
        Wire {
            ready: Some(wire), ..
        } if wire.protocol == PROTOCOL => Ok(Message::Ready(wire.ready)),
        Wire {
            ready: Some(wire), ..
        } => Err(format!("it speaks protocol {}", wire.protocol)),
        Wire {
            failed: Some(refusal),
            ..
        } => Ok(Message::Refused(refusal)),
        Wire {
            log: Some(record), ..
        } => Ok(Message::Log(record)),
        Wire {
            id: Some(id),
            result: Some(outcome),
            last: is_last,
            ..
        } => Ok(Message::Answer {
            id,
            answer: answer(outcome, wire)?,
            is_last,
        }),
        _ => Err("it is neither a log record nor an answer".to_owned()),
    }
}

fn answer(outcome: Outcome, wire: Wire) -> Result<Answer, String> {
    match outcome {
        Outcome::Unchanged => Ok(Answer::Unchanged),
        Outcome::Changed => match (wire.before, wire.after) {
            (Some(before @ Value::Object(_)), Some(after @ Value::Object(_))) => {
                Ok(Answer::Changed { before, after })
            }
            _ => Err("it says `changed` without two specs".to_owned()),
        },
        Outcome::Denied => Ok(Answer::Denied(wire.message.unwrap_or_default())),
        Outcome::Failed => Ok(Answer::Failed(Failure {
            reason: wire.reason.unwrap_or(Reason::Exception),
            message: wire.message.unwrap_or_else(|| "it failed".to_owned()),
            detail: wire.detail,
        })),
        Outcome::Valid => Ok(Answer::Valid),
        Outcome::Invalid => Ok(Answer::Invalid(wire.errors)),
    }
}

/// The frame that asks what the plugin says of a spec, or nothing when it is too long to be sent.
pub(super) fn apply(id: u64, review: &Review, spec: &[u8]) -> Option<Vec<u8>> {
    let mut frame = begin(id, "apply", review.kind, spec.len());
    frame.extend_from_slice(b", \"user\": ");
    write(&mut frame, &review.user);
    frame.extend_from_slice(b", \"project\": ");
    write(&mut frame, &review.project);
    end(frame, spec)
}

/// The frame that asks what dstack's own models say of a spec.
pub(super) fn check(id: u64, kind: Kind, spec: &[u8]) -> Option<Vec<u8>> {
    end(begin(id, "check", kind, spec.len()), spec)
}

fn begin(id: u64, call: &str, kind: Kind, size: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(size + 256);
    frame.extend_from_slice(&[0; 4]);
    let head = format!("{{\"id\": {id}, \"call\": \"{call}\", \"kind\": \"{kind}\"");
    frame.extend_from_slice(head.as_bytes());
    frame
}

/// Adds the spec's text as it is, and the length in front of everything.
fn end(mut frame: Vec<u8>, spec: &[u8]) -> Option<Vec<u8>> {
    frame.extend_from_slice(b", \"spec\": ");
    frame.extend_from_slice(spec);
    frame.push(b'}');
    let length = frame.len() - 4;
    let prefix = u32::try_from(length).ok().filter(|_| length <= LONGEST)?;
    frame[..4].copy_from_slice(&prefix.to_be_bytes());
    Some(frame)
}

/// Appends a text as JSON, which cannot fail.
fn write(frame: &mut Vec<u8>, value: &impl Serialize) {
    let _ = serde_json::to_writer(frame, value);
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case(json!({"id": 7, "result": "unchanged"}), Answer::Unchanged)]
    #[case(
        json!({"id": 7, "result": "changed", "before": {"a": 1}, "after": {}}),
        Answer::Changed { before: json!({"a": 1}), after: json!({}) }
    )]
    #[case(json!({"id": 7, "result": "denied", "message": "no"}), Answer::Denied("no".to_owned()))]
    #[case(json!({"id": 7, "result": "denied", "message": null}), Answer::Denied(String::new()))]
    #[case(
        json!({"id": 7, "result": "failed", "reason": "invalid-result", "message": "m", "detail": "d"}),
        Answer::Failed(Failure {
            reason: Reason::InvalidResult,
            message: "m".to_owned(),
            detail: Some("d".to_owned()),
        })
    )]
    #[case(
        json!({"id": 7, "result": "invalid", "errors": [{"path": "a.b", "message": "m"}]}),
        Answer::Invalid(vec![SpecError { path: "a.b".to_owned(), message: "m".to_owned() }])
    )]
    fn answers_are_read(#[case] frame: Value, #[case] expected: Answer) {
        let message = decode(frame.to_string().as_bytes());
        let expected = Message::Answer {
            id: 7,
            answer: expected,
            is_last: false,
        };
        assert_eq!(message, Ok(expected));
    }

    #[rstest]
    #[case(json!({"ready": {"protocol": 2, "python": "3", "dstack": "0", "plugin": {"name": "p"}}}))]
    #[case(json!({"ready": {"protocol": 1}}))]
    #[case(json!({"id": 7}))]
    #[case(json!({"id": 7, "result": "changed", "before": {}, "after": null}))]
    #[case(json!({"result": "unchanged"}))]
    #[case(json!([1]))]
    fn what_is_not_of_the_protocol_is_refused(#[case] frame: Value) {
        assert!(decode(frame.to_string().as_bytes()).is_err());
    }

    #[test]
    fn a_worker_says_what_it_has_loaded() {
        let frame = json!({"ready": {
            "protocol": 1, "python": "3.11.4", "dstack": "0.22.5", "kinds": ["run"],
            "plugin": {"name": "p", "version": null, "value": "m:P"}, "found": ["q"],
        }});
        let expected = Ready {
            python: "3.11.4".to_owned(),
            dstack: "0.22.5".to_owned(),
            plugin: EntryPoint {
                name: "p".to_owned(),
                version: None,
            },
            found: vec!["q".to_owned()],
        };
        let message = decode(frame.to_string().as_bytes());
        assert_eq!(message, Ok(Message::Ready(expected)));
    }

    #[tokio::test]
    async fn a_frame_reads_back_and_keeps_the_text_of_the_spec() {
        let frame = check(7, Kind::Run, br#"{"a" : 1.10}"#).unwrap();
        let read = frames(frame.as_slice()).next().await.unwrap().unwrap();
        let expected = r#"{"id": 7, "call": "check", "kind": "run", "spec": {"a" : 1.10}}"#;
        assert_eq!(read, expected.as_bytes());
    }

    #[tokio::test]
    async fn a_frame_longer_than_any_may_be_is_an_error() {
        let announced = u32::MAX.to_be_bytes();
        assert!(frames(announced.as_slice()).next().await.unwrap().is_err());
        assert!(check(7, Kind::Run, &vec![b' '; LONGEST]).is_none());
    }
}
