//! Whether a spec that a plugin patched is still one that dstack's models take.
//!
//! The JSON Schemas of several dstack versions are bundled, structure only, as
//! `schema/generate.py` writes them. The version is the one whose form the original spec fits,
//! since nothing in a request names it. What only dstack's own validators know (whether `"1x"`
//! is a duration, whether a cron line parses) is never judged here, and a spec that fits no
//! bundled version is not judged at all.

use std::fmt;
use std::sync::OnceLock;

use jsonschema::{Draft, Validator};
use serde_json::{Value, json};

use self::explain::{Explain, Problem};
use self::lax::Pydantic;
use super::review::Kind;

mod explain;
mod lax;
pub mod paths;
#[cfg(test)]
mod tests;
mod words;

/// The schemas of one dstack version.
struct Bundle {
    version: &'static str,
    text: &'static str,
    /// What dstack's models of that version are made with, which decides what is converted on the way in.
    pydantic: Pydantic,
}

/// The bundles, newest version first.
const BUNDLES: [Bundle; 4] = [
    Bundle {
        version: "0.22.5",
        text: include_str!("schema/dstack-0.22.5.json"),
        pydantic: Pydantic::Two,
    },
    Bundle {
        version: "0.21.5",
        text: include_str!("schema/dstack-0.21.5.json"),
        pydantic: Pydantic::Two,
    },
    Bundle {
        version: "0.20.29",
        text: include_str!("schema/dstack-0.20.29.json"),
        pydantic: Pydantic::One,
    },
    Bundle {
        version: "0.19.40",
        text: include_str!("schema/dstack-0.19.40.json"),
        pydantic: Pydantic::One,
    },
];

/// What dstack's models take, for each bundled version. Compiled where and when it is first asked for.
#[derive(Default)]
pub struct SpecSchemas {
    compiled: [[Forms; Kind::ALL.len()]; BUNDLES.len()],
}

/// The dstack version that a spec fits, as far as its structure tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    bundle: usize,
    kind: Kind,
}

/// One thing in a patched spec that dstack will refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// A JSON Pointer into the spec, to the value that is wrong or that has a member too many or too few.
    pub path: String,
    /// In plain words, without the path: ``unknown field `foo` ``, `expected an integer, got a string`.
    pub message: String,
}

/// A model's two forms: what the server sends, and what it takes back. `None` would be a bundle that does not compile.
#[derive(Default)]
struct Forms {
    output: OnceLock<Option<Validator>>,
    input: OnceLock<Option<Validator>>,
}

#[derive(Clone, Copy)]
enum Form {
    Output,
    Input,
}

/// The dstack versions whose models are bundled, newest first.
pub fn versions() -> impl Iterator<Item = &'static str> {
    BUNDLES.iter().map(|bundle| bundle.version)
}

impl SpecSchemas {
    /// Schemas of which nothing is compiled yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Compiles what the newest version's reviews need, so that no review waits for it.
    ///
    /// Takes about 10 ms of CPU: call it on a thread that may block.
    pub fn warm(&self) {
        for kind in Kind::ALL {
            let fit = Fit { bundle: 0, kind };
            self.validator(fit, Form::Output);
        }
    }

    /// The newest bundled version whose own form of the spec accepts `original`, which is the spec as the server sent it.
    pub fn version_fitting(&self, kind: Kind, original: &Value) -> Option<Fit> {
        (0..BUNDLES.len())
            .map(|bundle| Fit { bundle, kind })
            .find(|fit| {
                self.validator(*fit, Form::Output)
                    .is_some_and(|validator| validator.is_valid(original))
            })
    }

    /// What dstack will refuse in `after` because of a patch to `before`.
    ///
    /// `touched` are the JSON Pointers that the patch writes or removes; a trailing `-` stands for
    /// any item of its array. Counted is what was not wrong before, lies at, below or above a
    /// touched place, and is refused in the form that the server sends as well as in the form that it takes.
    pub fn violations(
        &self,
        fit: Fit,
        before: &Value,
        after: &Value,
        touched: &[&str],
    ) -> Vec<Violation> {
        let mut problems = self.problems(fit, after);
        problems.retain(|problem| touched.iter().any(|pointer| problem.concerns(pointer)));
        if !problems.is_empty() {
            let known = self.problems(fit, before);
            problems.retain(|problem| !known.contains(problem));
        }
        problems.into_iter().map(Violation::from).collect()
    }

    /// What every form refuses in a spec.
    fn problems(&self, fit: Fit, spec: &Value) -> Vec<Problem> {
        let Some(output) = self.validator(fit, Form::Output) else {
            return Vec::new();
        };
        if output.is_valid(spec) {
            return Vec::new();
        }
        let bundle = &BUNDLES[fit.bundle];
        let explain = Explain {
            pydantic: bundle.pydantic,
            bundle: bundle.text,
        };
        let Some(input) = self.validator(fit, Form::Input) else {
            return explain.problems(output, spec);
        };
        if input.is_valid(spec) {
            return Vec::new();
        }
        let sent = explain.problems(output, spec);
        let mut taken = explain.problems(input, spec);
        taken.retain(|taken| sent.iter().any(|sent| sent.overlaps(taken)));
        taken
    }

    /// `None` where the model has no such form of its own: then its output form says all.
    fn validator(&self, fit: Fit, form: Form) -> Option<&Validator> {
        let forms = &self.compiled[fit.bundle][fit.kind as usize];
        let cell = match form {
            Form::Output => &forms.output,
            Form::Input => &forms.input,
        };
        cell.get_or_init(|| fit.compile(form)).as_ref()
    }
}

impl Fit {
    /// The dstack version, as PyPI names it.
    pub fn version(self) -> &'static str {
        BUNDLES[self.bundle].version
    }

    fn compile(self, form: Form) -> Option<Validator> {
        let mut bundle: Value = serde_json::from_str(BUNDLES[self.bundle].text).ok()?;
        let form = match form {
            Form::Output => "output",
            Form::Input => "input",
        };
        let root = bundle.pointer(&format!("/kinds/{}/{form}", self.kind))?;
        let schema = json!({"$ref": root.as_str()?, "$defs": bundle["$defs"].take()});
        // Draft 7 has all that the bundles use, and its meta-schema takes less memory than 2020-12's.
        jsonschema::options()
            .with_draft(Draft::Draft7)
            .offline()
            .build(&schema)
            .ok()
    }
}

impl fmt::Display for Violation {
    /// ``/configuration/resources: unknown field `foo` ``.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => write!(f, "the top level: {}", self.message),
            path => write!(f, "{path}: {}", self.message),
        }
    }
}
