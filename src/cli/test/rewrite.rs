//! New expectations in the text of a suite, and every other character of it as it was.

use std::ops::Range;

use saphyr_parser::{Event, Parser, Span};
use serde_json::{Map, Value};

use super::yaml;

/// The longest line that is written where one line was.
const WIDTH: usize = 100;

/// The text of a suite in which the expectations of some cases, by their index, are others.
///
/// # Errors
/// In words, when that cannot be done without touching anything else.
pub fn rewrite(text: &str, expectations: &[(usize, Map<String, Value>)]) -> Result<String, String> {
    let by_hand = |why: String| format!("the expectations cannot be rewritten here: {why}");
    let (mark, body) = match text.strip_prefix('\u{feff}') {
        Some(body) => ("\u{feff}", body),
        None => ("", text),
    };
    let sites = sites(body).map_err(by_hand)?;
    let mut expected: Value =
        serde_yaml::from_str(body).map_err(|error| by_hand(error.to_string()))?;
    let mut changes = Vec::new();
    for (case, expectation) in expectations {
        let site = sites.iter().find(|site| site.case == *case);
        let site =
            site.ok_or_else(|| by_hand(format!("case {case} has no `expect` of its own")))?;
        let place = &mut expected["cases"][*case]["expect"];
        let old = std::mem::replace(place, Value::Object(expectation.clone()));
        changes.extend(site.changes(body, &old, expectation));
    }
    changes.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
    let line_end = if body.contains("\r\n") { "\r\n" } else { "\n" };
    let mut rewritten = body.to_owned();
    for (range, new) in changes {
        rewritten.replace_range(range, &new.replace('\n', line_end));
    }
    // Whatever YAML can be written as, nothing but the expectations has changed.
    match serde_yaml::from_str::<Value>(&rewritten) {
        Ok(read) if read == expected => Ok(format!("{mark}{rewritten}")),
        Ok(_) => Err(by_hand("more than they would change".to_owned())),
        Err(error) => Err(by_hand(error.to_string())),
    }
}

/// What to write in place of what.
type Change = (Range<usize>, String);

/// Where the expectation of a case stands.
struct Site {
    case: usize,
    /// Where its key begins.
    key: usize,
    value: Range<usize>,
    /// Whether the case is a map in block style, so that its expectation can be one.
    in_block: bool,
    /// Each key of the expectation, with its value.
    entries: Vec<(String, Range<usize>)>,
}

impl Site {
    fn changes(&self, text: &str, old: &Value, new: &Map<String, Value>) -> Vec<Change> {
        let is_block = !text[self.value.start..].starts_with(['{', '*', '&', '!']);
        match is_block {
            true => self.keys(text, old, new),
            false => vec![self.whole(text, new)],
        }
    }

    /// Key by key, so that what stays is as it was. New keys stand below the decision.
    fn keys(&self, text: &str, old: &Value, new: &Map<String, Value>) -> Vec<Change> {
        let line_end = |at: usize| text[at..].find('\n').map_or(text.len(), |end| at + end);
        let lines = |entries: Map<String, Value>| yaml::block(&entries);
        let indent = format!("\n{}", " ".repeat(column(text, self.value.start)));
        let mut changes = Vec::new();
        for (key, range) in &self.entries {
            match new.get(key) {
                None => {
                    let start = range.start - column(text, range.start);
                    let end = (line_end(range.end) + 1).min(text.len());
                    changes.push((start..end, String::new()));
                }
                Some(value) if old.get(key) != Some(value) => {
                    let entry = Map::from_iter([(key.clone(), value.clone())]);
                    changes.push((range.clone(), lines(entry).join(&indent)));
                }
                Some(_) => {}
            }
            if key == "decision" {
                let is_new = |(key, _): &(&String, &Value)| old.get(key.as_str()).is_none();
                let added = new.iter().filter(is_new);
                let added = added.map(|(key, value)| (key.clone(), value.clone()));
                let added = lines(added.collect()).into_iter();
                let added: String = added.map(|line| format!("{indent}{line}")).collect();
                let end = text[..line_end(range.end)].trim_end_matches('\r').len();
                changes.push((end..end, added));
            }
        }
        changes
    }

    /// The whole expectation, which is one line. Where it grows too long, it becomes a block.
    fn whole(&self, text: &str, new: &Map<String, Value>) -> Change {
        let Range { start, end } = self.value;
        let one_line = yaml::flow(&Value::Object(new.clone()));
        let rest = text[end..].lines().next().unwrap_or_default();
        let fits = column(text, start) + one_line.chars().count() <= WIDTH;
        if fits || !self.in_block || !rest.trim().is_empty() {
            return (start..end, one_line);
        }
        let indent = format!("\n{}", " ".repeat(column(text, self.key) + 2));
        let after_key = text[..start].trim_end().len();
        (
            after_key..end,
            format!("{indent}{}", yaml::block(new).join(&indent)),
        )
    }
}

/// How many characters of its line stand before a place.
fn column(text: &str, at: usize) -> usize {
    text[..at].chars().rev().take_while(|c| *c != '\n').count()
}

/// A map or list that has not ended.
enum Open {
    Map { key: Option<String>, in_block: bool },
    List { next: usize },
}

/// Finds `cases[].expect` in one pass over the parser's events.
fn sites(text: &str) -> Result<Vec<Site>, String> {
    // The parser counts characters.
    let mut offsets: Vec<usize> = text.char_indices().map(|(offset, _)| offset).collect();
    offsets.push(text.len());
    let offset = |index: usize| offsets.get(index).copied().unwrap_or(text.len());
    let place = |span: Span| offset(span.start.index())..offset(span.end.index());

    let mut open: Vec<Open> = Vec::new();
    let mut sites: Vec<Site> = Vec::new();
    let mut key_at = 0;
    // How many maps and lists were open where the expectation that is being read began.
    let mut reading: Option<usize> = None;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| error.to_string())?;
        let place = place(span);
        let is_value = matches!(
            event,
            Event::Scalar(..)
                | Event::Alias(_)
                | Event::MappingStart(..)
                | Event::SequenceStart(..)
        );
        if is_value {
            if let (
                Some(Open::Map {
                    key: key @ None, ..
                }),
                Event::Scalar(name, ..),
            ) = (open.last_mut(), &event)
            {
                *key = Some(name.to_string());
                key_at = place.start;
                let is_in_expectation = reading.is_some_and(|around| open.len() == around + 1);
                if let (true, Some(site)) = (is_in_expectation, sites.last_mut()) {
                    site.entries.push((name.to_string(), place));
                }
                continue;
            }
            if let Some((case, in_block)) = expectation(&open) {
                let value = place.start..place.start;
                sites.push(Site {
                    case,
                    key: key_at,
                    value,
                    in_block,
                    entries: Vec::new(),
                });
                reading = Some(open.len());
            }
        }
        if let (Some(_), Some(site)) = (reading, sites.last_mut()) {
            let written = &text[place.clone()];
            let end = match event {
                // The parser counts a comment behind the bracket in. A block ends where the next
                // thing begins, which is not looked at.
                Event::MappingEnd | Event::SequenceEnd => {
                    place.start + usize::from(written.starts_with(['}', ']']))
                }
                _ => place.start + written.trim_end().len(),
            };
            if end > place.start {
                site.value.end = site.value.end.max(end);
                if let Some((_, entry)) = site.entries.last_mut() {
                    entry.end = entry.end.max(end);
                }
            }
        }
        match event {
            Event::MappingStart(..) => {
                let in_block = !text[place.start..].starts_with('{');
                open.push(Open::Map {
                    key: None,
                    in_block,
                });
                continue;
            }
            Event::SequenceStart(..) => {
                open.push(Open::List { next: 0 });
                continue;
            }
            Event::MappingEnd | Event::SequenceEnd => drop(open.pop()),
            Event::Scalar(..) | Event::Alias(_) => {}
            _ => continue,
        }
        // A value has ended.
        if reading == Some(open.len()) {
            reading = None;
        }
        match open.last_mut() {
            Some(Open::Map { key, .. }) => *key = None,
            Some(Open::List { next }) => *next += 1,
            None => {}
        }
    }
    Ok(sites)
}

/// The case whose expectation comes next, and whether it is written as a block.
fn expectation(open: &[Open]) -> Option<(usize, bool)> {
    match open {
        [
            Open::Map {
                key: Some(cases), ..
            },
            Open::List { next },
            Open::Map {
                key: Some(expect),
                in_block,
            },
        ] if cases == "cases" && expect == "expect" => Some((*next, *in_block)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::at_the_end_without_a_newline(
        "cases:\n- name: a\n  expect:\n    decision: allowed",
        "cases:\n- name: a\n  expect:\n    decision: denied\n    messages: [x]"
    )]
    #[case::a_text_over_several_lines(
        "cases:\n- expect:\n    decision: denied\n    messages:\n    - |-\n      two\n      lines\n\n  # after\n  name: a\n",
        "cases:\n- expect:\n    decision: denied\n    messages: [x]\n\n  # after\n  name: a\n"
    )]
    #[case::a_list_as_far_left_as_its_key(
        "cases:\n- expect:\n    decision: allowed\n    warnings:\n    - 'y'\n    - z # last\n  name: a\n",
        "cases:\n- expect:\n    decision: denied\n    messages: [x]\n  name: a\n"
    )]
    #[case::one_line_over_several(
        "cases:\n- {name: a, expect: {decision: allowed,\n    warnings: [] }}\n",
        "cases:\n- {name: a, expect: {decision: denied, messages: [x]}}\n"
    )]
    #[case::json(
        r#"{"cases": [{"name": "a", "expect": {"decision": "allowed"}}]}"#,
        r#"{"cases": [{"name": "a", "expect": {decision: denied, messages: [x]}}]}"#
    )]
    #[case::keys_in_quotes_with_an_anchor(
        "cases:\n- \"expect\": &x\n    \"decision\": allowed\n",
        "cases:\n- \"expect\": &x\n    decision: denied\n    messages: [x]\n"
    )]
    #[case::other_keys_of_that_name(
        "expect: {cases: [{expect: 1}]}\ncases:\n- spec: {expect: 2}\n  expect: {decision: allowed}\n",
        "expect: {cases: [{expect: 1}]}\ncases:\n- spec: {expect: 2}\n  expect: {decision: denied, messages: [x]}\n"
    )]
    fn an_expectation_is_rewritten_however_it_is_written(
        #[case] text: &str,
        #[case] expected: &str,
    ) {
        let Value::Object(new) = json!({"decision": "denied", "messages": ["x"]}) else {
            unreachable!()
        };
        assert_eq!(rewrite(text, &[(0, new)]).as_deref(), Ok(expected));
    }

    #[test]
    fn a_line_that_would_grow_too_long_becomes_a_block() {
        let text = "cases:\n  - name: a\n    expect: {decision: denied}\n  - name: b\n    expect: {decision: denied} # why\n";
        let long = "x".repeat(90);
        let Value::Object(new) = json!({"decision": "denied", "messages": [long]}) else {
            unreachable!()
        };
        let rewritten = rewrite(text, &[(0, new.clone()), (1, new)]).unwrap();
        let expected = format!(
            "cases:\n  - name: a\n    expect:\n      decision: denied\n      messages:\n        - {long}\n  - name: b\n    \
             expect: {{decision: denied, messages: [{long}]}} # why\n"
        );
        assert_eq!(rewritten, expected);
    }
}
