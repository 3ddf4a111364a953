//! What the names in an expression stand for.
//!
//! [`Globals`] are the values of one call; on top of them lies one [`Layer`] for each of the
//! policy's variables, evaluated when it is first used. Every layer borrows from the ones below
//! it only, so that values refer to the spec and to each other without a copy.

use std::sync::{Arc, OnceLock};

use ::cel::Env;
use ::cel::common::types::{CelNull, CelString};
use ::cel::common::value::{CowVal, Val};
use ::cel::context::VariableResolver;
use serde_json::Value;

use super::fast::Fast;
use super::language::Pattern;
use super::meter::Meter;
use super::program::Program;
use super::val::borrow;
use crate::admission::review::Review;
use crate::admission::revision::Revision;

/// The names every expression may use.
pub(super) const GLOBALS: &[&str] = &[
    "spec",
    "original",
    "effective",
    "user",
    "project",
    "kind",
    "name",
];

/// The names that stand for JSON trees: `spec.a.b` is resolved in one go.
pub(super) const TREES: &[&str] = &["spec", "original", "effective", "params"];

/// How an expression names the meter, and the prefix of the patterns.
pub(super) const METER: &str = "@meter";
pub(super) const PATTERN: &str = "@regex:";

/// Where names are looked up.
pub(super) trait Scope: VariableResolver {
    /// Why a variable of the policy has no value, once it has been asked for.
    fn failure(&self, name: &str) -> Option<&str>;
}

/// The values of one call.
pub(super) struct Globals<'a> {
    pub(super) review: &'a Review,
    /// The spec as the mutations so far left it.
    pub(super) spec: &'a Revision,
    pub(super) params: Option<&'a Value>,
    pub(super) patterns: &'a [Pattern],
    pub(super) meter: &'a Meter,
}

impl<'a> Globals<'a> {
    /// The fast way with these values.
    pub(super) fn fast(&self, variables: &'a [Variable], meter: Meter) -> Fast<'a> {
        Fast::new(self, variables, meter)
    }

    fn tree(&self, root: &str) -> Option<&Value> {
        match root {
            "spec" => Some(self.spec),
            "original" => Some(self.review.spec.value()),
            "effective" => Some(self.spec.effective()),
            "params" => self.params,
            _ => None,
        }
    }
}

impl VariableResolver for Globals<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let mut segments = name.split('.');
        let root = segments.next()?;
        if let Some(tree) = self.tree(root) {
            return segments
                .try_fold(tree, |tree, key| tree.get(key))
                .map(borrow);
        }
        let text = |text: &'b str| Some(CowVal::owned(CelString::from(text)));
        match name {
            METER => Some(CowVal::Borrowed(self.meter)),
            "user" => text(&self.review.user),
            "project" => text(&self.review.project),
            "kind" => text(self.review.kind.as_str()),
            "name" => match self.review.name() {
                Some(name) => text(name),
                None => Some(CowVal::Borrowed(&CelNull)),
            },
            _ => {
                let position: usize = name.strip_prefix(PATTERN)?.parse().ok()?;
                self.patterns
                    .get(position)
                    .map(|pattern| CowVal::Borrowed(pattern))
            }
        }
    }
}

impl Scope for Globals<'_> {
    fn failure(&self, _: &str) -> Option<&str> {
        None
    }
}

/// A variable of the policy, compiled.
pub(super) struct Variable {
    /// `variables.NAME`, as expressions spell it.
    pub(super) key: String,
    pub(super) program: Program,
    /// What it always is, if that is known.
    pub(super) constant: Option<Value>,
}

/// One variable on top of everything below it.
struct Layer<'a> {
    below: &'a dyn Scope,
    variable: &'a Variable,
    env: &'a Arc<Env>,
    value: OnceLock<Result<Box<dyn Val + 'a>, String>>,
}

impl<'a> Layer<'a> {
    fn value(&self) -> &Result<Box<dyn Val + 'a>, String> {
        self.value.get_or_init(|| {
            self.variable
                .program
                .evaluate(self.env, self.below, |value| value.into_owned())
        })
    }
}

impl VariableResolver for Layer<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        if name != self.variable.key {
            return self.below.resolve(name);
        }
        if let Some(constant) = &self.variable.constant {
            return Some(borrow(constant));
        }
        let value = self.value().as_ref().ok()?;
        Some(CowVal::Borrowed(value.as_ref()))
    }
}

impl Scope for Layer<'_> {
    fn failure(&self, name: &str) -> Option<&str> {
        if name != self.variable.key {
            return self.below.failure(name);
        }
        self.value
            .get()
            .and_then(|value| value.as_ref().err())
            .map(String::as_str)
    }
}

/// Calls `then` with the policy's variables laid over `below`. None of them is evaluated before
/// an expression names it.
pub(super) fn with_variables<R>(
    below: &dyn Scope,
    variables: &[Variable],
    env: &Arc<Env>,
    then: &mut dyn FnMut(&dyn Scope) -> R,
) -> R {
    let Some((variable, rest)) = variables.split_first() else {
        return then(below);
    };
    let layer = Layer {
        below,
        variable,
        env,
        value: OnceLock::new(),
    };
    with_variables(&layer, rest, env, then)
}
