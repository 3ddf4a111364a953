//! Variables that are the same in every evaluation, since they look at parameters alone: evaluated
//! once, when the policy is compiled.

use std::sync::Arc;
use std::time::SystemTime;

use ::cel::common::ast::{Expr, LiteralValue};
use ::cel::{Env, IdedExpr};
use serde_json::{Map, Value};

use super::functions::Pattern;
use super::json::to_json;
use super::meter::{Meter, reading_whole};
use super::scope::{GLOBALS, Globals, METER, PATTERN, Variable, with_variables};
use super::tree::each;
use crate::admission::review::{Kind, Review, Spec};
use crate::admission::revision::Revision;

/// What a constant may cost, in units. More is left to the evaluations, which have their own budget.
const LARGEST: u64 = 2_000;

/// Evaluates the variables that can be, in order. One that errors is left as it is: it may never
/// be asked for.
pub(super) fn fold(
    variables: &mut [Variable],
    params: &Value,
    patterns: &[Pattern],
    env: &Arc<Env>,
) {
    let Some(nothing) = nothing() else { return };
    let value = nothing.spec.value();
    let spec = Revision::new(nothing.kind, Arc::clone(value), Arc::clone(value));
    for position in 0..variables.len() {
        let (before, rest) = variables.split_at_mut(position);
        let Some(variable) = rest.first_mut() else {
            return;
        };
        if !is_constant(&variable.program.expr, before) {
            continue;
        }
        let meter = Meter::new(LARGEST);
        let globals = Globals {
            review: &nothing,
            spec: &spec,
            params: Some(params),
            patterns,
            meter: &meter,
        };
        let value = with_variables(&globals, before, env, &mut |scope| {
            variable.program.evaluate(env, scope, |value| {
                // What is small to compute may be large to write down: a list of itself twice.
                let units = reading_whole(value.as_ref(), meter.left());
                meter.pay(units).map_err(|_| "it is too large".to_owned())?;
                to_json(value.as_ref())
            })
        });
        if let Ok(Ok(Some(value))) = value {
            variable.constant = Some(value);
        }
    }
}

/// Whether an expression names nothing but parameters, constants and what it binds itself. JSON
/// has no unsigned integers, so that one that makes such is none.
fn is_constant(expr: &IdedExpr, before: &[Variable]) -> bool {
    let mut bound: Vec<String> = Vec::new();
    each(expr, &mut |node| {
        if let Expr::Comprehension(inner) = &node.expr {
            bound.push(inner.iter_var.clone());
            bound.extend(inner.iter_var2.clone());
            bound.push(inner.accu_var.clone());
        }
    });
    let mut constant = bound.iter().all(|name| !GLOBALS.contains(&name.as_str()));
    each(expr, &mut |node| match &node.expr {
        Expr::Ident(name) => {
            let variable = before.iter().find(|variable| variable.key == *name);
            constant &= name == METER
                || name.starts_with(PATTERN)
                || bound.contains(name)
                || name.split('.').next() == Some("params")
                || variable.is_some_and(|variable| variable.constant.is_some());
        }
        Expr::Call(call) => constant &= call.func_name != "uint",
        Expr::Literal(LiteralValue::UInt(_)) => constant = false,
        _ => {}
    });
    constant
}

/// A review of nothing, which no constant looks at.
fn nothing() -> Option<Review> {
    let spec = Value::Object(Map::new());
    Some(Review {
        id: String::new(),
        kind: Kind::Run,
        user: String::new(),
        project: String::new(),
        received: SystemTime::UNIX_EPOCH,
        headers: Vec::new(),
        trace: None,
        spec: Spec::parsed(spec.to_string().into(), spec).ok()?,
    })
}
