//! What a replay adds up to: counts and a few examples alone, so that it is as small after a
//! million reviews as after a hundred.

use std::sync::Arc;
use std::time::SystemTime;

use indexmap::IndexMap;

use super::compare::{Change, Difference, Doubt, Outcome};
use crate::admission::decision::{Decision, Part, PartResult};

/// Names that a tally tells apart. Whoever comes later is among the others.
const NAMES: usize = 10_000;
/// How many lines without an audit event are told.
const TOLD: usize = 5;

/// What came of one line of a log.
#[derive(Debug)]
pub enum Seen {
    Replayed(Box<Replayed>),
    /// A review whose record has no spec.
    WithoutSpec,
    /// A review that a filter leaves out.
    FilteredOut,
    /// What monitored plugins said after a decision.
    Monitored,
    Unreadable(String),
}

/// One review that was decided again.
#[derive(Debug)]
pub struct Replayed {
    pub received: SystemTime,
    pub outcome: Outcome,
    /// Whether secrets of it were redacted.
    pub redacted: bool,
    /// Plugins whose fault was passed over.
    pub failed_open: Vec<Arc<str>>,
    /// Monitored plugins of the new chain that would deny or patch, or that failed.
    pub would_deny: Vec<Arc<str>>,
    pub would_patch: Vec<Arc<str>>,
    pub would_fail: Vec<Arc<str>>,
}

/// How often each name was counted.
#[derive(Debug, Default)]
pub struct Tally {
    counts: IndexMap<String, u64>,
    others: u64,
}

/// The reviews that differ in one way.
#[derive(Debug, Default)]
pub struct Group {
    pub count: u64,
    /// Denied because plugins fail, and not because one of them objects.
    pub by_failure: u64,
    /// Perhaps denied for want of the patch of a plugin that is left out.
    pub in_doubt: u64,
    pub plugins: Tally,
    /// The failures among them.
    pub failed: Tally,
    pub projects: Tally,
    pub users: Tally,
    /// The first ones.
    pub examples: Vec<Difference>,
}

/// The reviews that say nothing about the new configuration.
#[derive(Debug, Default)]
pub struct Doubts {
    pub denied_by_left_out: u64,
    pub patched_by_left_out: u64,
    pub not_reviewed: u64,
    /// The plugins left out on whose account.
    pub plugins: Tally,
}

/// A line that gave no audit event.
#[derive(Debug)]
pub struct BadLine {
    pub file: Arc<str>,
    pub number: u64,
    pub why: String,
}

/// A whole replay.
#[derive(Debug, Default)]
pub struct Report {
    pub lines: u64,
    pub replayed: u64,
    pub same: u64,
    pub newly_denied: Group,
    pub newly_allowed: Group,
    pub patched: Group,
    pub doubts: Doubts,
    pub patch_unknown: u64,
    pub redacted: u64,
    pub failed_open: Tally,
    pub would_deny: Tally,
    pub would_patch: Tally,
    pub would_fail: Tally,
    pub without_spec: u64,
    pub filtered_out: u64,
    pub monitored: u64,
    pub unreadable: u64,
    /// The first unreadable ones.
    pub bad_lines: Vec<BadLine>,
    /// When the earliest and the latest of the replayed reviews arrived.
    pub period: Option<(SystemTime, SystemTime)>,
}

impl Replayed {
    /// `shadow` is what the monitored plugins say to `decision`, if there are any.
    pub fn new(
        outcome: Outcome,
        redacted: bool,
        decision: &Decision,
        shadow: Option<&Decision>,
    ) -> Self {
        let parts = shadow.map_or(&[][..], |shadow| &shadow.parts);
        let failed_open = |part: &Part| matches!(part.result, PartResult::FailedOpen(_));
        let failed =
            |part: &Part| matches!(part.result, PartResult::Failed(_)) || failed_open(part);
        let denies = |part: &Part| part.result.denies() && !failed(part);
        Self {
            received: decision.review.received,
            outcome,
            redacted,
            failed_open: plugins(&decision.parts, failed_open),
            would_deny: plugins(parts, denies),
            would_patch: plugins(parts, |part| !part.patch.is_empty()),
            would_fail: plugins(parts, failed),
        }
    }
}

/// The plugins with such a part, each once.
fn plugins(parts: &[Part], such: impl Fn(&Part) -> bool) -> Vec<Arc<str>> {
    let mut found: Vec<Arc<str>> = Vec::new();
    for part in parts.iter().filter(|part| such(part)) {
        if !found.contains(&part.plugin) {
            found.push(Arc::clone(&part.plugin));
        }
    }
    found
}

impl Tally {
    pub fn add(&mut self, name: &str) {
        if let Some(count) = self.counts.get_mut(name) {
            *count += 1;
        } else if self.counts.len() < NAMES {
            self.counts.insert(name.to_owned(), 1);
        } else {
            self.others += 1;
        }
    }

    fn add_all<S: AsRef<str>>(&mut self, names: &[S]) {
        names.iter().for_each(|name| self.add(name.as_ref()));
    }

    /// Names and counts, the most frequent first, then by name; last the others.
    pub fn sorted(&self) -> Vec<(&str, u64)> {
        let counts = self.counts.iter();
        let mut sorted: Vec<_> = counts.map(|(name, count)| (&**name, *count)).collect();
        sorted.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        sorted.extend((self.others > 0).then_some(("(others)", self.others)));
        sorted
    }

    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}

impl Group {
    fn add(&mut self, difference: Difference, examples: usize) {
        self.count += 1;
        self.by_failure += u64::from(difference.by_failure());
        self.in_doubt += u64::from(difference.in_doubt);
        self.plugins.add_all(&difference.plugins);
        self.failed.add_all(&difference.failed);
        self.projects.add(&difference.review.project);
        self.users.add(&difference.review.user);
        if self.examples.len() < examples {
            self.examples.push(difference);
        }
    }
}

impl Doubts {
    pub fn count(&self) -> u64 {
        self.denied_by_left_out + self.patched_by_left_out + self.not_reviewed
    }

    fn add(&mut self, doubt: &Doubt) {
        let (count, plugins) = match doubt {
            Doubt::DeniedByLeftOut(plugins) => (&mut self.denied_by_left_out, &**plugins),
            Doubt::PatchedByLeftOut(plugins) => (&mut self.patched_by_left_out, &**plugins),
            Doubt::NotReviewed => (&mut self.not_reviewed, &[][..]),
        };
        *count += 1;
        self.plugins.add_all(plugins);
    }
}

impl Report {
    /// Takes in what came of the line `number` of `file`. At most `examples` of each kind of
    /// difference are kept.
    pub fn add(&mut self, file: &Arc<str>, number: u64, seen: Seen, examples: usize) {
        self.lines += 1;
        match seen {
            Seen::Replayed(replayed) => self.add_replayed(*replayed, examples),
            Seen::WithoutSpec => self.without_spec += 1,
            Seen::FilteredOut => self.filtered_out += 1,
            Seen::Monitored => self.monitored += 1,
            Seen::Unreadable(why) => {
                self.unreadable += 1;
                if self.bad_lines.len() < TOLD {
                    let file = Arc::clone(file);
                    self.bad_lines.push(BadLine { file, number, why });
                }
            }
        }
    }

    fn add_replayed(&mut self, replayed: Replayed, examples: usize) {
        self.replayed += 1;
        self.redacted += u64::from(replayed.redacted);
        self.failed_open.add_all(&replayed.failed_open);
        self.would_deny.add_all(&replayed.would_deny);
        self.would_patch.add_all(&replayed.would_patch);
        self.would_fail.add_all(&replayed.would_fail);
        let at = replayed.received;
        self.period = Some(match self.period {
            Some((first, last)) => (first.min(at), last.max(at)),
            None => (at, at),
        });
        match replayed.outcome {
            Outcome::Same => self.same += 1,
            Outcome::PatchUnknown => self.patch_unknown += 1,
            Outcome::NotComparable(doubt) => self.doubts.add(&doubt),
            Outcome::Differs(difference) => {
                let group = match difference.change {
                    Change::NewlyDenied => &mut self.newly_denied,
                    Change::NewlyAllowed => &mut self.newly_allowed,
                    Change::Patched => &mut self.patched,
                };
                group.add(*difference, examples);
            }
        }
    }

    /// The reviews that the logs tell of and no filter leaves out.
    pub fn reviews(&self) -> u64 {
        self.replayed + self.without_spec
    }

    pub fn group(&self, change: Change) -> &Group {
        match change {
            Change::NewlyDenied => &self.newly_denied,
            Change::NewlyAllowed => &self.newly_allowed,
            Change::Patched => &self.patched,
        }
    }

    /// Why nothing at all was replayed, if so.
    pub fn nothing(&self) -> Option<String> {
        let (without_spec, filtered_out) = (self.without_spec, self.filtered_out);
        if self.replayed > 0 {
            None
        } else if without_spec > 0 {
            Some(format!(
                "none of the {without_spec} reviews was recorded with its spec: `audit.level` must be `Spec`"
            ))
        } else if filtered_out > 0 {
            Some(format!("the filters leave none of {filtered_out} reviews"))
        } else {
            Some("there is no review among the audit events".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_tells_so_many_names_apart_and_counts_the_rest() {
        let mut tally = Tally::default();
        for index in 0..NAMES + 3 {
            tally.add(&index.to_string());
        }
        ["7", "7", "12"]
            .into_iter()
            .for_each(|name| tally.add(name));
        let sorted = tally.sorted();
        assert_eq!(sorted[..3], [("7", 3), ("12", 2), ("0", 1)]);
        assert_eq!(sorted.last(), Some(&("(others)", 3)));
        assert_eq!(sorted.len(), NAMES + 1);
    }
}
