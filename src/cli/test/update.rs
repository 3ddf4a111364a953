//! Expectations rewritten after what was decided, and the suite files that hold them.

use std::fs;
use std::path::Path;

use anyhow::{Context, anyhow};
use regex::Regex;
use serde_json::{Map, Value};
use similar::TextDiff;

use super::compare::shaped;
use super::expected::{Expected, Remark, denials, denying, patching, warnings};
use super::file::Verdict;
use super::rewrite::rewrite;
use crate::admission::decision::Decision;

/// A suite file with new expectations, not yet written.
pub struct Update {
    before: String,
    after: String,
}

impl Update {
    /// Puts expectations in the places of those of the cases of these indices. Blocks.
    ///
    /// # Errors
    /// When the file cannot be read, or not be changed in these places alone.
    pub fn new(path: &Path, expectations: &[(usize, Rewritten)]) -> anyhow::Result<Self> {
        let name = || path.display().to_string();
        let before = fs::read_to_string(path).with_context(name)?;
        let document = before.strip_prefix('\u{feff}').unwrap_or(&before);
        let document: Value = serde_yaml::from_str(document).with_context(name)?;
        let expectations = expectations.iter().map(|(case, rewritten)| {
            let old = document["cases"][*case]["expect"].as_object();
            let old = old
                .ok_or_else(|| anyhow!("it changed meanwhile"))
                .with_context(name)?;
            Ok((*case, rewritten.over(old)))
        });
        let expectations = expectations.collect::<anyhow::Result<Vec<_>>>()?;
        let after = rewrite(&before, &expectations)
            .map_err(anyhow::Error::msg)
            .with_context(name)?;
        Ok(Self { before, after })
    }

    /// The difference as people read it.
    pub fn diff(&self, path: &Path) -> String {
        let name = path.display().to_string();
        let diff = TextDiff::from_lines(&self.before, &self.after);
        diff.unified_diff()
            .context_radius(3)
            .header(&name, &name)
            .to_string()
    }

    /// Writes the file. Blocks.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        fs::write(path, &self.after).with_context(|| path.display().to_string())
    }
}

/// What a decision makes of the keys of an expectation. None: the key has no place there.
pub struct Rewritten {
    decision: Value,
    /// Whether `messages` has to be there, even where it was not.
    messages: (bool, Option<Value>),
    denied_by: Option<Value>,
    warnings: (bool, Option<Value>),
    patch: Option<Value>,
    spec: Option<Value>,
    monitored: [(&'static str, Value); 2],
}

impl Rewritten {
    /// The expectation that a decision meets, with as much of the old one as holds.
    pub fn new(expected: &Expected, decision: &Decision, shadow: &Decision) -> Self {
        let denied = !decision.allowed();
        let (denials, warnings) = (denials(decision), warnings(decision));
        let is_fault = |remark: &Remark| remark.is_fault;
        let needs_messages = expected.decision != Verdict::Denied || denials.iter().any(is_fault);
        let needs_warnings = warnings.iter().any(is_fault);
        let patched = decision.as_str() == Verdict::Patched.as_str();
        let spec = expected.spec.as_ref().filter(|_| !denied);
        Self {
            decision: Value::from(decision.as_str()),
            messages: (
                needs_messages,
                denied.then(|| patterns(expected.messages.as_deref(), &denials)),
            ),
            denied_by: denied.then(|| denying(decision).into_iter().collect()),
            warnings: (
                needs_warnings,
                Some(patterns(expected.warnings.as_deref(), &warnings)),
            ),
            patch: match patched {
                true => serde_json::to_value(&decision.patch).ok(),
                false => None,
            },
            spec: spec.and_then(|spec| shaped(&decision.spec, spec)),
            monitored: [
                ("deny", denying(shadow).into_iter().collect()),
                ("patch", patching(shadow).into_iter().collect()),
            ],
        }
    }

    /// The whole expectation: the keys of the old one in their order, then new ones.
    fn over(&self, old: &Map<String, Value>) -> Map<String, Value> {
        let mut new = Map::new();
        for (key, old) in old {
            let value = match key.as_str() {
                "decision" => Some(self.decision.clone()),
                "messages" => self.messages.1.clone(),
                "deniedBy" => self.denied_by.clone(),
                "warnings" => self.warnings.1.clone(),
                "patch" => self.patch.clone(),
                "spec" => self.spec.clone(),
                "monitored" => Some(self.monitored(old)),
                _ => Some(old.clone()),
            };
            new.extend(value.map(|value| (key.clone(), value)));
        }
        for (key, (needed, value)) in [("messages", &self.messages), ("warnings", &self.warnings)] {
            if *needed && let Some(value) = value {
                new.entry(key).or_insert_with(|| value.clone());
            }
        }
        new
    }

    fn monitored(&self, old: &Value) -> Value {
        let given = self
            .monitored
            .iter()
            .filter(|(key, _)| old.get(*key).is_some());
        given
            .map(|(key, names)| ((*key).to_owned(), names.clone()))
            .collect()
    }
}

/// The old patterns that match a remark, and a new one for each remark that none of them matches.
fn patterns(old: Option<&[Regex]>, remarks: &[Remark]) -> Value {
    let matches = |regex: &&Regex| remarks.iter().any(|remark| regex.is_match(&remark.text));
    let kept: Vec<&Regex> = old.unwrap_or_default().iter().filter(matches).collect();
    let mut patterns: Vec<String> = kept.iter().map(|regex| regex.to_string()).collect();
    for remark in remarks {
        let new = escaped(&remark.text);
        let is_matched = kept.iter().any(|regex| regex.is_match(&remark.text));
        if !is_matched && !patterns.contains(&new) {
            patterns.push(new);
        }
    }
    patterns.into()
}

/// A regular expression that matches this very text, with no more escapes than it takes.
fn escaped(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_escaped_text_matches_itself(text in "\\PC*|[\\\\.+*?()|\\[\\]{}^$#&~ \\n-]*") {
            let regex = Regex::new(&format!("^{}$", escaped(&text))).unwrap();
            prop_assert!(regex.is_match(&text));
        }
    }
}
