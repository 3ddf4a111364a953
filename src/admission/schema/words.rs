//! How a violation reads: plain words, the nearest right name where there is one.
//!
//! Values are quoted only where they can be no secret: in a choice, and shortened.

use jsonschema::JsonType;
use serde_json::Value;

/// What would have been accepted in some place.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Accepted {
    Type(JsonType),
    /// One of the values of an enum.
    Option(Value),
}

/// More characters than this of a name or value are not quoted.
const QUOTED: usize = 40;

/// From this similarity on (Jaro-Winkler, 1 is equal) a name counts as a misspelling of another.
const NEAR: f64 = 0.82;

pub(super) fn unknown_field(name: &str, known: &[String]) -> String {
    let near = nearest(name, known.iter().map(String::as_str));
    format!("unknown field {}{}", quoted(name), did_you_mean(near))
}

pub(super) fn missing_field(name: &str) -> String {
    format!("missing field {}", quoted(name))
}

/// A value that is none of the options of an enum.
pub(super) fn not_an_option(value: &Value, options: &[Value]) -> String {
    let text = plain(value);
    let near = nearest(&text, options.iter().filter_map(Value::as_str));
    let options: Vec<_> = options.iter().map(option).collect();
    let choice = match options.as_slice() {
        [only] => format!("{} is not {only}", quoted(&text)),
        _ => format!("{} is not one of {}", quoted(&text), options.join(", ")),
    };
    choice + &did_you_mean(near)
}

/// A value of a type that is not accepted.
pub(super) fn wrong_type(accepted: &[Accepted], value: &Value) -> String {
    let mut names: Vec<String> = Vec::new();
    for accepted in accepted {
        let name = match accepted {
            Accepted::Type(one) => type_name(*one).to_owned(),
            Accepted::Option(value) => option(value),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    // null comes last, as one would say it.
    names.sort_by_key(|name| name == "null");
    let got = match value {
        Value::Number(number) if number.is_f64() => "a number",
        Value::Number(_) => "an integer",
        other => type_name(JsonType::from(other)),
    };
    let expected = match names.as_slice() {
        [] => return format!("did not expect {got}"),
        [only] => only.clone(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    };
    format!("expected {expected}, got {got}")
}

fn type_name(name: JsonType) -> &'static str {
    match name {
        JsonType::Null => "null",
        JsonType::Boolean => "a boolean",
        JsonType::Integer => "an integer",
        JsonType::Number => "a number",
        JsonType::String => "a string",
        JsonType::Array => "a list",
        JsonType::Object => "an object",
    }
}

fn option(value: &Value) -> String {
    if value.is_null() {
        "null".to_owned()
    } else {
        format!("`{}`", plain(value))
    }
}

/// A string without its quotes, any other value as JSON.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(QUOTED).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("`{}`", shown.escape_debug())
}

/// Of the known names, the one that was probably meant.
pub(super) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

fn did_you_mean(near: Option<&str>) -> String {
    near.map(|near| format!("; did you mean `{near}`?"))
        .unwrap_or_default()
}
