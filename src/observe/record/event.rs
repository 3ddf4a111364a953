//! The audit event as it is written. The doc comments are what its published JSON Schema and the
//! documentation say; the order of the fields is the order in a line.

use std::collections::BTreeMap;

use json_patch::PatchOperation;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// One audit event of dstack-admission, after the shape of `audit.k8s.io/v1` Event: one line of JSON.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "AuditEvent")]
pub struct Event<'r> {
    /// `Event`.
    #[schemars(extend("const" = "Event"))]
    pub kind: &'static str,
    /// `dstack-admission/v1`.
    #[schemars(extend("const" = super::API_VERSION))]
    pub api_version: &'static str,
    /// How much this event holds.
    #[schemars(extend("enum" = ["Metadata", "Patch", "Spec"]))]
    pub level: &'static str,
    /// The decision's id, a ULID: in the user's message, in the answer, in the log. The event of the monitored plugins has that of the review they were shown.
    #[serde(rename = "auditID")]
    pub audit_id: &'r str,
    /// `ResponseComplete` for a decision, `MonitorComplete` for what monitored plugins said after it.
    #[schemars(extend("enum" = ["ResponseComplete", "MonitorComplete"]))]
    pub stage: &'static str,
    /// When the review arrived: RFC 3339, UTC, microseconds.
    #[schemars(extend("format" = "date-time"))]
    pub request_received_timestamp: String,
    /// When this stage was reached.
    #[schemars(extend("format" = "date-time"))]
    pub stage_timestamp: String,
    /// `apply`. The dstack server does not tell a plan from an apply.
    #[schemars(extend("const" = "apply"))]
    pub verb: &'static str,
    /// Who applied the spec.
    pub user: User<'r>,
    /// What was applied.
    pub object_ref: ObjectRef<'r>,
    /// What was answered.
    pub response_status: ResponseStatus<'r>,
    /// How it was decided; for monitored plugins, how they would have.
    #[schemars(extend("enum" = ["allowed", "patched", "denied", "would_allow", "would_patch", "would_deny"]))]
    pub decision: &'static str,
    /// From the whole request to the decision.
    pub duration_seconds: f64,
    /// The SHA-1 of the configuration that decided.
    pub configuration: &'r str,
    /// A guess: the `auditID` of the latest review of the same user, project and kind with the same spec, within the last ten minutes. The plan of an apply, most often. dstack does not tell which plan an apply belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat_of: Option<&'r str>,
    /// The trace that the review is a part of: W3C Trace Context's trace-id, from the request's `traceparent` or begun here.
    #[serde(rename = "traceID", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^[0-9a-f]{32}$"))]
    pub trace_id: Option<String>,
    /// Each plugin's part, in the order in which they were asked.
    pub plugins: Vec<Plugin<'r>>,
    /// The JSON Patch from the spec that came to the one that was decided on. From the level `Patch` on, when there is a change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patch")]
    pub patch: Option<Vec<PatchOperation>>,
    /// The spec that came, its secrets redacted. At the level `Spec`, in the event of the decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BTreeMap<String, Value>")]
    pub spec: Option<Box<RawValue>>,
    /// Plugins after whose second call the spec went on changing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unsettled: Vec<&'r str>,
    /// Where secrets were redacted: JSON Pointers into the spec, and `messages`, `warnings` and `annotations` of the plugins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redacted: Vec<String>,
    /// Redacting failed, so this event is at the level `Metadata`, whatever the rules say.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub redaction_failed: bool,
    /// What plugins annotate, keys after the plugin's name and a slash.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, &'r str>,
}

/// Who applied the spec.
#[derive(Serialize, JsonSchema)]
pub struct User<'r> {
    /// dstack's user name.
    pub username: &'r str,
}

/// What was applied.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef<'r> {
    /// `dstack.ai`.
    #[schemars(extend("const" = "dstack.ai"))]
    pub api_group: &'static str,
    /// The kind of spec.
    #[schemars(extend("enum" = ["runs", "fleets", "volumes", "gateways"]))]
    pub resource: &'static str,
    /// The project.
    pub namespace: &'r str,
    /// The name that the spec gives itself, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What was answered.
#[derive(Serialize, JsonSchema)]
pub struct ResponseStatus<'r> {
    /// 200 when allowed, 403 when denied. The dstack server got HTTP 200 either way.
    pub code: u16,
    /// What the user read, when denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<&'r str>,
}

/// One plugin's part in a decision.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plugin<'r> {
    /// The plugin's name in the configuration.
    pub name: &'r str,
    /// The phase in which it was asked.
    #[schemars(extend("enum" = ["mutating", "validating"]))]
    pub phase: &'static str,
    /// What came of it. `failed` denies, `failed_open` does not.
    #[schemars(extend("enum" = ["allowed", "patched", "denied", "failed", "failed_open", "conflict", "skipped", "exempt"]))]
    pub verdict: &'static str,
    /// How long it took to answer.
    pub duration_seconds: f64,
    /// This was its second call, since another plugin changed the spec after it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reinvoked: bool,
    /// Why: reasons of a denial, what failed, the condition that skipped it, the reason of an exemption, the plugin and the place of a conflict.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<&'r str>,
    /// The way in which it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_type: Option<&'static str>,
    /// When the exemption ends that kept it from this review.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub exempt_until: Option<String>,
    /// The rules of a policy that denied or changed something.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// Its JSON Patch. From the level `Patch` on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patch")]
    pub patch: Option<Vec<PatchOperation>>,
    /// Each field that it changed. From the level `Patch` on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<FieldChange>,
    /// Its warnings, which the user does not see.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub warnings: &'r [String],
}

/// One field that a plugin changed.
#[derive(Serialize, JsonSchema)]
pub struct FieldChange {
    /// A JSON Pointer into the spec.
    pub path: String,
    /// What was there. Absent where nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was: Option<Value>,
    /// What is there now. Absent where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<Value>,
}

/// A JSON Patch (RFC 6902).
fn patch(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "op": {"enum": ["add", "remove", "replace", "move", "copy", "test"], "description": "The operation."},
                "path": {"type": "string", "description": "Where, as a JSON Pointer."},
                "from": {"type": "string", "description": "From where, for `move` and `copy`."},
                "value": {"description": "What, for `add`, `replace` and `test`."},
            },
            "required": ["op", "path"],
        },
    })
}
