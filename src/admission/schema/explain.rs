//! From a validator's errors to the places that are really wrong.
//!
//! A union reports that no branch fits and keeps the reasons of every branch. Here the branch
//! that was meant is followed down, so that a problem is named where it is. Nothing here judges
//! which problems matter.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{JsonType, ValidationError, Validator};
use serde_json::{Map, Value};

use super::Violation;
use super::lax::Pydantic;
use super::words::{self, Accepted};

/// One thing that one form of a model refuses.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Problem {
    /// JSON Pointer to the value that the schema looked at.
    path: String,
    /// JSON Pointer to what the problem is about: a member of that value where one is unknown or missing, else the value.
    about: String,
    message: String,
}

impl Problem {
    /// Whether a patch that writes at `pointer` can have caused this.
    pub(super) fn concerns(&self, pointer: &str) -> bool {
        nested(&self.about, pointer.strip_suffix("/-").unwrap_or(pointer))
    }

    /// Whether both are about one place, or one lies inside the other.
    pub(super) fn overlaps(&self, other: &Problem) -> bool {
        nested(&self.about, &other.about)
    }

    fn of_value(path: &str, message: String) -> Self {
        Self {
            path: path.to_owned(),
            about: path.to_owned(),
            message,
        }
    }

    fn of_member(path: &str, name: &str, message: String) -> Self {
        Self {
            path: path.to_owned(),
            about: format!("{path}/{}", name.replace('~', "~0").replace('/', "~1")),
            message,
        }
    }
}

impl From<Problem> for Violation {
    fn from(problem: Problem) -> Self {
        Self {
            path: problem.path,
            message: problem.message,
        }
    }
}

/// Whether one JSON Pointer is the other or leads to it.
fn nested(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    long.strip_prefix(short)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What explaining needs besides the errors.
pub(super) struct Explain {
    pub pydantic: Pydantic,
    /// The text of the bundle that the validator was compiled from.
    pub bundle: &'static str,
}

impl Explain {
    /// All that `validator` refuses in `spec` and that pydantic does not convert.
    pub(super) fn problems(&self, validator: &Validator, spec: &Value) -> Vec<Problem> {
        let mut found = Vec::new();
        for error in validator.iter_errors(spec) {
            self.explain(&error, &mut found);
        }
        found
    }

    fn explain(&self, error: &ValidationError<'_>, found: &mut Vec<Problem>) {
        let path = error.instance_path().as_str();
        let value = error.instance();
        let accepted = accepted(error);
        if self.pydantic.converts(value, &accepted, path) {
            return;
        }
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                let known = self.members(error);
                for name in unexpected {
                    let message = words::unknown_field(name, &known);
                    found.push(Problem::of_member(path, name, message));
                }
            }
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                found.push(Problem::of_member(path, name, words::missing_field(name)));
            }
            ValidationErrorKind::AnyOf { context } => match meant(context, value, path) {
                Some(branch) => {
                    for error in branch {
                        self.explain(error, found);
                    }
                }
                None => found.push(Problem::of_value(path, words::wrong_type(&accepted, value))),
            },
            ValidationErrorKind::Type { .. } => {
                found.push(Problem::of_value(path, words::wrong_type(&accepted, value)));
            }
            ValidationErrorKind::Enum { options } => {
                let message = words::not_an_option(value, listed(options));
                found.push(Problem::of_value(path, message));
            }
            // The rest are bounds, which the library words well once the value itself is left out.
            _ => {
                let message = error.masked_with("the value").to_string();
                found.push(Problem::of_value(path, message));
            }
        }
    }

    /// The member names that the schema behind an `additionalProperties` error declares.
    fn members(&self, error: &ValidationError<'_>) -> Vec<String> {
        let keyword = error.schema_path().as_str();
        self.properties(keyword)
            .map(|properties| properties.into_iter().map(|(name, _)| name).collect())
            .unwrap_or_default()
    }

    /// What is declared beside the keyword at `/$defs/NAME/…/additionalProperties`.
    ///
    /// A bundle has one definition a line, so that only that line is parsed.
    fn properties(&self, keyword: &str) -> Option<Map<String, Value>> {
        let place = keyword.strip_prefix("/$defs/")?;
        let (name, place) = place.split_at(place.find('/')?);
        let start = format!("\"{name}\":");
        let line = self
            .bundle
            .lines()
            .find_map(|line| line.strip_prefix(&start))?;
        let mut definition: Value = serde_json::from_str(line.trim_end_matches(',')).ok()?;
        let schema = place.strip_suffix("/additionalProperties")?;
        match definition
            .pointer_mut(schema)?
            .get_mut("properties")?
            .take()
        {
            Value::Object(properties) => Some(properties),
            _ => None,
        }
    }
}

/// The branch of a union that a value of this shape was meant for; `None` if it is of no branch's type.
fn meant<'c>(
    branches: &'c [Vec<ValidationError<'static>>],
    value: &Value,
    path: &str,
) -> Option<&'c Vec<ValidationError<'static>>> {
    branches
        .iter()
        .filter(|branch| !branch.iter().any(|error| refuses_type(error, value, path)))
        .min_by_key(|branch| weight(branch))
}

/// Whether an error says that its schema is for values of other types than this one.
fn refuses_type(error: &ValidationError<'_>, value: &Value, path: &str) -> bool {
    if error.instance_path().as_str() != path {
        return false;
    }
    match error.kind() {
        ValidationErrorKind::Type { .. } => true,
        ValidationErrorKind::Enum { options } => listed(options)
            .iter()
            .all(|option| JsonType::from(option) != JsonType::from(value)),
        ValidationErrorKind::AnyOf { context } => meant(context, value, path).is_none(),
        _ => false,
    }
}

/// How much is wrong in a branch; each unknown member counts.
fn weight(branch: &[ValidationError<'_>]) -> usize {
    branch
        .iter()
        .map(|error| match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => unexpected.len(),
            _ => 1,
        })
        .sum()
}

/// The types and options that an error says would have been accepted in its place.
fn accepted(error: &ValidationError<'_>) -> Vec<Accepted> {
    match error.kind() {
        ValidationErrorKind::Type { kind } => match kind {
            TypeKind::Single(one) => vec![Accepted::Type(*one)],
            TypeKind::Multiple(set) => set.iter().map(Accepted::Type).collect(),
        },
        ValidationErrorKind::Enum { options } => listed(options)
            .iter()
            .cloned()
            .map(Accepted::Option)
            .collect(),
        ValidationErrorKind::AnyOf { context } => context
            .iter()
            .flatten()
            .filter(|inner| inner.instance_path() == error.instance_path())
            .flat_map(accepted)
            .collect(),
        _ => Vec::new(),
    }
}

/// An enum's options, which the library keeps as one array.
fn listed(options: &Value) -> &[Value] {
    options.as_array().map_or(&[], Vec::as_slice)
}
