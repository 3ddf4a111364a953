//! Rewrites a checked expression so that it pays for what it does, and does it faster.
//!
//! - Every operation whose cost depends on data becomes one that takes the meter: ranges of
//!   comprehensions, `+`, `==`, `in`, copies into lists and maps, and text functions.
//! - `spec.a.b` becomes one name, resolved in one go.
//! - `matches`, `find` and `findAll` get their regular expression made once, where the pattern is
//!   known.
//!
//! What an expression means does not change. The places in it are gone afterwards, so checks
//! come before.

use ::cel::IdedExpr;
use ::cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators};
use regex::Regex;
use serde_json::Value;

use super::check::Finding;
use super::functions::{METERED, NAMESPACES};
use super::language::Pattern;
use super::payments::{call, is_literal, meter, node, pay_for_arguments, wrap};
use super::scope::{GLOBALS, PATTERN, TREES};
use super::tree::{nodes, qualified};

/// Units for one round of a comprehension, besides the nodes in its body.
const ROUND: i64 = 4;

pub(super) struct Rewriter<'a> {
    pub(super) params: Option<&'a Value>,
    /// The patterns of the whole policy.
    pub(super) patterns: &'a mut Vec<Pattern>,
    /// Whether some pattern is only known while evaluating.
    pub(super) picks_patterns: bool,
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
            picks_patterns: false,
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

    /// What takes the place of a call, if anything does.
    fn call(&mut self, original: &mut CallExpr) -> Option<CallExpr> {
        let namespace = self.namespace(original);
        if let Some(target) = original
            .target
            .as_deref_mut()
            .filter(|_| namespace.is_none())
        {
            self.rewrite(target);
        }
        original
            .args
            .iter_mut()
            .for_each(|argument| self.rewrite(argument));
        let name = match &namespace {
            Some(namespace) => format!("{namespace}.{}", original.func_name),
            None => original.func_name.clone(),
        };
        match name.as_str() {
            operators::EQUALS if compares_data(original) => Some(metered("@eq", original)),
            operators::NOT_EQUALS if compares_data(original) => Some(metered("@ne", original)),
            operators::IN if !is_list_of_literals(original.args.get(1)) => {
                Some(metered("@within", original))
            }
            operators::ADD if adds_data(original) => Some(metered("@add", original)),
            "join" if original.target.is_some() => Some(metered("@join", original)),
            "replace" if original.target.is_some() => Some(metered("@replace", original)),
            "matches" => self.matches(original),
            "find" | "findAll" => {
                if let Some(pattern) = original.args.first_mut() {
                    self.pattern(pattern);
                }
                original.args.push(meter());
                None
            }
            name if METERED.contains(&name) => {
                original.args.push(meter());
                None
            }
            _ => {
                pay_for_arguments(original, namespace.as_deref(), self.loops > 0);
                None
            }
        }
    }

    /// What the target of a call is when it only qualifies the function: `math` in `math.abs(x)`.
    fn namespace(&self, call: &CallExpr) -> Option<String> {
        let name = qualified(call.target.as_deref()?)?;
        let qualifies = NAMESPACES.contains(&name.as_str()) && !self.is_local(&name);
        qualifies.then_some(name)
    }

    /// `text.matches(pattern)` and `matches(text, pattern)`.
    fn matches(&mut self, original: &mut CallExpr) -> Option<CallExpr> {
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
        if self.pattern(pattern) {
            if self.loops > 0 {
                wrap(text, "@read");
            }
            return Some(call("@regex", operands));
        }
        operands.push(meter());
        Some(call("@matches", operands))
    }

    /// Makes the regular expression of a pattern that is known, and says whether there is one.
    fn pattern(&mut self, pattern: &mut IdedExpr) -> bool {
        let Some(known) = self.known_text(pattern) else {
            self.picks_patterns = true;
            return false;
        };
        match Regex::new(&known) {
            Ok(regex) => {
                let position = self.patterns.len();
                self.patterns.push(Pattern(regex));
                pattern.expr = Expr::Ident(format!("{PATTERN}{position}"));
                true
            }
            Err(error) => {
                let message = format!("not a valid regular expression: {}", last_line(&error));
                self.findings.push(Finding {
                    id: pattern.id,
                    message,
                });
                false
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

fn literal(value: i64) -> IdedExpr {
    IdedExpr {
        id: 0,
        expr: Expr::Literal(LiteralValue::Int(value.into())),
    }
}
