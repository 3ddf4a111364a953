//! What came of a run of suites as JUnit XML, the form that CI systems read.

use std::io::{self, Write};
use std::time::Duration;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};

use super::report::{CaseReport, Report, SuiteReport, described};

/// Writes a report: a `testsuite` for each suite, a `testcase` for each case. A threshold of coverage is a
/// suite of its own.
pub fn write(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let mut xml = Writer::new_with_indent(&mut *out, b' ', 2);
    xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let threshold = usize::from(report.threshold.is_some());
    let uncovered = usize::from(report.uncovered().is_some());
    let took = report.suites.iter().map(took).sum();
    xml.create_element("testsuites")
        .with_attribute(("name", "dstack-admission"))
        .with_attribute(("tests", &*(report.cases() + threshold).to_string()))
        .with_attribute(("failures", &*(report.failed() + uncovered).to_string()))
        .with_attribute(("errors", "0"))
        .with_attribute(("time", &*seconds(took)))
        .write_inner_content(|xml| {
            report.suites.iter().try_for_each(|s| suite(xml, s))?;
            match report.threshold {
                Some(threshold) => coverage(xml, report, threshold),
                None => Ok(()),
            }
        })?;
    writeln!(out)
}

fn suite<W: Write>(xml: &mut Writer<W>, suite: &SuiteReport) -> io::Result<()> {
    let file = allowed(&suite.path.display().to_string());
    xml.create_element("testsuite")
        .with_attribute(("name", &*file))
        .with_attribute(("tests", &*suite.cases.len().to_string()))
        .with_attribute(("failures", &*suite.failed().to_string()))
        .with_attribute(("errors", "0"))
        .with_attribute(("time", &*seconds(took(suite))))
        .write_inner_content(|xml| suite.cases.iter().try_for_each(|c| case(xml, &file, c)))?;
    Ok(())
}

fn case<W: Write>(xml: &mut Writer<W>, file: &str, case: &CaseReport) -> io::Result<()> {
    let name = allowed(&case.name);
    let line = case.line.unwrap_or(1).to_string();
    let element = xml
        .create_element("testcase")
        .with_attribute(("name", &*name))
        .with_attribute(("classname", file))
        .with_attribute(("file", file))
        .with_attribute(("line", &*line))
        .with_attribute(("time", &*seconds(case.took)));
    if case.passes() {
        element.write_empty()?;
        return Ok(());
    }
    let lines = case.mismatches.iter();
    let lines = lines.map(|mismatch| format!("{}: {}", mismatch.key, mismatch.text));
    let text = lines.collect::<Vec<_>>().join("\n");
    element.write_inner_content(|xml| failure(xml, &text))?;
    Ok(())
}

fn coverage<W: Write>(xml: &mut Writer<W>, report: &Report, threshold: u8) -> io::Result<()> {
    let uncovered = report.uncovered();
    let failures = usize::from(uncovered.is_some()).to_string();
    xml.create_element("testsuite")
        .with_attribute(("name", "coverage"))
        .with_attribute(("tests", "1"))
        .with_attribute(("failures", &*failures))
        .with_attribute(("errors", "0"))
        .write_inner_content(|xml| {
            let name = format!("at least {threshold} % of the rules fire");
            let element = xml
                .create_element("testcase")
                .with_attribute(("name", &*name))
                .with_attribute(("classname", "coverage"));
            let Some(uncovered) = uncovered else {
                return element.write_empty().map(drop);
            };
            let unfired = report
                .coverage
                .iter()
                .flat_map(|coverage| coverage.unfired());
            let unfired = unfired.map(|unfired| format!("\nnever fired: {}", described(&unfired)));
            let text = format!("{uncovered}{}", unfired.collect::<String>());
            element
                .write_inner_content(|xml| failure(xml, &text))
                .map(drop)
        })?;
    Ok(())
}

fn failure<W: Write>(xml: &mut Writer<W>, text: &str) -> io::Result<()> {
    let text = allowed(text);
    let message = text.lines().next().unwrap_or_default();
    xml.create_element("failure")
        .with_attribute(("message", message))
        .write_text_content(BytesText::new(&text))?;
    Ok(())
}

fn took(suite: &SuiteReport) -> Duration {
    suite.cases.iter().map(|case| case.took).sum()
}

fn seconds(time: Duration) -> String {
    format!("{:.6}", time.as_secs_f64())
}

/// The text without the characters that XML 1.0 has no way to write.
fn allowed(text: &str) -> String {
    let replaced = |c: char| match c {
        '\t' | '\n' | '\r' => c,
        c if c.is_ascii_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {
            char::REPLACEMENT_CHARACTER
        }
        c => c,
    };
    text.chars().map(replaced).collect()
}
