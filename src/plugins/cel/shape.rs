//! What `effective` has and has not: a member that is not there is found when a rule is loaded.
//!
//! Followed are selections, indices and the elements that comprehensions go through. Where a
//! value comes from a variable or a function, nothing is known and nothing is said.

use std::sync::LazyLock;

use ::cel::IdedExpr;
use ::cel::common::ast::{EntryExpr, Expr, operators};
use schemars::schema_for;
use serde_json::{Map, Value};

use super::check::{Finding, nearest};
use super::tree::qualified;
use crate::admission::effective::Effective;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| schema_for!(Effective).to_value());

/// The selections of members that `effective` does not have.
pub(super) fn unknown_members(expr: &IdedExpr) -> Vec<Finding> {
    let mut names = Names {
        bound: Vec::new(),
        findings: Vec::new(),
    };
    names.visit(expr);
    names.findings
}

/// The names that comprehensions bind, and what they stand for as far as that is known.
struct Names<'e> {
    bound: Vec<(&'e str, Option<&'static Value>)>,
    findings: Vec<Finding>,
}

impl<'e> Names<'e> {
    /// Looks through an expression and says what it gives, if that is a part of `effective`.
    fn visit(&mut self, expr: &'e IdedExpr) -> Option<&'static Value> {
        match &expr.expr {
            Expr::Ident(name) => match self.bound.iter().rev().find(|(bound, _)| bound == name) {
                Some((_, shape)) => *shape,
                None if name == "effective" => Some(&SCHEMA),
                None => None,
            },
            Expr::Select(select) => {
                let shape = self.visit(&select.operand)?;
                self.member(expr, &select.operand, shape, &select.field)
            }
            Expr::Call(call) => {
                if let Some(target) = call.target.as_deref() {
                    self.visit(target);
                }
                let arguments: Vec<_> = call.args.iter().map(|arg| self.visit(arg)).collect();
                match call.func_name.as_str() {
                    operators::INDEX => items(arguments.first().copied().flatten()?),
                    _ => None,
                }
            }
            Expr::Comprehension(inner) => {
                let range = self.visit(&inner.iter_range);
                self.visit(&inner.accu_init);
                let outer = self.bound.len();
                // With two names, the first one is a position or a key.
                let element = range.and_then(items);
                let only = inner.iter_var2.is_none();
                self.bound.push((&inner.iter_var, element.filter(|_| only)));
                if let Some(second) = &inner.iter_var2 {
                    self.bound.push((second, element));
                }
                self.bound.push((&inner.accu_var, None));
                for part in [&inner.loop_cond, &inner.loop_step, &inner.result] {
                    self.visit(part);
                }
                self.bound.truncate(outer);
                None
            }
            Expr::List(list) => {
                list.elements.iter().for_each(|element| {
                    self.visit(element);
                });
                None
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.visit(&entry.key);
                        self.visit(&entry.value);
                    }
                }
                None
            }
            Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => None,
        }
    }

    fn member(
        &mut self,
        expr: &IdedExpr,
        operand: &IdedExpr,
        shape: &'static Value,
        field: &str,
    ) -> Option<&'static Value> {
        // What is no object of ours, such as tags, may have any member.
        let members = members(shape)?;
        if let Some(member) = members.get(field) {
            return Some(member);
        }
        let hint = nearest(field, members.keys().map(String::as_str));
        let message = match qualified(operand) {
            Some(whole) => format!("`{whole}` has no `{field}`{hint}"),
            None => format!("there is no member `{field}`{hint}"),
        };
        self.findings.push(Finding {
            id: expr.id,
            message,
        });
        None
    }
}

fn members(schema: &'static Value) -> Option<&'static Map<String, Value>> {
    resolved(schema).get("properties")?.as_object()
}

/// The elements of a list.
fn items(schema: &'static Value) -> Option<&'static Value> {
    resolved(schema).get("items")
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
