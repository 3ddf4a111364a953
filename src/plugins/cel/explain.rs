//! Why an expression errored, in words for the person whose spec it was.
//!
//! The interpreter's own texts quote values, and a spec holds secrets: what is said here names
//! types, members and paths only.

use ::cel::common::ast::{CallExpr, Expr, LiteralValue};
use ::cel::common::types::Kind;
use ::cel::objects::ValueType;
use ::cel::{ExecutionError, IdedExpr};

use super::program::plain_type;
use super::scope::{Scope, TREES};
use super::tree::each;

/// Why `expr` errored in `scope`.
pub(super) fn explain(error: &ExecutionError, expr: &IdedExpr, scope: &dyn Scope) -> String {
    match error {
        ExecutionError::NoSuchOverload(overload) => {
            let function = typed(overload.function());
            let types = overload.argument_types();
            mismatch(function, types, &nulls(expr, Some(function), scope))
        }
        ExecutionError::UnsupportedBinaryOperator(name, a, b) => {
            let function = arithmetic(name);
            let nulls = nulls(expr, Some(function), scope);
            let types = [a, b].map(|value| value_type(value, &nulls));
            mismatch(function, &types, &nulls)
        }
        ExecutionError::NoSuchKey(key) => no_member(expr, key, scope),
        ExecutionError::UndeclaredReference(name) => undeclared(name, scope),
        ExecutionError::UnexpectedType { got, want } => {
            let (got, want) = (plain_type(got), plain_type(want));
            let reason = format!("{want} was expected, this is {got}");
            match got {
                "null" => with_nulls(&reason, &nulls(expr, None, scope)),
                _ => reason,
            }
        }
        ExecutionError::IndexOutOfBounds(_) => "the list has no element at that index".to_owned(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "a division by zero".to_owned()
        }
        ExecutionError::Overflow(..) => "the number does not fit 64 bits".to_owned(),
        ExecutionError::ValuesNotComparable(..) => "these types cannot be compared".to_owned(),
        ExecutionError::UnsupportedKeyType(_) => "that type cannot be the key of a map".to_owned(),
        ExecutionError::DuplicateKey(_) => "a map has the same key twice".to_owned(),
        ExecutionError::FunctionError { function, message } => function_error(function, message),
        _ => "it cannot be evaluated".to_owned(),
    }
}

fn mismatch(function: &str, types: &[String], nulls: &[String]) -> String {
    // What the rewritten expression adds is none of the author's.
    let own = types.iter().filter(|name| !name.starts_with('@'));
    let types: Vec<&str> = own.map(|name| plain_type(name)).collect();
    let operands = match types.as_slice() {
        [] => "nothing".to_owned(),
        types => types.join(" and "),
    };
    let reason = match function {
        "@walk" | "@entries" => {
            format!("{operands} cannot be gone through: a list or map was expected")
        }
        "_._" => format!("{} has no members", types.first().unwrap_or(&"the value")),
        _ => format!("`{}` cannot be applied to {operands}", spoken(function)),
    };
    if types.contains(&"null") {
        return with_nulls(&reason, nulls);
    }
    if types.contains(&"int") && types.contains(&"double") {
        return format!("{reason}: convert one with double() or int()");
    }
    let ordered = ["kubernetes.Quantity", "kubernetes.Semver"];
    if ["_<_", "_<=_", "_>_", "_>=_"].contains(&function)
        && types.iter().any(|name| ordered.contains(name))
    {
        return format!("{reason}: compare with isLessThan(), isGreaterThan() or compareTo()");
    }
    reason
}

/// What dstack does with unset values, and what to do about it.
fn with_nulls(reason: &str, nulls: &[String]) -> String {
    let unset = "dstack sends null for what is not set, so test";
    match nulls {
        [] => format!("{reason}: {unset} for `!= null` first"),
        [path, ..] => format!("{reason}: {path} is null. {unset} `{path} != null` first"),
    }
}

/// The paths that are null among the operands of `function`, or among all operands.
fn nulls(expr: &IdedExpr, function: Option<&str>, scope: &dyn Scope) -> Vec<String> {
    let mut found = Vec::new();
    each(expr, &mut |node| {
        let operands: Vec<&IdedExpr> = match &node.expr {
            Expr::Select(select) if function.is_none_or(|function| function == "_._") => {
                vec![&select.operand]
            }
            Expr::Call(call) if function.is_none_or(|function| stands_for(call, function)) => call
                .target
                .as_deref()
                .into_iter()
                .chain(&call.args)
                .collect(),
            _ => Vec::new(),
        };
        let paths = operands.into_iter().filter_map(unwrapped);
        found.extend(paths.filter(|path| is_null(path, scope)));
    });
    found
}

/// Whether a call in a rewritten expression stands for the function that an error names, with its
/// namespace if it has one.
fn stands_for(call: &CallExpr, function: &str) -> bool {
    let called = typed(&call.func_name);
    let qualifies = |namespace: &str| namespace.ends_with('.');
    called == function || function.strip_suffix(called).is_some_and(qualifies)
}

/// The function as it is typed that an operation of a rewritten expression stands for.
fn typed(function: &str) -> &str {
    match function {
        "@add" => "_+_",
        "@within" => "@in",
        "@join" => "join",
        "@replace" => "replace",
        "@regex" | "@matches" => "matches",
        other => other,
    }
}

/// The path that an operand spells, payments taken off.
fn unwrapped(operand: &IdedExpr) -> Option<String> {
    match &operand.expr {
        Expr::Ident(name) if !name.starts_with('@') => Some(name.clone()),
        Expr::Select(select) => unwrapped(&select.operand),
        Expr::Call(call)
            if matches!(
                call.func_name.as_str(),
                "@read" | "@copy" | "@readWhole" | "@pairs"
            ) =>
        {
            unwrapped(call.args.first()?)
        }
        Expr::Call(call) if call.func_name == "_[_]" => match &call.args.get(1)?.expr {
            Expr::Literal(LiteralValue::Int(_) | LiteralValue::String(_)) => {
                unwrapped(call.args.first()?)
            }
            _ => None,
        },
        _ => None,
    }
}

fn is_null(path: &str, scope: &dyn Scope) -> bool {
    let value = scope.resolve(path);
    value.is_some_and(|value| value.get_type().kind() == Kind::NullType)
}

/// A member that is missing, named only if the expression names it: it may be computed.
fn no_member(expr: &IdedExpr, key: &str, scope: &dyn Scope) -> String {
    let mut named = false;
    let mut place = String::new();
    each(expr, &mut |node| match &node.expr {
        Expr::Literal(LiteralValue::String(text)) if text.inner() == key => named = true,
        Expr::Select(select) if select.field == key => {
            named = true;
            if let Expr::Ident(path) = &select.operand.expr
                && scope.resolve(path).is_some()
            {
                place = format!(" in {path}");
            }
        }
        _ => {}
    });
    if named {
        format!("there is no member `{key}`{place}: test for it with has() or `in` first")
    } else {
        "there is no such member: test for it with `in` first".to_owned()
    }
}

/// A name without a value: a variable that failed, or a path that ends early.
fn undeclared(name: &str, scope: &dyn Scope) -> String {
    if let Some(reason) = scope.failure(name) {
        return format!("{name} cannot be evaluated: {reason}");
    }
    let root = name.split('.').next().unwrap_or_default();
    if !TREES.contains(&root) {
        return format!("`{name}` has no value here");
    }
    let mut known = root.to_owned();
    for key in name.split('.').skip(1) {
        let longer = format!("{known}.{key}");
        if scope.resolve(&longer).is_some() {
            known = longer;
        } else if is_null(&known, scope) {
            return with_nulls("null has no members", &[known]);
        } else {
            return format!("{known} has no member `{key}`: test has({longer}) first");
        }
    }
    format!("`{name}` has no value here")
}

/// What a function says of its arguments, unless it may quote them.
fn function_error(function: &str, message: &str) -> String {
    let name = spoken(function);
    match name {
        "asInteger" | "charAt" | "cidr" | "find" | "findAll" | "flatten" | "format"
        | "gigabytes" | "globMatches" | "imageReference" | "indexOf" | "ip" | "isSorted"
        | "join" | "lastIndexOf" | "lists.range" | "matches" | "math.greatest" | "math.least"
        | "max" | "min" | "quantity" | "seconds" | "semver" | "slice" | "sort" | "sortBy"
        | "substring" | "sum" | "transformMapEntry" | "url" | "value" => {
            format!("{name}(): {message}")
        }
        "bool" | "double" | "duration" | "int" | "string" | "timestamp" | "uint" => {
            format!("{name}() cannot convert that value")
        }
        _ => format!("{name}() cannot be applied to that value"),
    }
}

/// The type of an operand as the interpreter reports it: null also stands for a list or map that
/// is not its own.
fn value_type(value: &::cel::Value, nulls: &[String]) -> String {
    match value.type_of() {
        ValueType::Null if nulls.is_empty() => "another type".to_owned(),
        ValueType::Null => "null".to_owned(),
        ValueType::Float => "double".to_owned(),
        other => other.to_string(),
    }
}

fn arithmetic(name: &str) -> &str {
    match name {
        "add" => "_+_",
        "sub" => "_-_",
        "mul" => "_*_",
        "div" => "_/_",
        "rem" => "_%_",
        other => other,
    }
}

fn spoken(function: &str) -> &str {
    match function {
        "@in" => "in",
        "_[_]" => "[ ]",
        "_?_:_" => "? :",
        "@sortByAssociatedKeys" => "sortBy",
        "math.@max" => "math.greatest",
        "math.@min" => "math.least",
        other => other.trim_matches('_'),
    }
}
