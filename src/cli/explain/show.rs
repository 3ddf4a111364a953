//! A decision as a person reads it, and as JSON.

mod json;

use std::io::{self, Write};

use json_patch::PatchOperation;
use serde_json::Value;

pub use self::json::json;
use super::search::{Events, Search};
use crate::cli::plain::plain;
use crate::observe::events::{About, Event, PluginEvent};

/// Characters of a value that are shown.
const WIDTH: usize = 200;

/// One field of the spec that plugins changed.
struct Field {
    path: String,
    /// `None`: the record does not tell.
    was: Option<Told>,
    now: Option<Told>,
    /// Who set it, the last one last.
    by: Vec<String>,
}

/// A value, or that there is none.
type Told = Option<Value>;

/// Writes one decision in full.
///
/// # Errors
/// When it cannot be written.
pub fn story(out: &mut impl Write, events: &Events<'_>) -> io::Result<()> {
    if let Some(event) = &events.decision {
        head(out, event)?;
        writeln!(out, "\nplugins, in the order in which they were asked:")?;
        plugins(out, event)?;
        fields(out, event)?;
    }
    if let Some(event) = &events.monitored {
        if events.decision.is_none() {
            let id = plain(&event.id);
            writeln!(
                out,
                "decision {id}: only what monitored plugins said is recorded"
            )?;
            who(out, event)?;
        }
        let decision = plain(&event.decision);
        writeln!(
            out,
            "\nmonitored plugins, asked after the answer: {decision}"
        )?;
        plugins(out, event)?;
        fields(out, event)?;
    }
    for event in [&events.decision, &events.monitored].into_iter().flatten() {
        notes(out, event)?;
    }
    Ok(())
}

fn head(out: &mut impl Write, event: &Event<'_>) -> io::Result<()> {
    let (id, decision) = (plain(&event.id), plain(&event.decision));
    writeln!(out, "decision {id}: {decision}")?;
    who(out, event)?;
    if let Some(earlier) = &event.repeat_of {
        let earlier = plain(earlier);
        writeln!(
            out,
            "  repeats   {earlier}, probably: the same spec of the same user shortly before, as plan and apply are"
        )?;
    }
    if let Some(trace) = &event.trace_id {
        writeln!(out, "  trace     {}", plain(trace))?;
    }
    if let Some(message) = &event.response_status.message {
        writeln!(out, "  answer    {}", indented(message, "            "))?;
    }
    Ok(())
}

fn who(out: &mut impl Write, event: &Event<'_>) -> io::Result<()> {
    let object = &event.object_ref;
    let name = object.name.as_deref().unwrap_or("(unnamed)");
    let kind = object
        .resource
        .strip_suffix('s')
        .unwrap_or(&object.resource);
    let (user, project) = (plain(&event.user.username), plain(&object.namespace));
    writeln!(out, "  who       {user} in {project}")?;
    writeln!(out, "  what      {} {}", plain(kind), plain(name))?;
    let at = humantime::format_rfc3339_millis(event.received);
    let decided = match event.about() {
        About::Decision => format!(", decided in {}", took(event.duration_seconds)),
        // How long the answer took is not recorded.
        About::Monitored | About::Other => String::new(),
    };
    writeln!(out, "  when      {at}{decided}")?;
    writeln!(
        out,
        "  by        configuration {}, recorded at the level {}",
        plain(&event.configuration),
        plain(&event.level)
    )
}

fn plugins(out: &mut impl Write, event: &Event<'_>) -> io::Result<()> {
    if event.plugins.is_empty() {
        writeln!(out, "  (none was asked)")?;
    }
    for (index, part) in event.plugins.iter().enumerate() {
        plugin(out, index + 1, part)?;
    }
    Ok(())
}

fn plugin(out: &mut impl Write, number: usize, part: &PluginEvent<'_>) -> io::Result<()> {
    let (name, verdict) = (plain(&part.name), verdict(part));
    let mut marks = vec![plain(&part.phase), took(part.duration_seconds)];
    if part.reinvoked {
        marks.push("called again".to_owned());
    }
    marks.extend(part.rules.iter().map(|rule| plain(rule)));
    writeln!(out, "  {number}. {name}: {verdict} ({})", marks.join(", "))?;
    let words: Vec<_> = part
        .messages
        .iter()
        .map(|text| indented(text, "     "))
        .collect();
    match (&*part.verdict, words.as_slice()) {
        ("conflict", [with, path]) => {
            writeln!(
                out,
                "     its change of {path} conflicts with that of {with}"
            )?;
        }
        ("skipped", [condition]) => writeln!(out, "     its condition `{condition}` was false")?,
        ("exempt", [reason]) => {
            let until = part.exempt_until.as_deref().map(plain);
            let until = until
                .map(|until| format!(", until {until}"))
                .unwrap_or_default();
            writeln!(out, "     {reason}{until}")?;
        }
        _ => {
            for text in &words {
                writeln!(out, "     {text}")?;
            }
        }
    }
    for operation in part.patch() {
        writeln!(out, "     {}", operation_words(operation))?;
    }
    for warning in &part.warnings {
        writeln!(out, "     warning: {}", indented(warning, "     "))?;
    }
    Ok(())
}

fn verdict(part: &PluginEvent<'_>) -> String {
    let why = part.error_type.as_deref().map(plain).unwrap_or_default();
    match &*part.verdict {
        "failed" => format!("FAILED and denied for it ({why})"),
        "failed_open" => format!("FAILED OPEN: passed over by its failure policy ({why})"),
        "denied" => "DENIED".to_owned(),
        "conflict" => "CONFLICT".to_owned(),
        other => plain(other),
    }
}

fn operation_words(operation: &PatchOperation) -> String {
    let path = plain(operation.path().as_str());
    match operation {
        PatchOperation::Add(op) => format!("add {path} {}", shown(&op.value)),
        PatchOperation::Replace(op) => format!("replace {path} {}", shown(&op.value)),
        PatchOperation::Test(op) => format!("test {path} {}", shown(&op.value)),
        PatchOperation::Remove(_) => format!("remove {path}"),
        PatchOperation::Move(op) => format!("move {} to {path}", plain(op.from.as_str())),
        PatchOperation::Copy(op) => format!("copy {} to {path}", plain(op.from.as_str())),
    }
}

fn fields(out: &mut impl Write, event: &Event<'_>) -> io::Result<()> {
    let changed = changed(event);
    if changed.is_empty() {
        return Ok(());
    }
    match &*event.decision {
        "denied" => writeln!(
            out,
            "\nfields that were changed before it was denied, to no effect:"
        )?,
        "would_allow" | "would_patch" | "would_deny" => {
            writeln!(out, "\nfields that would have been changed:")?;
        }
        _ => writeln!(out, "\nfields that were changed:")?,
    }
    for field in changed {
        let by = match field.by.split_last() {
            Some((last, [])) => format!("by {last}"),
            Some((last, before)) => format!("by {last} after {}", before.join(", ")),
            None => continue,
        };
        let now = match &field.now {
            Some(Some(value)) => format!("{}, set", shown(value)),
            Some(None) => "taken away".to_owned(),
            None => "set".to_owned(),
        };
        let was = match &field.was {
            Some(Some(value)) => format!("; was {}", shown(value)),
            Some(None) => "; was absent".to_owned(),
            None => String::new(),
        };
        writeln!(out, "  {} {now} {by}{was}", plain(&field.path))?;
    }
    Ok(())
}

/// Who set which field, in the order in which they were first set. Records of older versions tell
/// only where patches wrote.
fn changed(event: &Event<'_>) -> Vec<Field> {
    let mut found: Vec<Field> = Vec::new();
    let mut set = |path: String, was: Option<Told>, now: Option<Told>, by: &str| match found
        .iter_mut()
        .find(|field| field.path == path)
    {
        Some(field) => {
            field.now = now;
            if field.by.last().is_none_or(|last| last != by) {
                field.by.push(by.to_owned());
            }
        }
        None => found.push(Field {
            path,
            was,
            now,
            by: vec![by.to_owned()],
        }),
    };
    for part in &event.plugins {
        let by = plain(&part.name);
        if part.changes.is_empty() {
            for operation in part.patch() {
                let now = match operation {
                    PatchOperation::Add(op) => Some(Some(op.value.clone())),
                    PatchOperation::Replace(op) => Some(Some(op.value.clone())),
                    PatchOperation::Remove(_) => Some(None),
                    PatchOperation::Test(_) => continue,
                    PatchOperation::Move(_) | PatchOperation::Copy(_) => None,
                };
                set(operation.path().to_string(), None, now, &by);
            }
        }
        for change in &part.changes {
            let (was, now) = (change.was.clone(), change.now.clone());
            set(change.path.to_string(), Some(was), Some(now), &by);
        }
    }
    found
}

fn notes(out: &mut impl Write, event: &Event<'_>) -> io::Result<()> {
    let names = |names: &[crate::observe::events::Text<'_>]| {
        let names = names.iter().map(|name| plain(name));
        Vec::from_iter(names).join(", ")
    };
    if !event.unsettled.is_empty() {
        writeln!(
            out,
            "\nthe spec went on changing after the second call of: {}",
            names(&event.unsettled)
        )?;
    }
    if !event.annotations.is_empty() {
        writeln!(out, "\nannotations:")?;
        for (key, value) in &event.annotations {
            writeln!(out, "  {}: {}", plain(key), indented(value, "    "))?;
        }
    }
    if event.redaction_failed {
        writeln!(out, "\nredacting failed, so only metadata is recorded")?;
    }
    if !event.redacted.is_empty() {
        writeln!(
            out,
            "\nsecrets were redacted in: {}",
            names(&event.redacted)
        )?;
    }
    Ok(())
}

/// Writes one line for each decision.
///
/// # Errors
/// When it cannot be written.
pub fn list(out: &mut impl Write, search: &Search) -> io::Result<()> {
    let shown = search.found.len() as u64;
    if shown < search.matched {
        writeln!(out, "the latest {shown} of {} decisions:", search.matched)?;
    }
    for found in &search.found {
        let events = found.events();
        let Some(event) = events.decision.as_ref().or(events.monitored.as_ref()) else {
            continue;
        };
        let object = &event.object_ref;
        let kind = object
            .resource
            .strip_suffix('s')
            .unwrap_or(&object.resource);
        let at = humantime::format_rfc3339_seconds(event.received);
        let monitored = match &events.monitored {
            Some(monitored) => format!(" ({})", plain(&monitored.decision)),
            None => String::new(),
        };
        writeln!(
            out,
            "{} {at} {} in {}: {} {}: {}{monitored}",
            plain(&event.id),
            plain(&event.user.username),
            plain(&object.namespace),
            plain(kind),
            object.name.as_deref().map_or("(unnamed)".to_owned(), plain),
            plain(&event.decision),
        )?;
    }
    writeln!(
        out,
        "\n`explain ID` tells more of one, `--last` of the latest"
    )
}

fn shown(value: &Value) -> String {
    let text = plain(&value.to_string());
    match text.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A text of several lines, those after the first one indented, without what would steer a terminal.
fn indented(text: &str, indent: &str) -> String {
    let lines = text.lines().map(plain).filter(|line| !line.is_empty());
    Vec::from_iter(lines).join(&format!("\n{indent}"))
}

fn took(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}

#[cfg(test)]
mod tests;
