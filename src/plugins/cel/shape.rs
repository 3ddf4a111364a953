//! What `effective` has and has not: a member that is not there is found when a rule is loaded.

use std::sync::LazyLock;

use ::cel::IdedExpr;
use schemars::schema_for;
use serde_json::{Map, Value};

use super::check::{Finding, nearest};
use super::follow::{Access, Tree, follow};
use super::tree::qualified;
use crate::admission::effective::Effective;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| schema_for!(Effective).to_value());

/// The selections of members that `effective` does not have.
pub(super) fn unknown_members(expr: &IdedExpr) -> Vec<Finding> {
    follow(expr, Shape::default()).findings
}

#[derive(Default)]
struct Shape {
    findings: Vec<Finding>,
}

impl Tree for Shape {
    /// The schema of a part.
    type Part = &'static Value;

    fn named(&self, name: &str) -> Option<Self::Part> {
        (name == "effective").then(|| &*SCHEMA)
    }

    fn member(&mut self, of: &Self::Part, access: &Access<'_>) -> Option<Self::Part> {
        // What is no object of ours, such as tags, may have any member.
        let members = members(of)?;
        let field = access.field;
        let member = members.get(field);
        if member.is_some() || access.optional {
            return member;
        }
        let hint = nearest(field, members.keys().map(String::as_str));
        let message = match qualified(access.operand) {
            Some(whole) => format!("`{whole}` has no `{field}`{hint}"),
            None => format!("there is no member `{field}`{hint}"),
        };
        self.findings.push(Finding {
            id: access.id,
            message,
        });
        None
    }

    fn items(&self, of: &Self::Part) -> Option<Self::Part> {
        resolved(of).get("items")
    }
}

fn members(schema: &'static Value) -> Option<&'static Map<String, Value>> {
    resolved(schema).get("properties")?.as_object()
}

/// The schema that a reference, or one that may be null, stands for.
fn resolved(schema: &'static Value) -> &'static Value {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let definition = SCHEMA.pointer(reference.trim_start_matches('#'));
        return definition.map_or(schema, resolved);
    }
    let branches = schema.get("anyOf").and_then(Value::as_array);
    let is_null = |schema: &&Value| schema.get("type").is_some_and(|kind| kind == "null");
    let other = branches.and_then(|branches| branches.iter().find(|branch| !is_null(branch)));
    other.map_or(schema, resolved)
}
