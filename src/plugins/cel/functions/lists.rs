//! Lists, as Kubernetes has them: `isSorted`, `sum`, `min`, `max`, `indexOf` and `lastIndexOf`.

// The interpreter hands arguments over by value.
#![allow(clippy::needless_pass_by_value)]

use std::cmp::Ordering;

use ::cel::common::types::{CelInt, DYN_TYPE, Kind, LIST_TYPE};
use ::cel::common::value::{CowVal, Val};
use ::cel::{DeclarationError, Env, ExecutionError};

use super::super::equal::metered_same;
use super::super::meter::{self, Meter};
use super::arguments::{Answer, Args, boolean, items, meter_in, mismatch};

pub(super) fn library(env: &mut Env) -> Result<(), DeclarationError> {
    let whole: [(_, ::cel::common::functions::Function); 4] = [
        ("isSorted", is_sorted),
        ("sum", sum),
        ("min", min),
        ("max", max),
    ];
    for (name, function) in whole {
        let id = format!("list.{name}()");
        env.add_member_overload(name, &id, LIST_TYPE, vec![Meter::TYPE], function)?;
    }
    let searches: [(_, ::cel::common::functions::Function); 2] =
        [("indexOf", index_of), ("lastIndexOf", last_index_of)];
    for (name, function) in searches {
        let id = format!("list.{name}(dyn)");
        let arguments = vec![DYN_TYPE, Meter::TYPE];
        env.add_member_overload(name, &id, LIST_TYPE, arguments, function)?;
    }
    Ok(())
}

/// The list and the meter, what is in the list paid for.
fn paid<'b, 'v>(
    function: &str,
    args: &'b Args<'_, 'v>,
) -> Result<&'b (dyn Val + 'v), ExecutionError> {
    let [list, meter] = args.as_slice() else {
        return Err(mismatch(function, args));
    };
    let meter = meter_in(meter.as_ref())?;
    meter.pay(meter::reading_whole(list.as_ref(), meter.left()))?;
    Ok(list.as_ref())
}

fn is_sorted<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let mut items = items(paid("isSorted", &args)?);
    let Some(mut last) = items.next() else {
        return Ok(boolean(true));
    };
    for item in items {
        if compare("isSorted", last, item)? == Ordering::Greater {
            return Ok(boolean(false));
        }
        last = item;
    }
    Ok(boolean(true))
}

fn compare(function: &str, a: &dyn Val, b: &dyn Val) -> Result<Ordering, ExecutionError> {
    let order = a.as_comparer().and_then(|a| a.compare(b).ok());
    order.ok_or_else(|| {
        ExecutionError::function_error(function, "the elements cannot be compared with each other")
    })
}

/// The sum of numbers or durations; of nothing, 0.
fn sum<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let wrong = |reason| ExecutionError::function_error("sum", reason);
    let mut sum: Option<Box<dyn Val + 'v>> = None;
    for item in items(paid("sum", &args)?) {
        let kind = item.get_type().kind();
        if !matches!(kind, Kind::Int | Kind::UInt | Kind::Double | Kind::Duration) {
            return Err(wrong("only numbers and durations have a sum"));
        }
        sum = Some(match sum.as_ref().and_then(|sum| sum.as_adder()) {
            None => item.clone_as_boxed(),
            Some(adder) => match adder.add(item) {
                Ok(sum) => sum.into_owned(),
                Err(overflow @ ExecutionError::Overflow(..)) => return Err(overflow),
                Err(_) => {
                    return Err(wrong(
                        "the elements are of several types: convert them with double() or int()",
                    ));
                }
            },
        });
    }
    Ok(CowVal::Owned(
        sum.unwrap_or_else(|| Box::new(CelInt::from(0))),
    ))
}

fn min<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    extreme("min", &args, Ordering::Less)
}

fn max<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    extreme("max", &args, Ordering::Greater)
}

fn extreme<'b, 'v>(function: &str, args: &Args<'_, 'v>, wanted: Ordering) -> Answer<'b, 'v> {
    let mut items = items(paid(function, args)?);
    let Some(mut best) = items.next() else {
        return Err(ExecutionError::function_error(
            function,
            "the list must not be empty",
        ));
    };
    for item in items {
        if compare(function, item, best)? == wanted {
            best = item;
        }
    }
    Ok(CowVal::Owned(best.clone_as_boxed()))
}

fn index_of<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let [list, wanted, meter] = args.as_slice() else {
        return Err(mismatch("indexOf", &args));
    };
    let meter = meter_in(meter.as_ref())?;
    meter.pay(meter::elements(list.as_ref()))?;
    for (position, item) in (0..).zip(items(list.as_ref())) {
        if metered_same(item, wanted.as_ref(), meter)? {
            return Ok(CowVal::owned(CelInt::from(position)));
        }
    }
    Ok(CowVal::owned(CelInt::from(-1)))
}

fn last_index_of<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let [list, wanted, meter] = args.as_slice() else {
        return Err(mismatch("lastIndexOf", &args));
    };
    let meter = meter_in(meter.as_ref())?;
    meter.pay(meter::elements(list.as_ref()))?;
    let mut found = -1;
    for (position, item) in (0..).zip(items(list.as_ref())) {
        if metered_same(item, wanted.as_ref(), meter)? {
            found = position;
        }
    }
    Ok(CowVal::owned(CelInt::from(found)))
}
