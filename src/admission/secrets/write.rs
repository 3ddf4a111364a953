//! Writing a spec without its secrets, in one pass: no copy of it is made first.

use std::cell::RefCell;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::places::Place;
use super::{Known, Path, Secrets};

impl Secrets {
    /// The text of a spec with its secrets redacted, and where they were, as JSON Pointers. Nothing
    /// when it cannot be written.
    pub fn redacted(&self, spec: &Value, known: &Known) -> Option<(Box<RawValue>, Vec<String>)> {
        let found = RefCell::default();
        let part = Part {
            secrets: self,
            known,
            place: Place::Plain,
            path: &Path::at(""),
            value: spec,
            found: &found,
        };
        let text = serde_json::value::to_raw_value(&part).ok()?;
        Some((text, found.into_inner()))
    }
}

/// A part of a spec that is being written.
struct Part<'s> {
    secrets: &'s Secrets,
    known: &'s Known,
    place: Place,
    path: &'s Path<'s>,
    value: &'s Value,
    found: &'s RefCell<Vec<String>>,
}

impl Serialize for Part<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Value::Object(members) => {
                let mut map = to.serialize_map(Some(members.len()))?;
                for (key, value) in members {
                    let part = Part {
                        place: self.place.child(key),
                        path: &self.path.member(key),
                        value,
                        ..*self
                    };
                    map.serialize_entry(key, &part)?;
                }
                map.end()
            }
            Value::Array(elements) => {
                let mut seq = to.serialize_seq(Some(elements.len()))?;
                for (index, value) in elements.iter().enumerate() {
                    let part = Part {
                        place: self.place.element(),
                        path: &self.path.element(index),
                        value,
                        ..*self
                    };
                    seq.serialize_element(&part)?;
                }
                seq.end()
            }
            leaf => match self.secrets.leaf(self.place, self.path, leaf, self.known) {
                Some(redacted) => {
                    self.found.borrow_mut().push(self.path.pointer());
                    to.serialize_str(&redacted)
                }
                None => leaf.serialize(to),
            },
        }
    }
}
