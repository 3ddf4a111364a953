//! Match conditions: whether a plugin looks at a spec at all.

use std::sync::Arc;

use ::cel::Env;

use super::language::Pattern;
use super::meter::{BUDGET, FAST_BUDGET, Meter};
use super::program::{CompileError, Compiler, Program, enumerated};
use super::reads::{self, Read};
use super::scope::{GLOBALS, Globals};
use super::source::Condition;
use crate::admission::verdict::{Call, Fault, FaultKind};

/// The conditions under which a plugin looks at a spec.
pub struct Conditions {
    env: Arc<Env>,
    patterns: Vec<Pattern>,
    /// In order, each with its name.
    programs: Vec<(Option<String>, Program)>,
    reads: Vec<Read>,
}

impl Conditions {
    /// Compiles match conditions. They have neither `params` nor `variables`.
    ///
    /// # Errors
    /// Everything that is wrong with them; fields are `conditions[0].expression`.
    pub fn compile(source: &[Condition]) -> Result<Self, Vec<CompileError>> {
        let mut compiler = Compiler::new(GLOBALS, None, None)?;
        let programs = enumerated(source, "conditions")
            .filter_map(|(field, condition)| {
                let program =
                    compiler.compile(&format!("{field}.expression"), &condition.expression)?;
                Some((condition.name.clone(), program))
            })
            .collect();
        if !compiler.errors.is_empty() {
            return Err(compiler.errors);
        }
        Ok(Self {
            env: Arc::clone(compiler.env),
            patterns: compiler.patterns,
            programs,
            reads: compiler.reads,
        })
    }

    /// What they read of a spec that no dstack spec known here has.
    pub fn unknown_places(&self) -> Vec<CompileError> {
        reads::unknown(&self.reads)
    }

    /// The name or the expression of the first condition that is false, or `None` if the plugin
    /// is to be called. As in Kubernetes a false condition decides even where another one errors.
    ///
    /// # Errors
    /// When no condition is false and one of them errors or spends the budget.
    pub fn evaluate(&self, call: &Call) -> Result<Option<String>, Fault> {
        let meter = Meter::new(BUDGET);
        let globals = Globals {
            review: &call.review,
            spec: &call.spec,
            params: None,
            patterns: &self.patterns,
            meter: &meter,
        };
        let fast = globals.fast(&[], Meter::new(FAST_BUDGET));
        let mut faults = Vec::new();
        for (position, (name, program)) in self.programs.iter().enumerate() {
            let rule = || match name {
                Some(name) => format!("the match condition {name}"),
                None => format!("match.conditions[{position}]"),
            };
            let holds = program.holds(&self.env, &globals, Some(&fast));
            if let Err(fault) = meter.check(rule) {
                faults.push(fault);
                break;
            }
            match holds {
                Ok(true) => {}
                Ok(false) => return Ok(Some(name.clone().unwrap_or_else(|| program.text.clone()))),
                Err(why) => faults.push(program.fault(FaultKind::Condition, &rule(), &why)),
            }
        }
        faults.into_iter().next().map_or(Ok(None), Err)
    }
}
