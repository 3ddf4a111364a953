//! The configuration under a plugin's `cel:` key, as it is typed.
//!
//! Field names are those of Kubernetes' ValidatingAdmissionPolicy. Nothing here looks into an
//! expression: what a shape cannot say is checked when the policy is compiled.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value};

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

/// One change to the spec: exactly one of `set`, `setDefault`, `clamp`, `mergeMap`, `addToSet`,
/// `remove` and `jsonPatch`. Where the spec is already as the change would leave it, nothing is
/// written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Mutation {
    /// A CEL expression that gives a bool: false leaves the spec as it is. With a `*` in the path
    /// it is asked for each match, which it sees as `element`.
    pub when: Option<String>,
    /// Writes a value, whatever was there.
    pub set: Option<Write>,
    /// Writes a value where there is none, or null.
    pub set_default: Option<Write>,
    /// Brings a number into a range.
    pub clamp: Option<Clamp>,
    /// Writes members into an object, over members of the same name.
    pub merge_map: Option<Write>,
    /// Appends a value, or each of a list of values, to a list that does not hold it yet. A list
    /// that is absent or null is made.
    pub add_to_set: Option<Write>,
    /// Takes a member or the matched elements of a list away.
    pub remove: Option<Remove>,
    /// Any other change.
    pub json_patch: Option<JsonPatch>,
}

/// What to write, and where: exactly one of `value` and `valueExpression`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Write {
    /// A JSON pointer into the spec, for instance `/configuration/max_price`. A `*` in it stands
    /// for every element of a list or member of a map that is there:
    /// `/configuration/groups/*/resources`. Parents that are absent or null become objects.
    pub path: String,
    /// The value itself; may be null.
    #[serde(default, deserialize_with = "present")]
    pub value: Option<Value>,
    /// A CEL expression that gives the value; `optional.none()` leaves the spec as it is. With a
    /// `*` in the path, `element` is what the last `*` matched.
    #[serde(default)]
    pub value_expression: Option<String>,
}

/// A range to bring a number into: at least one of `min`, `max`, `minExpression` and
/// `maxExpression`.
///
/// What is null, absent or the string `off` has no limit: with `max` it becomes `max`. Where the
/// object around it is itself null or absent, there is nothing to clamp. An object of `min` and
/// `max`, as dstack sends counts and sizes, is brought into the range at both ends, a `target`
/// beside them too.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Clamp {
    /// A JSON pointer to a number or a range, for instance `/configuration/max_duration`. A `*` in
    /// it stands for every element of a list or member of a map that is there:
    /// `/configuration/groups/*/replicas`.
    pub path: String,
    /// The least number allowed.
    #[serde(default)]
    pub min: Option<Number>,
    /// The greatest number allowed.
    #[serde(default)]
    pub max: Option<Number>,
    /// A CEL expression that gives the least number allowed; null or `optional.none()` is no limit.
    #[serde(default)]
    pub min_expression: Option<String>,
    /// A CEL expression that gives the greatest number allowed; null or `optional.none()` is no
    /// limit.
    #[serde(default)]
    pub max_expression: Option<String>,
    /// What a negative number says. dstack takes a negative `idle_duration` for no limit.
    #[serde(default)]
    pub negative: Negative,
    /// What it says that the value is absent or null. It is no limit for prices and durations; a
    /// count that is not set, such as `nodes`, is better kept.
    #[serde(default)]
    pub unset: Unset,
}

/// What a negative number says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Negative {
    /// That number.
    #[default]
    Number,
    /// No limit: with `max` it becomes `max`, and `min` lets it be.
    Unlimited,
}

/// What it says that a value is absent or null.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Unset {
    /// No limit: with `max` it becomes `max`.
    #[default]
    Unlimited,
    /// Nothing that has to be brought into a range: it stays as it is.
    Keep,
}

/// What to take away.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Remove {
    /// A JSON pointer into the spec. Nothing there is no fault. A `*` in it stands for every
    /// element of a list or member of a map: `/configuration/volumes/*` with a `when` about
    /// `element` removes some of them.
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

impl Mutation {
    /// The path of what it changes; a mutation that is none, or several at once, has none or several.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        let writes = [
            &self.set,
            &self.set_default,
            &self.merge_map,
            &self.add_to_set,
        ];
        let writes = writes.into_iter().flatten().map(|write| &write.path);
        let clamp = self.clamp.iter().map(|clamp| &clamp.path);
        let remove = self.remove.iter().map(|remove| &remove.path);
        writes.chain(clamp).chain(remove).map(String::as_str)
    }
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
