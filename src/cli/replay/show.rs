//! A replay's report as a person reads it, and as JSON.

use std::io::{self, Write};
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::LeftOut;
use super::compare::{Change, Difference};
use super::report::{Group, Report, Tally};
use crate::cli::plain::plain;

/// How many names of a tally a line of text holds, and how many characters an example's reason.
const TOP: usize = 5;
const WIDTH: usize = 200;

/// What was replayed with.
pub struct Conditions<'c> {
    /// The configuration's file and its hash.
    pub file: String,
    pub hash: &'c str,
    pub left_out: &'c [LeftOut],
}

/// Writes a summary: totals, what to know about them, then each kind of difference.
///
/// # Errors
/// When it cannot be written.
pub fn text(out: &mut impl Write, report: &Report, with: &Conditions<'_>) -> io::Result<()> {
    let (replayed, reviews) = (report.replayed, report.reviews());
    let whole = if replayed == reviews {
        count(reviews, "review")
    } else {
        format!("{replayed} of {}", count(reviews, "review"))
    };
    let period = report.period.map(|(first, last)| {
        let (first, last) = (seconds(first), seconds(last));
        format!(", {first} to {last}")
    });
    let period = period.unwrap_or_default();
    writeln!(out, "replayed {whole}{period}, with {}", with.file)?;
    for (count, what, more) in totals(report) {
        let more = Vec::from_iter(more.into_iter().flatten()).join(", ");
        let more = match more.is_empty() {
            true => more,
            false => format!(" ({more})"),
        };
        writeln!(out, "{count:>8}  {what}{more}")?;
    }
    notes(out, report, with)?;
    group(out, "newly denied", &report.newly_denied)?;
    group(out, "newly allowed", &report.newly_allowed)?;
    group(out, "patched otherwise", &report.patched)
}

/// How many reviews came out how, and what is special about some of them.
fn totals(report: &Report) -> Vec<(u64, &'static str, Vec<Option<String>>)> {
    let (denied, doubts) = (&report.newly_denied, &report.doubts);
    let of_denied = vec![
        some(denied.by_failure, "because a plugin failed"),
        some(
            denied.in_doubt,
            "perhaps for want of the patch of a plugin that was not asked",
        ),
    ];
    let of_doubts = vec![
        some(
            doubts.denied_by_left_out,
            "denied by a plugin that was not asked",
        ),
        some(
            doubts.patched_by_left_out,
            "patched by a plugin that was not asked",
        ),
        some(doubts.not_reviewed, "denied without a review"),
    ];
    let mut totals = vec![
        (report.same, "decided the same", vec![]),
        (denied.count, "newly denied", of_denied),
        (report.newly_allowed.count, "newly allowed", vec![]),
        (report.patched.count, "patched otherwise", vec![]),
    ];
    if doubts.count() > 0 {
        totals.push((doubts.count(), "not comparable", of_doubts));
    }
    if report.patch_unknown > 0 {
        let what = "patched both times, but the record does not say how";
        totals.push((report.patch_unknown, what, vec![]));
    }
    totals
}

/// What to know before the totals are believed.
fn notes(out: &mut impl Write, report: &Report, with: &Conditions<'_>) -> io::Result<()> {
    let mut notes = Vec::new();
    if report.without_spec > 0 {
        let reviews = count(report.without_spec, "review");
        notes.push(format!(
            "{reviews} recorded without a spec: `audit.level` was not `Spec`"
        ));
    }
    if report.filtered_out > 0 {
        notes.push(format!(
            "{} left out by the filters",
            count(report.filtered_out, "review")
        ));
    }
    if report.redacted > 0 {
        let reviews = count(report.redacted, "review");
        notes.push(format!(
            "{reviews} with redacted secrets: rules on secrets may decide otherwise"
        ));
    }
    if !with.left_out.is_empty() {
        let named = with
            .left_out
            .iter()
            .map(|out| format!("{} ({})", out.name, out.kind));
        let named = Vec::from_iter(named).join(", ");
        notes.push(format!(
            "not asked, since old reviews would be sent to them: {named}; `--call-remote` asks them"
        ));
    }
    if !report.failed_open.is_empty() {
        notes.push(format!("failed open: {}", top(&report.failed_open)));
    }
    for (what, tally) in [("deny", &report.would_deny), ("patch", &report.would_patch)] {
        if !tally.is_empty() {
            notes.push(format!("monitored plugins would {what}: {}", top(tally)));
        }
    }
    if !report.would_fail.is_empty() {
        notes.push(format!(
            "monitored plugins failed: {}",
            top(&report.would_fail)
        ));
    }
    if report.unreadable > 0 {
        notes.push(format!(
            "{} without an audit event",
            count(report.unreadable, "line")
        ));
    }
    if !notes.is_empty() {
        writeln!(out)?;
    }
    for note in &notes {
        writeln!(out, "- {note}")?;
    }
    for line in &report.bad_lines {
        writeln!(
            out,
            "    {}:{}: {}",
            line.file,
            line.number,
            plain(&line.why)
        )?;
    }
    Ok(())
}

fn group(out: &mut impl Write, title: &str, group: &Group) -> io::Result<()> {
    if group.count == 0 {
        return Ok(());
    }
    writeln!(out, "\n{title}: {}", group.count)?;
    writeln!(out, "  plugins   {}", top(&group.plugins))?;
    if !group.failed.is_empty() {
        writeln!(out, "  failed    {}", top(&group.failed))?;
    }
    writeln!(out, "  projects  {}", top(&group.projects))?;
    writeln!(out, "  users     {}", top(&group.users))?;
    for example in &group.examples {
        let review = &example.review;
        let name = review.name.as_deref().unwrap_or("(unnamed)");
        let marks = [
            example.by_failure().then_some("by failure"),
            example.in_doubt.then_some("in doubt"),
        ];
        let marks = Vec::from_iter(marks.into_iter().flatten());
        let marks = match marks.is_empty() {
            true => String::new(),
            false => format!(" ({})", marks.join(", ")),
        };
        let (user, project) = (plain(&review.user), plain(&review.project));
        let (at, kind, name) = (seconds(review.received), review.kind, plain(name));
        writeln!(
            out,
            "  {} {at} {user} in {project}: {kind} {name}{marks}",
            plain(&review.id)
        )?;
        writeln!(out, "      {}", reasons(example))?;
    }
    let shown = group.examples.len() as u64;
    if shown > 0 && shown < group.count {
        writeln!(out, "  and {} more", group.count - shown)?;
    }
    Ok(())
}

/// The report in the shape that the README documents.
pub fn json(report: &Report, with: &Conditions<'_>) -> Value {
    let bad_lines = report
        .bad_lines
        .iter()
        .map(|line| json!({"file": &*line.file, "line": line.number, "why": line.why}));
    let left_out = with.left_out.iter();
    let left_out = left_out.map(|out| json!({"plugin": &*out.name, "kind": out.kind}));
    let doubts = &report.doubts;
    let groups = [
        ("newlyDenied", Change::NewlyDenied),
        ("newlyAllowed", Change::NewlyAllowed),
        ("patchedOtherwise", Change::Patched),
    ];
    let groups =
        groups.map(|(key, change)| (key.to_owned(), group_json(report.group(change), change)));
    json!({
        "configuration": {"file": with.file, "hash": with.hash},
        "from": report.period.map(|(first, _)| micros(first)),
        "to": report.period.map(|(_, last)| micros(last)),
        "lines": report.lines,
        "reviews": report.reviews(),
        "replayed": report.replayed,
        "same": report.same,
        "differences": Map::from_iter(groups),
        "notComparable": {
            "count": doubts.count(),
            "deniedByLeftOut": doubts.denied_by_left_out,
            "patchedByLeftOut": doubts.patched_by_left_out,
            "notReviewed": doubts.not_reviewed,
            "plugins": counts(&doubts.plugins),
        },
        "patchUnknown": report.patch_unknown,
        "withoutSpec": report.without_spec,
        "filteredOut": report.filtered_out,
        "redacted": report.redacted,
        "leftOut": left_out.collect::<Vec<_>>(),
        "failedOpen": counts(&report.failed_open),
        "monitored": {
            "wouldDeny": counts(&report.would_deny),
            "wouldPatch": counts(&report.would_patch),
            "failed": counts(&report.would_fail),
        },
        "monitorEvents": report.monitored,
        "unreadable": {"count": report.unreadable, "first": bad_lines.collect::<Vec<_>>()},
    })
}

fn group_json(group: &Group, change: Change) -> Value {
    let example = |example: &Difference| {
        let review = &example.review;
        let mut shown = json!({
            "id": review.id,
            "received": micros(review.received),
            "kind": review.kind.as_str(),
            "name": review.name,
            "user": review.user,
            "project": review.project,
            "plugins": example.plugins,
            "message": example.message,
        });
        if change == Change::NewlyDenied {
            shown["failed"] = json!(example.failed);
            shown["inDoubt"] = json!(example.in_doubt);
        }
        shown
    };
    let mut shown = json!({
        "count": group.count,
        "plugins": counts(&group.plugins),
        "projects": counts(&group.projects),
        "users": counts(&group.users),
        "examples": group.examples.iter().map(example).collect::<Vec<_>>(),
    });
    if change == Change::NewlyDenied {
        shown["byFailure"] = json!(group.by_failure);
        shown["inDoubt"] = json!(group.in_doubt);
        shown["failed"] = counts(&group.failed);
    }
    shown
}

fn counts(tally: &Tally) -> Value {
    let sorted = tally.sorted().into_iter();
    Value::Object(
        sorted
            .map(|(name, count)| (name.to_owned(), json!(count)))
            .collect(),
    )
}

fn top(tally: &Tally) -> String {
    let sorted = tally.sorted();
    let shown = sorted.iter().take(TOP);
    let mut words: Vec<_> = shown
        .map(|(name, count)| format!("{} {count}", plain(name)))
        .collect();
    if sorted.len() > TOP {
        words.push(format!("and {} more", sorted.len() - TOP));
    }
    words.join(", ")
}

/// A denial's reasons without its opening sentence, or what is patched, on one line.
fn reasons(example: &Difference) -> String {
    let message = &example.message;
    let said = match example.change {
        Change::Patched => message,
        _ => message
            .split_once(":\n")
            .map_or(&**message, |(_, reasons)| reasons),
    };
    let said = said
        .strip_prefix("- ")
        .unwrap_or(said)
        .replace("\n- ", "; ");
    let line = plain(&said);
    match line.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn some(count: u64, what: &str) -> Option<String> {
    (count > 0).then(|| format!("{count} {what}"))
}

fn count(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

fn seconds(at: SystemTime) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_seconds(at)
}

fn micros(at: SystemTime) -> String {
    humantime::format_rfc3339_micros(at).to_string()
}
