//! What can be known to be wrong with an expression before it runs: names and functions that do
//! not exist, each with the nearest one that does.
//!
//! CEL here has no types at compile time, so nothing is said about those.

use std::sync::Arc;

use ::cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, operators};
use ::cel::{Context, Env, ExecutionError, IdedExpr, Value};

use super::functions::{MACROS, NAMES};
use super::tree::qualified;

/// How deep an expression may be nested, the variables it uses included. The interpreter recurses
/// (2 to 4 kB a level in a release build), and worker threads have small stacks.
const DEPTH: usize = 160;

/// Levels that a variable takes besides its expression.
const VARIABLE_DEPTH: usize = 3;

const OPERATORS: &[&str] = &[
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::OPT_INDEX,
    operators::OPT_SELECT,
];

/// The names an expression may use.
pub(super) struct Names<'a> {
    pub(super) globals: &'a [&'a str],
    pub(super) variables: Option<Variables<'a>>,
}

/// The policy's variables.
pub(super) struct Variables<'a> {
    /// All of them, in order.
    pub(super) names: &'a [String],
    /// How deep the ones are that an expression may use: those compiled so far.
    pub(super) depths: Vec<usize>,
}

/// Something wrong at a node of an expression.
pub(super) struct Finding {
    pub(super) id: u64,
    pub(super) message: String,
}

/// What is wrong with an expression, and how deep it is.
pub(super) fn check(expr: &IdedExpr, names: &Names<'_>, env: &Arc<Env>) -> (Vec<Finding>, usize) {
    let mut checker = Checker {
        names,
        env,
        locals: Vec::new(),
        depth: 0,
        deepest: 0,
        findings: Vec::new(),
    };
    checker.visit(expr);
    (checker.findings, checker.deepest)
}

struct Checker<'a> {
    names: &'a Names<'a>,
    env: &'a Arc<Env>,
    /// The names that the comprehensions around the current node bind.
    locals: Vec<String>,
    depth: usize,
    deepest: usize,
    findings: Vec<Finding>,
}

impl Checker<'_> {
    fn report(&mut self, id: u64, message: String) {
        self.findings.push(Finding { id, message });
    }

    fn visit(&mut self, expr: &IdedExpr) {
        if self.reach(expr.id, self.depth + 1) {
            self.depth += 1;
            self.visit_node(expr);
            self.depth -= 1;
        }
    }

    /// Whether a node may be this deep. What is too deep is reported once.
    fn reach(&mut self, id: u64, depth: usize) -> bool {
        if depth > DEPTH && self.deepest <= DEPTH {
            self.report(
                id,
                format!("the expression is nested more than {DEPTH} levels deep"),
            );
        }
        self.deepest = self.deepest.max(depth);
        depth <= DEPTH
    }

    fn visit_node(&mut self, expr: &IdedExpr) {
        match &expr.expr {
            Expr::Ident(name) => self.name(expr.id, name.trim_start_matches('.')),
            Expr::Select(select) => match &select.operand.expr {
                Expr::Ident(root) if root == "variables" && !self.is_local(root) => {
                    self.variable(expr.id, &select.field, select.test);
                }
                _ => match qualified(expr) {
                    Some(name) if self.env.types().find_type(&name).is_some() => {}
                    _ => self.visit(&select.operand),
                },
            },
            Expr::Call(call) => self.call(expr.id, call),
            Expr::Comprehension(comprehension) => {
                self.visit(&comprehension.iter_range);
                self.visit(&comprehension.accu_init);
                let outer = self.locals.len();
                self.locals.push(comprehension.iter_var.clone());
                self.locals.extend(comprehension.iter_var2.clone());
                self.locals.push(comprehension.accu_var.clone());
                self.visit(&comprehension.loop_cond);
                self.visit(&comprehension.loop_step);
                self.visit(&comprehension.result);
                self.locals.truncate(outer);
            }
            Expr::List(list) => list.elements.iter().for_each(|element| self.visit(element)),
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.visit(&entry.key);
                        self.visit(&entry.value);
                    }
                }
            }
            Expr::Struct(message) => {
                self.report(expr.id, format!("unknown type `{}`", message.type_name));
            }
            Expr::Literal(_) | Expr::Unspecified => {}
        }
    }

    fn is_local(&self, name: &str) -> bool {
        self.locals.iter().any(|local| local == name)
    }

    fn name(&mut self, id: u64, name: &str) {
        let known = name.starts_with('@')
            || self.is_local(name)
            || self.names.globals.contains(&name)
            || self.env.types().find_type(name).is_some();
        if known {
            return;
        }
        if name == "variables" && self.names.variables.is_some() {
            self.report(
                id,
                "variables are used one by one: write `variables.NAME`".to_owned(),
            );
            return;
        }
        let locals = self.locals.iter().map(String::as_str);
        let hint = nearest(name, self.names.globals.iter().copied().chain(locals));
        self.report(id, format!("unknown name `{name}`{hint}"));
    }

    fn variable(&mut self, id: u64, name: &str, test: bool) {
        let Some(variables) = &self.names.variables else {
            return self.report(id, "there are no variables here".to_owned());
        };
        let defined = variables.depths.len();
        let position = variables.names.iter().position(|variable| variable == name);
        match position {
            _ if test => self.report(
                id,
                format!("a variable is always there: write `variables.{name}`, without has()"),
            ),
            Some(position) if position < defined => {
                let below = variables.depths.get(position).copied().unwrap_or_default();
                self.reach(id, self.depth + VARIABLE_DEPTH + below);
            }
            Some(position) if position == defined => {
                self.report(id, format!("`variables.{name}` refers to itself"));
            }
            Some(_) => self.report(
                id,
                format!("`variables.{name}` is defined further down: a variable may use the ones above it only"),
            ),
            None => {
                let hint = nearest(name, variables.names.iter().take(defined).map(String::as_str));
                self.report(id, format!("unknown variable `{name}`{hint}"));
            }
        }
    }

    fn call(&mut self, id: u64, call: &CallExpr) {
        let function = call.func_name.as_str();
        let namespaced = call.target.as_deref().and_then(qualified);
        let namespaced = namespaced.map(|namespace| format!("{namespace}.{function}"));
        let internal = function.contains('@') || OPERATORS.contains(&function);
        match (&call.target, namespaced) {
            _ if internal => self.targets(call),
            (_, Some(name)) if self.exists(&name, false) => {}
            (None, _) if self.exists(function, false) => {}
            (Some(_), _) if self.exists(function, true) => self.targets(call),
            (target, namespaced) => {
                // The wrong function hides what is wrong with the name before it.
                self.report(
                    id,
                    self.unknown(function, target.is_some(), namespaced.as_deref()),
                );
                if MACROS.iter().any(|(name, _)| *name == function) {
                    return;
                }
            }
        }
        call.args.iter().for_each(|argument| self.visit(argument));
    }

    fn targets(&mut self, call: &CallExpr) {
        if let Some(target) = &call.target {
            self.visit(target);
        }
    }

    fn unknown(&self, function: &str, method: bool, namespaced: Option<&str>) -> String {
        if let Some((name, usage)) = MACROS.iter().find(|(name, _)| *name == function) {
            return format!("`{name}` is written {usage}");
        }
        match method {
            false if self.exists(function, true) => {
                format!("`{function}` is called on a value: write `x.{function}(…)`")
            }
            true if self.exists(function, false) => {
                format!("`{function}` is called with its value: write `{function}(x)`")
            }
            _ => {
                let near = namespaced.filter(|name| NAMES.iter().any(|known| near(name, known)));
                let name = near.unwrap_or(function);
                let macros = MACROS.iter().map(|(name, _)| *name);
                let known = NAMES.iter().copied().chain(macros);
                format!("unknown function `{name}`{}", nearest(name, known))
            }
        }
    }

    /// Asks the interpreter: it tells a function that is not there from one that is not there
    /// for these arguments.
    fn exists(&self, function: &str, method: bool) -> bool {
        let null = IdedExpr {
            id: 0,
            expr: Expr::Literal(LiteralValue::Null),
        };
        let call = IdedExpr {
            id: 0,
            expr: Expr::Call(CallExpr {
                func_name: function.to_owned(),
                target: method.then(|| Box::new(null)),
                args: Vec::new(),
            }),
        };
        let context = Context::with_env(Arc::clone(self.env));
        let answer = Value::resolve_val(&call, &context);
        !matches!(answer, Err(ExecutionError::UndeclaredReference(_)))
    }
}

fn near(name: &str, known: &str) -> bool {
    name.len() < 2 * known.len() && similarity(name, known) > 0.85
}

/// Between 0 and 1, whatever the case.
fn similarity(name: &str, known: &str) -> f64 {
    strsim::jaro_winkler(&name.to_ascii_lowercase(), &known.to_ascii_lowercase())
}

/// ` (did you mean …?)`, or nothing.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .filter(|known| !known.starts_with('@') && near(name, known))
        .max_by(|a, b| similarity(name, a).total_cmp(&similarity(name, b)))
        .map_or_else(String::new, |known| format!(" (did you mean `{known}`?)"))
}
