//! CEL rules as typed in the file. Stands in for the types of the CEL plugin until they are there.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// Rules in CEL.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// Named expressions that the rules after them use as `variables.NAME`.
    #[serde(default)]
    pub variables: Vec<Variable>,
    /// What must hold of a spec; one that is false denies.
    #[serde(default)]
    pub validations: Vec<Validation>,
    /// What is written to the audit record.
    #[serde(default)]
    pub audit_annotations: Vec<AuditAnnotation>,
    /// Changes to the spec, in order.
    #[serde(default)]
    pub mutations: Vec<Mutation>,
}

/// A named expression.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Variable {
    /// The name, a CEL identifier.
    pub name: String,
    /// The CEL expression.
    pub expression: String,
}

/// One rule.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Validation {
    /// A CEL expression that is true of a spec that may pass.
    pub expression: String,
    /// What the user reads when it is false.
    pub message: Option<String>,
    /// A CEL expression that gives the message.
    pub message_expression: Option<String>,
    /// A machine-readable reason for the denial.
    pub reason: Option<String>,
}

/// One annotation of the audit record.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditAnnotation {
    /// The key, to which the plugin's name is prefixed.
    pub key: String,
    /// A CEL expression that gives the value.
    pub value_expression: String,
}

/// One change to the spec. Exactly one of the operations is given.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mutation {
    /// A CEL expression; where it is false, nothing is changed.
    pub when: Option<String>,
    /// Writes a value at a path.
    pub set: Option<Assignment>,
    /// Writes a value at a path where there is none or null.
    pub set_default: Option<Assignment>,
    /// Writes each member of a map into the map at a path.
    pub merge_map: Option<Assignment>,
    /// Takes away what is at a path.
    pub remove: Option<Removal>,
    /// Makes a JSON Patch of its own.
    pub json_patch: Option<JsonPatch>,
}

/// A value for a path.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Assignment {
    /// A JSON Pointer into the spec.
    pub path: String,
    /// The value.
    #[serde(default)]
    pub value: Option<Value>,
    /// A CEL expression that gives the value.
    pub value_expression: Option<String>,
}

/// A path to remove.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Removal {
    /// A JSON Pointer into the spec.
    pub path: String,
}

/// A JSON Patch made by an expression.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JsonPatch {
    /// A CEL expression that gives a list of RFC 6902 operations.
    pub expression: String,
}

/// A condition of `match`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Condition {
    /// What the condition is called in records.
    pub name: Option<String>,
    /// A CEL expression; where it is false, the plugin is skipped.
    pub expression: String,
}
