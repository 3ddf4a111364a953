//! JSON values as YAML, as a person would write them: short maps and lists on one line, no more
//! quotes than it takes.

use serde_json::{Map, Value};

/// As much as stands on one line.
const WIDTH: usize = 80;
/// What YAML takes for a line break or a byte order mark, and JSON for a character like any other.
const YAML_ALONE: [char; 4] = ['\u{85}', '\u{2028}', '\u{2029}', '\u{feff}'];

/// The lines of a map in block style, without indentation.
pub fn block(map: &Map<String, Value>) -> Vec<String> {
    let mut lines = Vec::new();
    for (key, value) in map {
        let key = text(key);
        let one_line = flow(value);
        match value {
            Value::Object(members) if one_line.len() > WIDTH => {
                lines.push(format!("{key}:"));
                lines.extend(block(members).into_iter().map(indented));
            }
            Value::Array(items) if one_line.len() > WIDTH || is_prose(items) => {
                lines.push(format!("{key}:"));
                lines.extend(items.iter().flat_map(list_item).map(indented));
            }
            _ => lines.push(format!("{key}: {one_line}")),
        }
    }
    lines
}

/// A value on one line.
pub fn flow(value: &Value) -> String {
    match value {
        Value::String(string) => text(string),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(members) => {
            let member =
                |(key, value): (&String, &Value)| format!("{}: {}", text(key), flow(value));
            let members: Vec<String> = members.iter().map(member).collect();
            format!("{{{}}}", members.join(", "))
        }
        scalar => scalar.to_string(),
    }
}

/// Whether each item of a list is better read on a line of its own: sentences, and patches.
fn is_prose(items: &[Value]) -> bool {
    items.iter().any(|item| match item {
        Value::String(text) => text.contains(' '),
        Value::Object(_) => true,
        _ => false,
    })
}

fn list_item(item: &Value) -> Vec<String> {
    let one_line = flow(item);
    match item {
        Value::Object(members) if one_line.len() > WIDTH => {
            let lines = block(members).into_iter().enumerate();
            let marked = lines.map(|(index, line)| match index {
                0 => format!("- {line}"),
                _ => indented(line),
            });
            marked.collect()
        }
        _ => vec![format!("- {one_line}")],
    }
}

fn indented(line: String) -> String {
    format!("  {line}")
}

/// A string: plain where nothing can take it for anything else, else quoted.
fn text(string: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/' | '.' | ' ');
    let begins = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '/');
    // What YAML 1.1 takes for a truth value.
    let switches = ["y", "n", "yes", "no", "on", "off"];
    let is_plain = string.starts_with(begins)
        && string.chars().all(plain)
        && !string.ends_with(' ')
        && !switches.contains(&string.to_ascii_lowercase().as_str())
        && serde_yaml::from_str::<Value>(string).is_ok_and(|read| read == *string);
    if is_plain {
        return string.to_owned();
    }
    // Backslashes are only themselves in single quotes.
    let is_strange = |c: char| c.is_control() || YAML_ALONE.contains(&c);
    if string.contains(['\\', '"']) && !string.contains(is_strange) {
        return format!("'{}'", string.replace('\'', "''"));
    }
    let mut quoted = Value::from(string).to_string();
    for c in YAML_ALONE {
        if quoted.contains(c) {
            quoted = quoted.replace(c, &format!("\\u{:04x}", u32::from(c)));
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case("denied", "denied")]
    #[case("at most 8 GPUs", "at most 8 GPUs")]
    #[case("/configuration/tags", "/configuration/tags")]
    #[case("no", "\"no\"")]
    #[case("Off", "\"Off\"")]
    #[case("null", "\"null\"")]
    #[case("8", "\"8\"")]
    #[case("", "\"\"")]
    #[case("a: b", "\"a: b\"")]
    #[case("it's", "\"it's\"")]
    #[case(r"8 \(of \d+\)", r"'8 \(of \d+\)'")]
    #[case(r"it\s's", r"'it\s''s'")]
    #[case("two\nlines", "\"two\\nlines\"")]
    #[case("a\u{85}\"\u{2028}b", "\"a\\u0085\\\"\\u2028b\"")]
    fn strings_have_no_more_quotes_than_they_need(#[case] string: &str, #[case] yaml: &str) {
        assert_eq!(text(string), yaml);
    }

    #[test]
    fn what_is_short_stands_on_one_line() {
        let Value::Object(map) = json!({
            "decision": "denied",
            "messages": [r"gpu: at most 8 \(of 16\)"],
            "deniedBy": ["gpu", "price"],
            "patch": [{"op": "add", "path": "/a", "value": 2.0}, {"op": "add", "path": "/b", "value": "x".repeat(80)}],
            "spec": {"configuration": {"tags": {"a": "1"}, "long": "y".repeat(80)}},
            "monitored": {"deny": []},
        }) else {
            unreachable!()
        };
        let text = block(&map)
            .join("\n")
            .replace(&"x".repeat(80), "x*80")
            .replace(&"y".repeat(80), "y*80");
        insta::assert_snapshot!(text, @r#"
        decision: denied
        messages:
          - 'gpu: at most 8 \(of 16\)'
        deniedBy: [gpu, price]
        patch:
          - {op: add, path: /a, value: 2.0}
          - op: add
            path: /b
            value: x*80
        spec:
          configuration:
            tags: {a: "1"}
            long: y*80
        monitored: {deny: []}
        "#);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>()
                .prop_filter("finite", |n| n.is_finite())
                .prop_map(Value::from),
            "\\PC*".prop_map(Value::from),
            "[a-z:#\\-?!&*'\"\\\\ \\n\\t\\[\\]{},~\u{85}\u{2028}\u{2029}\u{feff}]{0,12}"
                .prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec(("\\PC{0,9}|[a-z/~-]{1,9}", inner), 0..5)
                    .prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(value in value()) {
            let on_one_line: Value = serde_yaml::from_str(&flow(&value)).unwrap();
            prop_assert_eq!(&on_one_line, &value);
            if let Value::Object(map) = &value && !map.is_empty() {
                let read: Value = serde_yaml::from_str(&block(map).join("\n")).unwrap();
                prop_assert_eq!(&read, &value);
            }
        }
    }
}
