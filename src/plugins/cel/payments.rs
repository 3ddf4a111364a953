//! Which functions pay for what they read, and how an expression says so.
//!
//! A payment is an operation around an argument that takes the meter and gives the argument
//! back. Functions of ours that may cost more than one reading take the meter themselves.

use ::cel::IdedExpr;
use ::cel::common::ast::{CallExpr, Expr, operators};

use super::scope::METER;

/// Functions whose cost does not depend on data.
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

/// Lets a call that stays as it is pay for what it reads. `namespace` is what its target is when
/// that is no value, `repeated` whether it is in a comprehension.
pub(super) fn pay_for_arguments(call: &mut CallExpr, namespace: Option<&str>, repeated: bool) {
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
        if repeated && !is_literal(a) && !is_literal(b) {
            call.args
                .iter_mut()
                .for_each(|argument| wrap(argument, "@read"));
        }
        return;
    }
    if [operators::OPT_INDEX, operators::OPT_SELECT].contains(&function) && repeated {
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
        "range" if namespace == Some("lists") => "@count",
        "distinct" => "@pairs",
        "of" | "ofNonZeroValue" => "@copy",
        "format" => "@readWhole",
        _ if repeated || sorting || GROWING.contains(&function) => "@read",
        _ => return,
    };
    if let Some(target) = call.target.as_deref_mut().filter(|_| namespace.is_none()) {
        wrap(target, payment);
    }
    for argument in &mut call.args {
        match payment {
            "@count" => wrap_always(argument, payment),
            _ => wrap(argument, payment),
        }
    }
}

/// Puts a payment around an argument, unless that is written out.
pub(super) fn wrap(expr: &mut IdedExpr, payment: &str) {
    if !is_literal(expr) {
        wrap_always(expr, payment);
    }
}

fn wrap_always(expr: &mut IdedExpr, payment: &str) {
    let inner = std::mem::take(expr);
    *expr = node(call(payment, vec![inner, meter()]));
}

pub(super) fn is_literal(expr: &IdedExpr) -> bool {
    matches!(expr.expr, Expr::Literal(_))
}

pub(super) fn node(call: CallExpr) -> IdedExpr {
    IdedExpr {
        id: 0,
        expr: Expr::Call(call),
    }
}

pub(super) fn call(function: &str, args: Vec<IdedExpr>) -> CallExpr {
    CallExpr {
        func_name: function.to_owned(),
        target: None,
        args,
    }
}

/// The meter as an argument.
pub(super) fn meter() -> IdedExpr {
    IdedExpr {
        id: 0,
        expr: Expr::Ident(METER.to_owned()),
    }
}
