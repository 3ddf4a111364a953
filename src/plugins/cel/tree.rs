//! Questions to the syntax tree of an expression.

use ::cel::IdedExpr;
use ::cel::common::ast::{EntryExpr, Expr, LiteralValue};

use super::meter;

/// The name that selections on an identifier spell: `a.b.c`.
pub(super) fn qualified(expr: &IdedExpr) -> Option<String> {
    match &expr.expr {
        Expr::Ident(name) => Some(name.trim_start_matches('.').to_owned()),
        Expr::Select(select) if !select.test => {
            Some(format!("{}.{}", qualified(&select.operand)?, select.field))
        }
        _ => None,
    }
}

/// Calls `visit` for a node and for each one below it.
pub(super) fn each(expr: &IdedExpr, visit: &mut dyn FnMut(&IdedExpr)) {
    visit(expr);
    match &expr.expr {
        Expr::Select(select) => each(&select.operand, visit),
        Expr::Call(call) => {
            let operands = call.target.as_deref().into_iter().chain(&call.args);
            operands.for_each(|operand| each(operand, visit));
        }
        Expr::List(list) => list
            .elements
            .iter()
            .for_each(|element| each(element, visit)),
        Expr::Map(map) => {
            for entry in &map.entries {
                if let EntryExpr::MapEntry(entry) = &entry.expr {
                    each(&entry.key, visit);
                    each(&entry.value, visit);
                }
            }
        }
        Expr::Comprehension(inner) => {
            for part in [
                &inner.iter_range,
                &inner.accu_init,
                &inner.loop_cond,
                &inner.loop_step,
                &inner.result,
            ] {
                each(part, visit);
            }
        }
        Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => {}
    }
}

/// The nodes that one evaluation visits. A comprehension within pays for its own rounds.
pub(super) fn nodes(expr: &IdedExpr) -> i64 {
    1 + match &expr.expr {
        Expr::Select(select) => nodes(&select.operand),
        Expr::Call(call) => {
            let target = call.target.as_deref().map_or(0, nodes);
            target + call.args.iter().map(nodes).sum::<i64>()
        }
        Expr::List(list) => list.elements.iter().map(nodes).sum(),
        Expr::Map(map) => map
            .entries
            .iter()
            .map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => nodes(&entry.key) + nodes(&entry.value),
                EntryExpr::StructField(field) => nodes(&field.value),
            })
            .sum(),
        Expr::Comprehension(inner) => {
            nodes(&inner.iter_range) + nodes(&inner.accu_init) + nodes(&inner.result)
        }
        Expr::Literal(LiteralValue::String(text)) => {
            i64::try_from(meter::text(text.len())).unwrap_or(0)
        }
        _ => 0,
    }
}
