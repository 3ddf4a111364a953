//! `explain`: tells from the audit log who asked for what, what each plugin said to it, and who set
//! which field. It reads logs, and asks and changes nothing.

mod logs;
mod search;
mod show;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use self::search::{Search, Wanted};
use super::plain::plain;
use super::replay::filter::Filter;
use super::{ExplainArguments, Output, UNUSABLE, unusable};
use crate::admission::scope::Globs;
use crate::config;

/// Explains. Exit code 1 when there is no such decision.
pub fn run(arguments: &ExplainArguments) -> anyhow::Result<ExitCode> {
    let given = match named(arguments)? {
        Ok(given) => given,
        Err(code) => return Ok(code),
    };
    let wanted = match wanted(arguments) {
        Ok(wanted) => wanted,
        Err(why) => return refused(&why),
    };
    let (files, lines) = match logs::open(&given) {
        Ok(opened) => opened,
        Err(why) if ends_with_an_id(arguments) => {
            let why = format!(
                "{why}; a decision's id stands before `--audit`, which takes all that follows"
            );
            return refused(&why);
        }
        Err(why) => return refused(&why),
    };
    let most = if arguments.last {
        1
    } else {
        usize::from(arguments.show)
    };
    let search = search::search(lines, &wanted, most, &given);
    if search.found.is_empty() {
        return nothing(&wanted, &search, &files, &given, arguments.output);
    }
    let in_full = arguments.last || search.found.len() == 1 && search.matched == 1;
    let mut out = io::stdout().lock();
    match arguments.output {
        Output::Json => show::json(&mut out, &search, &files, &[])?,
        Output::Text if in_full => {
            for found in &search.found {
                show::story(&mut out, &found.events())?;
            }
        }
        Output::Text => show::list(&mut out, &search)?,
    }
    out.flush()?;
    let mut err = io::stderr().lock();
    for note in &search.unreadable {
        writeln!(err, "dstack-admission: {note}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the name of a trace, as W3C Trace Context writes it, in any letter case.
///
/// # Errors
/// In words, when it is none.
pub fn trace(text: &str) -> Result<String, String> {
    let id = text.trim().to_ascii_lowercase();
    let named = id.len() == 32 && id.bytes().all(|digit| digit.is_ascii_hexdigit());
    match named && id.bytes().any(|digit| digit != b'0') {
        true => Ok(id),
        false => Err(
            "a trace is 32 hex digits, not all of them 0, such as 0af7651916cd43dd8448eb211c80319c"
                .to_owned(),
        ),
    }
}

/// The logs to read, as they are named.
fn named(arguments: &ExplainArguments) -> anyhow::Result<Result<Vec<PathBuf>, ExitCode>> {
    if !arguments.audit.is_empty() {
        return Ok(Ok(arguments.audit.clone()));
    }
    let Some(path) = &arguments.config else {
        let why = "say where the audit log is: `--audit LOG…`, or `--config FILE` with a file among its `audit.sinks`";
        return Ok(Err(refused(why)?));
    };
    let file = match config::read(path).into_result() {
        Ok(loaded) => loaded.file,
        Err(problems) => return Ok(Err(unusable(&problems)?)),
    };
    let sinks = file.audit.sinks.into_iter();
    let files: Vec<_> = sinks.filter_map(|sink| Some(sink.file?.path)).collect();
    if files.is_empty() {
        let path = path.display();
        let why = format!(
            "{path} records to no file: save what it writes to standard output (`kubectl logs`, `docker logs`, `journalctl -o cat`) and name that, or other logs, with `--audit LOG…`"
        );
        return Ok(Err(refused(&why)?));
    }
    Ok(Ok(files))
}

/// Whether the last of several logs looks like an id or its beginning, and none was given.
fn ends_with_an_id(arguments: &ExplainArguments) -> bool {
    let [_, .., last] = arguments.audit.as_slice() else {
        return false;
    };
    let mut letters = last.as_os_str().as_encoded_bytes().iter();
    arguments.id.is_none() && letters.all(u8::is_ascii_alphanumeric)
}

fn wanted(arguments: &ExplainArguments) -> Result<Wanted, String> {
    // Ids are written in capitals; people copy them in any form.
    let id = arguments
        .id
        .as_deref()
        .map(|id| id.trim().to_ascii_uppercase());
    if id.as_deref().is_some_and(str::is_empty) {
        return Err("an id is needed, such as 01JD4X0000000000000000000A".to_owned());
    }
    Ok(Wanted {
        id,
        names: Globs::parse(&arguments.names)?,
        any_name: arguments.names.is_empty(),
        trace: arguments.trace.clone(),
        filter: Filter::new(&arguments.chosen)?,
    })
}

/// Says what was searched, and which ids are near; as JSON, too, if that is wanted.
fn nothing(
    wanted: &Wanted,
    search: &Search,
    files: &[PathBuf],
    given: &[PathBuf],
    output: Output,
) -> anyhow::Result<ExitCode> {
    let near = match &wanted.id {
        Some(id) => logs::open(given).map(|(_, lines)| search::nearest(id, lines)),
        None => Ok(Vec::new()),
    };
    let near = near.unwrap_or_default();
    let is_there = |id: &String| near.iter().any(|near| near.starts_with(id.as_str()));
    if output == Output::Json {
        show::json(&mut io::stdout().lock(), search, files, &near)?;
    }
    let mut err = io::stderr().lock();
    let what = match &wanted.id {
        Some(id) if is_there(id) => {
            format!("decision {id} is there, but not what else was asked for,")
        }
        Some(id) => format!("no decision {id}"),
        None => "no such decision".to_owned(),
    };
    let events = search.events;
    writeln!(
        err,
        "dstack-admission: {what} among {events} audit events of"
    )?;
    for file in files {
        writeln!(err, "  {}", file.display())?;
    }
    if !near.is_empty() {
        let near: Vec<_> = near.iter().map(|id| plain(id)).collect();
        writeln!(err, "near it: {}", near.join(", "))?;
    }
    for note in &search.unreadable {
        writeln!(err, "{note}")?;
    }
    Ok(ExitCode::FAILURE)
}

fn refused(why: &str) -> anyhow::Result<ExitCode> {
    writeln!(io::stderr(), "dstack-admission: {why}")?;
    Ok(ExitCode::from(UNUSABLE))
}
