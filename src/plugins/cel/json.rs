//! What an expression gives, as JSON to write into a spec.
//!
//! Members of a map that an expression builds come out sorted, so that one spec always gets one
//! patch; members of a map that is the spec's own keep their order.

use ::cel::common::types::{
    CelBool, CelDouble, CelInt, CelMap, CelOptional, CelString, CelUInt, Kind,
};
use ::cel::common::value::Val;
use serde_json::{Map, Number, Value};

/// The JSON of a CEL value. `None` is `optional.none()`.
///
/// # Errors
/// When JSON has nothing for it: durations, timestamps, bytes, types, infinities. The text says
/// which, never the value.
pub(super) fn to_json(val: &dyn Val) -> Result<Option<Value>, String> {
    match val.downcast_ref::<CelOptional>() {
        Some(optional) => optional.option().map(required).transpose(),
        None => required(val).map(Some),
    }
}

fn required(val: &dyn Val) -> Result<Value, String> {
    match val.get_type().kind() {
        Kind::NullType => return Ok(Value::Null),
        Kind::List => return list(val),
        Kind::Map => return map(val),
        _ => {}
    }
    if let Some(b) = val.downcast_ref::<CelBool>() {
        Ok(Value::Bool(*b.inner()))
    } else if let Some(int) = val.downcast_ref::<CelInt>() {
        Ok(Value::from(*int.inner()))
    } else if let Some(uint) = val.downcast_ref::<CelUInt>() {
        Ok(Value::from(*uint.inner()))
    } else if let Some(double) = val.downcast_ref::<CelDouble>() {
        let number = Number::from_f64(*double.inner());
        number
            .map(Value::Number)
            .ok_or_else(|| "JSON has no infinite numbers".to_owned())
    } else if let Some(text) = val.downcast_ref::<CelString>() {
        Ok(Value::from(text.inner()))
    } else if let Some(optional) = val.downcast_ref::<CelOptional>() {
        let inner = optional.option();
        inner.map_or_else(|| Err("JSON has no `optional.none()`".to_owned()), required)
    } else {
        let name = val.get_type().name();
        Err(format!(
            "JSON has no {}: convert it with string()",
            name.trim_start_matches("google.protobuf.")
        ))
    }
}

fn list(val: &dyn Val) -> Result<Value, String> {
    let mut array = Vec::new();
    if let Some(items) = val.as_iterable() {
        let mut items = items.iter();
        while let Some(item) = items.next() {
            array.push(required(item)?);
        }
    }
    Ok(Value::Array(array))
}

fn map(val: &dyn Val) -> Result<Value, String> {
    let mut object = Map::new();
    if let (Some(keys), Some(members)) = (val.as_iterable(), val.as_indexer()) {
        let mut keys = keys.iter();
        while let Some(key) = keys.next() {
            let Some(name) = key.downcast_ref::<CelString>() else {
                return Err(format!(
                    "a JSON object has string keys, not {}",
                    key.get_type().name()
                ));
            };
            let member = members
                .get(key)
                .map_err(|_| format!("no member `{}`", name.inner()))?;
            object.insert(name.inner().to_owned(), required(member.as_ref())?);
        }
    }
    if val.downcast_ref::<CelMap>().is_some() {
        object.sort_keys();
    }
    Ok(Value::Object(object))
}
