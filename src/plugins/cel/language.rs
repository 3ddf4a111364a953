//! The CEL that expressions are written in: the standard library with the string, list and math
//! extensions, [`super::functions`], and the metered operations that [`super::rewrite`] puts in
//! the place of the interpreter's own.
//!
//! The metered operations have names that no typed expression can spell.

// The interpreter hands arguments over by value.
#![allow(clippy::needless_pass_by_value)]

use std::sync::{Arc, LazyLock};

use ::cel::common::functions::Function;
use ::cel::common::types::{CelInt, CelString, DYN_TYPE, Kind};
use ::cel::common::value::{CowVal, Val};
use ::cel::{DeclarationError, Env, ExecutionError, extensions};

use super::equal::metered_same;
pub(super) use super::functions::Pattern;
use super::functions::arguments::{Answer, Args, boolean, meter_in, mismatch, string};
use super::functions::libraries;
use super::meter;

static ENV: LazyLock<Result<Arc<Env>, DeclarationError>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    env.add_extension(extensions::strings)?;
    env.add_extension(extensions::lists)?;
    env.add_extension(extensions::math)?;
    env.add_extension(libraries)?;
    for (name, arguments, function) in METERED {
        let id = format!("{name}/{arguments}");
        env.add_overload(
            name,
            &id,
            (0..*arguments).map(|_| DYN_TYPE).collect(),
            *function,
        )?;
    }
    Ok(Arc::new(env))
});

/// The one environment of all policies: it is the language, and holds no state.
///
/// # Errors
/// When the interpreter refuses a declaration, which a test rules out.
pub(super) fn env() -> Result<&'static Arc<Env>, DeclarationError> {
    ENV.as_ref().map_err(Clone::clone)
}

/// The metered operations: name, number of arguments (the meter is the last one), function.
const METERED: &[(&str, usize, Function)] = &[
    ("@walk", 3, walk),
    ("@copy", 2, copy),
    ("@read", 2, read),
    ("@readWhole", 2, read_whole),
    ("@pairs", 2, pairs),
    ("@count", 2, count),
    ("@add", 3, add),
    ("@eq", 3, equal),
    ("@ne", 3, unequal),
    ("@within", 3, within),
    ("@join", 2, join),
    ("@join", 3, join),
    ("@replace", 4, replace),
    ("@replace", 5, replace),
];

/// Takes the meter, the last argument, off and pays what the others cost. `cost` is told what is
/// left, above which it need not count.
fn charge(
    args: &mut Args<'_, '_>,
    cost: impl Fn(&Args<'_, '_>, u64) -> u64,
) -> Result<(), ExecutionError> {
    let Some(last) = args.pop() else {
        return Err(ExecutionError::invalid_argument_count(1, 0));
    };
    let meter = meter_in(last.as_ref())?;
    meter.pay(cost(args, meter.left()))
}

fn first<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let argument = args.into_iter().next();
    argument.ok_or_else(|| ExecutionError::invalid_argument_count(1, 0))
}

/// The range of a comprehension: pays for all its rounds, each as heavy as the second argument
/// says, and for a copy of each element.
fn walk<'b, 'v>(mut args: Args<'b, 'v>) -> Answer<'b, 'v> {
    charge(&mut args, |args, _| {
        let round = args
            .get(1)
            .and_then(|weight| weight.downcast_ref::<CelInt>());
        let round = round.map_or(0, |weight| u64::try_from(*weight.inner()).unwrap_or(0));
        let range = args
            .first()
            .map_or(0, |range| meter::copying(range.as_ref()));
        let rounds = args
            .first()
            .map_or(0, |range| meter::elements(range.as_ref()));
        range.saturating_add(rounds.saturating_mul(round))
    })?;
    args.truncate(1);
    match args.first().map(|range| range.as_iterable().is_some()) {
        Some(true) => first(args),
        _ => Err(mismatch("@walk", &args)),
    }
}

fn copy<'b, 'v>(mut args: Args<'b, 'v>) -> Answer<'b, 'v> {
    charge(&mut args, |args, _| {
        args.iter().map(|arg| meter::copying(arg.as_ref())).sum()
    })?;
    first(args)
}

/// Read, and perhaps copied.
fn read<'b, 'v>(mut args: Args<'b, 'v>) -> Answer<'b, 'v> {
    charge(&mut args, |args, _| args.iter().map(used).sum())?;
    first(args)
}

fn used(arg: &CowVal<'_, '_>) -> u64 {
    meter::reading(arg.as_ref()).max(meter::copying(arg.as_ref()))
}

fn read_whole<'b, 'v>(mut args: Args<'b, 'v>) -> Answer<'b, 'v> {
    charge(&mut args, |args, left| {
        args.iter()
            .map(|arg| meter::reading_whole(arg.as_ref(), left))
            .sum()
    })?;
    first(args)
}

/// Each element of a list against each other one.
fn pairs<'b, 'v>(mut args: Args<'b, 'v>) -> Answer<'b, 'v> {
    charge(&mut args, |args, left| {
        let list = args.first();
        let elements = list.map_or(0, |list| meter::elements(list.as_ref()));
        let whole = list.map_or(0, |list| meter::reading_whole(list.as_ref(), left));
        elements.saturating_mul(whole)
    })?;
    first(args)
}

/// A number of elements that are about to be made.
fn count<'b, 'v>(mut args: Args<'b, 'v>) -> Answer<'b, 'v> {
    charge(&mut args, |args, _| {
        let number = args
            .first()
            .and_then(|number| number.downcast_ref::<CelInt>());
        number.map_or(0, |number| u64::try_from(*number.inner()).unwrap_or(0))
    })?;
    first(args)
}

fn add<'b, 'v>(mut args: Args<'b, 'v>) -> Answer<'b, 'v> {
    charge(&mut args, |args, _| args.iter().map(used).sum())?;
    match args.as_slice() {
        [a, b] => match a.as_adder() {
            Some(adder) => match adder.add(b.as_ref()) {
                Ok(sum) => Ok(CowVal::Owned(sum.into_owned())),
                Err(overflow @ ExecutionError::Overflow(..)) => Err(overflow),
                Err(_) => Err(mismatch("_+_", &args)),
            },
            None => Err(mismatch("_+_", &args)),
        },
        _ => Err(mismatch("_+_", &args)),
    }
}

fn equal<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    compare(&args).map(boolean)
}

fn unequal<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    compare(&args).map(|same| boolean(!same))
}

fn compare(args: &Args<'_, '_>) -> Result<bool, ExecutionError> {
    match args.as_slice() {
        [a, b, meter] => metered_same(a.as_ref(), b.as_ref(), meter_in(meter.as_ref())?),
        _ => Err(mismatch("_==_", args)),
    }
}

fn within<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let [value, container, meter] = args.as_slice() else {
        return Err(mismatch("@in", &args));
    };
    let list = container.get_type().kind() == Kind::List;
    let searched = if list {
        meter::elements(container.as_ref())
    } else {
        0
    };
    let meter = meter_in(meter.as_ref())?;
    meter.pay(1 + searched)?;

    // Only lists, maps and what holds them are compared otherwise than the container does.
    let scalar = !matches!(
        value.get_type().kind(),
        Kind::List | Kind::Map | Kind::Opaque
    );
    let Some(items) = container.as_iterable().filter(|_| list && !scalar) else {
        let types = || {
            let types = [value, container].map(|arg| arg.get_type().name().to_owned());
            ExecutionError::no_such_overload("@in", types.to_vec())
        };
        let members = container.as_container().ok_or_else(types)?;
        return members.contains(value.as_ref()).map(boolean);
    };
    let mut items = items.iter();
    while let Some(item) = items.next() {
        if metered_same(value.as_ref(), item, meter)? {
            return Ok(boolean(true));
        }
    }
    Ok(boolean(false))
}

/// `list.join()` and `list.join(separator)`: as the strings extension has it, the length of the
/// result paid for before it is made.
fn join<'b, 'v>(mut args: Args<'b, 'v>) -> Answer<'b, 'v> {
    charge(&mut args, |args, left| {
        let list = args.first();
        let separators = list.map_or(0, |list| meter::elements(list.as_ref()));
        let separator = meter::text(string(args, 1).map_or(0, str::len));
        let whole = list.map_or(0, |list| meter::reading_whole(list.as_ref(), left));
        whole.saturating_add(separators.saturating_mul(separator))
    })?;
    let separator = match args.len() {
        1 => Some(""),
        _ => string(&args, 1),
    };
    let list = args.first().filter(|list| list.get_type().name() == "list");
    let (Some(items), Some(separator)) = (list.and_then(|list| list.as_iterable()), separator)
    else {
        return Err(mismatch("join", &args));
    };
    let mut items = items.iter();
    let mut parts = Vec::new();
    while let Some(item) = items.next() {
        match item.downcast_ref::<CelString>() {
            Some(part) => parts.push(part.inner()),
            None => return Err(ExecutionError::function_error("join", no_string(item))),
        }
    }
    let joined = parts.join(separator);
    Ok(CowVal::owned(CelString::from(joined)))
}

fn no_string(item: &dyn Val) -> String {
    format!(
        "the list holds {}, not only strings",
        item.get_type().name()
    )
}

/// `text.replace(old, new)` and `text.replace(old, new, n)`: as the strings extension has it, the
/// length of the result paid for before it is made.
fn replace<'b, 'v>(mut args: Args<'b, 'v>) -> Answer<'b, 'v> {
    charge(&mut args, |args, _| {
        let length = |position| string(args, position).map_or(0, str::len);
        let places = match length(1) {
            0 => length(0) + 1,
            old => length(0) / old,
        };
        meter::text(length(0).saturating_add(places.saturating_mul(length(2))))
    })?;
    let (Some(text), Some(old), Some(new)) = (string(&args, 0), string(&args, 1), string(&args, 2))
    else {
        return Err(mismatch("replace", &args));
    };
    let times = args.get(3).map(|times| times.downcast_ref::<CelInt>());
    let replaced = match times {
        None => text.replace(old, new),
        Some(None) => return Err(mismatch("replace", &args)),
        Some(Some(times)) => match usize::try_from(*times.inner()) {
            Ok(times) => text.replacen(old, new, times),
            Err(_) => text.replace(old, new),
        },
    };
    Ok(CowVal::owned(CelString::from(replaced)))
}
