//! A suite file as typed: one struct for each map, one field for each key.
//!
//! What a value means beyond its form (does the regex compile, is there such a case) is not decided
//! here. The doc comments are what editors show, by way of the JSON Schema made from these types.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::Document;
use crate::config::file::ApiVersion;
use crate::config::plugin::{KindName, PluginEntry};
use crate::config::schema::schema_of;

/// Tests of a chain: specs, and what is decided about each.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyTests {
    /// The version of this format.
    #[expect(dead_code, reason = "its type has one value, which was read")]
    pub api_version: ApiVersion,
    /// The kind of this file.
    #[expect(dead_code, reason = "its type has one value, which was read")]
    pub kind: SuiteKind,
    /// The configuration under test. Relative to this file.
    #[schemars(extend("examples" = ["admission.yaml"]))]
    pub configuration: Option<PathBuf>,
    /// The chain under test, instead of a configuration's.
    pub plugins: Option<Vec<PluginEntry>>,
    /// Who applies the specs, where a case does not say.
    #[schemars(extend("default" = "admin"))]
    pub user: Option<String>,
    /// The project that they are applied in, where a case does not say.
    #[schemars(extend("default" = "main"))]
    pub project: Option<String>,
    /// What is tried.
    #[schemars(length(min = 1))]
    pub cases: Vec<Case>,
}

impl Document for PolicyTests {
    const KIND: &str = "PolicyTests";
    const NOUN: &str = "a suite";
}

/// The JSON Schema (2020-12) of a suite file.
pub fn suite_schema() -> Value {
    schema_of::<PolicyTests>()
}

/// The kind of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum SuiteKind {
    PolicyTests,
}

/// One spec and what is decided about it. Exactly one of `spec`, `file` and `from`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Case {
    /// What the case shows, in words. Each name stands for one case.
    #[schemars(extend("examples" = ["a privileged group is denied"]))]
    pub name: String,
    /// The spec. It need not be whole.
    pub spec: Option<Map<String, Value>>,
    /// A file with the spec or with a captured request body `{user, project, spec}`, JSON or YAML.
    /// Relative to this file. `*` stands for any part of a name: the case then holds for every file
    /// that fits, and so do the cases that come from it.
    #[schemars(extend("examples" = ["specs/task.json", "specs/*/task.json"]))]
    pub file: Option<PathBuf>,
    /// Another case, by its name: its spec, who applies it and where.
    pub from: Option<String>,
    /// What is different in the spec.
    pub edit: Option<Edit>,
    /// What the spec is. Without it, its `configuration.type` tells.
    pub kind: Option<KindName>,
    /// Who applies the spec.
    pub user: Option<String>,
    /// The project that it is applied in.
    pub project: Option<String>,
    /// When it is applied: a time in UTC, or a day, which means its start. Exemptions expire
    /// against it.
    #[schemars(extend("default" = "2026-01-01T00:00:00Z"))]
    pub at: Option<String>,
    /// A chain for this case alone.
    pub plugins: Option<Vec<PluginEntry>>,
    /// What is decided.
    pub expect: Expect,
}

/// Changes to a spec: first what is set, then what is removed, each in its order.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Edit {
    /// A value for each JSON Pointer; null writes null. Parents that are absent or null become
    /// maps, and `-` appends to a list.
    #[schemars(extend("examples" = [{"/configuration/privileged": true}]))]
    pub set: Map<String, Value>,
    /// JSON Pointers of what is taken away.
    #[schemars(extend("examples" = [["/configuration/tags"]]))]
    pub remove: Vec<String>,
}

/// What is decided. Only the keys that are given are looked at.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expect {
    /// The decision.
    pub decision: Verdict,
    /// Regular expressions over the denials, each a text `PLUGIN: MESSAGE`. Each one matches a denial
    /// and each denial is matched. A plugin that fails denies only where this says so.
    #[schemars(length(min = 1), extend("examples" = [["at most 8 GPUs"]]))]
    pub messages: Option<Vec<String>>,
    /// The plugins that deny, all of them.
    #[schemars(length(min = 1), extend("examples" = [["gpu-limit"]]))]
    pub denied_by: Option<Vec<String>>,
    /// Regular expressions over the warnings, each a text `PLUGIN: MESSAGE`. Each one matches a warning
    /// and each warning is matched. A plugin fails open only where this says so.
    pub warnings: Option<Vec<String>>,
    /// The JSON Patch (RFC 6902) that makes the admitted spec of the one that came.
    #[schemars(length(min = 1))]
    pub patch: Option<Vec<Map<String, Value>>>,
    /// What the admitted spec holds: of a map the members that stand here, a list as a whole, a
    /// number by its value.
    pub spec: Option<Map<String, Value>>,
    /// What the plugins with `mode: monitor` would have done.
    pub monitored: Option<Monitored>,
}

/// The decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Admitted as it came.
    Allowed,
    /// Admitted with changes.
    Patched,
    /// Refused.
    Denied,
}

impl Verdict {
    /// The name as [`crate::admission::decision::Decision::as_str`] has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Allowed => "allowed",
            Verdict::Patched => "patched",
            Verdict::Denied => "denied",
        }
    }
}

/// What the plugins with `mode: monitor` would have done.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Monitored {
    /// The plugins that would have denied, all of them.
    pub deny: Option<Vec<String>>,
    /// The plugins that would have changed the spec, all of them.
    pub patch: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Visits every map of keys in a schema.
    fn each_property(schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            properties
                .iter()
                .for_each(|(key, schema)| visit(key, schema));
        }
        match schema {
            Value::Object(members) => members.values().for_each(|v| each_property(v, visit)),
            Value::Array(items) => items.iter().for_each(|v| each_property(v, visit)),
            _ => {}
        }
    }

    #[test]
    fn every_key_has_a_description() {
        let mut keys = 0;
        each_property(&suite_schema(), &mut |key, schema| {
            let description = schema.get("description").and_then(Value::as_str);
            assert!(description.is_some_and(|text| text.ends_with('.')), "{key}");
            keys += 1;
        });
        assert!(keys > 50, "{keys}");
    }
}
