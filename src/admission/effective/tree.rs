//! `effective` as a tree that is cheap to make and to look into: the names of members are not
//! copied, and nothing is hashed.

use serde::ser::{
    Error, Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct, Serializer,
};

/// A value of `effective`.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Box<str>),
    List(Vec<Tree>),
    /// The members of a type of ours, in its order.
    Record(Vec<(&'static str, Tree)>),
    /// The members of a map of the spec, in its order.
    Map(Vec<(Box<str>, Tree)>),
    /// An integer that only tags could hold, larger than any CEL `int`.
    Large(u64),
}

impl Tree {
    /// The tree of a value.
    ///
    /// # Errors
    /// When a value is neither JSON nor made of structs, lists and maps with texts as keys.
    pub fn of(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        value.serialize(Planter)
    }

    pub fn member(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Record(members) => members
                .iter()
                .find_map(|(known, value)| (*known == key).then_some(value)),
            Self::Map(members) => members
                .iter()
                .find_map(|(known, value)| (**known == *key).then_some(value)),
            _ => None,
        }
    }

    /// How many values it is made of, 64 bytes of text counting as one.
    pub fn nodes(&self) -> u64 {
        1 + match self {
            Self::Text(text) => text.len() as u64 / 64,
            Self::List(items) => items.iter().map(Self::nodes).sum(),
            Self::Record(members) => members.iter().map(|(_, value)| value.nodes()).sum(),
            Self::Map(members) => members.iter().map(|(_, value)| value.nodes()).sum(),
            _ => 0,
        }
    }
}

struct Planter;

type Planted = Result<Tree, serde_json::Error>;

impl Serializer for Planter {
    type Ok = Tree;
    type Error = serde_json::Error;
    type SerializeSeq = Items;
    type SerializeTuple = Impossible<Tree, Self::Error>;
    type SerializeTupleStruct = Impossible<Tree, Self::Error>;
    type SerializeTupleVariant = Impossible<Tree, Self::Error>;
    type SerializeMap = Members;
    type SerializeStruct = Record;
    type SerializeStructVariant = Impossible<Tree, Self::Error>;

    fn serialize_bool(self, value: bool) -> Planted {
        Ok(Tree::Bool(value))
    }

    fn serialize_i8(self, value: i8) -> Planted {
        Ok(Tree::Int(value.into()))
    }

    fn serialize_i16(self, value: i16) -> Planted {
        Ok(Tree::Int(value.into()))
    }

    fn serialize_i32(self, value: i32) -> Planted {
        Ok(Tree::Int(value.into()))
    }

    fn serialize_i64(self, value: i64) -> Planted {
        Ok(Tree::Int(value))
    }

    fn serialize_u8(self, value: u8) -> Planted {
        Ok(Tree::Int(value.into()))
    }

    fn serialize_u16(self, value: u16) -> Planted {
        Ok(Tree::Int(value.into()))
    }

    fn serialize_u32(self, value: u32) -> Planted {
        Ok(Tree::Int(value.into()))
    }

    fn serialize_u64(self, value: u64) -> Planted {
        Ok(i64::try_from(value).map_or(Tree::Large(value), Tree::Int))
    }

    fn serialize_f32(self, value: f32) -> Planted {
        Ok(Tree::Double(value.into()))
    }

    fn serialize_f64(self, value: f64) -> Planted {
        Ok(Tree::Double(value))
    }

    fn serialize_char(self, value: char) -> Planted {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Planted {
        Ok(Tree::Text(value.into()))
    }

    fn serialize_bytes(self, _: &[u8]) -> Planted {
        Err(Error::custom("bytes"))
    }

    fn serialize_none(self) -> Planted {
        Ok(Tree::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Planted {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Planted {
        Ok(Tree::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Planted {
        Ok(Tree::Null)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Planted {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Planted {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Planted {
        Ok(Tree::Record(vec![(variant, value.serialize(self)?)]))
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Items, Self::Error> {
        Ok(Items(Vec::with_capacity(length.unwrap_or(0))))
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Self::Error> {
        Err(Error::custom("a tuple"))
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, Self::Error> {
        Err(Error::custom("a tuple"))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Self::Error> {
        Err(Error::custom("a tuple"))
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Members, Self::Error> {
        Ok(Members(Vec::with_capacity(length.unwrap_or(0))))
    }

    fn serialize_struct(self, _: &'static str, length: usize) -> Result<Record, Self::Error> {
        Ok(Record(Vec::with_capacity(length)))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Self::Error> {
        Err(Error::custom("a variant with members"))
    }
}

struct Items(Vec<Tree>);

impl SerializeSeq for Items {
    type Ok = Tree;
    type Error = serde_json::Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Self::Error> {
        self.0.push(value.serialize(Planter)?);
        Ok(())
    }

    fn end(self) -> Planted {
        Ok(Tree::List(self.0))
    }
}

struct Record(Vec<(&'static str, Tree)>);

impl SerializeStruct for Record {
    type Ok = Tree;
    type Error = serde_json::Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Self::Error> {
        self.0.push((key, value.serialize(Planter)?));
        Ok(())
    }

    fn end(self) -> Planted {
        Ok(Tree::Record(self.0))
    }
}

struct Members(Vec<(Box<str>, Tree)>);

impl SerializeMap for Members {
    type Ok = Tree;
    type Error = serde_json::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Self::Error> {
        match key.serialize(Planter)? {
            Tree::Text(key) => {
                self.0.push((key, Tree::Null));
                Ok(())
            }
            _ => Err(Error::custom("a key that is no text")),
        }
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Self::Error> {
        if let Some((_, member)) = self.0.last_mut() {
            *member = value.serialize(Planter)?;
        }
        Ok(())
    }

    fn end(self) -> Planted {
        Ok(Tree::Map(self.0))
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Double(value) => serializer.serialize_f64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::List(items) => serializer.collect_seq(items),
            Self::Record(members) => {
                serializer.collect_map(members.iter().map(|(key, value)| (key, value)))
            }
            Self::Map(members) => {
                serializer.collect_map(members.iter().map(|(key, value)| (key, value)))
            }
            Self::Large(value) => serializer.serialize_u64(*value),
        }
    }
}
