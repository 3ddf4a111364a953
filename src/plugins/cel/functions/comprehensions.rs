//! Comprehensions of two variables, and `cel.bind`, as macros.
//!
//! `map.all(k, v, …)` sees each key with its value, and `list.all(i, v, …)` each index with its
//! element; so do `exists`, `existsOne`, `transformList`, `transformMap` and `transformMapEntry`.
//! The interpreter knows comprehensions of one variable only, so these become one over pairs:
//! `@entries(map).all(@entry, cel.bind(k, @entry[0], cel.bind(v, @entry[1], …)))`.
//!
//! Entries of a map come in the order of the spec, those of one that an expression has built
//! sorted by key, so that one spec always gets one answer.

// The interpreter hands arguments over by value.
#![allow(clippy::needless_pass_by_value)]

use std::collections::HashMap;

use ::cel::common::ast::{CallExpr, ComprehensionExpr, Expr, ListExpr, LiteralValue, operators};
use ::cel::common::types::{
    CelBool, CelInt, CelList, CelMap, CelMapKey, CelString, CelUInt, DYN_TYPE, Kind,
};
use ::cel::common::value::{CowVal, Val};
use ::cel::parser::{Macro, MacroExprHelper, ParseError};
use ::cel::{DeclarationError, Env, ExecutionError, IdedExpr};

use super::super::meter::{self, Meter};
use super::arguments::{Answer, Args, items, meter_in, mismatch};

/// Units for making one pair.
const PAIR: u64 = 3;

const ENTRY: &str = "@entry";
const RESULT: &str = "@result";

type Helper<'a> = MacroExprHelper<'a>;
type Expansion = Result<Option<IdedExpr>, ParseError>;

pub(super) fn library(env: &mut Env) -> Result<(), DeclarationError> {
    let arguments = || vec![DYN_TYPE, Meter::TYPE];
    env.add_overload("@entries", "@entries", arguments(), entries)?;
    env.add_overload("@toMap", "@toMap", arguments(), to_map)?;
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
    let holds = bound(helper, &parts, parts.body.clone());
    let step = call(helper, operators::LOGICAL_AND, vec![so_far, holds]);
    let result = ident(helper, RESULT);
    Ok(Some(over(
        helper,
        parts.range,
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
    let holds = bound(helper, &parts, parts.body.clone());
    let step = call(helper, operators::LOGICAL_OR, vec![so_far, holds]);
    let result = ident(helper, RESULT);
    Ok(Some(over(
        helper,
        parts.range,
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
    let holds = bound(helper, &parts, parts.body.clone());
    let step = call(helper, operators::CONDITIONAL, vec![holds, more, same]);
    let one = int(helper, 1);
    let so_far = ident(helper, RESULT);
    let result = call(helper, operators::EQUALS, vec![so_far, one]);
    Ok(Some(over(
        helper,
        parts.range,
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
    let mut item = bound(helper, &parts, parts.body.clone());
    if made == Made::Map {
        let key = part(helper, 0);
        item = helper.next_expr(Expr::List(ListExpr::new(vec![key, item])));
    }
    let item = helper.next_expr(Expr::List(ListExpr::new(vec![item])));
    let so_far = ident(helper, RESULT);
    let mut step = call(helper, operators::ADD, vec![so_far, item]);
    if let Some(filter) = &parts.filter {
        let wanted = bound(helper, &parts, filter.clone());
        let same = ident(helper, RESULT);
        step = call(helper, operators::CONDITIONAL, vec![wanted, step, same]);
    }
    let init = helper.next_expr(Expr::List(ListExpr::new(Vec::new())));
    let condition = helper.next_expr(Expr::Literal(LiteralValue::Boolean(true.into())));
    let result = ident(helper, RESULT);
    let list = over(helper, parts.range, [init, condition, step, result]);
    Ok(Some(match made {
        Made::List => list,
        Made::Map | Made::Entries => call(helper, "@toMap", vec![list]),
    }))
}

/// What a comprehension of two variables is written with.
struct Parts {
    range: IdedExpr,
    /// What the key or index and the value are called.
    names: [String; 2],
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
        let names = [simple_name(helper, key)?, simple_name(helper, value)?];
        let (filter, body) = match (args.next(), args.next()) {
            (filter, Some(body)) => (filter, body),
            (Some(body), None) => (None, body),
            (None, None) => return Ok(None),
        };
        Ok(Some(Self {
            range,
            names,
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

/// An expression with the names of a comprehension bound to the entry at hand.
fn bound(helper: &mut Helper<'_>, parts: &Parts, body: IdedExpr) -> IdedExpr {
    let [key, value] = &parts.names;
    let second = part(helper, 1);
    let body = bind(helper, value.clone(), second, body);
    let first = part(helper, 0);
    bind(helper, key.clone(), first, body)
}

/// The key or the value of the entry at hand.
fn part(helper: &mut Helper<'_>, position: i64) -> IdedExpr {
    let entry = ident(helper, ENTRY);
    let position = int(helper, position);
    call(helper, operators::INDEX, vec![entry, position])
}

/// A comprehension over the entries of a range: its start, condition, step and result.
fn over(helper: &mut Helper<'_>, range: IdedExpr, parts: [IdedExpr; 4]) -> IdedExpr {
    let [accu_init, loop_cond, loop_step, result] = parts;
    let iter_range = call(helper, "@entries", vec![range]);
    helper.next_expr(Expr::Comprehension(Box::new(ComprehensionExpr {
        iter_range,
        iter_var: ENTRY.to_owned(),
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

/// The entries of a map or list, each a list of two.
fn entries<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let [range, meter] = args.as_slice() else {
        return Err(mismatch("@entries", &args));
    };
    let range = range.as_ref();
    let pairs = meter::elements(range).saturating_mul(PAIR);
    meter_in(meter.as_ref())?.pay(meter::copying(range).saturating_add(pairs))?;
    let mut entries: Vec<Box<dyn Val + 'v>> = Vec::new();
    let mut push = |key: Box<dyn Val + 'v>, value: Box<dyn Val + 'v>| {
        entries.push(Box::new(CelList::from(vec![key, value])));
    };
    match (range.get_type().kind(), range.as_indexer()) {
        (Kind::List, _) => {
            for (position, item) in (0..).zip(items(range)) {
                push(Box::new(CelInt::from(position)), item.clone_as_boxed());
            }
        }
        (Kind::Map, Some(members)) => {
            let mut keys: Vec<_> = items(range).collect();
            if range.downcast_ref::<CelMap>().is_some() {
                keys.sort_by_cached_key(|key| rank(*key));
            }
            for key in keys {
                push(key.clone_as_boxed(), members.get(key)?.into_owned());
            }
        }
        _ => return Err(mismatch("@entries", &args)),
    }
    Ok(CowVal::owned(CelList::from(entries)))
}

/// Where a key comes among others: bools, numbers, then text.
fn rank(key: &dyn Val) -> (u8, i128, String) {
    if let Some(bool) = key.downcast_ref::<CelBool>() {
        (0, i128::from(*bool.inner()), String::new())
    } else if let Some(int) = key.downcast_ref::<CelInt>() {
        (1, i128::from(*int.inner()), String::new())
    } else if let Some(uint) = key.downcast_ref::<CelUInt>() {
        (1, i128::from(*uint.inner()), String::new())
    } else {
        let text = key.downcast_ref::<CelString>();
        (
            2,
            0,
            text.map_or_else(String::new, |text| text.inner().to_owned()),
        )
    }
}

/// The map of a list of pairs, or of maps.
fn to_map<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let [list, meter] = args.as_slice() else {
        return Err(mismatch("@toMap", &args));
    };
    meter_in(meter.as_ref())?.pay(meter::copying(list.as_ref()))?;
    let mut map: HashMap<CelMapKey<'v>, Box<dyn Val + 'v>> = HashMap::new();
    for item in items(list.as_ref()) {
        if item.get_type().kind() == Kind::List {
            let mut pair = items(item).map(Val::clone_as_boxed);
            if let (Some(key), Some(value)) = (pair.next(), pair.next()) {
                insert(&mut map, key, value)?;
            }
        } else if let (Kind::Map, Some(members)) = (item.get_type().kind(), item.as_indexer()) {
            for key in items(item) {
                insert(
                    &mut map,
                    key.clone_as_boxed(),
                    members.get(key)?.into_owned(),
                )?;
            }
        } else {
            return Err(wrong("each entry is a map"));
        }
    }
    Ok(CowVal::owned(CelMap::from(map)))
}

fn insert<'v>(
    map: &mut HashMap<CelMapKey<'v>, Box<dyn Val + 'v>>,
    key: Box<dyn Val + 'v>,
    value: Box<dyn Val + 'v>,
) -> Result<(), ExecutionError> {
    let key = CelMapKey::try_from(key).map_err(|_| wrong("that type cannot be a key"))?;
    match map.insert(key, value) {
        None => Ok(()),
        Some(_) => Err(wrong("the same key comes twice")),
    }
}

fn wrong(reason: &str) -> ExecutionError {
    ExecutionError::function_error("transformMapEntry", reason)
}
