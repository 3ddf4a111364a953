//! Arbitrary specs, as texts with all that JSON allows, and arbitrary changes of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use json_patch::jsonptr::{PointerBuf, Token};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::review::Spec;

/// Numbers in spellings that a parser and a writer together would not keep.
const NUMBERS: [&str; 14] = [
    "0",
    "1",
    "-7",
    "1.10",
    "2.0",
    "-0.0",
    "1e-05",
    "1E5",
    "0.1000",
    "1e+22",
    "9007199254740993",
    "18446744073709551616",
    "123456789012345678901234567890",
    "5e-324",
];

/// Names that need care in a pointer or in a text, among plain ones.
const NAMES: [&str; 9] = ["a", "b", "c", "", "0", "-", "a/b", "m~1n", "é\\n\\\""];

const SCALARS: [&str; 6] = [
    "null",
    "true",
    "false",
    r#""""#,
    r#""x\u00e9\/""#,
    r#""\ud83d\ude00""#,
];

/// The text of a JSON value with white space wherever it may be.
fn text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        3 => prop::sample::select(&NUMBERS[..]),
        2 => prop::sample::select(&SCALARS[..]),
    ];
    leaf.prop_map(str::to_owned).prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            2 => object(inner.clone()),
            1 => prop::collection::vec(inner, 0..5).prop_map(|all| format!("[{}]", all.join(" , "))),
        ]
    })
}

fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let space = prop::sample::select(&["", " ", "\n\t"][..]);
    let member = (prop::sample::select(&NAMES[..]), space, value)
        .prop_map(|(name, space, value)| format!("{space}\"{name}\":{space}{value}"));
    prop::collection::vec(member, 0..6).prop_map(|members| format!("{{{}}}", members.join(",")))
}

/// A spec; a name may even stand in it twice.
pub(super) fn spec() -> impl Strategy<Value = Spec> {
    object(text()).prop_map(|text| Spec::parse(Bytes::from(text)).unwrap())
}

pub(super) fn value() -> impl Strategy<Value = Value> {
    text().prop_map(|text| serde_json::from_str(&text).unwrap())
}

/// An operation on whatever spec there is: its places are chosen among those of the spec.
#[derive(Clone, Debug)]
pub(super) struct Edit {
    op: &'static str,
    place: Index,
    from: Index,
    value: Value,
}

pub(super) fn edit() -> impl Strategy<Value = Edit> {
    let op = prop_oneof![
        3 => Just("add"), 3 => Just("replace"), 2 => Just("remove"),
        1 => Just("move"), 1 => Just("copy"), 1 => Just("test"),
    ];
    (op, any::<Index>(), any::<Index>(), value()).prop_map(|(op, place, from, value)| Edit {
        op,
        place,
        from,
        value,
    })
}

impl Edit {
    /// The operation in JSON. It need not apply.
    pub(super) fn on(&self, spec: &Value) -> Value {
        let mut all = Vec::new();
        places(&PointerBuf::root(), spec, &mut all);
        let path = self.place.get(&all);
        let value = match (self.op, path.resolve(spec)) {
            ("test", Ok(there)) => there,
            _ => &self.value,
        };
        json!({"op": self.op, "path": path, "from": self.from.get(&all), "value": value})
    }
}

/// Each place in a value, and beside each the places where something could be added.
fn places(at: &PointerBuf, value: &Value, all: &mut Vec<PointerBuf>) {
    match value {
        Value::Object(members) => {
            all.push(at.with_trailing_token("new"));
            for (name, value) in members {
                let below = at.with_trailing_token(Token::new(name));
                all.push(below.clone());
                places(&below, value, all);
            }
        }
        Value::Array(elements) => {
            all.push(at.with_trailing_token("-"));
            for (index, value) in elements.iter().enumerate() {
                let below = at.with_trailing_token(index);
                all.push(below.clone());
                places(&below, value, all);
            }
        }
        _ => {}
    }
}

/// The text of each number, by place.
pub(super) fn numbers(text: &[u8]) -> BTreeMap<PointerBuf, String> {
    fn collect(at: &PointerBuf, raw: &RawValue, found: &mut BTreeMap<PointerBuf, String>) {
        if let Ok(members) = serde_json::from_str::<BTreeMap<String, &RawValue>>(raw.get()) {
            for (name, raw) in members {
                collect(&at.with_trailing_token(Token::new(name)), raw, found);
            }
        } else if let Ok(elements) = serde_json::from_str::<Vec<&RawValue>>(raw.get()) {
            for (index, raw) in elements.into_iter().enumerate() {
                collect(&at.with_trailing_token(index), raw, found);
            }
        } else if raw
            .get()
            .starts_with(|first: char| first == '-' || first.is_ascii_digit())
        {
            found.insert(at.clone(), raw.get().to_owned());
        }
    }
    let mut found = BTreeMap::new();
    collect(
        &PointerBuf::root(),
        serde_json::from_slice(text).unwrap(),
        &mut found,
    );
    found
}
