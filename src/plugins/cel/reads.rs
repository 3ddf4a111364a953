//! The places in a spec that expressions read, and which of them no dstack spec has.
//!
//! A newer dstack may have what the bundled versions have not, so such a place is no error. Without
//! a word about it, though, a misspelt one behind `has()` or `.?` is never there, and its rule never
//! fires.

use std::collections::{HashMap, HashSet};

use ::cel::IdedExpr;
use json_patch::jsonptr::{Pointer, PointerBuf};

use super::follow::{Access, Tree, follow};
use super::program::CompileError;
use crate::admission::schema::paths::nearest_known;

/// A place that an expression reads.
pub(super) struct Read {
    /// The key of the expression.
    pub(super) field: String,
    /// Where in the spec; `*` stands for every element.
    pub(super) place: PointerBuf,
    /// The line of the expression, with a caret under where it reads.
    pub(super) shown: String,
}

/// The places in `spec` and `original`, each with the node that reads it. What is in a place comes
/// after it.
pub(super) fn reads(expr: &IdedExpr) -> Vec<(u64, PointerBuf)> {
    follow(expr, Spec::default()).reads
}

/// The places that no dstack spec has, the outermost alone.
pub(super) fn unknown(reads: &[Read]) -> Vec<CompileError> {
    let mut problems: HashMap<&Pointer, Option<String>> = HashMap::new();
    let mut told: HashSet<(&str, String)> = HashSet::new();
    let mut unknown = Vec::new();
    for read in reads {
        let place = read.place.as_ptr();
        let problem = problems
            .entry(place)
            .or_insert_with(|| nearest_known(place).problem());
        if let Some(problem) = problem
            && told.insert((&read.field, problem.clone()))
        {
            unknown.push(CompileError {
                field: read.field.clone(),
                message: format!("{problem}{}", read.shown),
            });
        }
    }
    unknown
}

#[derive(Default)]
struct Spec {
    reads: Vec<(u64, PointerBuf)>,
}

impl Tree for Spec {
    type Part = PointerBuf;

    fn named(&self, name: &str) -> Option<Self::Part> {
        matches!(name, "spec" | "original").then(PointerBuf::new)
    }

    fn member(&mut self, of: &Self::Part, access: &Access<'_>) -> Option<Self::Part> {
        let place = of.with_trailing_token(access.field);
        self.reads.push((access.id, place.clone()));
        Some(place)
    }

    fn items(&self, of: &Self::Part) -> Option<Self::Part> {
        Some(of.with_trailing_token("*"))
    }
}
