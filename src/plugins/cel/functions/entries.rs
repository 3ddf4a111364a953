//! What comprehensions of two variables go over, and the maps that they make.
//!
//! Entries of a map come in the order of the spec, those of one that an expression has built
//! sorted by key, so that one spec always gets one answer.

// The interpreter hands arguments over by value.
#![allow(clippy::needless_pass_by_value)]

use std::collections::HashMap;

use ::cel::common::types::{
    CelBool, CelInt, CelList, CelMap, CelMapKey, CelString, CelUInt, DYN_TYPE, Kind,
};
use ::cel::common::value::{CowVal, Val};
use ::cel::{DeclarationError, Env, ExecutionError};

use super::super::meter::{self, Meter};
use super::arguments::{Answer, Args, items, meter_in, mismatch};

/// Units for making one pair.
const PAIR: u64 = 3;

pub(super) fn library(env: &mut Env) -> Result<(), DeclarationError> {
    let arguments = || vec![DYN_TYPE, Meter::TYPE];
    env.add_overload("@entries", "@entries", arguments(), entries)?;
    env.add_overload("@toMap", "@toMap", arguments(), to_map)
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
