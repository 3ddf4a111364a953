//! What the cases of a suite review: each one's spec, read, taken from another case and edited, and
//! who applies it where and when. Nothing here knows a chain.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use globset::GlobBuilder;
use walkdir::WalkDir;

use super::edit;
use super::file::{Case, PolicyTests};
use super::suite::AT;
use crate::admission::review::{Kind, Spec};
use crate::cli::specs::{self, Found};
use crate::config::places::{item, member};
use crate::config::suggest;

/// One spec that a case reviews. A case reviews several where its `file` is a pattern.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file, where there may be several.
    pub file: Option<String>,
    pub kind: Kind,
    pub user: String,
    pub project: String,
    pub at: SystemTime,
    pub spec: Spec,
}

/// What one case reviews as far as it says so itself or by the case that it comes from.
#[derive(Clone, Debug)]
struct Draft {
    file: Option<String>,
    kind: Option<Kind>,
    user: Option<String>,
    project: Option<String>,
    at: Option<SystemTime>,
    spec: Spec,
}

/// Reads a file, or every file that a pattern with `*` fits.
fn read(directory: &Path, file: &Path) -> anyhow::Result<Vec<Draft>> {
    let pattern = directory.join(file);
    let name = pattern.to_string_lossy();
    if !name.contains('*') {
        return Ok(vec![draft(None, specs::read(&pattern)?)]);
    }
    let glob = GlobBuilder::new(&name).literal_separator(true).build()?;
    let glob = glob.compile_matcher();
    let fixed: PathBuf = pattern
        .components()
        .take_while(|part| !part.as_os_str().to_string_lossy().contains('*'))
        .collect();
    let mut drafts = Vec::new();
    for entry in WalkDir::new(&fixed).sort_by_file_name() {
        let path = entry?.into_path();
        if path.is_file() && glob.is_match(&path) {
            let short = path.strip_prefix(&fixed).unwrap_or(&path);
            let short = short.to_string_lossy().into_owned();
            drafts.push(draft(Some(short), specs::read(&path)?));
        }
    }
    anyhow::ensure!(!drafts.is_empty(), "no file fits {name}");
    Ok(drafts)
}

fn draft(file: Option<String>, found: Found) -> Draft {
    Draft {
        file,
        kind: None,
        user: found.user,
        project: found.project,
        at: None,
        spec: found.spec,
    }
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
    Done(Option<Vec<Draft>>),
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
    pub fn all(mut self) -> Vec<Option<Vec<Source>>> {
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

    fn finished(&mut self, index: usize) -> Option<Vec<Source>> {
        let drafts = self.drafts(index)?;
        let finished = drafts.into_iter().map(|draft| self.finish(index, draft));
        finished.collect()
    }

    fn finish(&mut self, index: usize, draft: Draft) -> Option<Source> {
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
            file: draft.file,
            kind,
            user: given(draft.user, &self.file.user, "admin"),
            project: given(draft.project, &self.file.project, "main"),
            at: draft.at.unwrap_or(SystemTime::UNIX_EPOCH + AT),
            spec: draft.spec,
        })
    }

    fn drafts(&mut self, index: usize) -> Option<Vec<Draft>> {
        if let State::Done(drafts) = &self.states[index] {
            return drafts.clone();
        }
        self.states[index] = State::Open;
        let case = &self.file.cases[index];
        let bases = self.bases(index, case);
        let drafts = bases.and_then(|bases| {
            let made = bases.into_iter().map(|base| self.made_out(index, base));
            made.collect::<Option<Vec<_>>>()
        });
        self.states[index] = State::Done(drafts.clone());
        drafts
    }

    fn made_out(&mut self, index: usize, mut draft: Draft) -> Option<Draft> {
        let file = self.file;
        let case = &file.cases[index];
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

    /// Where the specs come from: the file itself, other files, another case.
    fn bases(&mut self, index: usize, case: &Case) -> Option<Vec<Draft>> {
        let found = match (&case.spec, &case.file, &case.from) {
            (Some(spec), None, None) => {
                let spec = serde_json::Value::Object(spec.clone());
                let found = Found {
                    user: None,
                    project: None,
                    spec: Spec::parsed(spec.to_string().into(), spec).ok()?,
                };
                Ok(vec![draft(None, found)])
            }
            (None, Some(file), None) => read(self.directory, file)
                .context("not readable as a spec")
                .map_err(|error| ("file", format!("{error:#}"))),
            (None, None, Some(name)) => return self.of_other(index, name),
            _ => Err(("", "give one of `spec`, `file` and `from`".to_owned())),
        };
        let problem = |(key, message): (&str, String)| self.problem(index, key, &message);
        found.map_err(problem).ok()
    }

    fn of_other(&mut self, index: usize, name: &str) -> Option<Vec<Draft>> {
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
        self.drafts(other)
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
