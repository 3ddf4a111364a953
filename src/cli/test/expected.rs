//! What a case expects, compiled, and where a decision is another. Decision ids, times and durations
//! are never looked at.

use std::collections::BTreeSet;

use json_patch::PatchOperation;
use regex::Regex;
use serde_json::{Map, Value};
use similar::TextDiff;

use super::compare::{holds, same, shaped};
use super::file::{Expect, Monitored, Verdict};
use super::suite::Tested;
use crate::admission::decision::{Decision, Part, PartResult};
use crate::admission::patch;
use crate::config::places::item;
use crate::config::suggest;

/// What a case expects.
pub struct Expected {
    pub decision: Verdict,
    pub messages: Option<Vec<Regex>>,
    pub denied_by: Option<BTreeSet<String>>,
    pub warnings: Option<Vec<Regex>>,
    pub patch: Option<Vec<PatchOperation>>,
    pub spec: Option<Value>,
    pub would_deny: Option<BTreeSet<String>>,
    pub would_patch: Option<BTreeSet<String>>,
}

/// One expectation that a decision does not meet.
#[derive(Debug)]
pub struct Mismatch {
    /// The key below `expect`.
    pub key: &'static str,
    /// What was expected and what came; several lines.
    pub text: String,
}

/// What is said against a spec or about it.
#[derive(Debug)]
pub struct Remark {
    /// `PLUGIN: MESSAGE`.
    pub text: String,
    /// Whether the plugin failed, which nobody should take for its verdict.
    pub is_fault: bool,
}

impl Expected {
    /// Compiles the expectation at the key path `at`, for a chain if it is known.
    pub fn compile(
        expect: &Expect,
        at: &str,
        chain: Option<&Tested>,
        report: &mut dyn FnMut(String, String),
    ) -> Self {
        let mut compiler = Compiler { at, chain, report };
        compiler.goes_with_decision(expect);
        let monitored = expect.monitored.as_ref();
        if let Some(Monitored {
            deny: None,
            patch: None,
        }) = monitored
        {
            compiler.problem("monitored", "nothing is expected: give `deny` or `patch`");
        }
        Self {
            decision: expect.decision,
            messages: compiler.patterns("messages", expect.messages.as_deref()),
            denied_by: compiler.plugins("deniedBy", expect.denied_by.as_deref()),
            warnings: compiler.patterns("warnings", expect.warnings.as_deref()),
            patch: compiler.operations(expect.patch.as_deref()),
            spec: expect.spec.clone().map(Value::Object),
            would_deny: compiler
                .plugins("monitored.deny", monitored.and_then(|m| m.deny.as_deref())),
            would_patch: compiler.plugins(
                "monitored.patch",
                monitored.and_then(|m| m.patch.as_deref()),
            ),
        }
    }

    /// Where the decision, and what monitored plugins made of it, are not as expected.
    pub fn mismatches(&self, decision: &Decision, shadow: &Decision) -> Vec<Mismatch> {
        let mut found = Vec::new();
        let mut note =
            |key, text: Option<String>| found.extend(text.map(|text| Mismatch { key, text }));
        note("decision", self.other_decision(decision));
        if !decision.allowed() && self.decision == Verdict::Denied {
            note(
                "messages",
                unmatched(self.messages.as_deref(), &denials(decision), "denial"),
            );
            note(
                "deniedBy",
                others(self.denied_by.as_ref(), &denying(decision)),
            );
        }
        note(
            "warnings",
            unmatched(self.warnings.as_deref(), &warnings(decision), "warning"),
        );
        if decision.allowed() {
            note("patch", self.other_patch(decision));
            note("spec", self.other_spec(decision));
        }
        note(
            "monitored.deny",
            others(self.would_deny.as_ref(), &denying(shadow)),
        );
        note(
            "monitored.patch",
            others(self.would_patch.as_ref(), &patching(shadow)),
        );
        found
    }

    fn other_decision(&self, decision: &Decision) -> Option<String> {
        let (expected, got) = (self.decision.as_str(), decision.as_str());
        if expected == got {
            return None;
        }
        let mut lines = vec![format!("expected {expected}, got {got}")];
        lines.extend(denials(decision).iter().map(Remark::line));
        if decision.allowed() {
            lines.extend(
                decision
                    .patch
                    .iter()
                    .map(|operation| format!("  {operation}")),
            );
        }
        Some(lines.join("\n"))
    }

    /// Whether the expected patch makes another spec: how it is written does not matter.
    fn other_patch(&self, decision: &Decision) -> Option<String> {
        let expected = self.patch.as_deref()?;
        let made = patch::apply(decision.review.spec.value(), expected);
        if made.as_ref().is_ok_and(|made| same(&decision.spec, made)) {
            return None;
        }
        let why = match made {
            Err(why) => format!("the expected patch does not apply: {why}"),
            Ok(_) => "the patch is another".to_owned(),
        };
        let lines = |patch: &[PatchOperation]| {
            let lines = patch.iter().map(|operation| format!("{operation}\n"));
            lines.collect::<String>()
        };
        Some(format!(
            "{why}\n{}",
            diff(&lines(expected), &lines(&decision.patch))
        ))
    }

    fn other_spec(&self, decision: &Decision) -> Option<String> {
        let expected = self
            .spec
            .as_ref()
            .filter(|spec| !holds(&decision.spec, spec))?;
        let found = shaped(&decision.spec, expected).unwrap_or_else(|| Value::Object(Map::new()));
        let pretty = |value: &Value| format!("{value:#}\n");
        Some(format!(
            "the admitted spec is another\n{}",
            diff(&pretty(expected), &pretty(&found))
        ))
    }
}

/// What denies, in the order of the chain.
pub fn denials(decision: &Decision) -> Vec<Remark> {
    let mut found = Vec::new();
    for part in &decision.parts {
        match &part.result {
            PartResult::Denied(denials) => {
                found.extend(
                    denials
                        .iter()
                        .map(|denial| remark(part, denial.words(), false)),
                );
            }
            PartResult::Failed(fault) => found.push(remark(part, &fault.message, true)),
            PartResult::Conflict { with, path } => {
                let message = format!("its change of {path} conflicts with that of {with}");
                found.push(remark(part, &message, true));
            }
            _ => {}
        }
    }
    found
}

/// What is said without denying, faults that were passed over among it.
pub fn warnings(decision: &Decision) -> Vec<Remark> {
    let said = decision.warnings().map(|text| Remark {
        text,
        is_fault: false,
    });
    let passed_over = decision.parts.iter().filter_map(|part| match &part.result {
        PartResult::FailedOpen(fault) => Some(remark(part, &fault.message, true)),
        _ => None,
    });
    said.chain(passed_over).collect()
}

/// The plugins that deny.
pub fn denying(decision: &Decision) -> BTreeSet<String> {
    names(decision, |part| part.result.denies())
}

/// The plugins that changed the spec.
pub fn patching(decision: &Decision) -> BTreeSet<String> {
    names(decision, |part| !part.patch.is_empty())
}

impl Remark {
    fn line(&self) -> String {
        let failed = if self.is_fault { "  (it failed)" } else { "" };
        format!("  - {}{failed}", self.text.replace('\n', "\n    "))
    }
}

fn remark(part: &Part, message: &str, is_fault: bool) -> Remark {
    Remark {
        text: format!("{}: {message}", part.plugin),
        is_fault,
    }
}

fn names(decision: &Decision, is_one: impl Fn(&Part) -> bool) -> BTreeSet<String> {
    let parts = decision.parts.iter().filter(|part| is_one(part));
    parts.map(|part| part.plugin.to_string()).collect()
}

/// The patterns that match no remark, and the remarks that no pattern matches. Where none are
/// given, only faults are not expected.
fn unmatched(patterns: Option<&[Regex]>, remarks: &[Remark], noun: &str) -> Option<String> {
    let mut lines = Vec::new();
    for pattern in patterns.unwrap_or_default() {
        if !remarks.iter().any(|remark| pattern.is_match(&remark.text)) {
            lines.push(format!("no {noun} matches `{pattern}`"));
        }
    }
    let is_expected = |remark: &&Remark| match patterns {
        Some(patterns) => patterns
            .iter()
            .any(|pattern| pattern.is_match(&remark.text)),
        None => !remark.is_fault,
    };
    let rest: Vec<_> = remarks
        .iter()
        .filter(|remark| !is_expected(remark))
        .collect();
    if !rest.is_empty() {
        lines.push(format!("not expected as a {noun}:"));
        lines.extend(rest.into_iter().map(Remark::line));
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn others(expected: Option<&BTreeSet<String>>, found: &BTreeSet<String>) -> Option<String> {
    let expected = expected.filter(|expected| *expected != found)?;
    Some(format!(
        "expected {}, got {}",
        listed(expected),
        listed(found)
    ))
}

fn listed(names: &BTreeSet<String>) -> String {
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.iter().cloned().collect::<Vec<_>>().join(", "),
    }
}

fn diff(expected: &str, found: &str) -> String {
    let diff = TextDiff::from_lines(expected, found);
    let mut unified = diff.unified_diff();
    let text = unified
        .context_radius(2)
        .header("expected", "got")
        .to_string();
    text.trim_end().to_owned()
}

/// Compiles one expectation and reports what is wrong with it.
struct Compiler<'c> {
    at: &'c str,
    chain: Option<&'c Tested>,
    report: &'c mut dyn FnMut(String, String),
}

impl Compiler<'_> {
    /// Refuses keys that say something of another decision, and those that say nothing.
    fn goes_with_decision(&mut self, expect: &Expect) {
        let decision = expect.decision;
        let denial = decision == Verdict::Denied;
        let keys = [
            (
                "messages",
                expect.messages.is_some(),
                denial,
                "`decision: denied`",
            ),
            (
                "deniedBy",
                expect.denied_by.is_some(),
                denial,
                "`decision: denied`",
            ),
            (
                "patch",
                expect.patch.is_some(),
                decision == Verdict::Patched,
                "`decision: patched`",
            ),
            (
                "spec",
                expect.spec.is_some(),
                !denial,
                "what is admitted, not with `denied`",
            ),
        ];
        for (key, given, fits, with) in keys {
            if given && !fits {
                self.problem(key, &format!("cannot hold: it goes with {with}"));
            }
        }
        if expect.spec.as_ref().is_some_and(Map::is_empty) {
            self.problem("spec", "cannot fail: any spec holds nothing");
        }
    }

    fn patterns(&mut self, key: &str, patterns: Option<&[String]>) -> Option<Vec<Regex>> {
        let patterns = patterns?.iter().enumerate();
        let compiled = patterns.filter_map(|(index, pattern)| {
            let problem = match Regex::new(pattern) {
                // A text that nobody would expect.
                Ok(regex) if regex.is_match("") && regex.is_match("\u{1}") => {
                    "cannot fail: it matches any text".to_owned()
                }
                Ok(regex) => return Some(regex),
                Err(error) => format!("no regular expression: {}", last_line(&error.to_string())),
            };
            self.problem(&item(key, index), &problem);
            None
        });
        Some(compiled.collect())
    }

    fn plugins(&mut self, key: &str, names: Option<&[String]>) -> Option<BTreeSet<String>> {
        let names = names?;
        for (index, name) in names.iter().enumerate() {
            if let Some(chain) = self.chain
                && !chain.names().any(|known| known == name)
            {
                let message = match chain.left_out.contains(name) {
                    true => format!("`{name}` is called over HTTP, so no test asks it"),
                    false => {
                        let near = suggest::nearest(name, chain.names());
                        let hint = near.map(|near| format!("; did you mean `{near}`?"));
                        format!("there is no plugin `{name}`{}", hint.unwrap_or_default())
                    }
                };
                self.problem(&item(key, index), &message);
            }
        }
        Some(names.iter().cloned().collect())
    }

    fn operations(&mut self, patch: Option<&[Map<String, Value>]>) -> Option<Vec<PatchOperation>> {
        let operations = patch?.iter().enumerate();
        let operations = operations.filter_map(|(index, operation)| {
            let operation = Value::Object(operation.clone());
            let parsed = serde_json::from_value(operation);
            let note = |error: serde_json::Error| {
                let message = format!("no operation of a JSON Patch: {error}");
                self.problem(&item("patch", index), &message);
            };
            parsed.map_err(note).ok()
        });
        Some(operations.collect())
    }

    fn problem(&mut self, key: &str, message: &str) {
        (self.report)(format!("{}.{key}", self.at), message.to_owned());
    }
}

/// What is wrong, without the picture of where.
fn last_line(error: &str) -> &str {
    let line = error.lines().last().unwrap_or(error);
    line.trim_start_matches("error: ")
}
