//! Looking through audit logs for decisions.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use bytes::Bytes;

use super::Filter;
use crate::admission::review::Kind;
use crate::admission::scope::Globs;
use crate::cli::plain::plain;
use crate::observe::events::lines::{Line, Lines};
use crate::observe::events::{About, Event, Unreadable};

/// Lines that could not be read are named up to here.
const NAMED: usize = 5;
/// Characters that are told of why one could not be.
const WHY: usize = 300;
/// How many near ids are told.
const NEAR: usize = 3;

/// What is looked for.
pub struct Wanted {
    /// An id or its beginning, in capitals.
    pub id: Option<String>,
    pub names: Globs,
    pub any_name: bool,
    /// The name of a trace, in small letters.
    pub trace: Option<String>,
    pub filter: Filter,
}

/// What was found.
pub struct Search {
    /// The latest, in the order in which they were received.
    pub found: Vec<Found>,
    /// How many there are.
    pub matched: u64,
    pub events: u64,
    /// What could not be read, in words.
    pub unreadable: Vec<String>,
}

/// One decision: the lines that tell of it. There is at least one.
#[derive(Default)]
pub struct Found {
    decision: Option<Bytes>,
    monitored: Option<Bytes>,
}

/// The same, read.
pub struct Events<'f> {
    pub decision: Option<Event<'f>>,
    pub monitored: Option<Event<'f>>,
}

impl Found {
    pub fn events(&self) -> Events<'_> {
        let [decision, monitored] = self.lines();
        Events {
            decision: decision.and_then(|line| Event::parse(line).ok()),
            monitored: monitored.and_then(|line| Event::parse(line).ok()),
        }
    }

    /// The lines as JSON.
    pub fn lines(&self) -> [Option<&Bytes>; 2] {
        [self.decision.as_ref(), self.monitored.as_ref()]
    }
}

/// Looks through all lines, and keeps the latest `most` decisions. The logs that were `given` may be
/// written meanwhile.
pub fn search(lines: Lines, wanted: &Wanted, most: usize, given: &[PathBuf]) -> Search {
    let mut kept: BTreeMap<(SystemTime, String), Found> = BTreeMap::new();
    let mut search = Search {
        found: Vec::new(),
        matched: 0,
        events: 0,
        unreadable: Vec::new(),
    };
    let mut passed_over = PassedOver::of_logs(given);
    for Line { file, number, text } in lines {
        passed_over.next_line(&file);
        let line = match text {
            Ok(line) => line,
            Err(why) => {
                passed_over.note(&file, number, &why);
                continue;
            }
        };
        let event = match Event::parse(&line) {
            Ok(event) => event,
            Err(why) => {
                passed_over.note(&file, number, &why);
                continue;
            }
        };
        search.events += 1;
        if !wanted.takes(&event) {
            continue;
        }
        let key = (event.received, event.id.to_string());
        let slot = match (event.about(), kept.contains_key(&key)) {
            (About::Decision, known) => {
                // A log that is being compressed is there twice.
                search.matched += u64::from(!known);
                &mut kept.entry(key).or_default().decision
            }
            // Its decision may be recorded nowhere, by the rules of the audit; or it is too old to be kept.
            (About::Monitored, known) => {
                let first = kept.first_key_value();
                if !known && kept.len() == most && first.is_some_and(|(first, _)| key < *first) {
                    continue;
                }
                search.matched += u64::from(!known);
                &mut kept.entry(key).or_default().monitored
            }
            (About::Other, _) => continue,
        };
        // The last one tells what the user was told: a denial follows a record that a disk got late.
        *slot = Some(line.clone());
        if kept.len() > most {
            kept.pop_first();
        }
    }
    search.found = kept.into_values().collect();
    search.unreadable = passed_over.told();
    search
}

/// The ids that are most like one that is not there.
pub fn nearest(id: &str, lines: Lines) -> Vec<String> {
    let mut near: Vec<(usize, String)> = Vec::new();
    for line in lines {
        let Ok(text) = &line.text else { continue };
        let Ok(event) = Event::parse(text) else {
            continue;
        };
        let other = event.id.to_string();
        // Of what is only the beginning of an id, the beginnings are compared.
        let cut = other.get(..id.len()).unwrap_or(&other);
        let far = strsim::osa_distance(id, cut);
        if far * 2 <= id.len() && !near.iter().any(|(_, known)| *known == other) {
            near.push((far, other));
            near.sort();
            near.truncate(NEAR);
        }
    }
    near.into_iter().map(|(_, id)| id).collect()
}

impl Wanted {
    fn takes(&self, event: &Event<'_>) -> bool {
        let object = &event.object_ref;
        let of_kind = |kind: &Kind| kind.resource() == &*object.resource;
        let Some(kind) = Kind::ALL.into_iter().find(of_kind) else {
            return false;
        };
        let name = object.name.as_deref();
        self.id
            .as_deref()
            .is_none_or(|id| event.id.to_ascii_uppercase().starts_with(id))
            && (self.any_name || name.is_some_and(|name| self.names.cover(name)))
            && self
                .trace
                .as_deref()
                .is_none_or(|trace| event.trace_id.as_deref() == Some(trace))
            && self.filter.takes(
                kind,
                &object.namespace,
                &event.user.username,
                event.received,
            )
    }
}

/// Lines without an audit event. That a log which may be written now ends within a line is none to
/// speak of. In a file that a log was rotated to it is: nobody will write the rest.
struct PassedOver {
    written: Vec<String>,
    /// The latest line, and its file, if it may be one that is being written.
    unfinished: Option<(String, String)>,
    count: u64,
    named: Vec<String>,
}

impl PassedOver {
    fn of_logs(given: &[PathBuf]) -> Self {
        Self {
            written: given.iter().map(|log| log.display().to_string()).collect(),
            unfinished: None,
            count: 0,
            named: Vec::new(),
        }
    }

    fn note(&mut self, file: &str, number: u64, why: &Unreadable) {
        let cut_off = matches!(why, Unreadable::Torn(why) if why.is_eof());
        // A foreign line is quoted in what is wrong with it.
        let why = plain(&why.to_string());
        let short = why.char_indices().nth(WHY);
        let why = short.map_or(&*why, |(end, _)| &why[..end]);
        let line = format!("{file}:{number}: {why}");
        match cut_off && self.written.iter().any(|log| log == file) {
            true => self.unfinished = Some((file.to_owned(), line)),
            false => self.tell(line),
        }
    }

    fn next_line(&mut self, file: &str) {
        if let Some((_, line)) = self
            .unfinished
            .take_if(|(unfinished, _)| unfinished == file)
        {
            self.tell(line);
        }
    }

    fn tell(&mut self, line: String) {
        self.count += 1;
        if self.named.len() < NAMED {
            self.named.push(line);
        }
    }

    fn told(mut self) -> Vec<String> {
        let more = self.count - self.named.len() as u64;
        if more > 0 {
            self.named
                .push(format!("and {more} more lines without an audit event"));
        }
        self.named
    }
}
