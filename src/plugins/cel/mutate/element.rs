//! The name `element`: what the last `*` of a path matched. It is known in the expressions of a
//! mutation whose path has a `*`, and nowhere else.

use ::cel::common::value::CowVal;
use ::cel::context::VariableResolver;
use serde_json::Value;

use crate::plugins::cel::check::{Names, Variables};
use crate::plugins::cel::program::Compiler;
use crate::plugins::cel::scope::Scope;
use crate::plugins::cel::val::borrow;

const ELEMENT: &str = "element";

/// The matched element on top of everything else that has a name.
pub(super) struct Element<'a> {
    pub(super) below: &'a dyn Scope,
    pub(super) value: &'a Value,
}

impl VariableResolver for Element<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        match name {
            ELEMENT => Some(borrow(self.value)),
            _ => self.below.resolve(name),
        }
    }
}

impl Scope for Element<'_> {
    fn failure(&self, name: &str) -> Option<&str> {
        self.below.failure(name)
    }
}

/// Calls `then` with a compiler that knows `element`, and whose expressions pay for what they read
/// as they do within a comprehension, since they run once for each match.
pub(super) fn with_element<R>(
    compiler: &mut Compiler<'_>,
    then: impl FnOnce(&mut Compiler<'_>) -> R,
) -> R {
    let known = compiler.names.globals.iter().copied();
    let globals: Vec<&str> = known.chain([ELEMENT]).collect();
    let variables = compiler.names.variables.as_ref();
    let variables = variables.map(|variables| Variables {
        names: variables.names,
        depths: variables.depths.clone(),
    });
    let mut knowing = Compiler {
        env: compiler.env,
        names: Names {
            globals: &globals,
            variables,
        },
        params: compiler.params,
        patterns: std::mem::take(&mut compiler.patterns),
        errors: std::mem::take(&mut compiler.errors),
        reads: std::mem::take(&mut compiler.reads),
        picks_patterns: compiler.picks_patterns,
        repeated: true,
    };
    let result = then(&mut knowing);
    compiler.patterns = knowing.patterns;
    compiler.errors = knowing.errors;
    compiler.reads = knowing.reads;
    compiler.picks_patterns = knowing.picks_patterns;
    result
}
