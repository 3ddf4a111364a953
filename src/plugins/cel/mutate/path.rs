//! Where a mutation applies: a JSON pointer in which `*` stands for every element of a list and
//! every member of a map.
//!
//! Only what is there matches. What a mutation does in each place is not known here.

use json_patch::jsonptr::{Pointer, PointerBuf, Token};
use serde_json::Value;

use super::{Evaluation, Failure};
use crate::admission::schema::paths::nearest_known;
use crate::plugins::cel::program::Compiler;

/// A token that matches every element and member. JSON Pointer has no escape for it.
const WILDCARD: &str = "*";

/// A pointer, parted at its wildcards.
pub(super) struct Path {
    /// What leads to each wildcard, the first from the root of the spec.
    before: Vec<PointerBuf>,
    /// What comes after the last wildcard.
    last: PointerBuf,
}

/// One place in a spec that a path means.
pub(super) struct Place<'s> {
    pub(super) path: PointerBuf,
    /// What the last wildcard matched.
    pub(super) element: Option<&'s Value>,
}

impl Path {
    /// Compiles the pointer of a mutation; `None` with the reason among the compiler's errors.
    pub(super) fn compile(compiler: &mut Compiler<'_>, field: &str, text: &str) -> Option<Self> {
        let problem = match PointerBuf::parse(text) {
            Ok(pointer) => match problem_of(&pointer) {
                None => return Some(Self::parted(&pointer)),
                Some(problem) => problem,
            },
            Err(_) if !text.starts_with('/') => {
                "not a JSON pointer: it must start with /".to_owned()
            }
            Err(_) => "not a JSON pointer: ~ is written ~0 and / within a name ~1".to_owned(),
        };
        compiler.report(field, problem);
        None
    }

    /// Whether the last token is a position in a list.
    pub(super) fn ends_in_position(&self) -> bool {
        let last = self.last.last();
        last.is_some_and(|token| token.to_index().is_ok())
    }

    fn parted(pointer: &Pointer) -> Self {
        let mut path = Self {
            before: Vec::new(),
            last: PointerBuf::new(),
        };
        for token in pointer.tokens() {
            if is_wildcard(&token) {
                path.before.push(std::mem::take(&mut path.last));
            } else {
                path.last.push_back(token);
            }
        }
        path
    }

    /// The places in `spec` that the path means, in the order of the spec. Without a wildcard it is
    /// one, whether anything is there or not.
    pub(super) fn places<'s>(
        &self,
        spec: &'s Value,
        evaluation: Evaluation<'_, '_>,
    ) -> Result<Vec<Place<'s>>, Failure> {
        let mut places = vec![Place {
            path: PointerBuf::new(),
            element: None,
        }];
        for pointer in &self.before {
            let mut matched = Vec::new();
            for place in places {
                let parent = pointer.resolve(place.element.unwrap_or(spec));
                let path = place.path.concat(pointer);
                match parent {
                    Ok(Value::Array(items)) => {
                        evaluation.pay(items.len() as u64)?;
                        let children = items.iter().enumerate();
                        matched.extend(children.map(|(index, item)| Place::at(&path, index, item)));
                    }
                    Ok(Value::Object(members)) => {
                        evaluation.pay(members.len() as u64)?;
                        let children = members.iter();
                        matched.extend(children.map(|(key, value)| Place::at(&path, key, value)));
                    }
                    _ => {}
                }
            }
            places = matched;
        }
        for place in &mut places {
            place.path.append(&self.last);
        }
        Ok(places)
    }
}

impl<'s> Place<'s> {
    fn at<'t>(parent: &Pointer, token: impl Into<Token<'t>>, element: &'s Value) -> Self {
        Self {
            path: parent.with_trailing_token(token),
            element: Some(element),
        }
    }
}

/// Whether a pointer has a wildcard, as far as it is a pointer.
pub(super) fn has_wildcard(text: &str) -> bool {
    text.split('/').skip(1).any(|token| token == WILDCARD)
}

fn is_wildcard(token: &Token<'_>) -> bool {
    token.encoded() == WILDCARD
}

/// Why a mutation cannot apply at a pointer, whatever the spec.
fn problem_of(pointer: &Pointer) -> Option<String> {
    if pointer.is_root() {
        let problem =
            "the whole spec cannot be written: name a member, for instance /configuration/tags";
        return Some(problem.to_owned());
    }
    if pointer.tokens().any(|token| token.is_next()) {
        let problem = "`-` is the end of a list, where nothing is: append with addToSet";
        return Some(problem.to_owned());
    }
    nearest_known(pointer).problem()
}
