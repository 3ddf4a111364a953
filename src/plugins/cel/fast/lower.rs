//! From the syntax tree of a rewritten expression to the steps of the fast way.
//!
//! Every name and function is looked up here, once. What has no step becomes
//! [`Step::Interpreted`], at which an evaluation gives up; an expression whose guards never let it
//! come there is fast all the same.

use ::cel::IdedExpr;
use ::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr, operators,
};
use serde_json::Value;

use super::step::{Binary, Body, Function, Loop, Operand, Optional, Path, Step};
use crate::plugins::cel::scope::PATTERN;

/// What names stand for.
pub(in super::super) struct Lowering<'a> {
    /// The policy's variables, in order.
    pub(in super::super) variables: &'a [String],
    pub(in super::super) params: Option<&'a Value>,
    pub(in super::super) locals: Vec<String>,
}

impl Lowering<'_> {
    /// The steps of an expression.
    pub(in super::super) fn lower(&mut self, expr: &IdedExpr) -> Step {
        self.step(expr).unwrap_or(Step::Interpreted)
    }

    fn step(&mut self, expr: &IdedExpr) -> Option<Step> {
        match &expr.expr {
            Expr::Literal(literal) => fixed(literal).map(Step::Fixed),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => Some(self.select(select)),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => {
                let plain = list.optional_indices.is_empty();
                plain.then(|| Step::List(self.all(&list.elements)))
            }
            Expr::Map(map) => {
                let entries = map.entries.iter().map(|entry| match &entry.expr {
                    EntryExpr::MapEntry(entry) if !entry.optional => {
                        Some((self.lower(&entry.key), self.lower(&entry.value)))
                    }
                    _ => None,
                });
                entries.collect::<Option<_>>().map(Step::Map)
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Struct(_) | Expr::Unspecified => None,
        }
    }

    fn all(&mut self, exprs: &[IdedExpr]) -> Box<[Step]> {
        exprs.iter().map(|expr| self.lower(expr)).collect()
    }

    fn name(&self, name: &str) -> Option<Step> {
        if let Some(position) = self.locals.iter().rposition(|local| local == name) {
            return Some(Step::Local(position));
        }
        if let Some(variable) = name.strip_prefix("variables.") {
            let position = self.variables.iter().position(|known| known == variable)?;
            return Some(Step::Variable(position));
        }
        let (root, path) = match name.split_once('.') {
            Some((root, path)) => (root, path.split('.').map(Box::from).collect()),
            None => (name, Path::from([])),
        };
        Some(match root {
            "spec" => Step::Spec(path),
            "original" => Step::Original(path),
            "effective" => Step::Effective(path),
            "params" => {
                let mut keys = path.iter();
                let value = keys.try_fold(self.params?, |tree, key| tree.get(&**key))?;
                Step::Fixed(value.clone())
            }
            _ if !path.is_empty() => return None,
            "user" => Step::User,
            "project" => Step::Project,
            "kind" => Step::Kind,
            "name" => Step::Name,
            _ => return None,
        })
    }

    fn select(&mut self, select: &SelectExpr) -> Step {
        let operand = Box::new(self.lower(&select.operand));
        let field = select.field.as_str().into();
        match select.test {
            true => Step::Has(operand, field),
            false => Step::Select(operand, field),
        }
    }

    fn call(&mut self, call: &CallExpr) -> Option<Step> {
        let mut operands: Vec<&IdedExpr> = call.target.as_deref().into_iter().collect();
        operands.extend(&call.args);
        match (call.func_name.as_str(), operands.as_slice()) {
            ("@copy" | "@read", [value, _]) => {
                self.step(value).map(|value| Step::Paid(Box::new(value)))
            }
            (operators::LOGICAL_NOT, [value]) => Some(Step::Not(Box::new(self.lower(value)))),
            (operators::CONDITIONAL, [condition, one, other]) => {
                let steps = [condition, one, other].map(|expr| self.lower(expr));
                Some(Step::If(Box::new(steps)))
            }
            ("@eq" | operators::EQUALS, [a, b, ..]) if type_of(a).is_some() => {
                let value = self.lower(type_of(a)?);
                let Expr::Ident(name) = &b.expr else {
                    return None;
                };
                let names = ["map", "list", "string", "bool", "int", "double"];
                let known = names.into_iter().find(|known| known == name)?;
                let local = self.locals.iter().any(|local| local == name);
                (!local).then(|| Step::HasType(Box::new(value), known))
            }
            ("orValue", [optional, value]) => {
                let optional = self.optional(optional)?;
                Some(Step::OrValue(
                    Box::new(optional),
                    Box::new(self.lower(value)),
                ))
            }
            ("@regex", [text, pattern]) => {
                let Expr::Ident(name) = &pattern.expr else {
                    return None;
                };
                let position = name.strip_prefix(PATTERN)?.parse().ok()?;
                Some(Step::Matches(Box::new(self.lower(text)), position))
            }
            (name, [a, b, ..]) if binary(name, operands.len()).is_some() => {
                let steps = [self.lower(a), self.lower(b)];
                Some(Step::Binary(binary(name, operands.len())?, Box::new(steps)))
            }
            (name, _) => {
                let (function, arguments) = function(name, operands.len(), call.target.is_some())?;
                let arguments = operands.get(..arguments)?;
                let steps = arguments.iter().map(|expr| self.lower(expr)).collect();
                Some(Step::Call(function, steps))
            }
        }
    }

    fn optional(&mut self, expr: &IdedExpr) -> Option<Optional> {
        let Expr::Call(call) = &expr.expr else {
            return None;
        };
        let [of, key] = call.args.as_slice() else {
            return None;
        };
        if ![operators::OPT_SELECT, operators::OPT_INDEX].contains(&call.func_name.as_str()) {
            return None;
        }
        let of = match copied(of) {
            of if is_optional(of) => Operand::Optional(Box::new(self.optional(of)?)),
            of => Operand::Value(self.lower(of)),
        };
        let key = self.lower(key);
        Some(Optional { of, key })
    }

    fn comprehension(&mut self, comprehension: &ComprehensionExpr) -> Option<Step> {
        if comprehension.iter_var2.is_some() {
            return None;
        }
        if matches!(&comprehension.iter_range.expr, Expr::List(list) if list.elements.is_empty()) {
            let value = self.lower(&comprehension.accu_init);
            self.locals.push(comprehension.accu_var.clone());
            let result = self.lower(&comprehension.result);
            self.locals.pop();
            return Some(Step::Bind(Box::new([value, result])));
        }
        let accumulator = comprehension.accu_var.as_str();
        if !is_name(&comprehension.result, accumulator) {
            return None;
        }
        let [range, weight] = called(&comprehension.iter_range, "@walk")?.get(..2)? else {
            return None;
        };
        let Expr::Literal(LiteralValue::Int(weight)) = &weight.expr else {
            return None;
        };
        let weight = u64::try_from(*weight.inner()).ok()?;
        let range = self.lower(range);
        self.locals.push(comprehension.iter_var.clone());
        let body = self.body(
            &comprehension.loop_step,
            &comprehension.accu_init,
            accumulator,
        );
        self.locals.pop();
        let body = body?;
        Some(Step::Loop(Box::new(Loop {
            range,
            weight,
            body,
        })))
    }

    /// What the macros make of a loop: `@result && p`, `@result || p`, `@result + [x]`, the last one
    /// with or without a condition.
    fn body(&mut self, step: &IdedExpr, start: &IdedExpr, accumulator: &str) -> Option<Body> {
        let starts = |with: bool| matches!(&start.expr, Expr::Literal(LiteralValue::Boolean(bool)) if *bool.inner() == with);
        let Expr::Call(call) = &step.expr else {
            return None;
        };
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::LOGICAL_AND, [so_far, holds])
                if starts(true) && is_name(so_far, accumulator) =>
            {
                Some(Body::All(self.lower(holds)))
            }
            (operators::LOGICAL_OR, [so_far, holds])
                if starts(false) && is_name(so_far, accumulator) =>
            {
                Some(Body::Exists(self.lower(holds)))
            }
            (operators::CONDITIONAL, [condition, then, same]) if is_name(same, accumulator) => {
                let item = appended(then, start, accumulator)?;
                let condition = self.lower(condition);
                Some(Body::Collect(Some(condition), self.lower(item)))
            }
            _ => {
                let item = appended(step, start, accumulator)?;
                Some(Body::Collect(None, self.lower(item)))
            }
        }
    }
}

/// What `@result + [x]` appends to a list that starts empty.
fn appended<'e>(expr: &'e IdedExpr, start: &IdedExpr, accumulator: &str) -> Option<&'e IdedExpr> {
    if !matches!(&start.expr, Expr::List(list) if list.elements.is_empty()) {
        return None;
    }
    match called(expr, operators::ADD)? {
        [so_far, item] if is_name(so_far, accumulator) => match &item.expr {
            Expr::List(list) if list.optional_indices.is_empty() => {
                match list.elements.as_slice() {
                    [item] => Some(item),
                    _ => None,
                }
            }
            _ => None,
        },
        _ => None,
    }
}

fn fixed(literal: &LiteralValue) -> Option<Value> {
    Some(match literal {
        LiteralValue::Null => Value::Null,
        LiteralValue::Boolean(bool) => Value::Bool(*bool.inner()),
        LiteralValue::Int(int) => Value::from(*int.inner()),
        LiteralValue::Double(double) => serde_json::Number::from_f64(*double.inner())?.into(),
        LiteralValue::String(text) => Value::from(text.inner()),
        LiteralValue::Bytes(_) | LiteralValue::UInt(_) => return None,
    })
}

fn is_name(expr: &IdedExpr, name: &str) -> bool {
    matches!(&expr.expr, Expr::Ident(known) if known == name)
}

/// The arguments of a call of this function without a target.
fn called<'e>(expr: &'e IdedExpr, function: &str) -> Option<&'e [IdedExpr]> {
    match &expr.expr {
        Expr::Call(call) if call.func_name == function && call.target.is_none() => Some(&call.args),
        _ => None,
    }
}

fn type_of(expr: &IdedExpr) -> Option<&IdedExpr> {
    match called(expr, "type")? {
        [value] => Some(value),
        _ => None,
    }
}

fn copied(expr: &IdedExpr) -> &IdedExpr {
    match called(expr, "@copy") {
        Some([value, _]) => value,
        _ => expr,
    }
}

fn is_optional(expr: &IdedExpr) -> bool {
    called(expr, operators::OPT_SELECT).is_some() || called(expr, operators::OPT_INDEX).is_some()
}

/// The operation of this name with so many arguments, the meter among them.
fn binary(name: &str, arguments: usize) -> Option<Binary> {
    Some(match (name, arguments) {
        (operators::LOGICAL_AND, 2) => Binary::And,
        (operators::LOGICAL_OR, 2) => Binary::Or,
        (operators::EQUALS, 2) | ("@eq", 3) => Binary::Equal,
        (operators::NOT_EQUALS, 2) | ("@ne", 3) => Binary::Unequal,
        (operators::LESS, 2) => Binary::Less,
        (operators::LESS_EQUALS, 2) => Binary::LessOrEqual,
        (operators::GREATER, 2) => Binary::Greater,
        (operators::GREATER_EQUALS, 2) => Binary::GreaterOrEqual,
        (operators::IN, 2) | ("@within", 3) => Binary::In,
        (operators::INDEX, 2) => Binary::Index,
        (operators::ADD, 2) | ("@add", 3) => Binary::Add,
        (operators::MULTIPLY, 2) => Binary::Multiply,
        _ => return None,
    })
}

/// The function of this name with so many operands, and how many of them are not the meter.
fn function(name: &str, operands: usize, member: bool) -> Option<(Function, usize)> {
    Some(match (name, operands, member) {
        ("size", 1, _) => (Function::Size, 1),
        ("string", 1, false) => (Function::String, 1),
        ("double", 1, false) => (Function::Double, 1),
        ("isUnlimited", 1, false) => (Function::IsUnlimited, 1),
        ("isImageReference", 1, false) => (Function::IsImageReference, 1),
        ("imageReference", 1, false) => (Function::ImageReference, 1),
        ("trim", 1, true) => (Function::Trim, 1),
        ("lowerAscii", 1, true) => (Function::LowerAscii, 1),
        ("startsWith", 2, true) => (Function::StartsWith, 2),
        ("endsWith", 2, true) => (Function::EndsWith, 2),
        ("contains", 2, true) => (Function::Contains, 2),
        ("@replace", 4, false) => (Function::Replace, 3),
        ("split", 3, true) => (Function::Split, 2),
        ("globMatches", 3, true) => (Function::GlobMatches, 2),
        ("@matches", 3, false) => (Function::Matches, 2),
        ("@entries", 2, false) => (Function::Entries, 1),
        ("@toMap", 2, false) => (Function::ToMap, 1),
        _ => return None,
    })
}
