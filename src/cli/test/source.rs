//! What the cases of a suite review: each one's spec, read, taken from another case and edited, and
//! who applies it where and when. Nothing here knows a chain.

use std::path::Path;
use std::time::SystemTime;

use anyhow::Context;

use super::edit;
use super::file::{Case, PolicyTests};
use super::suite::AT;
use crate::admission::review::{Kind, Spec};
use crate::cli::specs::{self, Found};
use crate::config::places::{item, member};
use crate::config::suggest;

/// What one case reviews.
#[derive(Clone, Debug)]
pub struct Source {
    pub kind: Kind,
    pub user: String,
    pub project: String,
    pub at: SystemTime,
    pub spec: Spec,
}

/// What one case reviews as far as it says so itself or by the case that it comes from.
#[derive(Clone, Debug)]
struct Draft {
    kind: Option<Kind>,
    user: Option<String>,
    project: Option<String>,
    at: Option<SystemTime>,
    spec: Spec,
}

/// What takes a problem: its key path and its message.
type Report<'r> = &'r mut dyn FnMut(String, String);

/// The cases of a suite, some of which come from others.
pub struct Sources<'s> {
    file: &'s PolicyTests,
    /// The directory that files are relative to.
    directory: &'s Path,
    states: Vec<State>,
    report: Report<'s>,
}

#[derive(Clone)]
enum State {
    New,
    /// A case on the way from it is being made out.
    Open,
    /// None: its problem is known.
    Done(Option<Draft>),
}

impl<'s> Sources<'s> {
    pub fn new(file: &'s PolicyTests, directory: &'s Path, report: Report<'s>) -> Self {
        Self {
            file,
            directory,
            states: vec![State::New; file.cases.len()],
            report,
        }
    }

    /// What each case reviews, in the order of the file. None has problems, which are reported.
    pub fn all(mut self) -> Vec<Option<Source>> {
        let cases = &self.file.cases;
        for (index, case) in cases.iter().enumerate() {
            if case.name.trim().is_empty() {
                self.problem(index, "name", "a case needs a name");
            }
            if cases[..index]
                .iter()
                .any(|earlier| earlier.name == case.name)
            {
                let message = format!("`{}` is the name of another case already", case.name);
                self.problem(index, "name", &message);
            }
        }
        (0..cases.len()).map(|index| self.finished(index)).collect()
    }

    fn finished(&mut self, index: usize) -> Option<Source> {
        let draft = self.draft(index)?;
        let Some(kind) = draft.kind.or_else(|| specs::kind_of(draft.spec.value())) else {
            let message =
                "the spec's `configuration.type` does not tell what it is: say it with `kind`";
            (self.report)(item("cases", index), message.to_owned());
            return None;
        };
        let given = |given: Option<String>, default: &Option<String>, last: &str| {
            given
                .or_else(|| default.clone())
                .unwrap_or_else(|| last.to_owned())
        };
        Some(Source {
            kind,
            user: given(draft.user, &self.file.user, "admin"),
            project: given(draft.project, &self.file.project, "main"),
            at: draft.at.unwrap_or(SystemTime::UNIX_EPOCH + AT),
            spec: draft.spec,
        })
    }

    fn draft(&mut self, index: usize) -> Option<Draft> {
        if let State::Done(draft) = &self.states[index] {
            return draft.clone();
        }
        self.states[index] = State::Open;
        let draft = self.made_out(index);
        self.states[index] = State::Done(draft.clone());
        draft
    }

    fn made_out(&mut self, index: usize) -> Option<Draft> {
        let file = self.file;
        let case = &file.cases[index];
        let mut draft = self.base(index, case)?;
        if let Some(kind) = case.kind {
            draft.kind = Some(kind.into());
        }
        draft.user = case.user.clone().or(draft.user);
        draft.project = case.project.clone().or(draft.project);
        if let Some(at) = &case.at {
            let Some(at) = moment(at) else {
                let message =
                    "not a time; one is written like `2026-12-31T18:00:00Z` or `2026-12-31`";
                self.problem(index, "at", message);
                return None;
            };
            draft.at = Some(at);
        }
        self.edited(index, case, draft)
    }

    /// Where the spec comes from: the file itself, another file, another case.
    fn base(&mut self, index: usize, case: &Case) -> Option<Draft> {
        let found = match (&case.spec, &case.file, &case.from) {
            (Some(spec), None, None) => {
                let spec = serde_json::Value::Object(spec.clone());
                Ok(Found {
                    user: None,
                    project: None,
                    spec: Spec::parsed(spec.to_string().into(), spec).ok()?,
                })
            }
            (None, Some(file), None) => specs::read(&self.directory.join(file))
                .context("not readable as a spec")
                .map_err(|error| ("file", format!("{error:#}"))),
            (None, None, Some(name)) => return self.of_other(index, name),
            _ => Err(("", "give one of `spec`, `file` and `from`".to_owned())),
        };
        match found {
            Ok(found) => Some(Draft {
                kind: None,
                user: found.user,
                project: found.project,
                at: None,
                spec: found.spec,
            }),
            Err((key, message)) => {
                self.problem(index, key, &message);
                None
            }
        }
    }

    fn of_other(&mut self, index: usize, name: &str) -> Option<Draft> {
        let cases = &self.file.cases;
        let Some(other) = cases.iter().position(|case| case.name == *name) else {
            let names = cases.iter().map(|case| case.name.as_str());
            let near = suggest::nearest(name, names).filter(|near| *near != cases[index].name);
            let hint = near.map(|near| format!("; did you mean `{near}`?"));
            let message = format!("there is no case `{name}`{}", hint.unwrap_or_default());
            self.problem(index, "from", &message);
            return None;
        };
        if matches!(self.states[other], State::Open) {
            let message = format!("goes round in a circle: `{name}` comes from this case");
            self.problem(index, "from", &message);
            return None;
        }
        self.draft(other)
    }

    fn edited(&mut self, index: usize, case: &Case, mut draft: Draft) -> Option<Draft> {
        let Some(edit) = &case.edit else {
            return Some(draft);
        };
        let mut spec = serde_json::Value::clone(draft.spec.value());
        let at = member(&item("cases", index), "edit");
        let mut problems = Vec::new();
        for (pointer, value) in &edit.set {
            if let Err(why) = edit::set(&mut spec, pointer, value.clone()) {
                problems.push((member(&member(&at, "set"), pointer), why));
            }
        }
        for (position, pointer) in edit.remove.iter().enumerate() {
            if let Err(why) = edit::remove(&mut spec, pointer) {
                problems.push((item(&member(&at, "remove"), position), why));
            }
        }
        if !problems.is_empty() {
            let report = |(path, why)| (self.report)(path, why);
            problems.into_iter().for_each(report);
            return None;
        }
        draft.spec = Spec::parsed(spec.to_string().into(), spec).ok()?;
        Some(draft)
    }

    /// A problem of a case, at one of its keys if it is not with the case as a whole.
    fn problem(&mut self, index: usize, key: &str, message: &str) {
        let case = item("cases", index);
        let path = if key.is_empty() {
            case
        } else {
            member(&case, key)
        };
        (self.report)(path, message.to_owned());
    }
}

/// A time in UTC, or a day, which begins at midnight.
fn moment(text: &str) -> Option<SystemTime> {
    let day = || humantime::parse_rfc3339(&format!("{text}T00:00:00Z"));
    humantime::parse_rfc3339(text).or_else(|_| day()).ok()
}
