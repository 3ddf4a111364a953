//! Comprehensions of two variables, and `cel.bind`, as macros.
//!
//! `map.all(k, v, …)` sees each key with its value, and `list.all(i, v, …)` each index with its
//! element; so do `exists`, `existsOne`, `transformList`, `transformMap` and `transformMapEntry`.
//! The interpreter knows comprehensions of one variable only, so these become one over pairs,
//! `@entries(map).all(@entry, …)`, where `@entry[0]` stands for `k` and `@entry[1]` for `v`.

use ::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, ListExpr, LiteralValue, operators,
};
use ::cel::parser::{Macro, MacroExprHelper, ParseError};
use ::cel::{DeclarationError, Env, IdedExpr};

const RESULT: &str = "@result";

type Helper<'a> = MacroExprHelper<'a>;
type Expansion = Result<Option<IdedExpr>, ParseError>;

pub(super) fn library(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_macro(Macro::receiver("bind", 3, bind_macro))?;
    env.add_macro(Macro::receiver("all", 3, all_macro))?;
    env.add_macro(Macro::receiver("exists", 3, exists_macro))?;
    env.add_macro(Macro::receiver("existsOne", 3, exists_one_macro))?;
    env.add_macro(Macro::receiver("exists_one", 3, exists_one_macro))?;
    for arguments in [3, 4] {
        let transform = [
            ("transformList", Made::List),
            ("transformMap", Made::Map),
            ("transformMapEntry", Made::Entries),
        ];
        for (name, made) in transform {
            env.add_macro(Macro::receiver(
                name,
                arguments,
                move |helper, target, args| transform_macro(helper, target, args, made),
            ))?;
        }
    }
    Ok(())
}

/// What a transformation gives.
#[derive(Clone, Copy, PartialEq)]
enum Made {
    List,
    /// A map with the keys of the range.
    Map,
    /// A map of the entries that the last argument has.
    Entries,
}

/// `cel.bind(name, value, expression)`.
fn bind_macro(
    helper: &mut Helper<'_>,
    target: &mut Option<IdedExpr>,
    args: &mut Vec<IdedExpr>,
) -> Expansion {
    match target.as_ref().map(|target| &target.expr) {
        Some(Expr::Ident(name)) if name == "cel" => {}
        _ => return Ok(None),
    }
    let (Some(body), Some(value), Some(name)) = (args.pop(), args.pop(), args.pop()) else {
        return Ok(None);
    };
    let name = simple_name(helper, name)?;
    Ok(Some(bind(helper, name, value, body)))
}

fn all_macro(
    helper: &mut Helper<'_>,
    target: &mut Option<IdedExpr>,
    args: &mut Vec<IdedExpr>,
) -> Expansion {
    let Some(parts) = Parts::taken(helper, target, args)? else {
        return Ok(None);
    };
    let init = helper.next_expr(Expr::Literal(LiteralValue::Boolean(true.into())));
    let so_far = ident(helper, RESULT);
    let condition = call(helper, operators::NOT_STRICTLY_FALSE, vec![so_far]);
    let so_far = ident(helper, RESULT);
    let holds = parts.body;
    let step = call(helper, operators::LOGICAL_AND, vec![so_far, holds]);
    let result = ident(helper, RESULT);
    Ok(Some(over(
        helper,
        parts.range,
        parts.entry,
        [init, condition, step, result],
    )))
}

fn exists_macro(
    helper: &mut Helper<'_>,
    target: &mut Option<IdedExpr>,
    args: &mut Vec<IdedExpr>,
) -> Expansion {
    let Some(parts) = Parts::taken(helper, target, args)? else {
        return Ok(None);
    };
    let init = helper.next_expr(Expr::Literal(LiteralValue::Boolean(false.into())));
    let so_far = ident(helper, RESULT);
    let not_yet = call(helper, operators::LOGICAL_NOT, vec![so_far]);
    let condition = call(helper, operators::NOT_STRICTLY_FALSE, vec![not_yet]);
    let so_far = ident(helper, RESULT);
    let holds = parts.body;
    let step = call(helper, operators::LOGICAL_OR, vec![so_far, holds]);
    let result = ident(helper, RESULT);
    Ok(Some(over(
        helper,
        parts.range,
        parts.entry,
        [init, condition, step, result],
    )))
}

fn exists_one_macro(
    helper: &mut Helper<'_>,
    target: &mut Option<IdedExpr>,
    args: &mut Vec<IdedExpr>,
) -> Expansion {
    let Some(parts) = Parts::taken(helper, target, args)? else {
        return Ok(None);
    };
    let init = int(helper, 0);
    let condition = helper.next_expr(Expr::Literal(LiteralValue::Boolean(true.into())));
    let one = int(helper, 1);
    let so_far = ident(helper, RESULT);
    let more = call(helper, operators::ADD, vec![so_far, one]);
    let same = ident(helper, RESULT);
    let holds = parts.body;
    let step = call(helper, operators::CONDITIONAL, vec![holds, more, same]);
    let one = int(helper, 1);
    let so_far = ident(helper, RESULT);
    let result = call(helper, operators::EQUALS, vec![so_far, one]);
    Ok(Some(over(
        helper,
        parts.range,
        parts.entry,
        [init, condition, step, result],
    )))
}

fn transform_macro(
    helper: &mut Helper<'_>,
    target: &mut Option<IdedExpr>,
    args: &mut Vec<IdedExpr>,
    made: Made,
) -> Expansion {
    let Some(parts) = Parts::taken(helper, target, args)? else {
        return Ok(None);
    };
    let mut item = parts.body;
    if made == Made::Map {
        let key = part(helper, &parts.entry, 0);
        item = helper.next_expr(Expr::List(ListExpr::new(vec![key, item])));
    }
    let item = helper.next_expr(Expr::List(ListExpr::new(vec![item])));
    let so_far = ident(helper, RESULT);
    let mut step = call(helper, operators::ADD, vec![so_far, item]);
    if let Some(wanted) = parts.filter {
        let same = ident(helper, RESULT);
        step = call(helper, operators::CONDITIONAL, vec![wanted, step, same]);
    }
    let init = helper.next_expr(Expr::List(ListExpr::new(Vec::new())));
    let condition = helper.next_expr(Expr::Literal(LiteralValue::Boolean(true.into())));
    let result = ident(helper, RESULT);
    let list = over(
        helper,
        parts.range,
        parts.entry,
        [init, condition, step, result],
    );
    Ok(Some(match made {
        Made::List => list,
        Made::Map | Made::Entries => call(helper, "@toMap", vec![list]),
    }))
}

/// What a comprehension of two variables is written with, the entry in the place of its names.
struct Parts {
    range: IdedExpr,
    /// What the pair at hand is called, unlike those of comprehensions around and within.
    entry: String,
    filter: Option<IdedExpr>,
    body: IdedExpr,
}

impl Parts {
    fn taken(
        helper: &mut Helper<'_>,
        target: &mut Option<IdedExpr>,
        args: &mut Vec<IdedExpr>,
    ) -> Result<Option<Self>, ParseError> {
        if target.is_none() || args.len() < 3 {
            return Ok(None);
        }
        let mut args = std::mem::take(args).into_iter();
        let (Some(range), Some(key), Some(value)) = (target.take(), args.next(), args.next())
        else {
            return Ok(None);
        };
        let second = value.id;
        let names = [simple_name(helper, key)?, simple_name(helper, value)?];
        if names[0] == names[1] {
            return Err(helper.new_error(second, "the two names must be different"));
        }
        let entry = format!("@entry{}", range.id);
        let mut parts = args.collect::<Vec<_>>();
        for part in &mut parts {
            substitute(helper, part, &[(&names[0], 0), (&names[1], 1)], &entry);
        }
        let body = parts.pop();
        let filter = parts.pop();
        Ok(body.map(|body| Self {
            range,
            entry,
            filter,
            body,
        }))
    }
}

fn simple_name(helper: &Helper<'_>, expr: IdedExpr) -> Result<String, ParseError> {
    match expr.expr {
        Expr::Ident(name) => Ok(name),
        _ => Err(helper.new_error(expr.id, "argument must be a simple name")),
    }
}

/// Puts the parts of an entry in the place of names, except where a comprehension within takes a
/// name for itself.
fn substitute(helper: &mut Helper<'_>, expr: &mut IdedExpr, names: &[(&str, i64)], entry: &str) {
    match &mut expr.expr {
        Expr::Ident(name) => {
            if let Some((_, position)) = names.iter().find(|(known, _)| known == name) {
                *expr = part(helper, entry, *position);
            }
        }
        Expr::Select(select) => substitute(helper, &mut select.operand, names, entry),
        Expr::Call(call) => {
            let operands = call.target.as_deref_mut().into_iter().chain(&mut call.args);
            operands.for_each(|operand| substitute(helper, operand, names, entry));
        }
        Expr::List(list) => {
            let elements = list.elements.iter_mut();
            elements.for_each(|element| substitute(helper, element, names, entry));
        }
        Expr::Map(map) => {
            for item in &mut map.entries {
                if let EntryExpr::MapEntry(item) = &mut item.expr {
                    substitute(helper, &mut item.key, names, entry);
                    substitute(helper, &mut item.value, names, entry);
                }
            }
        }
        Expr::Comprehension(inner) => {
            substitute(helper, &mut inner.iter_range, names, entry);
            substitute(helper, &mut inner.accu_init, names, entry);
            let taken = [&inner.iter_var, &inner.accu_var];
            let mut names = names.to_vec();
            names.retain(|(name, _)| !taken.iter().any(|taken| taken == name));
            substitute(helper, &mut inner.loop_cond, &names, entry);
            substitute(helper, &mut inner.loop_step, &names, entry);
            substitute(helper, &mut inner.result, &names, entry);
        }
        Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => {}
    }
}

/// The key or the value of the entry at hand.
fn part(helper: &mut Helper<'_>, entry: &str, position: i64) -> IdedExpr {
    let entry = ident(helper, entry);
    let position = int(helper, position);
    call(helper, operators::INDEX, vec![entry, position])
}

/// A comprehension over the entries of a range: its start, condition, step and result.
fn over(helper: &mut Helper<'_>, range: IdedExpr, entry: String, parts: [IdedExpr; 4]) -> IdedExpr {
    let [accu_init, loop_cond, loop_step, result] = parts;
    let iter_range = call(helper, "@entries", vec![range]);
    helper.next_expr(Expr::Comprehension(Box::new(ComprehensionExpr {
        iter_range,
        iter_var: entry,
        iter_var2: None,
        accu_var: RESULT.to_owned(),
        accu_init,
        loop_cond,
        loop_step,
        result,
    })))
}

/// A comprehension of no rounds whose result is the expression, as the interpreter's own macros
/// bind names.
fn bind(helper: &mut Helper<'_>, name: String, value: IdedExpr, body: IdedExpr) -> IdedExpr {
    let iter_range = helper.next_expr(Expr::List(ListExpr::new(Vec::new())));
    let loop_cond = helper.next_expr(Expr::Literal(LiteralValue::Boolean(false.into())));
    let loop_step = ident(helper, &name);
    helper.next_expr(Expr::Comprehension(Box::new(ComprehensionExpr {
        iter_range,
        iter_var: "#unused".to_owned(),
        iter_var2: None,
        accu_var: name,
        accu_init: value,
        loop_cond,
        loop_step,
        result: body,
    })))
}

fn ident(helper: &mut Helper<'_>, name: &str) -> IdedExpr {
    helper.next_expr(Expr::Ident(name.to_owned()))
}

fn int(helper: &mut Helper<'_>, value: i64) -> IdedExpr {
    helper.next_expr(Expr::Literal(LiteralValue::Int(value.into())))
}

fn call(helper: &mut Helper<'_>, function: &str, args: Vec<IdedExpr>) -> IdedExpr {
    helper.next_expr(Expr::Call(CallExpr {
        func_name: function.to_owned(),
        target: None,
        args,
    }))
}
