//! Whether any spec that dstack knows has a place for a JSON Pointer.
//!
//! The bundled schemas are read from their texts, each definition when a pointer leads to it and
//! never as a whole, so that a question costs little and leaves nothing behind. Whether a value
//! fits its place is not asked here.

use std::collections::{BTreeMap, BTreeSet};

use json_patch::jsonptr::index::Index;
use json_patch::jsonptr::{Pointer, PointerBuf, Token};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::BUNDLES;
use super::words::nearest;

/// What is known of a pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// A spec of some kind, as some bundled dstack version has it, can have that place.
    Known,
    /// None can.
    Unknown {
        /// The pointer up to the first name that is not known where it stands.
        prefix: String,
        /// The prefix as it was probably meant.
        suggestion: Option<String>,
    },
}

impl Lookup {
    /// That there is no such place, in words.
    pub fn problem(&self) -> Option<String> {
        let Lookup::Unknown { prefix, suggestion } = self else {
            return None;
        };
        Some(match suggestion {
            Some(suggestion) => format!("no dstack spec has {prefix}; did you mean {suggestion}?"),
            None => format!("no dstack spec has {prefix}"),
        })
    }
}

/// Looks a pointer up in all kinds of spec of all bundled versions. A token `*` stands for every
/// element of a list and every member of a map.
///
/// Takes about 0.2 ms where the newest version knows the pointer, 1 ms where none does.
pub fn nearest_known(pointer: &Pointer) -> Lookup {
    let tokens: Vec<Token<'_>> = pointer.tokens().collect();
    let mut known = 0;
    let mut names: Vec<&'static str> = Vec::new();
    for bundle in &BUNDLES {
        // A test reads every bundle.
        let Ok(document) = serde_json::from_str::<Document<'static>>(bundle.text) else {
            return Lookup::Known;
        };
        match document.lookup(&tokens) {
            Reached::End => return Lookup::Known,
            Reached::Unknown { depth, .. } if depth < known => {}
            Reached::Unknown { depth, members } => {
                if depth > known {
                    names.clear();
                }
                known = depth;
                names.extend(members);
            }
        }
    }
    let above = || tokens.iter().take(known);
    let misspelt = tokens.get(known).map(Token::decoded);
    let suggestion = below_configuration(pointer).or_else(|| {
        let near = nearest(&misspelt?, names.into_iter())?;
        Some(PointerBuf::from_tokens(above()).with_trailing_token(near))
    });
    Lookup::Unknown {
        prefix: PointerBuf::from_tokens(tokens.iter().take(known + 1)).to_string(),
        suggestion: suggestion.map(|suggestion| suggestion.to_string()),
    }
}

/// The bundle, with its definitions unread.
#[derive(Deserialize)]
struct Document<'a> {
    /// The definition of each kind of spec, in each form.
    #[serde(borrow)]
    kinds: BTreeMap<&'a str, BTreeMap<&'a str, &'a str>>,
    #[serde(borrow, rename = "$defs")]
    definitions: BTreeMap<&'a str, &'a RawValue>,
}

/// What a schema says of what is below it, and where it says so.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Schema<'a> {
    #[serde(borrow, rename = "$ref")]
    reference: Option<&'a str>,
    #[serde(borrow, rename = "type")]
    types: Option<&'a RawValue>,
    #[serde(borrow, default)]
    properties: BTreeMap<&'a str, &'a RawValue>,
    #[serde(borrow)]
    additional_properties: Option<&'a RawValue>,
    #[serde(borrow)]
    items: Option<&'a RawValue>,
    #[serde(borrow, default)]
    any_of: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    all_of: Vec<&'a RawValue>,
    #[serde(borrow)]
    then: Option<&'a RawValue>,
}

/// How far a pointer leads.
enum Reached<'a> {
    End,
    /// The token after this many is unknown; `members` are known there.
    Unknown {
        depth: usize,
        members: Vec<&'a str>,
    },
}

/// The schemas that a value in one place may have to fit.
#[derive(Default)]
struct Here<'a> {
    schemas: Vec<Schema<'a>>,
    /// Definitions that are among them, since many schemas lead to one.
    seen: BTreeSet<&'a str>,
    /// Whether one of them takes everything.
    open: bool,
}

impl<'a> Document<'a> {
    fn lookup(&self, tokens: &[Token<'_>]) -> Reached<'a> {
        let mut here = Here::default();
        for reference in self.kinds.values().flat_map(BTreeMap::values) {
            self.follow(reference, &mut here);
        }
        for (depth, token) in tokens.iter().enumerate() {
            if here.open {
                return Reached::End;
            }
            let mut below = Here::default();
            for schema in here.schemas.iter().flat_map(|schema| schema.below(token)) {
                self.gather(schema, &mut below);
            }
            if below.schemas.is_empty() && !below.open {
                let members = here
                    .schemas
                    .iter()
                    .flat_map(|schema| schema.properties.keys());
                let members = members.copied().collect();
                return Reached::Unknown { depth, members };
            }
            here = below;
        }
        Reached::End
    }

    /// Adds a schema, and what it refers to for the same value.
    fn gather(&self, raw: &'a RawValue, here: &mut Here<'a>) {
        here.open |= matches!(raw.get(), "{}" | "true");
        // `false`, which nothing fits, is no schema to go on with.
        let Ok(schema) = serde_json::from_str::<Schema<'a>>(raw.get()) else {
            return;
        };
        if let Some(reference) = schema.reference {
            self.follow(reference, here);
        }
        let parts = schema
            .any_of
            .iter()
            .chain(&schema.all_of)
            .chain(&schema.then);
        for part in parts {
            self.gather(part, here);
        }
        here.schemas.push(schema);
    }

    fn follow(&self, reference: &'a str, here: &mut Here<'a>) {
        let name = reference.trim_start_matches("#/$defs/");
        if let Some(definition) = self.definitions.get(name)
            && here.seen.insert(name)
        {
            self.gather(definition, here);
        }
    }
}

impl<'a> Schema<'a> {
    /// The schemas of what a token leads to.
    fn below(&self, token: &Token<'_>) -> Vec<&'a RawValue> {
        let name = token.decoded();
        let every = name == "*";
        let position = matches!(token.to_index(), Ok(Index::Num(_)));
        let mut below = Vec::new();
        match self.properties.get(name.as_ref()) {
            Some(property) => below.push(*property),
            None => below.extend(self.additional_properties),
        }
        if every {
            below.extend(self.properties.values());
        }
        if every || position {
            below.extend(self.items.or_else(|| self.any_item()));
        }
        below
    }

    /// What every element of a list fits whose elements are not described.
    fn any_item(&self) -> Option<&'a RawValue> {
        let is_list = self.types?.get().contains("\"array\"");
        is_list.then(|| serde_json::from_str("{}").ok()).flatten()
    }
}

/// The beginning of a pointer below `/configuration`, where it is known as a whole: the commonest
/// thing to forget.
fn below_configuration(pointer: &Pointer) -> Option<PointerBuf> {
    let configuration = "configuration";
    let first = pointer
        .first()
        .filter(|first| first.decoded() != configuration)?;
    let whole = pointer.with_leading_token(configuration);
    let known = nearest_known(&whole) == Lookup::Known;
    known.then(|| PointerBuf::from_tokens([Token::new(configuration), first]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::run("/configuration/max_price")]
    #[case::task_of_every_version("/configuration/nodes")]
    #[case::group_of_0_22("/configuration/groups/*/resources/gpu/count")]
    #[case::end_of_a_range("/configuration/groups/*/resources/gpu/count/max")]
    #[case::group_by_position("/configuration/groups/0/privileged")]
    #[case::group_of_0_20("/configuration/replicas/*/count")]
    #[case::cpu_of_0_22("/configuration/resources/cpu/count")]
    #[case::cpu_of_0_19("/configuration/resources/cpu/min")]
    #[case::removed_after_0_19("/configuration/pool_name")]
    #[case::fleet("/configuration/nodes/target")]
    #[case::fleet_hosts("/configuration/ssh_config/hosts/*/ssh_key/private")]
    #[case::volume("/configuration/availability_zone")]
    #[case::gateway("/configuration/public_ip")]
    #[case::member_of_a_map("/configuration/env/HF_TOKEN")]
    #[case::members_of_a_map("/configuration/tags/*")]
    #[case::members_of_a_model("/configuration/*/name")]
    #[case::profile("/profile/max_price")]
    #[case::below_what_no_model_describes("/merged_profile/max_price/x")]
    fn a_place_in_some_spec_of_some_version_is_known(#[case] pointer: &'static str) {
        assert_eq!(nearest_known(Pointer::from_static(pointer)), Lookup::Known);
    }

    #[test]
    fn every_place_of_what_real_servers_sent_is_known() {
        let specs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/specs");
        let mut places = BTreeSet::new();
        for bundle in ["0.19.40", "0.20.29", "0.21.5", "0.22.5"] {
            for file in std::fs::read_dir(specs.join(bundle)).unwrap() {
                let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
                let body: serde_json::Value = serde_json::from_str(&text).unwrap();
                insert_places(&body["spec"], &mut PointerBuf::new(), &mut places);
            }
        }
        assert!(places.len() > 200, "{places:#?}");
        for place in &places {
            assert_eq!(nearest_known(place), Lookup::Known, "{place}");
        }
    }

    /// The places of all that is in a value; `*` stands for each position in a list.
    fn insert_places(
        value: &serde_json::Value,
        at: &mut PointerBuf,
        places: &mut BTreeSet<PointerBuf>,
    ) {
        let members: Vec<(&str, &serde_json::Value)> = match value {
            serde_json::Value::Array(items) => items.iter().map(|item| ("*", item)).collect(),
            serde_json::Value::Object(members) => {
                members.iter().map(|(key, it)| (key.as_str(), it)).collect()
            }
            _ => Vec::new(),
        };
        for (token, member) in members {
            at.push_back(token);
            places.insert(at.clone());
            insert_places(member, at, places);
            at.pop_back();
        }
    }

    #[rstest]
    #[case("/configuraton/max_price", "/configuraton", Some("/configuration"))]
    #[case(
        "/configuration/max_prise",
        "/configuration/max_prise",
        Some("/configuration/max_price")
    )]
    #[case(
        "/configuration/group/*/image",
        "/configuration/group",
        Some("/configuration/groups")
    )]
    #[case(
        "/configuration/groups/*/resources/gpus",
        "/configuration/groups/*/resources/gpus",
        Some("/configuration/groups/*/resources/gpu")
    )]
    #[case::forgotten("/resources/gpu/count", "/resources", Some("/configuration/resources"))]
    #[case::list_without_a_position(
        "/configuration/groups/image",
        "/configuration/groups/image",
        None
    )]
    #[case::position_in_a_model("/configuration/0", "/configuration/0", None)]
    #[case::below_a_number("/configuration/max_price/max", "/configuration/max_price/max", None)]
    #[case::below_a_tag("/configuration/tags/team/x", "/configuration/tags/team/x", None)]
    #[case::far_from_everything("/zzz", "/zzz", None)]
    #[case::nothing("/", "/", None)]
    #[case::escapes("/configuration/a~1b~0", "/configuration/a~1b~0", None)]
    fn another_place_is_not(
        #[case] pointer: &'static str,
        #[case] prefix: &str,
        #[case] suggestion: Option<&str>,
    ) {
        let expected = Lookup::Unknown {
            prefix: prefix.to_owned(),
            suggestion: suggestion.map(str::to_owned),
        };
        assert_eq!(nearest_known(Pointer::from_static(pointer)), expected);
    }

    #[test]
    fn every_bundle_is_read() {
        for bundle in &BUNDLES {
            let document: Document<'_> = serde_json::from_str(bundle.text).unwrap();
            let tokens = [Token::new("configuration"), Token::new("nowhere")];
            let Reached::Unknown { depth: 1, members } = document.lookup(&tokens) else {
                panic!("{}", bundle.version)
            };
            for member in ["env", "nodes", "ssh_config", "public_ip", "size"] {
                assert!(members.contains(&member), "{} {member}", bundle.version);
            }
        }
    }
}
