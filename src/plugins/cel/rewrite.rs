//! Rewrites a checked expression so that it pays for what it does, and does it faster.
//!
//! - Every operation whose cost depends on data becomes one that takes the meter: ranges of
//!   comprehensions, `+`, `==`, `in`, copies into lists and maps, and text functions.
//! - `spec.a.b` becomes one name, resolved in one go.
//! - `matches` gets its regular expression made once, where the pattern is known.
//!
//! What an expression means does not change. The places in it are gone afterwards, so checks
//! come before.

use ::cel::IdedExpr;
use ::cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators};
use regex::Regex;
use serde_json::Value;

use super::check::Finding;
use super::language::Pattern;
use super::scope::{GLOBALS, METER, PATTERN, TREES};
use super::tree::{nodes, qualified};

/// Units for one round of a comprehension, besides the nodes in its body.
const ROUND: i64 = 4;

/// Functions whose cost does not depend on data, or that pay themselves.
const CHEAP: &[&str] = &[
    "startsWith",
    "endsWith",
    "hasValue",
    "value",
    "or",
    "orValue",
    "type",
    "dyn",
    "none",
];

/// Functions that can make more out of what they read, so that a chain of them grows: they pay
/// everywhere. The others pay where they run repeatedly: in comprehensions.
const GROWING: &[&str] = &["quote", "format", "flatten"];

pub(super) struct Rewriter<'a> {
    pub(super) params: Option<&'a Value>,
    /// The patterns of the whole policy.
    pub(super) patterns: &'a mut Vec<Pattern>,
    pub(super) findings: Vec<Finding>,
    locals: Vec<String>,
    /// How many comprehensions are around the current node.
    pub(super) loops: usize,
}

impl<'a> Rewriter<'a> {
    pub(super) fn new(params: Option<&'a Value>, patterns: &'a mut Vec<Pattern>) -> Self {
        Self {
            params,
            patterns,
            findings: Vec::new(),
            locals: Vec::new(),
            loops: 0,
        }
    }

    pub(super) fn rewrite(&mut self, expr: &mut IdedExpr) {
        if let Some(path) = self.path(expr) {
            expr.expr = Expr::Ident(path);
            return;
        }
        match &mut expr.expr {
            Expr::Select(select) => self.rewrite(&mut select.operand),
            Expr::List(list) => list.elements.iter_mut().for_each(|item| self.stored(item)),
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                        self.stored(&mut entry.key);
                        self.stored(&mut entry.value);
                    }
                }
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Call(call) => {
                if let Some(rewritten) = self.call(call) {
                    expr.expr = Expr::Call(rewritten);
                }
            }
            Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => {}
        }
    }

    /// The one name for selections on a tree or on `variables`, unless a comprehension took the
    /// root's name.
    fn path(&self, expr: &IdedExpr) -> Option<String> {
        let Expr::Select(select) = &expr.expr else {
            return None;
        };
        let name = qualified(expr)?;
        let (root, _) = name.split_once('.')?;
        if self.is_local(root) {
            return None;
        }
        let variable = root == "variables" && matches!(select.operand.expr, Expr::Ident(_));
        let tree = TREES.contains(&root) && plain(expr);
        (variable || tree).then_some(name)
    }

    fn is_local(&self, name: &str) -> bool {
        self.locals.iter().any(|local| local == name)
    }

    /// An expression whose value is put into a list or map, and copied unless it was just made.
    fn stored(&mut self, expr: &mut IdedExpr) {
        self.rewrite(expr);
        let free = match &expr.expr {
            Expr::Literal(_) | Expr::List(_) | Expr::Map(_) | Expr::Comprehension(_) => true,
            Expr::Ident(name) => {
                let root = name.split('.').next().unwrap_or_default();
                let global = TREES.contains(&root) || GLOBALS.contains(&root);
                global && !self.is_local(root)
            }
            _ => false,
        };
        if !free {
            wrap(expr, "@copy");
        }
    }

    fn comprehension(&mut self, comprehension: &mut ComprehensionExpr) {
        self.rewrite(&mut comprehension.iter_range);
        self.stored(&mut comprehension.accu_init);
        let outer = self.locals.len();
        self.locals.push(comprehension.iter_var.clone());
        self.locals.extend(comprehension.iter_var2.clone());
        self.locals.push(comprehension.accu_var.clone());
        self.loops += 1;
        self.rewrite(&mut comprehension.loop_cond);
        self.rewrite(&mut comprehension.loop_step);
        self.rewrite(&mut comprehension.result);
        self.loops -= 1;
        self.locals.truncate(outer);

        // A range that is `[]` binds a name and goes no round.
        let binds =
            matches!(&comprehension.iter_range.expr, Expr::List(list) if list.elements.is_empty());
        if !binds {
            let weight = ROUND + nodes(&comprehension.loop_cond) + nodes(&comprehension.loop_step);
            let range = std::mem::take(&mut comprehension.iter_range);
            let weight = literal(weight);
            comprehension.iter_range = node(call("@walk", vec![range, weight, meter()]));
        }
    }

    /// What takes the place of a call, its arguments already rewritten.
    fn call(&mut self, original: &mut CallExpr) -> Option<CallExpr> {
        if let Some(target) = original.target.as_deref() {
            let namespace = qualified(target)
                .filter(|name| NAMESPACES.contains(&name.as_str()) && !self.is_local(name));
            if namespace.is_some() {
                original
                    .args
                    .iter_mut()
                    .for_each(|argument| self.rewrite(argument));
                self.pay_for_arguments(original, namespace.as_deref() == Some("lists"));
                return None;
            }
        }
        if original.func_name == "matches" {
            return self.matches(original);
        }
        if let Some(target) = &mut original.target {
            self.rewrite(target);
        }
        original
            .args
            .iter_mut()
            .for_each(|argument| self.rewrite(argument));
        match original.func_name.as_str() {
            operators::EQUALS if compares_data(original) => Some(metered("@eq", original)),
            operators::NOT_EQUALS if compares_data(original) => Some(metered("@ne", original)),
            operators::IN if !is_list_of_literals(original.args.get(1)) => {
                Some(metered("@within", original))
            }
            operators::ADD if adds_data(original) => Some(metered("@add", original)),
            "join" if original.target.is_some() => Some(metered("@join", original)),
            "replace" if original.target.is_some() => Some(metered("@replace", original)),
            _ => {
                self.pay_for_arguments(original, false);
                None
            }
        }
    }

    /// A function that stays: what it reads is paid for.
    fn pay_for_arguments(&self, call: &mut CallExpr, counts: bool) {
        let function = call.func_name.as_str();
        let ordering = [
            operators::LESS,
            operators::LESS_EQUALS,
            operators::GREATER,
            operators::GREATER_EQUALS,
        ];
        if ordering.contains(&function) {
            let (Some(a), Some(b)) = (call.args.first(), call.args.get(1)) else {
                return;
            };
            if self.loops > 0 && !is_literal(a) && !is_literal(b) {
                call.args
                    .iter_mut()
                    .for_each(|argument| wrap(argument, "@read"));
            }
            return;
        }
        if [operators::OPT_INDEX, operators::OPT_SELECT].contains(&function) && self.loops > 0 {
            // What they find is copied into an optional.
            if let Some(container) = call.args.first_mut() {
                wrap(container, "@copy");
            }
            return;
        }
        let operator = !function.starts_with(|c: char| c.is_ascii_alphabetic());
        let sorting = function == "@sortByAssociatedKeys";
        if operator && !sorting || CHEAP.contains(&function) {
            return;
        }
        let payment = match function {
            "range" if counts => "@count",
            "distinct" => "@pairs",
            "of" | "ofNonZeroValue" => "@copy",
            "format" => "@readWhole",
            _ if self.loops > 0 || sorting || GROWING.contains(&function) => "@read",
            _ => return,
        };
        if let Some(target) = call.target.as_deref_mut()
            && !matches!(&target.expr, Expr::Ident(name) if NAMESPACES.contains(&name.as_str()))
        {
            wrap(target, payment);
        }
        for argument in &mut call.args {
            match payment {
                "@count" => wrap_always(argument, payment),
                _ => wrap(argument, payment),
            }
        }
    }

    fn matches(&mut self, original: &mut CallExpr) -> Option<CallExpr> {
        if let Some(target) = &mut original.target {
            self.rewrite(target);
        }
        original
            .args
            .iter_mut()
            .for_each(|argument| self.rewrite(argument));
        let mut operands: Vec<IdedExpr> = original
            .target
            .take()
            .map(|target| *target)
            .into_iter()
            .collect();
        operands.append(&mut original.args);
        let [text, pattern] = operands.as_mut_slice() else {
            original.args = operands;
            return None;
        };
        let Some(known) = self.known_text(pattern) else {
            operands.push(meter());
            return Some(call("@matches", operands));
        };
        match Regex::new(&known) {
            Ok(regex) => {
                let position = self.patterns.len();
                self.patterns.push(Pattern(regex));
                pattern.expr = Expr::Ident(format!("{PATTERN}{position}"));
                if self.loops > 0 {
                    wrap(text, "@read");
                }
                Some(call("@regex", operands))
            }
            Err(error) => {
                let message = format!("not a valid regular expression: {}", last_line(&error));
                self.findings.push(Finding {
                    id: pattern.id,
                    message,
                });
                None
            }
        }
    }

    /// The text of an operand that is the same in every evaluation: a literal or a parameter.
    fn known_text(&self, expr: &IdedExpr) -> Option<String> {
        match &expr.expr {
            Expr::Literal(LiteralValue::String(text)) => Some(text.inner().to_owned()),
            Expr::Ident(name) => {
                let path = name.strip_prefix("params.")?;
                let value = path
                    .split('.')
                    .try_fold(self.params?, |tree, key| tree.get(key))?;
                value.as_str().map(str::to_owned)
            }
            _ => None,
        }
    }
}

const NAMESPACES: &[&str] = &["math", "lists", "strings", "optional"];

/// Whether no field in a chain of selections was quoted with a dot in it.
fn plain(expr: &IdedExpr) -> bool {
    match &expr.expr {
        Expr::Select(select) => !select.field.contains('.') && plain(&select.operand),
        _ => true,
    }
}

fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let line = text.lines().last().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

fn is_literal(expr: &IdedExpr) -> bool {
    matches!(expr.expr, Expr::Literal(_))
}

fn is_number(expr: &IdedExpr) -> bool {
    use LiteralValue::{Double, Int, UInt};
    matches!(expr.expr, Expr::Literal(Int(_) | UInt(_) | Double(_)))
}

/// The interpreter's own `==` is right where one side is a scalar that is written out.
fn compares_data(call: &CallExpr) -> bool {
    !call.args.iter().any(is_literal)
}

fn is_list_of_literals(expr: Option<&IdedExpr>) -> bool {
    matches!(expr.map(|expr| &expr.expr), Some(Expr::List(list)) if list.elements.iter().all(is_literal))
}

/// `+` grows what it adds unless that is a number. `@result + [x]` is how comprehensions
/// collect; the interpreter knows the shape.
fn adds_data(call: &CallExpr) -> bool {
    let collects = matches!(
        call.args.first().map(|arg| &arg.expr),
        Some(Expr::Ident(name)) if name.starts_with('@')
    );
    !collects && !call.args.iter().any(is_number)
}

fn metered(function: &str, original: &mut CallExpr) -> CallExpr {
    let mut args: Vec<IdedExpr> = original
        .target
        .take()
        .map(|target| *target)
        .into_iter()
        .collect();
    args.append(&mut original.args);
    args.push(meter());
    call(function, args)
}

fn wrap(expr: &mut IdedExpr, function: &str) {
    if !is_literal(expr) {
        wrap_always(expr, function);
    }
}

fn wrap_always(expr: &mut IdedExpr, function: &str) {
    let inner = std::mem::take(expr);
    *expr = node(call(function, vec![inner, meter()]));
}

fn node(call: CallExpr) -> IdedExpr {
    IdedExpr {
        id: 0,
        expr: Expr::Call(call),
    }
}

fn call(function: &str, args: Vec<IdedExpr>) -> CallExpr {
    CallExpr {
        func_name: function.to_owned(),
        target: None,
        args,
    }
}

fn meter() -> IdedExpr {
    IdedExpr {
        id: 0,
        expr: Expr::Ident(METER.to_owned()),
    }
}

fn literal(value: i64) -> IdedExpr {
    IdedExpr {
        id: 0,
        expr: Expr::Literal(LiteralValue::Int(value.into())),
    }
}
