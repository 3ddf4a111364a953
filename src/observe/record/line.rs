//! The text of an audit event, as `serde_json` writes it and for half its instructions: most of an
//! event is names of members, which need no look for what must be escaped, and short plain texts.

use serde::Serialize;

use super::event::{Event, Plugin};

/// Most events are shorter.
const USUAL: usize = 2048;

/// The event as one line of JSON with its line end.
pub(super) fn of(event: &Event<'_>) -> Vec<u8> {
    let mut line = Line(Vec::with_capacity(USUAL));
    line.word("{\"kind\":", event.kind);
    line.word(",\"apiVersion\":", event.api_version);
    line.word(",\"level\":", event.level);
    line.text(",\"auditID\":", event.audit_id);
    line.word(",\"stage\":", event.stage);
    line.text(
        ",\"requestReceivedTimestamp\":",
        &event.request_received_timestamp,
    );
    line.text(",\"stageTimestamp\":", &event.stage_timestamp);
    line.word(",\"verb\":", event.verb);
    line.text(",\"user\":{\"username\":", event.user.username);
    let object = &event.object_ref;
    line.word("},\"objectRef\":{\"apiGroup\":", object.api_group);
    line.word(",\"resource\":", object.resource);
    line.text(",\"namespace\":", object.namespace);
    line.text_if(",\"name\":", object.name.as_deref());
    let status = &event.response_status;
    line.value("},\"responseStatus\":{\"code\":", &status.code);
    line.text_if(",\"message\":", status.message);
    line.word("},\"decision\":", event.decision);
    line.value(",\"durationSeconds\":", &event.duration_seconds);
    line.text(",\"configuration\":", event.configuration);
    line.text_if(",\"repeatOf\":", event.repeat_of);
    line.text_if(",\"traceID\":", event.trace_id.as_deref());
    line.raw(",\"plugins\":[");
    for (index, plugin) in event.plugins.iter().enumerate() {
        line.raw(if index == 0 { "" } else { "," });
        line.plugin(plugin);
    }
    line.raw("]");
    line.value_if(",\"patch\":", event.patch.as_ref());
    line.value_if(",\"spec\":", event.spec.as_ref());
    line.values(",\"unsettled\":", &event.unsettled);
    line.values(",\"redacted\":", &event.redacted);
    line.flag(",\"redactionFailed\":true", event.redaction_failed);
    let annotations = Some(&event.annotations).filter(|all| !all.is_empty());
    line.value_if(",\"annotations\":", annotations);
    line.raw("}\n");
    line.0
}

struct Line(Vec<u8>);

impl Line {
    fn plugin(&mut self, plugin: &Plugin<'_>) {
        self.text("{\"name\":", plugin.name);
        self.word(",\"phase\":", plugin.phase);
        self.word(",\"verdict\":", plugin.verdict);
        self.value(",\"durationSeconds\":", &plugin.duration_seconds);
        self.flag(",\"reinvoked\":true", plugin.reinvoked);
        self.values(",\"messages\":", &plugin.messages);
        self.text_if(",\"errorType\":", plugin.error_type);
        self.text_if(",\"exemptUntil\":", plugin.exempt_until.as_deref());
        self.values(",\"rules\":", &plugin.rules);
        self.value_if(",\"patch\":", plugin.patch.as_ref());
        self.values(",\"changes\":", &plugin.changes);
        self.values(",\"warnings\":", plugin.warnings);
        self.raw("}");
    }

    fn raw(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    /// A word of the code's own. None of them has what must be escaped.
    fn word(&mut self, key: &str, word: &'static str) {
        self.raw(key);
        self.quoted(word);
    }

    fn text(&mut self, key: &str, text: &str) {
        // Without a way out of the loop, it looks at many bytes at once.
        let escaped = text.bytes().fold(false, |found, byte| {
            found | (byte < b' ') | (byte == b'"') | (byte == b'\\')
        });
        if escaped {
            return self.value(key, text);
        }
        self.raw(key);
        self.quoted(text);
    }

    fn quoted(&mut self, plain: &str) {
        self.0.push(b'"');
        self.raw(plain);
        self.0.push(b'"');
    }

    fn text_if(&mut self, key: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(key, text);
        }
    }

    fn value(&mut self, key: &str, value: &(impl Serialize + ?Sized)) {
        self.raw(key);
        // Writing texts and numbers into memory cannot fail.
        let _ = serde_json::to_writer(&mut self.0, value);
    }

    fn value_if(&mut self, key: &str, value: Option<&impl Serialize>) {
        if let Some(value) = value {
            self.value(key, value);
        }
    }

    fn values(&mut self, key: &str, values: &[impl Serialize]) {
        if !values.is_empty() {
            self.value(key, values);
        }
    }

    fn flag(&mut self, text: &str, is_set: bool) {
        if is_set {
            self.raw(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::super::event::{FieldChange, ObjectRef, ResponseStatus, User};
    use super::*;

    proptest! {
        #[test]
        fn a_line_is_what_serde_makes_of_the_event(
            texts in prop::array::uniform4("\\PC{0,20}|[\"\\\\\u{0}-\u{20}\u{7f}a\u{e9}]{0,20}"),
            seconds in 0.0..9e9_f64,
            has in any::<bool>(),
        ) {
            let [a, b, c, d] = &texts;
            let patch = || has.then(|| {
                serde_json::from_value(json!([{"op": "add", "path": format!("/{}", a.replace('~', "~0")), "value": {"x": b}}])).unwrap()
            });
            let texts = |text: &String| if has { vec![text.clone(), b.clone()] } else { Vec::new() };
            let warnings = texts(c);
            let plugin = |name| Plugin {
                name,
                phase: "validating",
                verdict: "allowed",
                duration_seconds: seconds,
                reinvoked: has,
                messages: warnings.iter().map(|text| &**text).collect(),
                error_type: has.then_some("timeout"),
                exempt_until: has.then(|| c.clone()),
                rules: texts(d),
                patch: patch(),
                changes: match has {
                    true => vec![FieldChange { path: a.clone(), was: None, now: Some(json!(b)) }],
                    false => Vec::new(),
                },
                warnings: &warnings,
            };
            let event = Event {
                kind: "Event",
                api_version: super::super::API_VERSION,
                level: "Patch",
                audit_id: a,
                stage: "ResponseComplete",
                request_received_timestamp: b.clone(),
                stage_timestamp: c.clone(),
                verb: "apply",
                user: User { username: d },
                object_ref: ObjectRef {
                    api_group: "dstack.ai",
                    resource: "runs",
                    namespace: a,
                    name: has.then(|| b.clone()),
                },
                response_status: ResponseStatus { code: 403, message: has.then_some(c) },
                decision: "denied",
                duration_seconds: seconds / 1e12,
                configuration: d,
                repeat_of: has.then_some(a),
                trace_id: has.then(|| b.clone()),
                plugins: vec![plugin(a), plugin(b)],
                patch: patch(),
                spec: has.then(|| serde_json::value::to_raw_value(&json!({"a": c})).unwrap()),
                unsettled: warnings.iter().map(|text| &**text).collect(),
                redacted: texts(a),
                redaction_failed: has,
                annotations: match has {
                    true => BTreeMap::from([(a.clone(), &**b)]),
                    false => BTreeMap::new(),
                },
            };
            let mut expected = serde_json::to_vec(&event).unwrap();
            expected.push(b'\n');
            prop_assert_eq!(String::from_utf8(of(&event)), String::from_utf8(expected));
        }
    }
}
