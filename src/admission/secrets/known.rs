//! The values that one spec shows to be secret, so that they are recognised wherever else they
//! turn up: in what a plugin says, in what it writes to another place.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memmem::{Finder, find_iter};

use super::{REDACTED, shapes};
use crate::admission::legible;

/// Bytes from which on a value is long enough to be a secret: `true`, `1` and `eu-west` are not.
const SHORTEST: usize = 8;
/// Bytes from which on a line of a secret is looked for by itself.
const LINE: usize = 16;
/// What stands where a text was cut.
const CUT: [&str; 2] = ["…", "..."];

/// The secret values of one spec, the longest first.
#[derive(Clone, Debug, Default)]
pub struct Known {
    values: Vec<Finder<'static>>,
}

impl Known {
    /// All values but those that are too short, and those that `clear` tells are no secrets.
    pub(super) fn new<'v>(
        values: impl IntoIterator<Item = &'v str>,
        clear: impl Fn(&str) -> bool,
    ) -> Self {
        let mut needles: Vec<Cow<'_, str>> = Vec::new();
        let mut add = |value: &'v str| {
            let forms = escaped(value);
            let texts = forms.iter().map(String::as_str).chain([value]);
            let shown: Vec<String> = texts.filter_map(legible::replaced).collect();
            needles.extend(shown.into_iter().chain(forms).map(Cow::Owned));
            needles.push(Cow::Borrowed(value));
        };
        for value in values {
            let value = value.trim();
            if value.len() >= SHORTEST && !clear(value) {
                add(value);
                shapes::password(value)
                    .filter(|password| password.len() >= SHORTEST && !clear(password))
                    .into_iter()
                    .for_each(&mut add);
                let lines = value.lines().map(str::trim);
                lines
                    .filter(|line| line.len() >= LINE && *line != value)
                    .for_each(&mut add);
            }
        }
        needles.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        needles.dedup();
        let finders = needles
            .into_iter()
            .map(|needle| Finder::new(needle.as_bytes()).into_owned());
        Self {
            values: finders.collect(),
        }
    }

    /// The text without the known values and without what has the shape of a secret, or nothing
    /// when there is none in it.
    pub fn redacted(&self, text: &str) -> Option<String> {
        let without = self.without_values(text);
        let shapes = shapes::find(without.as_deref().unwrap_or(text));
        if shapes.is_empty() {
            return without;
        }
        let mut left = without.unwrap_or_else(|| text.to_owned());
        for range in shapes.into_iter().rev() {
            left.replace_range(range, REDACTED);
        }
        (left != text).then_some(left)
    }

    /// Whether a number is one of the known values.
    pub(super) fn is(&self, number: &serde_json::Number) -> bool {
        if self.values.is_empty() {
            return false;
        }
        let digits = number.to_string();
        let mut values = self.values.iter();
        values.any(|value| value.needle() == digits.as_bytes())
    }

    fn without_values(&self, text: &str) -> Option<String> {
        let mut left: Option<String> = None;
        for value in self
            .values
            .iter()
            .filter(|value| value.needle().len() <= text.len())
        {
            let there = left.as_deref().unwrap_or(text);
            // Needles are texts, so what is found begins and ends between characters.
            if value.find(there.as_bytes()).is_some()
                && let Ok(needle) = str::from_utf8(value.needle())
            {
                left = Some(there.replace(needle, REDACTED));
            }
        }
        for value in &self.values {
            let there = left.as_deref().unwrap_or(text);
            if let Some(part) = cut_off(there, value.needle()) {
                let mut whole = there.to_owned();
                whole.replace_range(part, REDACTED);
                left = Some(whole);
            }
        }
        left
    }
}

/// A value as it stands within JSON, with and without other characters than ASCII, and within a
/// literal of Python, where that is another text: people quote whole specs.
fn escaped(value: &str) -> Vec<String> {
    let is_same = |c: char| c.is_ascii() && !c.is_ascii_control() && c != '"' && c != '\\';
    if value.chars().all(is_same) {
        return Vec::new();
    }
    let json = serde_json::Value::from(value).to_string();
    let json = json[1..json.len() - 1].to_owned();
    let literal = json.replace("\\\"", "\"");
    let mut ascii = String::with_capacity(json.len());
    for c in json.chars() {
        match c.is_ascii() {
            true => ascii.push(c),
            false => ascii.extend(
                c.encode_utf16(&mut [0; 2])
                    .iter()
                    .map(|unit| format!("\\u{unit:04x}")),
            ),
        }
    }
    // Python escapes `'` only where both kinds of quotes are in a text.
    let both = literal.contains('"').then(|| literal.replace('\'', "\\'"));
    let mut forms = vec![json, literal, ascii];
    forms.extend(both);
    forms.sort_unstable();
    forms.dedup();
    forms.retain(|form| form != value);
    forms
}

/// Where a text holds a part of a value since it was cut there: the value's beginning at the end of
/// the text or before the mark of a cut, or its end behind one.
fn cut_off(text: &str, value: &[u8]) -> Option<Range<usize>> {
    let (head, tail) = (value.get(..SHORTEST)?, value.get(value.len() - SHORTEST..)?);
    let bytes = text.as_bytes();
    for at in find_iter(bytes, head) {
        let same = bytes[at..].iter().zip(value).take_while(|(a, b)| a == b);
        let end = at + same.count();
        // A cut between two bytes of a character is none.
        let rest = text.get(end..).unwrap_or("?");
        if rest.is_empty() || CUT.iter().any(|mark| rest.starts_with(mark)) {
            return text.is_char_boundary(at).then_some(at..end);
        }
    }
    for at in find_iter(bytes, tail) {
        let end = at + SHORTEST;
        let before = text.get(..end).unwrap_or_default();
        let begin = CUT
            .iter()
            .filter_map(|mark| Some(before.rfind(mark)? + mark.len()))
            .max();
        if let Some(begin) = begin
            && begin <= at
            && value.ends_with(&bytes[begin..end])
        {
            return Some(begin..end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const SECRET: &str = "hunter2-hunter3";
    const CREDENTIALS: &str =
        "{\n  \"private_key_id\": \"0123456789\",\n  \"user\": \"tür\\\\x\"\n}";

    fn redacted(value: &str, text: &str) -> String {
        let known = Known::new([value], |_| false);
        known.redacted(text).unwrap_or_else(|| text.to_owned())
    }

    #[rstest]
    #[case::at_the_end("it is hunter2-hun", "it is [redacted]")]
    #[case::before_a_mark("it is hunter2-hun…\n- next", "it is [redacted]…\n- next")]
    #[case::before_dots("it is hunter2-hun... next", "it is [redacted]... next")]
    #[case::behind_a_mark("…2-hunter3 is weak", "…[redacted] is weak")]
    #[case::whole_and_cut("hunter2-hunter3 | hunter2-h…", "[redacted] | [redacted]…")]
    #[case::too_little_to_tell("it is hunter2…", "it is hunter2…")]
    #[case::another_text("hunter2-house…", "hunter2-house…")]
    #[case::not_cut("hunter2-h is another", "hunter2-h is another")]
    fn a_value_is_known_where_it_is_cut(#[case] text: &str, #[case] left: &str) {
        assert_eq!(redacted(SECRET, text), left);
    }

    #[rstest]
    #[case::nul("ab\0Zq7canaryVx")]
    #[case::next_line("ab\u{85}Zq7canaryVx")]
    #[case::direction("ab\u{202e}Zq7canaryVx")]
    fn a_value_is_known_as_it_is_shown(#[case] value: &str) {
        let shown = "it is ab\u{fffd}Zq7canaryVx";
        assert_eq!(redacted(value, shown), "it is [redacted]");
        let quoted = serde_json::json!([value]).to_string();
        let quoted = legible::replaced(&quoted).unwrap_or(quoted);
        assert_eq!(redacted(value, &quoted), r#"["[redacted]"]"#);
    }

    #[test]
    fn the_password_of_a_url_is_known_by_itself() {
        let url = "postgres://u:Zq7canaryPW@h/db";
        assert_eq!(redacted(url, "psql -c Zq7canaryPW"), "psql -c [redacted]");
        assert_eq!(
            redacted("postgres://u:short@h/db", "a short text"),
            "a short text"
        );
    }

    #[test]
    fn a_value_is_known_as_it_stands_in_json_and_python() {
        let json = serde_json::json!({"env": {"KEY": CREDENTIALS}}).to_string();
        assert_eq!(
            redacted(CREDENTIALS, &json),
            r#"{"env":{"KEY":"[redacted]"}}"#
        );
        let ascii = json.replace('ü', "\\u00fc");
        assert_eq!(
            redacted(CREDENTIALS, &ascii),
            r#"{"env":{"KEY":"[redacted]"}}"#
        );
        let python = json.replace("\\\"", "\"");
        assert_eq!(
            redacted(CREDENTIALS, &python),
            r#"{"env":{"KEY":"[redacted]"}}"#
        );
        // One line of it, too.
        let line = r#"line 2: \"private_key_id\": \"0123456789\", no"#;
        assert_eq!(redacted(CREDENTIALS, line), "line 2: [redacted] no");
    }
}
