//! Reading JSON in ways that serde does not by itself: objects alone, and members with their places.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// Reads the JSON text of one object. Left to itself, serde also takes a list of the members' values.
pub(super) fn object<'de, T: Deserialize<'de>>(text: &'de [u8]) -> Result<T, serde_json::Error> {
    struct Members<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = deserializer.deserialize_map(Members(PhantomData))?;
    deserializer.end()?;
    Ok(value)
}

/// The members of one object, one after the other, each with its place in the text. Whatever is odd
/// ends in nothing, without a reason: [`object`] knows it.
pub(super) struct Members<'t> {
    text: &'t [u8],
    at: usize,
    begun: bool,
}

impl<'t> Members<'t> {
    pub fn of(text: &'t [u8]) -> Option<Self> {
        let mut members = Self {
            text,
            at: 0,
            begun: false,
        };
        members.symbol(b'{').then_some(members)
    }

    /// The next member's name, or that there is no further one and nothing after the object.
    pub fn name(&mut self) -> Option<Option<&'t str>> {
        if self.symbol(b'}') {
            self.skip_whitespace();
            return (self.at == self.text.len()).then_some(None);
        }
        if self.begun && !self.symbol(b',') {
            return None;
        }
        self.begun = true;
        let (name, _) = self.value()?;
        self.symbol(b':').then_some(Some(name))
    }

    /// The value of the member whose name was read last, and where its text is.
    pub fn value<T: Deserialize<'t>>(&mut self) -> Option<(T, Range<usize>)> {
        self.skip_whitespace();
        let start = self.at;
        let mut values = serde_json::Deserializer::from_slice(&self.text[start..]).into_iter();
        let value = values.next()?.ok()?;
        self.at = start + values.byte_offset();
        Some((value, start..self.at))
    }

    fn symbol(&mut self, symbol: u8) -> bool {
        self.skip_whitespace();
        let found = self.text.get(self.at) == Some(&symbol);
        self.at += usize::from(found);
        found
    }

    fn skip_whitespace(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
            .count();
    }
}
