//! The values that one spec shows to be secret, so that they are recognised wherever else they
//! turn up: in what a plugin says, in what it writes to another place.

use memchr::memmem::Finder;

use super::{REDACTED, shapes};

/// Bytes from which on a value is long enough to be a secret: `true`, `1` and `eu-west` are not.
const SHORTEST: usize = 8;
/// Bytes from which on a line of a secret is looked for by itself.
const LINE: usize = 16;

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
        let mut needles: Vec<&str> = Vec::new();
        for value in values {
            let value = value.trim();
            if value.len() >= SHORTEST && !clear(value) {
                needles.push(value);
                let lines = value.lines().map(str::trim);
                needles.extend(lines.filter(|line| line.len() >= LINE && *line != value));
            }
        }
        needles.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        needles.dedup();
        let finders = needles
            .into_iter()
            .map(|needle| Finder::new(needle).into_owned());
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
        left
    }
}
