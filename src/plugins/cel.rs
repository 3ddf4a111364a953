//! Policies in CEL: validations, audit annotations, mutations and match conditions over a spec.
//!
//! A policy is compiled once, every error at once, and then evaluated for many calls at the same
//! time. It has no I/O, no clock and no state: one call always gets one outcome. What an
//! evaluation may cost is bounded, since the spec is the user's.
//!
//! Names and semantics are those of Kubernetes' ValidatingAdmissionPolicy and match conditions.

mod check;
mod conditions;
mod constant;
mod equal;
mod explain;
mod fast;
mod follow;
mod functions;
mod json;
mod language;
mod meter;
mod mutate;
mod payments;
mod program;
mod reads;
mod rewrite;
mod rules;
mod scope;
mod shape;
pub mod source;
#[cfg(test)]
mod tests;
mod tree;
mod val;
mod validate;
mod write;

use std::sync::Arc;

use ::cel::Env;
use json_patch::PatchOperation;
use regex::Regex;
use serde_json::Value;

pub use self::conditions::Conditions;
use self::fast::Fast;
pub use self::functions::{gigabytes, seconds};
use self::language::Pattern;
use self::meter::{BUDGET, FAST_BUDGET, Known, Meter};
use self::mutate::{Evaluation, Mutation};
pub use self::program::CompileError;
use self::program::{Compiler, Program, enumerated};
use self::reads::Read;
use self::scope::{GLOBALS, Globals, Variable, with_variables};
use self::source::Source;
use self::validate::{Validation, annotation, compile_validation};
use crate::admission::revision::Revision;
use crate::admission::verdict::{Call, Fault, FaultKind, Outcome, Phase, Rule, Verdict};

/// The most variables of one policy: each is a frame on the stack.
const VARIABLES: usize = 100;

/// A compiled policy.
pub struct Policy {
    env: Arc<Env>,
    params: Value,
    patterns: Vec<Pattern>,
    /// The patterns among the parameters, where an expression picks one.
    known: Option<Arc<Known>>,
    variables: Vec<Variable>,
    validations: Vec<Validation>,
    annotations: Vec<(String, Program)>,
    mutations: Vec<Mutation>,
    /// Each validation and mutation in words.
    rules: Vec<(Rule, String)>,
    reads: Vec<Read>,
}

impl Policy {
    /// Compiles a policy whose expressions see `params` under that name.
    ///
    /// # Errors
    /// Everything that is wrong with it: expressions that do not parse, names and functions that
    /// do not exist, regular expressions and JSON pointers that are none, keys that exclude each
    /// other.
    pub fn compile(source: &Source, params: &Value) -> Result<Self, Vec<CompileError>> {
        let names: Vec<String> = source.variables.iter().map(|v| v.name.clone()).collect();
        let globals: Vec<&str> = GLOBALS.iter().copied().chain(["params"]).collect();
        let mut compiler = Compiler::new(&globals, Some(&names), Some(params))?;

        let mut variables = compile_variables(&mut compiler, source, &names);
        let validations = enumerated(&source.validations, "validations")
            .filter_map(|(field, validation)| compile_validation(&mut compiler, &field, validation))
            .collect();
        let annotations = enumerated(&source.audit_annotations, "auditAnnotations")
            .filter_map(|(field, annotation)| {
                if annotation.key.is_empty() {
                    compiler.report(
                        &format!("{field}.key"),
                        "an annotation needs a key".to_owned(),
                    );
                }
                let field = format!("{field}.valueExpression");
                let program = compiler.compile(&field, &annotation.value_expression)?;
                Some((annotation.key.clone(), program))
            })
            .collect();
        let mutations = enumerated(&source.mutations, "mutations")
            .filter_map(|(field, mutation)| Mutation::compile(&mut compiler, &field, mutation))
            .collect();
        if !compiler.errors.is_empty() {
            return Err(compiler.errors);
        }
        constant::fold(&mut variables, params, &compiler.patterns, compiler.env);
        Ok(Self {
            env: Arc::clone(compiler.env),
            patterns: compiler.patterns,
            known: compiler
                .picks_patterns
                .then(|| Arc::new(known_patterns(params))),
            params: params.clone(),
            variables,
            validations,
            annotations,
            mutations,
            rules: source.rules(),
            reads: compiler.reads,
        })
    }

    /// What its expressions read of a spec that no dstack spec known here has.
    pub fn unknown_places(&self) -> Vec<CompileError> {
        reads::unknown(&self.reads)
    }

    /// Every rule that can fire, with the text that a person knows it by: a validation's expression,
    /// what a mutation does where.
    pub fn rules(&self) -> impl Iterator<Item = (Rule, &str)> {
        let rules = self.rules.iter();
        rules.map(|(rule, text)| (*rule, text.as_str()))
    }

    pub fn has_mutations(&self) -> bool {
        !self.mutations.is_empty()
    }

    pub fn has_validations(&self) -> bool {
        !self.validations.is_empty()
    }

    pub fn has_annotations(&self) -> bool {
        !self.annotations.is_empty()
    }

    /// The mutations' patch in the mutating phase, denials and annotations in the validating one.
    ///
    /// A rule that errors, or spends the budget, is a fault. A denial that another rule has
    /// come to stands beside it all the same, and the error becomes a warning.
    pub fn evaluate(&self, call: &Call) -> Outcome {
        let meter = Meter::new(BUDGET).knowing(self.known.as_ref());
        let verdict = match call.phase {
            Phase::Mutating => self.mutate(call, &meter),
            Phase::Validating => self.validate(call, &meter),
        };
        verdict.map_or_else(Outcome::Fault, Outcome::Verdict)
    }

    /// The rules for which the fast way gives no answer, of those that decide what is done.
    #[cfg(test)]
    pub fn interpreted(&self, call: &Call) -> Vec<String> {
        let meter = Meter::new(BUDGET);
        let globals = self.globals(call, &call.spec, &meter);
        let fast = self.fast(&globals);
        let validations = enumerated(&self.validations, "validations")
            .map(|(rule, validation)| (rule, Some(&validation.program)));
        let mutations = enumerated(&self.mutations, "mutations")
            .map(|(rule, mutation)| (rule, mutation.when()));
        let rules = match call.phase {
            Phase::Validating => validations.collect::<Vec<_>>(),
            Phase::Mutating => mutations.collect(),
        };
        let rules = rules.into_iter();
        rules
            .filter(|(_, program)| program.is_some_and(|rule| fast.holds(&rule.fast).is_none()))
            .map(|(rule, _)| rule)
            .collect()
    }

    fn globals<'a>(&'a self, call: &'a Call, spec: &'a Revision, meter: &'a Meter) -> Globals<'a> {
        Globals {
            review: &call.review,
            spec,
            params: Some(&self.params),
            patterns: &self.patterns,
            meter,
        }
    }

    /// The fast way, with a budget of its own.
    fn fast<'a>(&'a self, globals: &Globals<'a>) -> Fast<'a> {
        let meter = Meter::new(FAST_BUDGET).knowing(self.known.as_ref());
        globals.fast(&self.variables, meter)
    }

    fn operations<'a>(
        &'a self,
        mutation: &'a Mutation,
        globals: &Globals<'a>,
        fast: &Fast<'a>,
    ) -> Result<Vec<PatchOperation>, mutate::Failure> {
        with_variables(globals, &self.variables, &self.env, &mut |scope| {
            let evaluation = Evaluation {
                env: &self.env,
                scope,
                meter: globals.meter,
                fast: Some(fast),
            };
            mutation.operations(evaluation, globals.spec)
        })
    }

    fn mutate(&self, call: &Call, meter: &Meter) -> Result<Verdict, Fault> {
        let mut changed: Option<Revision> = None;
        let mut patch: Vec<PatchOperation> = Vec::new();
        let mut fired = Vec::new();
        let globals = self.globals(call, &call.spec, meter);
        let fast = self.fast(&globals);
        for (position, mutation) in self.mutations.iter().enumerate() {
            let rule = || format!("mutations[{position}]");
            let spec = changed.as_ref().unwrap_or(&call.spec);
            let operations = match &changed {
                None => self.operations(mutation, &globals, &fast),
                Some(spec) => {
                    let globals = self.globals(call, spec, meter);
                    self.operations(mutation, &globals, &self.fast(&globals))
                }
            };
            meter.check(rule)?;
            let operations = operations.map_err(|failure| {
                let message = format!("{} cannot be made: {}", rule(), failure.message);
                let fault = Fault::new(failure.kind, message);
                match failure.expression {
                    Some(expression) => fault.with_detail(expression),
                    None => fault,
                }
            })?;
            if operations.is_empty() {
                continue;
            }
            fired.push(Rule::Mutation(position));
            // Only a later mutation looks at the result.
            if position + 1 < self.mutations.len() {
                let mut value = Value::clone(spec);
                json_patch::patch(&mut value, &operations).map_err(|error| {
                    Fault::new(
                        FaultKind::PatchApply,
                        format!("{} does not apply: {}", rule(), error.kind),
                    )
                })?;
                changed = Some(spec.changed(value));
            }
            patch.extend(operations);
        }
        Ok(Verdict {
            patch,
            fired,
            ..Verdict::default()
        })
    }

    fn validate(&self, call: &Call, meter: &Meter) -> Result<Verdict, Fault> {
        let globals = self.globals(call, &call.spec, meter);
        let fast = self.fast(&globals);
        with_variables(&globals, &self.variables, &self.env, &mut |scope| {
            let mut verdict = Verdict::default();
            let mut faults = Vec::new();
            for (position, validation) in self.validations.iter().enumerate() {
                match validation.denial(&self.env, scope, meter, &fast, position) {
                    Ok(None) => {}
                    Ok(Some(denial)) => {
                        verdict.denials.push(denial);
                        verdict.fired.push(Rule::Validation(position));
                    }
                    Err(fault) => faults.push(fault),
                }
            }
            for (position, (key, program)) in self.annotations.iter().enumerate() {
                match annotation(program, &self.env, scope, meter, position) {
                    Ok(value) => verdict
                        .annotations
                        .extend(value.map(|value| (key.clone(), value))),
                    Err(fault) => faults.push(fault),
                }
            }
            if verdict.denials.is_empty() && !faults.is_empty() {
                return Err(faults.swap_remove(0));
            }
            verdict
                .warnings
                .extend(faults.into_iter().map(|fault| fault.message));
            Ok(verdict)
        })
    }
}

fn compile_variables(
    compiler: &mut Compiler<'_>,
    source: &Source,
    names: &[String],
) -> Vec<Variable> {
    if names.len() > VARIABLES {
        compiler.report(
            "variables",
            format!("{} variables; at most {VARIABLES} are allowed", names.len()),
        );
        return Vec::new();
    }
    let mut variables = Vec::new();
    for (position, (field, variable)) in enumerated(&source.variables, "variables").enumerate() {
        let name = &variable.name;
        if !is_identifier(name) {
            compiler.report(
                &format!("{field}.name"),
                format!("`{name}` is no CEL identifier"),
            );
        }
        if names.iter().take(position).any(|earlier| earlier == name) {
            compiler.report(
                &format!("{field}.name"),
                format!("there is another variable `{name}`"),
            );
        }
        let program = compiler.compile(&format!("{field}.expression"), &variable.expression);
        // One that does not compile is defined all the same: its users are not wrong.
        if let Some(known) = &mut compiler.names.variables {
            known
                .depths
                .push(program.as_ref().map_or(0, |program| program.depth));
        }
        let key = format!("variables.{name}");
        variables.extend(program.map(|program| Variable {
            key,
            program,
            constant: None,
        }));
    }
    variables
}

/// Every text among the parameters that is a regular expression. What is none is an error when an
/// expression picks it.
fn known_patterns(params: &Value) -> Known {
    match params {
        Value::String(text) => {
            let regex = Regex::new(text).ok();
            regex
                .map(|regex| (text.clone(), regex))
                .into_iter()
                .collect()
        }
        Value::Array(items) => items.iter().flat_map(known_patterns).collect(),
        Value::Object(members) => members.values().flat_map(known_patterns).collect(),
        _ => Known::new(),
    }
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`, as CEL has it.
fn is_identifier(name: &str) -> bool {
    let first = name.chars().next();
    first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
