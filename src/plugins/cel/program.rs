//! One expression: from its text to something that runs.

use std::fmt::Write as _;
use std::sync::Arc;

use ::cel::common::ast::SourceInfo;
use ::cel::common::value::{CowVal, Val};
use ::cel::{Context, Env, IdedExpr, ParseError};
use serde_json::Value;

use super::check::{Finding, Names, Variables, check};
use super::explain::explain;
use super::fast::{Fast, Lowering, Step};
use super::language::{self, Pattern};
use super::reads::{Read, reads};
use super::rewrite::Rewriter;
use super::scope::Scope;
use super::shape::unknown_members;
use crate::admission::verdict::{Fault, FaultKind};

/// The longest expression, in bytes. The parser recurses, and worker threads have small stacks.
const LENGTH: usize = 8 * 1024;

/// What is wrong with one key of a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct CompileError {
    /// The key, for instance `validations[0].expression`.
    pub field: String,
    /// What is wrong; for an expression, with its line and a caret under the place.
    pub message: String,
}

/// An expression that has been checked.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) text: String,
    /// How deep its evaluation nests.
    pub(super) depth: usize,
    pub(super) expr: IdedExpr,
    /// The same, for the fast way.
    pub(super) fast: Step,
}

impl Program {
    /// Evaluates the expression and hands what it gives to `take`.
    ///
    /// # Errors
    /// When it errors: why, in words for whoever applied the spec, without any value of it.
    pub(super) fn evaluate<'v, R>(
        &self,
        env: &Arc<Env>,
        scope: &'v dyn Scope,
        take: impl FnOnce(CowVal<'_, 'v>) -> R,
    ) -> Result<R, String> {
        let mut context = Context::with_env(Arc::clone(env));
        context.set_variable_resolver(scope);
        match ::cel::Value::resolve_val(&self.expr, &context) {
            Ok(value) => Ok(take(value)),
            Err(error) => Err(explain(&error, &self.expr, scope)),
        }
    }

    /// Evaluates a condition, the fast way if that gives an answer.
    ///
    /// # Errors
    /// As [`Program::evaluate`], and when the expression gives anything but a bool.
    pub(super) fn holds<'a>(
        &'a self,
        env: &Arc<Env>,
        scope: &dyn Scope,
        fast: Option<&Fast<'a>>,
    ) -> Result<bool, String> {
        if let Some(holds) = fast.and_then(|fast| fast.holds(&self.fast)) {
            debug_assert!(fast.is_none_or(|fast| {
                fast.is_right(&holds, || self.interpreted(env, scope).ok())
            }));
            return Ok(holds);
        }
        self.interpreted(env, scope)
    }

    fn interpreted(&self, env: &Arc<Env>, scope: &dyn Scope) -> Result<bool, String> {
        self.evaluate(env, scope, |value| match value.downcast_ref() {
            Some(holds) => Ok(*::cel::common::types::CelBool::inner(holds)),
            None => Err(format!(
                "it gives {}, not a bool",
                type_name(value.as_ref())
            )),
        })?
    }

    /// The fault of a rule that errored; the expression is for the log.
    pub(super) fn fault(&self, kind: FaultKind, rule: &str, why: &str) -> Fault {
        let message = format!("{rule} cannot be evaluated: {why}");
        Fault::new(kind, message).with_detail(self.text.clone())
    }
}

/// The items under a key, each with its own key: `validations[0]`.
pub(super) fn enumerated<'a, T>(
    items: &'a [T],
    key: &'a str,
) -> impl Iterator<Item = (String, &'a T)> {
    let field = move |(position, item)| (format!("{key}[{position}]"), item);
    items.iter().enumerate().map(field)
}

/// A type as a person calls it.
pub(super) fn type_name(value: &dyn Val) -> String {
    plain_type(value.get_type().name()).to_owned()
}

pub(super) fn plain_type(name: &str) -> &str {
    match name {
        "null_type" => "null",
        "optional_type" => "an optional value",
        "google.protobuf.Duration" => "duration",
        "google.protobuf.Timestamp" => "timestamp",
        other => other,
    }
}

/// Compiles the expressions of one policy and gathers what is wrong with them.
pub(super) struct Compiler<'a> {
    pub(super) env: &'a Arc<Env>,
    pub(super) names: Names<'a>,
    pub(super) params: Option<&'a Value>,
    pub(super) patterns: Vec<Pattern>,
    /// Whether some expression picks a pattern while it is evaluated.
    pub(super) picks_patterns: bool,
    pub(super) errors: Vec<CompileError>,
    /// What the expressions read of a spec.
    pub(super) reads: Vec<Read>,
    /// Whether one evaluation of the policy runs an expression more than once.
    pub(super) repeated: bool,
}

impl<'a> Compiler<'a> {
    /// A compiler for expressions that see these names.
    ///
    /// # Errors
    /// When the interpreter refuses our declarations, which the tests rule out.
    pub(super) fn new(
        globals: &'a [&'a str],
        variables: Option<&'a [String]>,
        params: Option<&'a Value>,
    ) -> Result<Self, Vec<CompileError>> {
        let env = language::env().map_err(|error| {
            let message = format!("the expression language cannot be set up: {error}");
            let field = "cel".to_owned();
            vec![CompileError { field, message }]
        })?;
        let variables = variables.map(|names| Variables {
            names,
            depths: Vec::new(),
        });
        Ok(Self {
            env,
            names: Names { globals, variables },
            params,
            patterns: Vec::new(),
            picks_patterns: false,
            errors: Vec::new(),
            reads: Vec::new(),
            repeated: false,
        })
    }

    /// The program for `text`, or `None` with the reasons among the errors.
    pub(super) fn compile(&mut self, field: &str, text: &str) -> Option<Program> {
        if text.len() > LENGTH {
            let length = text.len();
            self.report(
                field,
                format!("the expression is {length} bytes long; at most {LENGTH} are allowed"),
            );
            return None;
        }
        let parser = self.env.parser().enable_ident_escape_syntax(true);
        let (mut expr, places) = match parser.parse_with_source_info(text) {
            Ok(parsed) => parsed,
            Err(errors) => {
                let error = errors.errors.first();
                self.report(
                    field,
                    error.map_or_else(String::new, |error| syntax(error, text)),
                );
                return None;
            }
        };
        let (mut findings, depth) = check(&expr, &self.names, self.env);
        findings.extend(unknown_members(&expr));
        if findings.is_empty() {
            let read = |(id, pointer)| Read {
                field: field.to_owned(),
                place: pointer,
                shown: place(&places, id, text),
            };
            self.reads.extend(reads(&expr).into_iter().map(read));
            let mut rewriter = Rewriter::new(self.params, &mut self.patterns);
            rewriter.loops = usize::from(self.repeated);
            rewriter.rewrite(&mut expr);
            findings = rewriter.findings;
            self.picks_patterns |= rewriter.picks_patterns;
        }
        let sound = findings.is_empty();
        for Finding { id, message } in findings {
            let place = place(&places, id, text);
            self.report(field, format!("{message}{place}"));
        }
        sound.then(|| {
            let mut lowering = Lowering {
                variables: self
                    .names
                    .variables
                    .as_ref()
                    .map_or(&[], |known| known.names),
                params: self.params,
                locals: Vec::new(),
            };
            Program {
                text: text.to_owned(),
                depth,
                fast: lowering.lower(&expr),
                expr,
            }
        })
    }

    pub(super) fn report(&mut self, field: &str, message: String) {
        self.errors.push(CompileError {
            field: field.to_owned(),
            message,
        });
    }
}

/// The first line of what the parser says, which goes on to list every token there is.
fn syntax(error: &ParseError, text: &str) -> String {
    let message = error.msg.lines().next().unwrap_or_default();
    let message = message.trim_start_matches("Syntax error: ");
    // How the parser says that it stops recursing.
    let message = if message.starts_with("OtherError(") {
        "it is nested too deep"
    } else {
        message
    };
    let message = message.split(" expecting {").next().unwrap_or(message);
    let (line, column) = error.pos;
    let line = usize::try_from(line).unwrap_or(1).max(1);
    let column = usize::try_from(column).unwrap_or(1).max(1);
    format!(
        "not a CEL expression: {message}{}",
        caret(text, line, column)
    )
}

fn place(places: &SourceInfo, id: u64, text: &str) -> String {
    let Some((start, _)) = places.offset_for(id) else {
        return String::new();
    };
    let before = text.get(..start as usize).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    caret(text, line, column)
}

/// A line of the expression with a caret under a column, both counted from 1.
fn caret(text: &str, line: usize, column: usize) -> String {
    let mut shown = String::new();
    if let Some(source) = text.lines().nth(line - 1) {
        let number = line.to_string();
        let margin = number.len();
        // Tabs stay tabs, so that the caret lands where the reader's tabs do.
        let indent: String = source
            .chars()
            .chain(std::iter::repeat(' '))
            .take(column - 1)
            .map(|c| if c == '\t' { c } else { ' ' })
            .collect();
        // Writing to a string cannot fail.
        let _ = write!(shown, "\n {number} | {source}\n {:margin$} | {indent}^", "");
    }
    shown
}
