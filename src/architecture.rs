//! The floor plan of the house, read from its sources: which module may know which, and how large
//! a file may grow. Test code may look anywhere.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the house and which of the others each may import, from the ground up.
const FLOORS: [(&str, &[&str]); 10] = [
    ("admission", &[]),
    ("protocol", &["admission"]),
    ("identity", &[]),
    ("plugins", &["admission", "protocol", "identity"]),
    // The only one to join the chain and what plugins are.
    ("engine", &["admission", "plugins"]),
    ("observe", &["admission", "identity"]),
    ("certs", &[]),
    (
        "server",
        &["admission", "protocol", "identity", "engine", "observe"],
    ),
    // Builds what it describes, and drives none of it.
    (
        "config",
        &["admission", "identity", "plugins", "observe", "server"],
    ),
    // The only one to join everything.
    (
        "cli",
        &[
            "admission",
            "protocol",
            "plugins",
            "engine",
            "observe",
            "certs",
            "server",
            "config",
        ],
    ),
];

/// Lines of one file, tests included. A file that grows past about 400 is two rooms.
const LONGEST: usize = 450;

#[derive(Debug)]
struct Source {
    /// The path below `src`.
    path: PathBuf,
    /// Its module's path: `["plugins", "http"]`.
    module: Vec<String>,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push(source(path.strip_prefix(&root).unwrap(), text));
            }
        }
    }
    found
}

fn source(path: &Path, text: String) -> Source {
    let module = path.with_extension("");
    let module = module.iter().map(|name| name.to_str().unwrap().to_owned());
    Source {
        path: path.to_owned(),
        module: module.filter(|name| name != "lib").collect(),
        text,
    }
}

impl Source {
    fn is_test(&self) -> bool {
        let own = [
            "architecture",
            "arbitrary",
            "hostile",
            "properties",
            "tests",
        ];
        self.module.iter().any(|name| own.contains(&name.as_str()))
    }

    /// The code without comments and without what stands in test modules at its end.
    fn code(&self) -> String {
        let end = self.text.find("#[cfg(test)]\nmod tests {");
        let code = &self.text[..end.unwrap_or(self.text.len())];
        let lines = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// What the code refers to by `crate::` or `super::`, from the root of the crate.
    fn references(&self) -> Vec<Vec<String>> {
        let code = self.code();
        let mut found = Vec::new();
        for (at, word) in words(&code) {
            let base = match word {
                "crate" => &self.module[..0],
                "super" if !code[..at].ends_with("super::") => &self.module[..],
                _ => continue,
            };
            let mut path = base.to_vec();
            let mut rest = &code[at..];
            while let Some(after) = rest.strip_prefix("super::") {
                path.pop();
                rest = after;
            }
            let rest = rest.strip_prefix("crate::").unwrap_or(rest);
            found.extend(
                tree(rest)
                    .into_iter()
                    .map(|tail| [&path[..], &tail].concat()),
            );
        }
        found
    }

    /// What its floor does not allow.
    fn trespasses(&self) -> Vec<String> {
        let Some(own) = self.module.first().filter(|name| *name != "main") else {
            return Vec::new();
        };
        let Some((_, allowed)) = FLOORS.iter().find(|(name, _)| name == own) else {
            return vec![format!(
                "{}: `{own}` has no floor in the plan",
                self.path.display()
            )];
        };
        let refused = |reference: &Vec<String>| {
            let (first, second) = (reference.first()?, reference.get(1));
            let module = FLOORS.iter().any(|(name, _)| name == first);
            let foreign = module && first != own && !allowed.contains(&first.as_str());
            let above = self.module.len() > 1
                && first == "plugins"
                && own == "plugins"
                && second.is_some_and(|name| name.starts_with(char::is_uppercase));
            (foreign || above || first == "*").then(|| reference.join("::"))
        };
        let refused = self
            .references()
            .iter()
            .filter_map(refused)
            .collect::<Vec<_>>();
        refused
            .iter()
            .map(|what| format!("{} knows {what}", self.path.display()))
            .collect()
    }
}

/// Each word before a `::`, with its place.
fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.match_indices("::").map(|(end, _)| {
        let start = code[..end]
            .rfind(|c: char| !c.is_alphanumeric() && c != '_')
            .map_or(0, |i| {
                i + code[i..].chars().next().map_or(1, char::len_utf8)
            });
        (start, &code[start..end])
    })
}

/// The paths at the beginning of a text: `a::{b, c::d}` is two, as far as two names deep.
fn tree(text: &str) -> Vec<Vec<String>> {
    let Some(group) = text.strip_prefix('{') else {
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*');
        let (name, rest) = text.split_at(end.unwrap_or(text.len()));
        let tails = match rest.strip_prefix("::") {
            Some(rest) => tree(rest),
            None => vec![Vec::new()],
        };
        let named = |tail: Vec<String>| [vec![name.to_owned()], tail].concat();
        return tails.into_iter().map(named).collect();
    };
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' | ',' if depth == 0 => {
                let part = group[start..at].trim();
                if !part.is_empty() {
                    found.extend(tree(part));
                }
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    found
}

#[test]
fn each_floor_knows_only_those_below() {
    let sources = sources();
    assert!(sources.len() > 20, "the sources were not found");
    let code = sources.iter().filter(|source| !source.is_test());
    let trespasses: Vec<String> = code.flat_map(Source::trespasses).collect();
    assert!(trespasses.is_empty(), "{}", trespasses.join("\n"));
}

#[test]
fn no_file_is_longer_than_two_rooms() {
    let lines = |source: &Source| source.text.lines().count();
    let sources = sources();
    let long = sources.iter().filter(|source| lines(source) > LONGEST);
    let long: Vec<_> = long
        .map(|source| format!("{}: {}", source.path.display(), lines(source)))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn every_module_says_what_it_is_for() {
    let sources = sources();
    let silent = sources
        .iter()
        .filter(|source| !source.is_test() && !source.text.starts_with("//! "));
    let silent: Vec<_> = silent
        .map(|source| source.path.display().to_string())
        .collect();
    assert!(silent.is_empty(), "{}", silent.join("\n"));
}

#[test]
fn a_trespass_is_seen_in_any_spelling() {
    let cases = [
        (
            "admission/run.rs",
            "use crate::plugins::Plugin;",
            Some("plugins::Plugin"),
        ),
        (
            "admission/run.rs",
            "fn f(_: crate::engine::Engine) {}",
            Some("engine::Engine"),
        ),
        (
            "admission/run.rs",
            "use super::super::engine::Engine;",
            Some("engine::Engine"),
        ),
        ("admission.rs", "use super::engine;", Some("engine")),
        (
            "protocol/dstack.rs",
            "use crate::{\n    admission::{review::Kind, text},\n    server::auth,\n};",
            Some("server::auth"),
        ),
        (
            "plugins/http.rs",
            "pub(crate) use crate::config;",
            Some("config"),
        ),
        (
            "plugins/cel/val.rs",
            "use super::super::Backend;",
            Some("plugins::Backend"),
        ),
        (
            "plugins/http.rs",
            "use super::{Plugin, breaker};",
            Some("plugins::Plugin"),
        ),
        ("engine.rs", "use crate::*;", Some("*")),
        (
            "server/handler.rs",
            "use crate::plugins::Plugin;",
            Some("plugins::Plugin"),
        ),
        (
            "admission/run.rs",
            "use super::chain::{Chain, Mode};\nuse std::engine::X;",
            None,
        ),
        ("admission/run.rs", "// crate::engine drives it", None),
        (
            "admission/run.rs",
            "#[cfg(test)]\nmod tests {\n    use crate::engine::Engine;\n}",
            None,
        ),
        (
            "plugins/http.rs",
            "use super::breaker::Breaker;\nuse crate::protocol::dstack;",
            None,
        ),
        (
            "cli/serve.rs",
            "use crate::{config::resolve, engine::Engine};",
            None,
        ),
    ];
    for (path, text, expected) in cases {
        let found = source(Path::new(path), text.to_owned()).trespasses();
        let expected: Vec<_> = expected
            .map(|what| format!("{path} knows {what}"))
            .into_iter()
            .collect();
        assert_eq!(found, expected, "{text}");
    }
    let stray = source(Path::new("helpers.rs"), String::new()).trespasses();
    assert_eq!(stray, ["helpers.rs: `helpers` has no floor in the plan"]);
}
