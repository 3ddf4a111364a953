//! The configuration under a plugin's `cel:` key, as it is typed.
//!
//! Field names are those of Kubernetes' ValidatingAdmissionPolicy. Nothing here looks into an
//! expression: what a shape cannot say is checked when the policy is compiled.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Rules in CEL over the spec under review.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Source {
    /// Named expressions for the other ones to use as `variables.NAME`. Evaluated when first
    /// used, at most once; each may use the ones above it.
    pub variables: Vec<Variable>,
    /// Conditions that the spec must fulfil. Every false one denies.
    pub validations: Vec<Validation>,
    /// Annotations for the audit record.
    pub audit_annotations: Vec<AuditAnnotation>,
    /// Changes to the spec, in order; each sees the result of the ones above it.
    pub mutations: Vec<Mutation>,
}

/// A named expression.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Variable {
    /// A CEL identifier.
    pub name: String,
    /// The CEL expression behind `variables.NAME`.
    pub expression: String,
}

/// A condition that the spec must fulfil.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Validation {
    /// A CEL expression that gives a bool: false denies.
    pub expression: String,
    /// What the user reads when the expression is false.
    #[serde(default)]
    pub message: Option<String>,
    /// A CEL expression that gives what the user reads, one line. Where it errors or gives
    /// nothing, `message` is used.
    #[serde(default)]
    pub message_expression: Option<String>,
    /// A machine-readable reason, for instance `Forbidden`.
    #[serde(default)]
    pub reason: Option<String>,
}

/// An annotation for the audit record.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditAnnotation {
    /// The key; the plugin's name is put before it.
    pub key: String,
    /// A CEL expression that gives a string, or null for no annotation.
    pub value_expression: String,
}

/// One change to the spec: exactly one of `set`, `setDefault`, `mergeMap`, `remove` and
/// `jsonPatch`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Mutation {
    /// A CEL expression that gives a bool: false leaves the spec as it is.
    pub when: Option<String>,
    /// Writes a value, whatever was there.
    pub set: Option<Write>,
    /// Writes a value where there is none, or null.
    pub set_default: Option<Write>,
    /// Writes members into an object, over members of the same name.
    pub merge_map: Option<Write>,
    /// Takes a member away.
    pub remove: Option<Remove>,
    /// Any other change.
    pub json_patch: Option<JsonPatch>,
}

/// What to write, and where: exactly one of `value` and `valueExpression`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Write {
    /// A JSON pointer into the spec, for instance `/configuration/max_price`. Parents that are
    /// absent or null become objects.
    pub path: String,
    /// The value itself; may be null.
    #[serde(default, deserialize_with = "present")]
    pub value: Option<Value>,
    /// A CEL expression that gives the value; `optional.none()` leaves the spec as it is.
    #[serde(default)]
    pub value_expression: Option<String>,
}

/// What to take away.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Remove {
    /// A JSON pointer into the spec. Nothing there is no fault.
    pub path: String,
}

/// A patch that an expression makes.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JsonPatch {
    /// A CEL expression that gives a list of RFC 6902 operations as maps, for instance
    /// `[{'op': 'add', 'path': '/configuration/tags/team', 'value': project}]`. Null and the
    /// empty list leave the spec as it is.
    pub expression: String,
}

/// A CEL expression that says whether a plugin looks at a spec, as a Kubernetes match condition.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Condition {
    /// What the record calls the condition when it skips a plugin.
    #[serde(default)]
    pub name: Option<String>,
    /// A CEL expression that gives a bool: false skips the plugin.
    pub expression: String,
}

/// Tells `value: null`, which is a value, from no `value`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_null_value_is_told_from_no_value() -> Result<(), serde_json::Error> {
        let null: Write = serde_json::from_value(json!({"path": "/a", "value": null}))?;
        let none: Write = serde_json::from_value(json!({"path": "/a"}))?;
        assert_eq!(null.value, Some(Value::Null));
        assert_eq!(none.value, None);
        Ok(())
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_known_ones() {
        let source = json!({"validations": [{"expression": "true", "mesage": "x"}]});
        let error = serde_json::from_value::<Source>(source).unwrap_err();
        assert!(
            error.to_string().contains("unknown field `mesage`"),
            "{error}"
        );
        assert!(error.to_string().contains("messageExpression"), "{error}");
    }

    #[test]
    fn the_schema_describes_each_key() {
        let schema = schemars::schema_for!(Source).to_value();
        let described = schema.pointer("/$defs/Mutation/properties/setDefault/description");
        assert_eq!(
            described,
            Some(&json!("Writes a value where there is none, or null."))
        );
    }
}
