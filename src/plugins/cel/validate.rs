//! Validations and audit annotations: what one expression says about a spec.

use std::sync::Arc;

use ::cel::Env;
use ::cel::common::types::{CelNull, CelString};

use super::fast::Fast;
use super::meter::Meter;
use super::program::{Compiler, Program, type_name};
use super::scope::Scope;
use super::source;
use crate::admission::verdict::{Denial, Fault, FaultKind};

/// A validation, compiled.
pub(super) struct Validation {
    pub(super) program: Program,
    message: Option<String>,
    message_expression: Option<Program>,
    reason: Option<String>,
}

impl Validation {
    /// The denial of a spec for which the expression is false.
    ///
    /// # Errors
    /// When the expression errors or spends the budget.
    pub(super) fn denial<'a>(
        &'a self,
        env: &Arc<Env>,
        scope: &dyn Scope,
        meter: &Meter,
        fast: &Fast<'a>,
        position: usize,
    ) -> Result<Option<Denial>, Fault> {
        let rule = || format!("validations[{position}]");
        let holds = self.program.holds(env, scope, Some(fast));
        meter.check(rule)?;
        match holds {
            Ok(true) => Ok(None),
            Ok(false) => Ok(Some(Denial {
                message: self.message(env, scope),
                reason: self.reason.clone(),
            })),
            Err(why) => Err(self.program.fault(FaultKind::Rule, &rule(), &why)),
        }
    }

    /// The message expression if it gives one line of text, else the message, else the rule.
    fn message(&self, env: &Arc<Env>, scope: &dyn Scope) -> String {
        let computed = self.message_expression.as_ref().and_then(|program| {
            let text = program.evaluate(env, scope, |value| {
                value
                    .downcast_ref::<CelString>()
                    .map(|text| text.inner().to_owned())
            });
            text.ok().flatten()
        });
        computed
            .filter(|text| !text.trim().is_empty() && !text.contains(['\n', '\r']))
            .or_else(|| self.message.clone())
            .unwrap_or_else(|| format!("failed expression: {}", self.program.text.trim()))
    }
}

pub(super) fn compile_validation(
    compiler: &mut Compiler<'_>,
    field: &str,
    source: &source::Validation,
) -> Option<Validation> {
    let program = compiler.compile(&format!("{field}.expression"), &source.expression);
    let message_expression = source.message_expression.as_ref();
    let message_expression = message_expression
        .map(|expression| compiler.compile(&format!("{field}.messageExpression"), expression));
    Some(Validation {
        program: program?,
        message: source.message.clone(),
        message_expression: match message_expression {
            Some(program) => Some(program?),
            None => None,
        },
        reason: source.reason.clone(),
    })
}

/// What an audit annotation says, if anything.
///
/// # Errors
/// As a validation, and when it gives anything but text or null.
pub(super) fn annotation(
    program: &Program,
    env: &Arc<Env>,
    scope: &dyn Scope,
    meter: &Meter,
    position: usize,
) -> Result<Option<String>, Fault> {
    let rule = || format!("auditAnnotations[{position}]");
    let value = program.evaluate(env, scope, |value| {
        if let Some(text) = value.downcast_ref::<CelString>() {
            return Ok(Some(text.inner().to_owned()));
        }
        let null = value.downcast_ref::<CelNull>().is_some();
        null.then_some(None)
            .ok_or_else(|| format!("it gives {}, not a string", type_name(value.as_ref())))
    });
    meter.check(rule)?;
    let value = value.and_then(|value| value);
    value.map_err(|why| program.fault(FaultKind::Rule, &rule(), &why))
}
