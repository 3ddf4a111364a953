//! The dstack server's configuration file: which plugins it enables, and its text with others.
//!
//! Nothing else of the file is looked at, and every other character of it stays as it was.

use std::ops::Range;

use saphyr_parser::{Event, Parser};
use serde_yaml::{Mapping, Value};

/// The plugin of the server that asks a sidecar.
pub const REST_PLUGIN: &str = "rest_plugin";
const KEY: &str = "plugins";

/// The file as it was read.
#[derive(Debug)]
pub struct ServerConfig<'t> {
    text: &'t str,
    values: Mapping,
    /// The enabled plugins as they are listed, each once.
    pub plugins: Vec<String>,
}

impl<'t> ServerConfig<'t> {
    /// # Errors
    /// In words, when this is no configuration of a server or enables no plugin.
    pub fn parse(text: &'t str) -> Result<Self, String> {
        let values = match serde_yaml::from_str(text.trim_start_matches('\u{feff}')) {
            Ok(Value::Mapping(values)) => values,
            Ok(Value::Null) => return Err("it is empty".to_owned()),
            Ok(_) => return Err("no configuration of a dstack server: not a map".to_owned()),
            Err(error) => return Err(format!("no YAML: {error}")),
        };
        let plugins = match values.get(KEY) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Sequence(items)) => names(items)?,
            Some(_) => return Err("`plugins` is no list".to_owned()),
        };
        if plugins.is_empty() {
            return Err("it enables no `plugins`: there is nothing to migrate".to_owned());
        }
        Ok(Self {
            text,
            values,
            plugins,
        })
    }

    /// The text of the file with `rest_plugin` as its only plugin. Comments in the list go with it.
    ///
    /// # Errors
    /// In words, when that cannot be done without touching anything else.
    pub fn with_rest_plugin_alone(&self) -> Result<String, String> {
        let by_hand = |why: String| format!("`plugins` cannot be rewritten here: {why}");
        let (mark, body) = match self.text.strip_prefix('\u{feff}') {
            Some(body) => ("\u{feff}", body),
            None => ("", self.text),
        };
        let list = list(body)
            .map_err(by_hand)?
            .ok_or_else(|| by_hand("it is an alias".to_owned()))?;
        let mut rewritten = body.to_owned();
        let alone = match body[list.start..].starts_with('[') {
            true => format!("[{REST_PLUGIN}]"),
            false => format!("- {REST_PLUGIN}"),
        };
        rewritten.replace_range(list, &alone);
        let mut expected = self.values.clone();
        expected.insert(KEY.into(), Value::Sequence(vec![REST_PLUGIN.into()]));
        // Whatever YAML can be written as, nothing but the list has changed.
        match serde_yaml::from_str::<Mapping>(&rewritten) {
            Ok(read) if read == expected => Ok(format!("{mark}{rewritten}")),
            Ok(_) => Err(by_hand("more than the list would change".to_owned())),
            Err(error) => Err(by_hand(error.to_string())),
        }
    }
}

/// The items of the list, the first of each name.
fn names(items: &[Value]) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        match item {
            Value::String(name) if names.contains(name) => {}
            Value::String(name) => names.push(name.clone()),
            _ => return Err(format!("`plugins[{index}]` is no name")),
        }
    }
    Ok(names)
}

/// Where the list of plugins stands, as the parser's events tell: up to its bracket, or to the end of its
/// last line.
fn list(text: &str) -> Result<Option<Range<usize>>, String> {
    // The parser counts characters.
    let mut offsets: Vec<usize> = text.char_indices().map(|(offset, _)| offset).collect();
    offsets.push(text.len());
    let offset = |index: usize| offsets.get(index).copied().unwrap_or(text.len());

    let mut depth = 0;
    let mut is_key = true;
    let mut reading = false;
    let mut found: Option<Range<usize>> = None;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| error.to_string())?;
        let place = offset(span.start.index())..offset(span.end.index());
        match &event {
            Event::Scalar(name, ..) if depth == 1 && is_key => {
                reading = name == KEY;
                is_key = false;
                continue;
            }
            Event::SequenceStart(..) if depth == 1 && reading => {
                found = Some(place.start..place.start);
            }
            Event::Scalar(..) if reading && depth == 2 => {
                if let Some(found) = &mut found {
                    // A block that is not indented is said to begin elsewhere.
                    if found.start == found.end && !text[found.start..].starts_with('[') {
                        found.start = text[..place.start].rfind('-').unwrap_or(found.start);
                    }
                    found.end = place.start + text[place].trim_end().len();
                }
            }
            Event::SequenceEnd if reading && depth == 2 => {
                if let Some(found) = &mut found {
                    let is_flow = text[found.start..].starts_with('[');
                    found.end = match is_flow {
                        true => place.start + 1,
                        false => line_end(text, found.end),
                    };
                }
            }
            _ => {}
        }
        match event {
            Event::MappingStart(..) | Event::SequenceStart(..) => depth += 1,
            Event::MappingEnd | Event::SequenceEnd => depth -= 1,
            Event::Scalar(..) | Event::Alias(_) => {}
            _ => continue,
        }
        if depth == 1 && !matches!(event, Event::MappingStart(..)) {
            is_key = true;
            reading = false;
        } else if depth == 1 {
            // The map of the whole file has begun.
            is_key = true;
        }
    }
    Ok(found)
}

/// The end of the line of a place, without its line break.
fn line_end(text: &str, at: usize) -> usize {
    let line = text[at..].lines().next().unwrap_or_default();
    at + line.len()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::block(
        "projects: [] # none\nplugins:\n  # ours\n  - b # prices\n\n  - \"a\"   # tags\n\n# keys\nencryption:\n  keys: []\n",
        "projects: [] # none\nplugins:\n  # ours\n  - rest_plugin\n\n# keys\nencryption:\n  keys: []\n"
    )]
    #[case::without_indentation(
        "plugins:\n- a\n- rest_plugin\nx: 1\n",
        "plugins:\n- rest_plugin\nx: 1\n"
    )]
    #[case::without_a_line_break("x: 1\nplugins:\n  - a", "x: 1\nplugins:\n  - rest_plugin")]
    #[case::flow(
        "plugins: [a, 'b'] # both\nx: {y: [z]}\n",
        "plugins: [rest_plugin] # both\nx: {y: [z]}\n"
    )]
    #[case::flow_over_lines("plugins: [\n  a,\n  b,\n]\n", "plugins: [rest_plugin]\n")]
    #[case::whole_in_flow(
        "{x: [plugins], plugins: [a], y: 1}",
        "{x: [plugins], plugins: [rest_plugin], y: 1}"
    )]
    #[case::quoted_key(
        "'plugins':\r\n  - a\r\nx: 1\r\n",
        "'plugins':\r\n  - rest_plugin\r\nx: 1\r\n"
    )]
    #[case::others_named_so(
        "a: {plugins: [x]}\nb: plugins\nplugins: [a]\n",
        "a: {plugins: [x]}\nb: plugins\nplugins: [rest_plugin]\n"
    )]
    #[case::mark_and_letters_of_many_bytes(
        "\u{feff}# äöü\nä: ö\nplugins: [ü]\n",
        "\u{feff}# äöü\nä: ö\nplugins: [rest_plugin]\n"
    )]
    #[case::document_markers(
        "---\nplugins:\n  - a\n...\n",
        "---\nplugins:\n  - rest_plugin\n...\n"
    )]
    #[case::anchored_item("plugins:\n  - &a one\n  - two\n", "plugins:\n  - rest_plugin\n")]
    fn the_list_alone_is_rewritten(#[case] text: &str, #[case] expected: &str) {
        let rewritten = ServerConfig::parse(text).unwrap().with_rest_plugin_alone();
        assert_eq!(rewritten.as_deref(), Ok(expected));
    }

    #[rstest]
    #[case::alias("x: &p [a]\nplugins: *p\n", "it is an alias")]
    #[case::used_elsewhere("plugins:\n  - &a one\nx: *a\n", "unknown anchor")]
    fn what_would_change_more_is_left_alone(#[case] text: &str, #[case] why: &str) {
        let error = ServerConfig::parse(text)
            .unwrap()
            .with_rest_plugin_alone()
            .unwrap_err();
        assert!(
            error.starts_with("`plugins` cannot be rewritten here: "),
            "{error}"
        );
        assert!(error.contains(why), "{error}");
    }

    #[rstest]
    #[case::each_once("plugins: [b, a, b]", &["b", "a"])]
    #[case::a_mark("\u{feff}plugins: [a]", &["a"])]
    fn plugins_are_read_as_listed(#[case] text: &str, #[case] expected: &[&str]) {
        assert_eq!(ServerConfig::parse(text).unwrap().plugins, expected);
    }

    #[rstest]
    #[case::empty("# nothing\n", "it is empty")]
    #[case::no_yaml("plugins: [", "no YAML: ")]
    #[case::two_documents("plugins: [a]\n---\nplugins: [b]\n", "no YAML: ")]
    #[case::list("- a", "no configuration of a dstack server: not a map")]
    #[case::no_plugins("projects: []", "it enables no `plugins`: there is nothing to migrate")]
    #[case::null("plugins:\n", "it enables no `plugins`")]
    #[case::none("plugins: []", "it enables no `plugins`")]
    #[case::one("plugins: a", "`plugins` is no list")]
    #[case::number("plugins: [a, 1]", "`plugins[1]` is no name")]
    fn other_files_are_refused(#[case] text: &str, #[case] why: &str) {
        let error = ServerConfig::parse(text).unwrap_err();
        assert!(error.starts_with(why), "{error}");
    }
}
