//! The values of the fast way: small, borrowed from the spec where they can be, and cheap to copy.
//!
//! There is none for what policies hardly ever hold: unsigned integers beyond `int`, bytes,
//! durations. Whoever meets one gives up, and the interpreter evaluates the expression.

use std::cmp::Ordering;
use std::ops::Deref;
use std::sync::Arc;

use serde_json::{Map, Number, Value};

use super::super::meter;
use crate::admission::effective::Tree;

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Datum<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Text<'a>),
    /// An array or an object where it lies.
    Tree(&'a Value),
    /// A list, record or map of `effective`.
    Effective(&'a Tree),
    List(Arc<[Datum<'a>]>),
    /// A map that an expression has built, sorted by key.
    Map(Arc<[(Text<'a>, Datum<'a>)]>),
}

/// Text of the spec or of the policy, or one that was made.
#[derive(Clone, Debug)]
pub(super) enum Text<'a> {
    Borrowed(&'a str),
    Made(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Made(text) => text,
        }
    }
}

impl<'a> Datum<'a> {
    /// The value of a JSON value. An array or object is not looked into.
    pub(super) fn of(value: &'a Value) -> Option<Self> {
        Some(match value {
            Value::Null => Self::Null,
            Value::Bool(bool) => Self::Bool(*bool),
            Value::Number(number) => match number.as_i64() {
                Some(int) => Self::Int(int),
                None if number.is_f64() => Self::Double(number.as_f64()?),
                None => return None,
            },
            Value::String(text) => Self::text(text),
            Value::Array(_) | Value::Object(_) => Self::Tree(value),
        })
    }

    /// The value of a part of `effective`. A list or map is not looked into.
    pub(super) fn of_effective(tree: &'a Tree) -> Option<Self> {
        Some(match tree {
            Tree::Null => Self::Null,
            Tree::Bool(bool) => Self::Bool(*bool),
            Tree::Int(int) => Self::Int(*int),
            Tree::Double(double) => Self::Double(*double),
            Tree::Text(text) => Self::text(text),
            Tree::List(_) | Tree::Record(_) | Tree::Map(_) => Self::Effective(tree),
            Tree::Large(_) => return None,
        })
    }

    pub(super) fn text(text: &'a str) -> Self {
        Self::Text(Text::Borrowed(text))
    }

    pub(super) fn made(text: String) -> Self {
        Self::Text(Text::Made(text.into()))
    }

    /// A map of entries in any order; `None` if a key comes twice.
    pub(super) fn map(mut entries: Vec<(Text<'a>, Self)>) -> Option<Self> {
        entries.sort_by(|(a, _), (b, _)| (**a).cmp(b));
        let twice = entries
            .windows(2)
            .any(|pair| matches!(pair, [(a, _), (b, _)] if **a == **b));
        (!twice).then(|| Self::Map(entries.into()))
    }

    pub(super) fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(bool) => Some(*bool),
            _ => None,
        }
    }

    /// How CEL calls the type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::Tree(Value::Array(_)) | Self::Effective(Tree::List(_)) | Self::List(_) => "list",
            Self::Tree(_) | Self::Effective(_) | Self::Map(_) => "map",
        }
    }

    /// The characters of a text, the elements of a list or map.
    pub(super) fn size(&self) -> Option<usize> {
        match self {
            Self::Text(text) => Some(text.chars().count()),
            _ => self.elements(),
        }
    }

    /// How many elements a list or map has.
    pub(super) fn elements(&self) -> Option<usize> {
        match self {
            Self::Tree(Value::Array(items)) => Some(items.len()),
            Self::Tree(Value::Object(members)) => Some(members.len()),
            Self::Effective(Tree::List(items)) => Some(items.len()),
            Self::Effective(Tree::Record(members)) => Some(members.len()),
            Self::Effective(Tree::Map(members)) => Some(members.len()),
            Self::List(items) => Some(items.len()),
            Self::Map(entries) => Some(entries.len()),
            _ => None,
        }
    }

    /// The member of a map: `Some(None)` where it has none.
    pub(super) fn member(&self, key: &str) -> Option<Option<Self>> {
        match self {
            Self::Tree(Value::Object(members)) => match members.get(key) {
                Some(value) => Self::of(value).map(Some),
                None => Some(None),
            },
            Self::Effective(tree @ (Tree::Record(_) | Tree::Map(_))) => match tree.member(key) {
                Some(value) => Self::of_effective(value).map(Some),
                None => Some(None),
            },
            Self::Map(entries) => {
                let found = entries.iter().find(|(known, _)| **known == *key);
                Some(found.map(|(_, value)| value.clone()))
            }
            _ => None,
        }
    }

    /// The element at a position of a list: `Some(None)` behind its end.
    pub(super) fn element(&self, position: i64) -> Option<Option<Self>> {
        let position = usize::try_from(position).ok();
        match self {
            Self::Tree(Value::Array(items)) => match position.and_then(|at| items.get(at)) {
                Some(value) => Self::of(value).map(Some),
                None => Some(None),
            },
            Self::Effective(Tree::List(items)) => match position.and_then(|at| items.get(at)) {
                Some(value) => Self::of_effective(value).map(Some),
                None => Some(None),
            },
            Self::List(items) => Some(position.and_then(|at| items.get(at)).cloned()),
            _ => None,
        }
    }

    /// What a comprehension goes over: elements, or keys. Each is `None` where there is no value
    /// for it.
    pub(super) fn items(&self) -> Option<Items<'_, 'a>> {
        Some(match self {
            Self::Tree(Value::Array(items)) => Items::Values(items.iter()),
            Self::Tree(Value::Object(members)) => Items::Keys(members.keys()),
            Self::Effective(Tree::List(items)) => Items::Effective(items.iter()),
            Self::Effective(Tree::Map(members)) => Items::EffectiveKeys(members.iter()),
            Self::List(items) => Items::Data(items.iter()),
            // Keys of one that was built have no order that an expression may count on.
            _ => return None,
        })
    }

    /// Keys and values, or positions and elements.
    pub(super) fn entries(&self) -> Option<Vec<(Self, Self)>> {
        match self {
            Self::Tree(Value::Object(members)) => members
                .iter()
                .map(|(key, value)| Some((Self::text(key), Self::of(value)?)))
                .collect(),
            Self::Effective(Tree::Map(members)) => members
                .iter()
                .map(|(key, value)| Some((Self::text(key), Self::of_effective(value)?)))
                .collect(),
            Self::Map(entries) => Some(
                entries
                    .iter()
                    .map(|(key, value)| (Self::Text(key.clone()), value.clone()))
                    .collect(),
            ),
            _ => (0..)
                .map(Self::Int)
                .zip(self.items()?)
                .map(|(position, item)| Some((position, item?)))
                .collect(),
        }
    }

    /// Whether two values are equal, where that is told without going into both.
    pub(super) fn equals(&self, other: &Self) -> Option<bool> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a == b),
            (Self::Int(a), Self::Int(b)) => Some(a == b),
            (Self::Double(a), Self::Double(b)) => Some(a == b),
            (Self::Text(a), Self::Text(b)) => Some(**a == **b),
            (Self::Int(_), Self::Double(_)) | (Self::Double(_), Self::Int(_)) => None,
            _ => match (self.elements(), other.elements()) {
                (Some(a), Some(b)) if self.type_name() == other.type_name() => match (a, b) {
                    (0, 0) => Some(true),
                    _ if a != b => Some(false),
                    _ => None,
                },
                _ => Some(self.type_name() == other.type_name()),
            },
        }
    }

    /// How two values of one type compare.
    pub(super) fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(b),
            _ => None,
        }
    }

    /// Whether a list has this element, or a map this key.
    pub(super) fn is_in(&self, container: &Self) -> Option<bool> {
        if container.type_name() == "map" {
            return match self {
                Self::Text(key) => Some(container.member(key)?.is_some()),
                _ => None,
            };
        }
        let mut items = container.items()?;
        items.try_fold(false, |found, item| Some(found || self.equals(&item?)?))
    }

    /// Units for a copy as the interpreter makes one, of everything that an expression has built.
    pub(super) fn copying(&self) -> u64 {
        match self {
            Self::Text(Text::Made(text)) => meter::text(text.len()),
            Self::List(items) => 1 + items.iter().map(Self::copying).sum::<u64>(),
            Self::Map(entries) => {
                let entries = entries.iter();
                1 + entries.map(|(_, value)| 1 + value.copying()).sum::<u64>()
            }
            _ => 1,
        }
    }

    /// Units for reading a text, or going through elements without going into them.
    pub(super) fn reading(&self) -> u64 {
        match self {
            Self::Text(text) => meter::text(text.len()),
            _ => 1 + self.elements().unwrap_or(0) as u64,
        }
    }

    /// Units for reading all that is in a value. Counting ends above `most`.
    pub(super) fn reading_whole(&self, most: u64) -> u64 {
        let whole = |parts: &mut dyn Iterator<Item = &Self>| {
            let mut units = 1;
            while units <= most
                && let Some(part) = parts.next()
            {
                units += 1 + part.reading_whole(most - units);
            }
            units
        };
        match self {
            Self::Tree(tree) => meter::reading_json(tree),
            Self::Effective(tree) => tree.nodes(),
            Self::List(items) => whole(&mut items.iter()),
            Self::Map(entries) => whole(&mut entries.iter().map(|(_, value)| value)),
            _ => self.reading(),
        }
    }

    /// The value as JSON, as the interpreter's would be written.
    pub(super) fn to_json(&self) -> Option<Value> {
        Some(match self {
            Self::Null => Value::Null,
            Self::Bool(bool) => Value::Bool(*bool),
            Self::Int(int) => Value::from(*int),
            Self::Double(double) => Value::Number(Number::from_f64(*double)?),
            Self::Text(text) => Value::from(&**text),
            Self::Tree(tree) => (*tree).clone(),
            Self::Effective(tree) => serde_json::to_value(tree).ok()?,
            Self::List(items) => items.iter().map(Self::to_json).collect::<Option<_>>()?,
            Self::Map(entries) => {
                let members = entries
                    .iter()
                    .map(|(key, value)| Some((key.to_string(), value.to_json()?)));
                Value::Object(members.collect::<Option<Map<_, _>>>()?)
            }
        })
    }
}

/// The elements of a list or the keys of a map, in order.
pub(super) enum Items<'i, 'a> {
    Values(std::slice::Iter<'a, Value>),
    Keys(serde_json::map::Keys<'a>),
    Effective(std::slice::Iter<'a, Tree>),
    EffectiveKeys(std::slice::Iter<'a, (Box<str>, Tree)>),
    Data(std::slice::Iter<'i, Datum<'a>>),
}

impl<'a> Iterator for Items<'_, 'a> {
    type Item = Option<Datum<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Values(values) => values.next().map(Datum::of),
            Self::Keys(keys) => keys.next().map(|key| Some(Datum::text(key))),
            Self::Effective(values) => values.next().map(Datum::of_effective),
            Self::EffectiveKeys(members) => members.next().map(|(key, _)| Some(Datum::text(key))),
            Self::Data(data) => data.next().cloned().map(Some),
        }
    }
}
