//! The values that one spec shows to be secret, so that they are recognised wherever else they
//! turn up: in what a plugin says, in what it writes to another place.

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::{REDACTED, shapes};

/// Bytes from which on a value is long enough to be a secret: `true`, `1` and `eu-west` are not.
const SHORTEST: usize = 8;
/// Bytes from which on a line of a secret is looked for by itself.
const LINE: usize = 16;

/// The secret values of one spec.
#[derive(Clone, Debug, Default)]
pub struct Known {
    matcher: Option<AhoCorasick>,
}

impl Known {
    /// All values but those that are too short, and those that `clear` tells are no secrets.
    pub(super) fn new<'v>(
        values: impl IntoIterator<Item = &'v str>,
        clear: impl Fn(&str) -> bool,
    ) -> Self {
        let mut needles: Vec<&str> = Vec::new();
        for value in values {
            let value = value.trim();
            if value.len() >= SHORTEST && !clear(value) {
                needles.push(value);
                let lines = value.lines().map(str::trim);
                needles.extend(lines.filter(|line| line.len() >= LINE && *line != value));
            }
        }
        if needles.is_empty() {
            return Self::default();
        }
        // It is built for one spec, so it has to be built quickly.
        let builder = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::NoncontiguousNFA))
            .match_kind(MatchKind::LeftmostLongest)
            .prefilter(false)
            .build(needles);
        Self {
            matcher: builder.ok(),
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

    fn without_values(&self, text: &str) -> Option<String> {
        let matcher = self.matcher.as_ref()?;
        if text.len() < SHORTEST || !matcher.is_match(text) {
            return None;
        }
        let mut left = String::with_capacity(text.len());
        matcher.replace_all_with(text, &mut left, |_, _, into| {
            into.push_str(REDACTED);
            true
        });
        Some(left)
    }
}
