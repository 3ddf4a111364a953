//! What is wrong with a value, in plain words. Of a value itself, only a name out of a few or a
//! unit is quoted, and that cut short: a secret may stand where it should not.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{JsonType, ValidationError};
use serde_json::Value;

use super::{suggest, units};
use crate::plugins::library;

/// More names than a message lists.
const MOST_OPTIONS: usize = 12;

/// The value has another type.
pub(super) fn wrong_type(value: &Value, kind: &TypeKind, schema: &Value) -> String {
    let expected = type_names(kind);
    let example = schema.get("examples").and_then(|examples| examples.get(0));
    let such_as = match example.or_else(|| schema.get("default")) {
        Some(Value::String(example)) => format!(" such as `{example}`"),
        Some(Value::Array(example)) if !example.is_empty() => {
            format!(" such as `{}`", Value::from(example.clone()))
        }
        _ => String::new(),
    };
    format!(
        "expected {expected}{such_as}, but this is {}",
        name_of(value)
    )
}

/// The text is not of its form.
pub(super) fn wrong_format(value: &Value, format: &str) -> String {
    let text = value.as_str().unwrap_or_default();
    let own = units::FORMATS.iter().find(|(name, _)| *name == format);
    let parameter = library::FORMATS.iter().find(|(name, _)| *name == format);
    let error = own
        .and_then(|(_, parse)| parse(text).err())
        .map(|error| error.to_string());
    error
        .or_else(|| parameter.and_then(|(_, parse)| parse(text).err()))
        .unwrap_or_else(|| format!("not a {format}"))
}

/// The value is none of a few names.
pub(super) fn not_an_option<'a>(
    value: &Value,
    options: impl Iterator<Item = &'a str> + Clone,
) -> String {
    let mut quoted: Vec<String> = options.clone().map(|name| format!("`{name}`")).collect();
    if quoted.len() > MOST_OPTIONS {
        let rest = quoted.split_off(3);
        quoted.push(format!("one of {} more", rest.len()));
    }
    let choice = any_of(&quoted);
    let Some(text) = value.as_str() else {
        return format!("expected {choice}, but this is {}", name_of(value));
    };
    let text = suggest::short(text);
    match suggest::nearest(&text, options) {
        Some(name) => format!("unknown value `{text}`; did you mean `{name}`?"),
        None if quoted.len() == 1 => format!("unknown value `{text}`; it can only be {choice}"),
        None => format!("unknown value `{text}`; it can be {choice}"),
    }
}

/// The value fits none of several schemas, which failed with `errors`.
pub(super) fn none_of<'a>(
    value: &Value,
    errors: impl Iterator<Item = &'a ValidationError<'static>> + Clone,
) -> String {
    let options = errors.clone().filter_map(|error| match error.kind() {
        ValidationErrorKind::Constant { expected_value } => expected_value.as_str(),
        _ => None,
    });
    let is_constant = |error: &ValidationError| match error.kind() {
        ValidationErrorKind::Constant { .. } => true,
        // Each name of an enumeration says again that it is text.
        ValidationErrorKind::Type { kind } => type_names(kind) == "a string",
        _ => false,
    };
    if errors.clone().all(is_constant) {
        return not_an_option(value, options);
    }
    let types = errors.filter_map(|error| match error.kind() {
        ValidationErrorKind::Type { kind } => Some(type_names(kind)),
        _ => None,
    });
    let mut expected: Vec<String> = options.map(|name| format!("`{name}`")).collect();
    expected.extend(types);
    format!(
        "expected {}, but this is {}",
        any_of(&expected),
        name_of(value)
    )
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn any_of(names: &[String]) -> String {
    match names {
        [] => "something else".to_owned(),
        [only] => only.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

fn type_names(kind: &TypeKind) -> String {
    let names: Vec<String> = match kind {
        TypeKind::Single(kind) => vec![type_name(*kind).to_owned()],
        TypeKind::Multiple(kinds) => kinds
            .iter()
            .map(|kind| type_name(kind).to_owned())
            .collect(),
    };
    any_of(&names)
}

fn type_name(kind: JsonType) -> &'static str {
    match kind {
        JsonType::Array => "a list",
        JsonType::Boolean => "true or false",
        JsonType::Integer => "a whole number",
        JsonType::Null => "nothing",
        JsonType::Number => "a number",
        JsonType::Object => "a map",
        JsonType::String => "a string",
    }
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(true) => "`true`",
        Value::Bool(false) => "`false`",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}
