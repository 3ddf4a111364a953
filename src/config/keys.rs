//! Which keys there are, and where each belongs: what is said of a key that is unknown.

use serde_json::Value;

use super::places::member;
use super::{suggest, words};

/// Above this many keys, a message does not list them.
const LISTED: usize = 12;

/// Every key of the configuration and the map it belongs in.
pub(super) struct Keys<'s> {
    schema: &'s Value,
    /// The key, and the path of its map with `[]` for any item: `plugins[].webhook`.
    homes: Vec<(&'s str, String)>,
}

impl<'s> Keys<'s> {
    /// Gathers the keys that `schema` knows.
    pub(super) fn of(schema: &'s Value) -> Self {
        let mut keys = Self {
            schema,
            homes: Vec::new(),
        };
        keys.gather(schema, "", &mut Vec::new());
        keys
    }

    /// What to say of `key`, which is none of the `known` keys of the map at `path`, nor like one.
    pub(super) fn unknown(&self, key: &str, path: &str, known: &[&str]) -> String {
        let homes = self.homes_of(key, path);
        if !homes.is_empty() {
            return format!("unknown key; it belongs {}", words::any_of(&homes));
        }
        let everywhere = self.homes.iter().map(|(key, _)| *key);
        if let Some(near) = suggest::nearest(key, everywhere) {
            let homes = words::any_of(&self.homes_of(near, path));
            return format!("unknown key; did you mean `{near}`, which belongs {homes}?");
        }
        if known.is_empty() {
            return "unknown key; no keys are known here".to_owned();
        }
        if known.len() > LISTED {
            return "unknown key".to_owned();
        }
        let known: Vec<String> = known.iter().map(|key| format!("`{key}`")).collect();
        format!("unknown key; known here: {}", known.join(", "))
    }

    /// The maps nearest to `path` that know `key`, three at most.
    fn homes_of(&self, key: &str, path: &str) -> Vec<String> {
        let here = any_item(path);
        let homes = || self.homes.iter().filter(|(known, _)| *known == key);
        let nearness = |home: &str| (shared(home, &here), std::cmp::Reverse(depth(home)));
        let nearest = homes().map(|(_, home)| nearness(home)).max();
        let nearest = homes().filter(|(_, home)| Some(nearness(home)) == nearest);
        let named = nearest.take(3).map(|(_, home)| match home.as_str() {
            "" => "at the top level".to_owned(),
            home => format!("under `{home}`"),
        });
        named.collect()
    }

    fn gather(&mut self, schema: &'s Value, path: &str, above: &mut Vec<&'s str>) {
        let name = schema.get("$ref").and_then(Value::as_str);
        if let Some(target) = name.and_then(|name| name.strip_prefix('#')) {
            // A group of plugins holds plugins: the keys are those of the first.
            if let (false, Some(schema)) = (above.contains(&target), self.schema.pointer(target)) {
                above.push(target);
                self.gather(schema, path, above);
                above.pop();
            }
            return;
        }
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            for (key, schema) in properties {
                self.homes.push((key, path.to_owned()));
                self.gather(schema, &member(path, key), above);
            }
        }
        if let Some(items) = schema.get("items") {
            self.gather(items, &format!("{path}[]"), above);
        }
        for branches in ["oneOf", "anyOf"] {
            let branches = schema.get(branches).and_then(Value::as_array);
            for branch in branches.into_iter().flatten() {
                self.gather(branch, path, above);
            }
        }
    }
}

/// `plugins[2].fanOut[0].cel` as `plugins[].cel`: whichever item, and however deep the group.
fn any_item(path: &str) -> String {
    let digits = |c: char| c.is_ascii_digit();
    let parts = path.split('[').map(|part| part.trim_start_matches(digits));
    parts.collect::<Vec<_>>().join("[").replace(".fanOut[]", "")
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('.').filter(|segment| !segment.is_empty())
}

fn depth(path: &str) -> usize {
    segments(path).count()
}

/// How many segments two paths begin with in common.
fn shared(a: &str, b: &str) -> usize {
    segments(a)
        .zip(segments(b))
        .take_while(|(a, b)| a == b)
        .count()
}
