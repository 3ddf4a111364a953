//! What pydantic converts on its way in, so that nothing is called wrong that dstack takes.
//!
//! The rules are those of pydantic's lax mode, with `coerce_numbers_to_str` as dstack's models
//! set it. A JSON Schema knows none of them.

use jsonschema::JsonType;
use serde_json::Value;

use super::words::Accepted;

/// The major version of pydantic that a dstack version is built on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pydantic {
    /// dstack up to 0.20.
    One,
    /// dstack from 0.21.
    Two,
}

/// Strings that become a boolean, in lower case.
const BOOLEANS: [&str; 12] = [
    "0", "off", "f", "false", "n", "no", "1", "on", "t", "true", "y", "yes",
];

impl Pydantic {
    /// Whether a value becomes one of the accepted types.
    pub(super) fn converts(self, value: &Value, accepted: &[Accepted], path: &str) -> bool {
        accepted.iter().any(|accepted| match accepted {
            Accepted::Type(target) => self.converts_to(*target, value, path),
            Accepted::Option(_) => false,
        })
    }

    fn converts_to(self, target: JsonType, value: &Value, path: &str) -> bool {
        match (target, value) {
            // dstack matches a tag against a pattern before pydantic converts it, and answers 500.
            (JsonType::String, Value::Number(_) | Value::Bool(_)) if is_tag(path) => false,
            (JsonType::String, Value::Number(_)) => true,
            (JsonType::String, Value::Bool(_)) => self == Pydantic::One,
            (JsonType::Integer, Value::Number(_)) => self == Pydantic::One,
            (JsonType::Integer | JsonType::Number, Value::Bool(_)) => true,
            (JsonType::Integer, Value::String(text)) => text.trim().parse::<i64>().is_ok(),
            (JsonType::Number, Value::String(text)) => text.trim().parse::<f64>().is_ok(),
            (JsonType::Boolean, Value::String(text)) => {
                BOOLEANS.contains(&text.to_ascii_lowercase().as_str())
            }
            (JsonType::Boolean, Value::Number(number)) => {
                matches!(number.as_f64(), Some(0.0 | 1.0))
            }
            _ => false,
        }
    }
}

fn is_tag(path: &str) -> bool {
    path.rsplit('/').nth(1) == Some("tags")
}
