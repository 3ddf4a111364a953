//! `policies`: the built-in policies, what each is for, its parameters and how it is used.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::bail;
use serde_json::{Map, Value, json};

use super::{Form, PoliciesArguments};
use crate::config::suggest::nearest;
use crate::plugins::library::{self, Definition};

/// Lists the library, or shows the policies that are named.
pub fn run(arguments: &PoliciesArguments) -> anyhow::Result<ExitCode> {
    let mut chosen = Vec::new();
    for name in &arguments.names {
        match library::find(name) {
            Some(policy) => chosen.push(policy),
            None => {
                let hint = nearest(name, library::names())
                    .map(|name| format!("; did you mean `{name}`?"))
                    .unwrap_or_default();
                bail!("there is no built-in policy `{name}`{hint}");
            }
        }
    }
    let whole = arguments.names.is_empty();
    if whole {
        chosen = library::all().collect();
    }
    let mut out = io::stdout().lock();
    match arguments.output {
        Form::Json => {
            let policies: Vec<Value> = chosen.iter().map(as_json).collect();
            writeln!(out, "{:#}", Value::Array(policies))?;
        }
        Form::Markdown => write!(out, "{}", markdown(&chosen))?,
        Form::Text if whole => list(&mut out, &chosen)?,
        Form::Text => {
            for policy in &chosen {
                writeln!(out, "{}", text(policy))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(out: &mut impl Write, policies: &[Definition]) -> io::Result<()> {
    for policy in policies {
        writeln!(out, "{:<24} {}", policy.name, policy.summary)?;
    }
    writeln!(
        out,
        "\n`dstack-admission policies NAME` shows its parameters and an example."
    )
}

/// One policy, for a terminal.
fn text(policy: &Definition) -> String {
    let mut text = format!("{}: {}\n\n", policy.name, policy.summary);
    for line in policy.description.trim_end().lines() {
        let _ = writeln!(text, "  {line}");
    }
    let _ = writeln!(text, "\nsees        {}", kinds(policy));
    let _ = writeln!(text, "parameters  ");
    for (name, schema) in policy.properties() {
        let _ = writeln!(
            text,
            "  {name:<12} {} ({})",
            description(schema),
            constraint(policy, name, schema)
        );
    }
    let _ = write!(text, "\nexample\n{}", indented(&example(policy), "  "));
    text
}

/// The whole library as a page of the documentation.
fn markdown(policies: &[Definition]) -> String {
    let mut page = String::new();
    for policy in policies {
        let _ = writeln!(page, "## {}\n", policy.name);
        let _ = writeln!(
            page,
            "{} Sees {}.\n",
            policy.summary,
            kinds(policy).replace(',', ", ")
        );
        let _ = writeln!(page, "{}\n", policy.description.trim_end());
        let _ = writeln!(page, "| parameter | | |\n|---|---|---|");
        for (name, schema) in policy.properties() {
            let _ = writeln!(
                page,
                "| `{name}` | {} | {} |",
                description(schema),
                constraint(policy, name, schema)
            );
        }
        let _ = writeln!(page, "\n```yaml\n{}```\n", example(policy));
    }
    page
}

fn as_json(policy: &Definition) -> Value {
    json!({
        "name": policy.name,
        "summary": policy.summary,
        "description": policy.description,
        "kinds": policy.kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>(),
        "parameters": policy.parameters,
        "example": entry(policy),
    })
}

fn kinds(policy: &Definition) -> String {
    let names: Vec<_> = policy.kinds.iter().map(|kind| kind.resource()).collect();
    names.join(",")
}

fn description(schema: &Value) -> &str {
    let description = schema.get("description").and_then(Value::as_str);
    description.unwrap_or_default()
}

/// Whether a parameter has to be given, and what it is otherwise.
fn constraint(policy: &Definition, name: &str, schema: &Value) -> String {
    let choice = schema.get("enum").and_then(Value::as_array).map(|names| {
        let names: Vec<_> = names.iter().filter_map(Value::as_str).collect();
        format!("{}; ", names.join(" or "))
    });
    let otherwise = match schema.get("default") {
        Some(default) => format!("default: {}", flow(default)),
        None if policy.requires(name) => "required".to_owned(),
        None => "optional".to_owned(),
    };
    format!("{}{otherwise}", choice.unwrap_or_default())
}

/// A value as YAML has it on one line.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(ToString::to_string).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

/// The item of `plugins:` that uses the policy as its example does.
fn entry(policy: &Definition) -> Value {
    let mut entry = Map::new();
    entry.insert("name".to_owned(), policy.name.clone().into());
    entry.insert("use".to_owned(), policy.name.clone().into());
    if !policy.example.is_empty() {
        entry.insert("with".to_owned(), policy.example.clone().into());
    }
    Value::Object(entry)
}

fn example(policy: &Definition) -> String {
    let plugins = json!({"plugins": [entry(policy)]});
    serde_yaml::to_string(&plugins).unwrap_or_default()
}

fn indented(text: &str, by: &str) -> String {
    text.lines().map(|line| format!("{by}{line}\n")).collect()
}
