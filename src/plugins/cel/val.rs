//! CEL values that borrow a JSON tree.
//!
//! A JSON tree is read where it lies: scalars become the interpreter's own values (strings
//! borrowed), arrays and objects become [`JsonList`] and [`JsonMap`]. An integer is a CEL `int`
//! when it fits one and a `uint` only above, so that `spec.n + 1` is what an author expects.
//! Nothing here converts or copies a tree, and nothing here counts steps: the meter does.

use std::sync::OnceLock;

use ::cel::ExecutionError;
use ::cel::common::traits::{Adder, Container, Indexer, Iterable, Iterator, Sizer, Zeroer};
use ::cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelNull, CelString, CelUInt, Kind, LIST_TYPE, MAP_TYPE,
    Type,
};
use ::cel::common::value::{CowVal, Val};
use serde_json::{Map, Number, Value};

use super::equal::same;

/// The CEL value of a JSON value, borrowing it.
pub(super) fn borrow<'b, 'a: 'b>(value: &'a Value) -> CowVal<'b, 'a> {
    match value {
        Value::Null => CowVal::Borrowed(&CelNull),
        Value::Bool(true) => CowVal::Borrowed(&CelBool::TRUE),
        Value::Bool(false) => CowVal::Borrowed(&CelBool::FALSE),
        Value::Number(number) => CowVal::Owned(numeric(number)),
        Value::String(text) => CowVal::owned(CelString::from(text.as_str())),
        Value::Array(items) => CowVal::owned(JsonList::new(items)),
        Value::Object(members) => CowVal::owned(JsonMap::new(members)),
    }
}

fn numeric<'a>(number: &Number) -> Box<dyn Val + 'a> {
    if let Some(int) = number.as_i64() {
        Box::new(CelInt::from(int))
    } else if let Some(uint) = number.as_u64() {
        Box::new(CelUInt::from(uint))
    } else {
        Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN)))
    }
}

/// A JSON array as a CEL list.
#[derive(Debug)]
pub(super) struct JsonList<'a> {
    items: &'a [Value],
    /// The elements as values, made when the list is first walked through.
    walked: OnceLock<Vec<Box<dyn Val + 'a>>>,
}

impl<'a> JsonList<'a> {
    fn new(items: &'a [Value]) -> Self {
        Self {
            items,
            walked: OnceLock::new(),
        }
    }

    fn elements(&self) -> &[Box<dyn Val + 'a>] {
        self.walked
            .get_or_init(|| self.items.iter().map(|v| borrow(v).into_owned()).collect())
    }
}

impl Val for JsonList<'_> {
    fn get_type(&self) -> &Type {
        &LIST_TYPE
    }

    fn cel_type() -> &'static Type {
        &LIST_TYPE
    }

    fn as_adder<'b, 'v>(&'b self) -> Option<&'b (dyn Adder + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn as_zeroer(&self) -> Option<&dyn Zeroer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        same(self, other)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(Self::new(self.items))
    }
}

impl Adder for JsonList<'_> {
    fn add<'b, 'v>(&'b self, rhs: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let types = || vec!["list".to_owned(), rhs.get_type().name().to_owned()];
        let mut rest = rhs
            .as_iterable()
            .filter(|_| rhs.get_type().kind() == Kind::List)
            .ok_or_else(|| ExecutionError::no_such_overload("_+_", types()))?
            .iter();
        let mut sum: Vec<Box<dyn Val + 'v>> = self
            .items
            .iter()
            .map(|v| borrow(v).into_owned() as _)
            .collect();
        while let Some(item) = rest.next() {
            sum.push(item.clone_as_boxed());
        }
        Ok(CowVal::owned(CelList::from(sum)))
    }
}

impl Container for JsonList<'_> {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        let mut items = self.items.iter();
        Ok(match value.downcast_ref::<CelString>() {
            Some(text) => items.any(|item| item.as_str() == Some(text.inner())),
            None => items.any(|item| same(borrow(item).as_ref(), value)),
        })
    }
}

impl Indexer for JsonList<'_> {
    fn get<'b, 'v>(&'b self, idx: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let position = if let Some(int) = idx.downcast_ref::<CelInt>() {
            usize::try_from(*int.inner()).ok()
        } else if let Some(uint) = idx.downcast_ref::<CelUInt>() {
            usize::try_from(*uint.inner()).ok()
        } else if let Some(double) = idx.downcast_ref::<CelDouble>() {
            whole(*double.inner())
        } else {
            return Err(ExecutionError::UnexpectedType {
                got: idx.get_type().name().to_owned(),
                want: "int".to_owned(),
            });
        };
        position
            .and_then(|position| self.items.get(position))
            .map(borrow)
            .ok_or_else(|| ExecutionError::IndexOutOfBounds(index_value(idx)))
    }

    fn steal<'v>(self: Box<Self>, idx: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(idx).map(CowVal::into_owned)
    }
}

/// A double as a position, if it is a whole number: CEL has one number line. A whole number is
/// printed without a point.
fn whole(double: f64) -> Option<usize> {
    double.to_string().parse().ok()
}

fn index_value(idx: &dyn Val) -> ::cel::Value {
    idx.downcast_ref::<CelInt>()
        .map_or(::cel::Value::Null, |int| ::cel::Value::Int(*int.inner()))
}

impl Iterable for JsonList<'_> {
    fn iter<'b, 'v>(&'b self) -> Box<dyn Iterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        Box::new(Elements(self.elements().iter()))
    }
}

struct Elements<'b, 'a>(std::slice::Iter<'b, Box<dyn Val + 'a>>);

impl<'b, 'a: 'v, 'v> Iterator<'b, 'v> for Elements<'b, 'a> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'v)> {
        self.0.next().map(|element| element.as_ref() as _)
    }
}

impl Sizer for JsonList<'_> {
    fn size(&self) -> CelInt {
        count(self.items.len())
    }
}

impl Zeroer for JsonList<'_> {
    fn is_zero_value(&self) -> bool {
        self.items.is_empty()
    }
}

/// A JSON object as a CEL map. Comprehensions see its keys in the order of the JSON text.
#[derive(Debug)]
pub(super) struct JsonMap<'a> {
    members: &'a Map<String, Value>,
    /// The keys as values, made when the map is first walked through.
    walked: OnceLock<Vec<CelString<'a>>>,
}

impl<'a> JsonMap<'a> {
    fn new(members: &'a Map<String, Value>) -> Self {
        Self {
            members,
            walked: OnceLock::new(),
        }
    }
}

impl Val for JsonMap<'_> {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn as_zeroer(&self) -> Option<&dyn Zeroer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        same(self, other)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(Self::new(self.members))
    }
}

impl Container for JsonMap<'_> {
    /// A key of another type than string is in no JSON object.
    fn contains(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
        let key = key.downcast_ref::<CelString>();
        Ok(key.is_some_and(|key| self.members.contains_key(key.inner())))
    }
}

impl Indexer for JsonMap<'_> {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let Some(key) = key.downcast_ref::<CelString>() else {
            return Err(ExecutionError::UnexpectedType {
                got: key.get_type().name().to_owned(),
                want: "string".to_owned(),
            });
        };
        self.members
            .get(key.inner())
            .map(borrow)
            .ok_or_else(|| ExecutionError::no_such_key(key.inner()))
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(key).map(CowVal::into_owned)
    }
}

impl Iterable for JsonMap<'_> {
    fn iter<'b, 'v>(&'b self) -> Box<dyn Iterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        let keys = || {
            self.members
                .keys()
                .map(|key| CelString::from(key.as_str()))
                .collect()
        };
        Box::new(Keys(self.walked.get_or_init(keys).iter()))
    }
}

struct Keys<'b, 'a>(std::slice::Iter<'b, CelString<'a>>);

impl<'b, 'a: 'v, 'v> Iterator<'b, 'v> for Keys<'b, 'a> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'v)> {
        self.0.next().map(|key| key as _)
    }
}

impl Sizer for JsonMap<'_> {
    fn size(&self) -> CelInt {
        count(self.members.len())
    }
}

impl Zeroer for JsonMap<'_> {
    fn is_zero_value(&self) -> bool {
        self.members.is_empty()
    }
}

fn count(len: usize) -> CelInt {
    CelInt::from(i64::try_from(len).unwrap_or(i64::MAX))
}
