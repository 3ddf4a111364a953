//! The built-in policies: rules in CEL with parameters, each in a file of its own under `library/`.
//!
//! A policy is found by its name, takes its parameters and is from then on a CEL policy like any
//! other. Nothing here is code of a single policy.

use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Number, Value};

use super::cel::source::Source;
use super::cel::{CompileError, Policy, gigabytes, seconds};
use crate::admission::effective::UNLIMITED;
use crate::admission::review::Kind;

#[cfg(test)]
mod tests;

/// What a number with a point or an exponent stays below: up to here each of them is one integer.
const LARGEST_WHOLE: f64 = 9_007_199_254_740_992.0;

/// Says what is wrong with a text.
pub type Check = fn(&str) -> Result<(), String>;

/// The JSON Schema formats that parameters may have besides the common ones.
pub const FORMATS: [(&str, Check); 3] = [
    ("dstack-duration", |text| {
        let why = "a duration is written like `90m`, `8h`, `1d` or `2w`";
        let seconds = seconds(text).filter(|seconds| (0..UNLIMITED).contains(seconds));
        seconds.map(drop).ok_or_else(|| why.to_owned())
    }),
    ("dstack-size", |text| {
        let why = "a size is written like `500GB` or `1TB`";
        let gigabytes = gigabytes(text).filter(|gigabytes| *gigabytes > 0.0);
        gigabytes.map(drop).ok_or_else(|| why.to_owned())
    }),
    ("re2", |text| match Regex::new(text) {
        Ok(_) => Ok(()),
        Err(error) => {
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default();
            Err(format!(
                "not a regular expression: {}",
                reason.trim_start_matches("error: ")
            ))
        }
    }),
];

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("library/", $name, ".yaml")))),*]
    };
}

/// The files, in the order in which they are listed.
const FILES: &[(&str, &str)] = files![
    "forbid-privileged",
    "forbid-host-mounts",
    "forbid-commands",
    "plain-secrets-in-env",
    "placement-guard",
    "max-price",
    "max-duration",
    "max-idle-duration",
    "priority-cap",
    "gpu-limit",
    "limit-nodes",
    "limit-replicas",
    "allowed-gpus",
    "allowed-images",
    "allowed-backends",
    "allowed-regions",
    "allowed-instance-types",
    "allowed-reservations",
    "spot-policy",
    "required-tags",
    "set-tags",
    "service-exposure",
    "gateway-rules",
    "volume-limits",
    "name-pattern",
    "canary",
];

/// A built-in policy as its file has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// What `use:` calls it.
    pub name: String,
    /// One sentence.
    pub summary: String,
    /// What it looks at and what it leaves alone, in Markdown.
    pub description: String,
    /// The kinds of spec it has something to say about.
    #[serde(deserialize_with = "kinds")]
    pub kinds: Vec<Kind>,
    /// The JSON Schema of what stands under `with:`, an object. Its `default`s are filled in.
    pub parameters: Value,
    /// Parameters as a person might set them.
    pub example: Map<String, Value>,
    /// The rules, which see the parameters as `params`.
    pub cel: Source,
}

/// A built-in policy with its parameters, ready to be asked.
pub struct BuiltIn {
    pub name: String,
    pub kinds: Vec<Kind>,
    pub policy: Policy,
}

/// Every built-in policy's name, in the order in which they are listed.
pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    FILES.iter().map(|(name, _)| *name)
}

/// The built-in policy of this name.
pub fn find(name: &str) -> Option<Definition> {
    let (_, text) = FILES.iter().find(|(known, _)| *known == name)?;
    // That each file is a definition is what a test sees to.
    serde_yaml::from_str(text).ok()
}

/// Every built-in policy, in the order in which they are listed.
pub fn all() -> impl Iterator<Item = Definition> {
    names().filter_map(find)
}

impl Definition {
    /// The policy with these parameters, which fit [`Definition::parameters`].
    ///
    /// # Errors
    /// When its rules do not compile with them: a pattern that is no regular expression, for
    /// instance.
    pub fn with(&self, parameters: &Map<String, Value>) -> Result<BuiltIn, Vec<CompileError>> {
        let mut parameters = self.with_defaults(parameters);
        let mut errors = Vec::new();
        let whole = self
            .properties()
            .filter(|(_, schema)| !takes_fractions(schema));
        for (name, _) in whole {
            if let Some(value) = parameters.get_mut(name)
                && !make_whole(value)
            {
                errors.push(CompileError {
                    field: name.clone(),
                    message: "the number is too large".to_owned(),
                });
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let parameters = Value::Object(parameters);
        Ok(BuiltIn {
            name: self.name.clone(),
            kinds: self.kinds.clone(),
            policy: Policy::compile(&self.cel, &parameters)?,
        })
    }

    /// Each parameter's schema, in the order of the file.
    pub fn properties(&self) -> impl Iterator<Item = (&String, &Value)> {
        let properties = self.parameters.get("properties").and_then(Value::as_object);
        properties.into_iter().flatten()
    }

    /// Whether a parameter has to be given.
    pub fn requires(&self, parameter: &str) -> bool {
        let required = self.parameters.get("required").and_then(Value::as_array);
        required.is_some_and(|names| names.iter().any(|name| name == parameter))
    }

    /// Every parameter: as given, else its default, else null.
    fn with_defaults(&self, given: &Map<String, Value>) -> Map<String, Value> {
        let value = |(name, schema): (&String, &Value)| {
            let value = given.get(name).or_else(|| schema.get("default"));
            (name.clone(), value.cloned().unwrap_or_default())
        };
        self.properties().map(value).collect()
    }
}

/// Whether some number of a parameter may have a fraction.
fn takes_fractions(schema: &Value) -> bool {
    match schema {
        Value::Object(keywords) => keywords.iter().any(|(key, value)| {
            let names_it = || match value {
                Value::Array(types) => types.iter().any(|name| name == "number"),
                name => name == "number",
            };
            key == "type" && names_it() || takes_fractions(value)
        }),
        Value::Array(items) => items.iter().any(takes_fractions),
        _ => false,
    }
}

/// Makes whole numbers integers, which JSON may write as `8.0` or `1e5` and expressions tell apart.
/// False if one is beyond 64 bits.
fn make_whole(value: &mut Value) -> bool {
    match value {
        Value::Number(number) if number.is_i64() => number.as_i64() < Some(UNLIMITED),
        Value::Number(number) => {
            let float = number.as_f64().filter(|float| float.abs() < LARGEST_WHOLE);
            let whole = float.filter(|float| float.fract() == 0.0);
            let Some(whole) = whole else { return false };
            *number = Number::from(whole as i64);
            true
        }
        Value::Array(items) => items.iter_mut().all(make_whole),
        Value::Object(members) => members.values_mut().all(make_whole),
        _ => true,
    }
}

fn kinds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Kind>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let kind = |name: &String| Kind::ALL.into_iter().find(|kind| kind.as_str() == name);
    let unknown = || serde::de::Error::custom("a kind is run, fleet, volume or gateway");
    names
        .iter()
        .map(|name| kind(name).ok_or_else(unknown))
        .collect()
}
