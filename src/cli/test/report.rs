//! What came of a run of suites, for people and as JSON.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::coverage::{Coverage, Unfired};
use super::expected::Mismatch;

/// How much of a rule's text is shown.
const SHOWN: usize = 72;

/// What came of all suites.
pub struct Report {
    pub suites: Vec<SuiteReport>,
    /// None when it was not asked for.
    pub coverage: Option<Coverage>,
    /// The least percentage of rules that must have fired.
    pub threshold: Option<u8>,
}

/// What came of one suite.
pub struct SuiteReport {
    pub path: PathBuf,
    /// The plugins that are called over HTTP, by name. No case asked them.
    pub left_out: Vec<String>,
    pub cases: Vec<CaseReport>,
}

/// What came of one case.
pub struct CaseReport {
    pub name: String,
    pub line: Option<usize>,
    pub decision: &'static str,
    pub took: Duration,
    pub mismatches: Vec<Mismatch>,
    /// Whether its expectation was rewritten, so that it passes from now on.
    pub rewritten: bool,
}

impl CaseReport {
    pub fn passes(&self) -> bool {
        self.mismatches.is_empty() || self.rewritten
    }

    /// The name in reports.
    fn result(&self) -> &'static str {
        match (self.mismatches.is_empty(), self.rewritten) {
            (true, _) => "pass",
            (false, true) => "rewritten",
            (false, false) => "fail",
        }
    }
}

impl SuiteReport {
    /// Has every case pass, as it does from now on.
    pub fn rewritten(&mut self) {
        let cases = self.cases.iter_mut();
        cases.for_each(|case| case.rewritten = !case.mismatches.is_empty());
    }

    pub fn failed(&self) -> usize {
        self.cases.iter().filter(|case| !case.passes()).count()
    }
}

impl Report {
    pub fn cases(&self) -> usize {
        self.suites.iter().map(|suite| suite.cases.len()).sum()
    }

    pub fn failed(&self) -> usize {
        self.suites.iter().map(SuiteReport::failed).sum()
    }

    /// The coverage in words, when less of it is there than asked for.
    pub fn uncovered(&self) -> Option<String> {
        let (coverage, threshold) = (self.coverage.as_ref()?, self.threshold?);
        let percent = coverage.percent();
        (percent < usize::from(threshold))
            .then(|| format!("{percent} % of the rules fire, less than {threshold} %"))
    }

    pub fn passes(&self) -> bool {
        self.failed() == 0 && self.uncovered().is_none()
    }
}

/// Writes a report for people: a line for each suite, each case that fails and why.
pub fn text(out: &mut impl Write, report: &Report, verbose: bool) -> io::Result<()> {
    for suite in &report.suites {
        suite_text(out, suite, verbose)?;
    }
    let (cases, failed) = (report.cases(), report.failed());
    let suites = counted(report.suites.len(), "suite");
    let (passed, fail) = (cases - failed, if failed == 1 { "fails" } else { "fail" });
    let cases = counted(cases, "case");
    writeln!(out, "{cases} in {suites}: {passed} pass, {failed} {fail}")?;
    if let Some(coverage) = &report.coverage {
        coverage_text(out, coverage)?;
    }
    match report.uncovered() {
        Some(uncovered) => writeln!(out, "{uncovered}"),
        None => Ok(()),
    }
}

fn suite_text(out: &mut impl Write, suite: &SuiteReport, verbose: bool) -> io::Result<()> {
    let (path, cases) = (suite.path.display(), counted(suite.cases.len(), "case"));
    match suite.failed() {
        0 => writeln!(out, "ok    {path}: {cases}")?,
        failed => writeln!(out, "FAIL  {path}: {failed} of {cases}")?,
    }
    if !suite.left_out.is_empty() {
        let remote = counted(suite.left_out.len(), "remote plugin");
        let are = if suite.left_out.len() == 1 {
            "is"
        } else {
            "are"
        };
        let names = suite.left_out.join(", ");
        writeln!(out, "      {remote} {are} left out: {names}")?;
    }
    for case in &suite.cases {
        let name = &case.name;
        match case.result() {
            "pass" if verbose => writeln!(out, "  ok    {name}")?,
            "pass" => {}
            // The difference has been shown.
            "rewritten" => writeln!(out, "  new   {name}")?,
            _ => {
                let line = case.line.map(|line| format!(" (line {line})"));
                writeln!(out, "  FAIL  {name}{}", line.unwrap_or_default())?;
                for mismatch in &case.mismatches {
                    let text = mismatch.text.replace('\n', "\n          ");
                    writeln!(out, "        {}: {text}", mismatch.key)?;
                }
            }
        }
    }
    Ok(())
}

fn coverage_text(out: &mut impl Write, coverage: &Coverage) -> io::Result<()> {
    let (rules, fired) = (coverage.rules(), coverage.fired());
    let all = counted(rules, "rule");
    writeln!(out, "coverage {fired} of {all} ({} %)", coverage.percent())?;
    for unfired in coverage.unfired() {
        writeln!(out, "  never fired: {}", described(&unfired))?;
    }
    Ok(())
}

/// A rule on one line: `gpu-limit validations[0] (admission.yaml): effective.gpus.max <= 8`.
pub fn described(unfired: &Unfired<'_>) -> String {
    let origin = unfired
        .origin
        .map(|origin| format!(" ({})", origin.display()));
    let (policy, rule) = (unfired.policy, unfired.rule);
    let text = beginning(unfired.text);
    format!("{policy} {rule}{}: {text}", origin.unwrap_or_default())
}

/// Writes a report as one JSON object.
pub fn json(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let failed = report.failed();
    let whole = json!({
        "result": if report.passes() { "pass" } else { "fail" },
        "cases": report.cases(),
        "passed": report.cases() - failed,
        "failed": failed,
        "suites": report.suites.iter().map(suite_json).collect::<Vec<_>>(),
        "coverage": report.coverage.as_ref().map(|coverage| coverage_json(coverage, report.threshold)),
    });
    writeln!(out, "{whole:#}")
}

fn suite_json(suite: &SuiteReport) -> Value {
    let case = |case: &CaseReport| {
        let failures = case.mismatches.iter();
        let failures = failures.map(|m| json!({"key": m.key, "message": m.text}));
        json!({
            "name": case.name,
            "line": case.line,
            "result": case.result(),
            "decision": case.decision,
            "durationSeconds": case.took.as_secs_f64(),
            "failures": failures.collect::<Vec<_>>(),
        })
    };
    json!({
        "file": suite.path,
        "leftOut": suite.left_out,
        "cases": suite.cases.iter().map(case).collect::<Vec<_>>(),
    })
}

fn coverage_json(coverage: &Coverage, threshold: Option<u8>) -> Value {
    let unfired = coverage.unfired().map(|unfired| {
        json!({
            "policy": unfired.policy,
            "file": unfired.origin.map(Path::to_path_buf),
            "rule": unfired.rule.to_string(),
            "text": unfired.text,
        })
    });
    json!({
        "rules": coverage.rules(),
        "fired": coverage.fired(),
        "percent": coverage.percent(),
        "threshold": threshold,
        "neverFired": unfired.collect::<Vec<_>>(),
    })
}

/// `1 case`, `2 cases`.
pub fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// The beginning of a text, on one line.
fn beginning(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
