//! A batch of audit events as a receiver takes it: lines of JSON, or Loki's push protocol.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What is sent to a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// The events, one a line, as `application/x-ndjson`.
    Ndjson,
    /// The JSON of Loki's `/loki/api/v1/push`: one stream with these labels, each event an entry.
    Loki { labels: BTreeMap<String, String> },
}

impl Format {
    pub(super) const fn content_type(&self) -> &'static str {
        match self {
            Format::Ndjson => "application/x-ndjson",
            Format::Loki { .. } => "application/json",
        }
    }

    /// The body of a request. Entries are in the order of the lines.
    pub(super) fn body(&self, lines: &[u8]) -> Bytes {
        let Format::Loki { labels } = self else {
            return Bytes::copy_from_slice(lines);
        };
        let lines = lines.split(|byte| *byte == b'\n');
        let lines = lines.filter(|line| !line.is_empty());
        let entry = |line| {
            (
                nanoseconds(line),
                String::from_utf8_lossy(line).into_owned(),
            )
        };
        let push = Push {
            streams: [Stream {
                stream: labels,
                values: lines.map(entry).collect(),
            }],
        };
        // Writing texts into memory cannot fail.
        serde_json::to_vec(&push).unwrap_or_default().into()
    }
}

#[derive(Serialize)]
struct Push<'a> {
    streams: [Stream<'a>; 1],
}

#[derive(Serialize)]
struct Stream<'a> {
    stream: &'a BTreeMap<String, String>,
    /// Nanoseconds since 1970 as a text, and the line.
    values: Vec<(String, String)>,
}

/// When an event was recorded. What has no readable time is of now.
fn nanoseconds(line: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Timed<'l> {
        #[serde(borrow)]
        stage_timestamp: &'l RawValue,
    }
    let timed: Option<Timed<'_>> = serde_json::from_slice(line).ok();
    let at = timed.and_then(|timed| {
        let text = timed.stage_timestamp.get().trim_matches('"');
        humantime::parse_rfc3339(text).ok()
    });
    let since = at
        .unwrap_or_else(SystemTime::now)
        .duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_nanos().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &[u8] = b"{\"kind\":\"Event\",\"stageTimestamp\":\"2026-11-22T18:30:00.000001Z\"}\n{\"kind\":\"Event\",\"stageTimestamp\":\"2026-11-22T18:30:01.5Z\"}\n";

    #[test]
    fn events_are_entries_of_one_stream() {
        let labels = [("job".to_owned(), "dstack-admission".to_owned())];
        let format = Format::Loki {
            labels: labels.into(),
        };
        let body = String::from_utf8(format.body(LINES).to_vec()).unwrap();
        insta::assert_snapshot!(body, @r#"{"streams":[{"stream":{"job":"dstack-admission"},"values":[["1795372200000001000","{\"kind\":\"Event\",\"stageTimestamp\":\"2026-11-22T18:30:00.000001Z\"}"],["1795372201500000000","{\"kind\":\"Event\",\"stageTimestamp\":\"2026-11-22T18:30:01.5Z\"}"]]}]}"#);
    }

    #[test]
    fn lines_are_sent_as_they_are() {
        assert_eq!(Format::Ndjson.body(LINES), LINES);
    }
}
