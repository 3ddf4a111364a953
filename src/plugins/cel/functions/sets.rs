//! Lists as sets: `sets.contains`, `sets.equivalent` and `sets.intersects`, as Kubernetes has
//! them. Elements are the same where `==` says so; each comparison is paid for.

// The interpreter hands arguments over by value.
#![allow(clippy::needless_pass_by_value)]

use ::cel::common::types::LIST_TYPE;
use ::cel::common::value::Val;
use ::cel::{DeclarationError, Env, ExecutionError};

use super::super::equal::metered_same;
use super::super::meter::{self, Meter};
use super::arguments::{Answer, Args, boolean, items, meter_in, mismatch};

pub(super) fn library(env: &mut Env) -> Result<(), DeclarationError> {
    let functions: [(_, ::cel::common::functions::Function); 3] = [
        ("sets.contains", contains),
        ("sets.equivalent", equivalent),
        ("sets.intersects", intersects),
    ];
    for (name, function) in functions {
        let arguments = vec![LIST_TYPE, LIST_TYPE, Meter::TYPE];
        env.add_overload(name, name, arguments, function)?;
    }
    Ok(())
}

fn contains<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let [list, part, meter] = args.as_slice() else {
        return Err(mismatch("sets.contains", &args));
    };
    let meter = paid(meter.as_ref(), [list.as_ref(), part.as_ref()])?;
    all_within(part.as_ref(), list.as_ref(), meter).map(boolean)
}

fn equivalent<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let [a, b, meter] = args.as_slice() else {
        return Err(mismatch("sets.equivalent", &args));
    };
    let meter = paid(meter.as_ref(), [a.as_ref(), b.as_ref()])?;
    let there = all_within(a.as_ref(), b.as_ref(), meter)?;
    Ok(boolean(there && all_within(b.as_ref(), a.as_ref(), meter)?))
}

fn intersects<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let [a, b, meter] = args.as_slice() else {
        return Err(mismatch("sets.intersects", &args));
    };
    let meter = paid(meter.as_ref(), [a.as_ref(), b.as_ref()])?;
    for item in items(a.as_ref()) {
        if within(item, b.as_ref(), meter)? {
            return Ok(boolean(true));
        }
    }
    Ok(boolean(false))
}

/// The meter, looking at each element once paid for.
fn paid<'b>(meter: &'b dyn Val, lists: [&dyn Val; 2]) -> Result<&'b Meter, ExecutionError> {
    let meter = meter_in(meter)?;
    meter.pay(lists.into_iter().map(meter::elements).sum())?;
    Ok(meter)
}

fn all_within(part: &dyn Val, list: &dyn Val, meter: &Meter) -> Result<bool, ExecutionError> {
    for item in items(part) {
        if !within(item, list, meter)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn within(wanted: &dyn Val, list: &dyn Val, meter: &Meter) -> Result<bool, ExecutionError> {
    for item in items(list) {
        if metered_same(item, wanted, meter)? {
            return Ok(true);
        }
    }
    Ok(false)
}
