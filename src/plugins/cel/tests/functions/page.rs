//! The page about CEL says what is so.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::super::super::functions::{MACROS, NAMES};
use super::super::super::{CompileError, Policy};
use super::super::{on_a_large_stack, outcome, source};
use crate::admission::verdict::Phase;

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cel.md");
    fs::read_to_string(path).unwrap()
}

/// The run and the parameters that the examples are about.
fn subject(page: &str) -> Value {
    let block = page.split("```json\n").nth(1).unwrap();
    serde_json::from_str(block.split("```").next().unwrap()).unwrap()
}

/// The rows of the tables of examples: expression and what it gives.
fn examples(page: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut table = false;
    for line in page.lines() {
        table = line == "| expression | gives |" || table && line.starts_with('|');
        let row = line.strip_prefix("| `").filter(|_| table);
        let row = row.and_then(|row| row.strip_suffix(" |"));
        if let Some((expression, result)) = row.and_then(|row| row.split_once("` | ")) {
            found.push((expression.replace("\\|", "|"), result.to_owned()));
        }
    }
    found
}

fn policy(validation: Value, params: &Value) -> Result<Policy, Vec<CompileError>> {
    let keys = json!({
        "variables": [{"name": "team", "expression": "project.split('-')[0]"}],
        "validations": [validation],
    });
    Policy::compile(&source(keys), params)
}

/// What is wrong with an example, if anything is.
fn wrong(expression: &str, result: &str, subject: &Value) -> Option<String> {
    let rule = match result.strip_prefix("error: ") {
        Some(_) => format!("({expression}) == null"),
        None => {
            let value = result.trim_matches('`');
            format!("({expression}) == ({value}) && type({expression}) == type({value})")
        }
    };
    let compiled = policy(json!({"expression": rule}), &subject["params"]);
    let compiled = match compiled {
        Ok(policy) => policy,
        Err(errors) => return Some(format!("{expression}: {errors:?}")),
    };
    let outcome = outcome(&compiled, &subject["spec"], Phase::Validating);
    match (outcome, result.strip_prefix("error: ")) {
        (Ok(verdict), None) if verdict.denials.is_empty() => None,
        (Err(fault), Some(reason)) if fault.message.contains(reason) => None,
        (outcome, _) => Some(format!("{expression} does not give {result}: {outcome:?}")),
    }
}

#[test]
fn each_example_gives_what_the_page_says() {
    let wrong: Vec<String> = on_a_large_stack(|| {
        let page = page();
        let subject = subject(&page);
        let examples = examples(&page);
        assert!(examples.len() > 150, "{} examples", examples.len());
        let wrong = |(expression, result): &(String, String)| wrong(expression, result, &subject);
        examples.iter().filter_map(wrong).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_function_and_macro_has_an_example() {
    let examples = examples(&page());
    let macros = MACROS.iter().map(|(name, _)| *name);
    for name in NAMES.iter().copied().chain(macros) {
        let shown = |(expression, _): &(String, String)| {
            expression
                .match_indices(&format!("{name}("))
                .any(|(at, _)| {
                    let before = expression[..at].chars().next_back();
                    !before.is_some_and(char::is_alphanumeric)
                })
        };
        assert!(examples.iter().any(shown), "{name} has no example");
    }
}
