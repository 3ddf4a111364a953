//! Mutations: from what a policy says to the operations of a patch.
//!
//! An operation is made only where it changes something, so that a spec which already is as the
//! policy wants it stays unpatched. Paths in operations are plain JSON Pointers: what a wildcard
//! stands for has been looked up.

mod clamp;
mod element;
mod json_patch;
mod path;

use std::sync::Arc;

use ::cel::Env;
use ::json_patch::PatchOperation;
use ::json_patch::jsonptr::Pointer;
use serde_json::Value;

use self::clamp::Clamp;
use self::element::{Element, with_element};
use self::path::{Path, Place, has_wildcard};
use super::fast::Fast;
use super::json::to_json;
use super::meter::{self, Meter, reading_json};
use super::program::{Compiler, Program};
use super::scope::Scope;
use super::source;
use super::write::{add_to_set, merge, remove, set};
use crate::admission::verdict::FaultKind;

/// A mutation, compiled.
pub(super) struct Mutation {
    when: Option<Program>,
    action: Action,
}

enum Action {
    At(Path, Box<Change>),
    JsonPatch(Program),
}

/// What is done in each place that a path means.
enum Change {
    Set(Content),
    SetDefault(Content),
    Clamp(Clamp),
    MergeMap(Content),
    AddToSet(Content),
    Remove,
}

enum Content {
    Fixed(Value),
    Computed(Program),
}

/// Why a mutation could not be made, in words for the user.
pub(super) struct Failure {
    pub(super) kind: FaultKind,
    pub(super) message: String,
    /// The expression that errored.
    pub(super) expression: Option<String>,
}

/// What an expression is evaluated with.
#[derive(Clone, Copy)]
pub(super) struct Evaluation<'e, 'a> {
    pub(super) env: &'e Arc<Env>,
    pub(super) scope: &'e dyn Scope,
    pub(super) meter: &'e Meter,
    /// The fast way, where it knows all names.
    pub(super) fast: Option<&'e Fast<'a>>,
}

impl Mutation {
    /// Compiles one mutation; `None` with the reasons among the compiler's errors.
    pub(super) fn compile(
        compiler: &mut Compiler<'_>,
        field: &str,
        source: &source::Mutation,
    ) -> Option<Self> {
        if source.paths().any(has_wildcard) {
            with_element(compiler, |compiler| compile(compiler, field, source))
        } else {
            compile(compiler, field, source)
        }
    }

    /// The operations that this mutation makes on `spec`, none where nothing changes.
    pub(super) fn operations<'a>(
        &'a self,
        evaluation: Evaluation<'_, 'a>,
        spec: &Value,
    ) -> Result<Vec<PatchOperation>, Failure> {
        match &self.action {
            Action::At(path, change) => {
                let mut places = path.places(spec, evaluation)?;
                if matches!(**change, Change::Remove) {
                    // The elements behind one that is removed move up.
                    places.reverse();
                }
                let mut operations = Vec::new();
                for place in &places {
                    operations.extend(self.change(change, evaluation, spec, place)?);
                }
                Ok(operations)
            }
            Action::JsonPatch(program) => match self.applies(evaluation)? {
                true => json_patch::operations(program, evaluation, spec),
                false => Ok(Vec::new()),
            },
        }
    }

    /// The condition under which anything is done.
    #[cfg(test)]
    pub(super) fn when(&self) -> Option<&Program> {
        self.when.as_ref()
    }

    fn change<'a>(
        &'a self,
        change: &'a Change,
        evaluation: Evaluation<'_, 'a>,
        spec: &Value,
        place: &Place<'_>,
    ) -> Result<Vec<PatchOperation>, Failure> {
        let made = |evaluation| match self.applies(evaluation)? {
            true => change.operations(evaluation, spec, &place.path),
            false => Ok(Vec::new()),
        };
        let Some(value) = place.element else {
            return made(evaluation);
        };
        evaluation.pay(self.weight(change))?;
        let below = evaluation.scope;
        let scope = &Element { below, value };
        made(Evaluation {
            scope,
            fast: None,
            ..evaluation
        })
        .map_err(|failure| match failure.expression {
            Some(_) => Failure {
                message: format!("at {}: {}", place.path, failure.message),
                ..failure
            },
            None => failure,
        })
    }

    fn applies<'a>(&'a self, evaluation: Evaluation<'_, 'a>) -> Result<bool, Failure> {
        let Some(when) = &self.when else {
            return Ok(true);
        };
        let holds = when.holds(evaluation.env, evaluation.scope, evaluation.fast);
        holds.map_err(|why| Failure::of(when, why))
    }

    /// What one match costs, besides what its expressions pay themselves.
    fn weight(&self, change: &Change) -> u64 {
        // A node of an expression is seldom spelled with less than two bytes.
        let evaluating = |program: &Program| program.text.len() as u64 / 2;
        let when = self.when.as_ref().map_or(0, evaluating);
        1 + when
            + match change {
                Change::Remove => 0,
                Change::Clamp(clamp) => clamp.programs().map(evaluating).sum(),
                Change::Set(content)
                | Change::SetDefault(content)
                | Change::MergeMap(content)
                | Change::AddToSet(content) => match content {
                    Content::Fixed(value) => reading_json(value),
                    Content::Computed(program) => evaluating(program),
                },
            }
    }
}

impl Change {
    fn operations<'a>(
        &'a self,
        evaluation: Evaluation<'_, 'a>,
        spec: &Value,
        path: &Pointer,
    ) -> Result<Vec<PatchOperation>, Failure> {
        let operations = match self {
            Change::Set(content) => written(spec, path, content.value(evaluation)?),
            Change::SetDefault(content) => {
                if path.resolve(spec).is_ok_and(|value| !value.is_null()) {
                    return Ok(Vec::new());
                }
                let value = content.value(evaluation)?;
                written(spec, path, value.filter(|value| !value.is_null()))
            }
            Change::Clamp(clamp) => return clamp.operations(evaluation, spec, path),
            Change::MergeMap(content) => match content.value(evaluation)? {
                None | Some(Value::Null) => Ok(Vec::new()),
                Some(Value::Object(members)) => merge(spec, path, members),
                Some(_) => Err("what mergeMap writes is no map".to_owned()),
            },
            Change::AddToSet(content) => {
                let values = match content.value(evaluation)? {
                    None | Some(Value::Null) => return Ok(Vec::new()),
                    Some(Value::Array(values)) => values,
                    Some(value) => vec![value],
                };
                // Each value is looked for in the whole list.
                let list = path.resolve(spec).map_or(1, reading_json);
                let values_too = list + values.iter().map(reading_json).sum::<u64>();
                evaluation.pay(values_too.saturating_mul(values.len() as u64))?;
                add_to_set(spec, path, values)
            }
            Change::Remove => Ok(remove(spec, path)),
        };
        operations.map_err(Failure::rule)
    }
}

impl Content {
    fn value<'a>(&'a self, evaluation: Evaluation<'_, 'a>) -> Result<Option<Value>, Failure> {
        match self {
            Content::Fixed(value) => Ok(Some(value.clone())),
            Content::Computed(program) => evaluation.compute(program),
        }
    }
}

impl<'a> Evaluation<'_, 'a> {
    /// What an expression gives, as JSON. `None` is `optional.none()`.
    fn compute(self, program: &'a Program) -> Result<Option<Value>, Failure> {
        if let Some(value) = self.fast.and_then(|fast| fast.json(&program.fast)) {
            debug_assert!(self.fast.is_none_or(|fast| {
                fast.is_right(&value, || self.interpret(program).ok().flatten())
            }));
            return Ok(Some(value));
        }
        self.interpret(program)
    }

    fn interpret(self, program: &Program) -> Result<Option<Value>, Failure> {
        let value = program.evaluate(self.env, self.scope, |value| {
            // One text of the spec may be in the value many times over.
            let units = meter::reading_whole(value.as_ref(), self.meter.left());
            let paid = self.meter.pay(units);
            paid.map_err(|_| "it is too large".to_owned())?;
            to_json(value.as_ref())
        });
        value
            .and_then(|json| json)
            .map_err(|why| Failure::of(program, why))
    }

    /// Takes units off the budget, for what no expression pays.
    fn pay(self, units: u64) -> Result<(), Failure> {
        let paid = self.meter.pay(units);
        paid.map_err(|_| Failure {
            kind: FaultKind::Budget,
            message: "it goes through too much".to_owned(),
            expression: None,
        })
    }
}

impl Failure {
    fn rule(message: String) -> Self {
        Self {
            kind: FaultKind::Rule,
            message,
            expression: None,
        }
    }

    /// An expression that errored.
    fn of(program: &Program, message: String) -> Self {
        Self {
            expression: Some(program.text.clone()),
            ..Self::rule(message)
        }
    }
}

fn compile(
    compiler: &mut Compiler<'_>,
    field: &str,
    source: &source::Mutation,
) -> Option<Mutation> {
    let when = source.when.as_ref();
    let when = when.map(|when| compiler.compile(&format!("{field}.when"), when));
    let mut actions = Vec::new();
    let writes = [
        ("set", &source.set, Change::Set as fn(Content) -> Change),
        ("setDefault", &source.set_default, Change::SetDefault),
        ("mergeMap", &source.merge_map, Change::MergeMap),
        ("addToSet", &source.add_to_set, Change::AddToSet),
    ];
    for (name, write, change) in writes {
        if let Some(write) = write {
            let field = format!("{field}.{name}");
            let path = Path::compile(compiler, &format!("{field}.path"), &write.path);
            let content = content(compiler, &field, name, write);
            actions.push(path.zip(content.map(change)));
        }
    }
    if let Some(clamp) = &source.clamp {
        let field = format!("{field}.clamp");
        let path = Path::compile(compiler, &format!("{field}.path"), &clamp.path);
        let clamp = Clamp::compile(compiler, &field, clamp);
        actions.push(path.zip(clamp.map(Change::Clamp)));
    }
    if let Some(remove) = &source.remove {
        let field = format!("{field}.remove.path");
        let path = Path::compile(compiler, &field, &remove.path);
        if path.as_ref().is_some_and(Path::ends_in_position) {
            let problem = "an element is not removed by its position, which the next one takes: \
                           write * and a `when` about `element`";
            compiler.report(&field, problem.to_owned());
        }
        actions.push(path.map(|path| (path, Change::Remove)));
    }
    let mut actions: Vec<Option<Action>> = actions
        .into_iter()
        .map(|action| action.map(|(path, change)| Action::At(path, Box::new(change))))
        .collect();
    if let Some(patch) = &source.json_patch {
        let field = format!("{field}.jsonPatch.expression");
        let program = compiler.compile(&field, &patch.expression);
        actions.push(program.map(Action::JsonPatch));
    }
    if actions.len() != 1 {
        let problem = "exactly one of set, setDefault, clamp, mergeMap, addToSet, remove and \
                       jsonPatch is needed";
        compiler.report(field, problem.to_owned());
        return None;
    }
    let action = actions.pop().flatten()?;
    let when = match when {
        None => None,
        Some(when) => Some(when?),
    };
    Some(Mutation { when, action })
}

fn content(
    compiler: &mut Compiler<'_>,
    field: &str,
    name: &str,
    write: &source::Write,
) -> Option<Content> {
    let problem = match (&write.value, &write.value_expression) {
        (Some(value), None) => match name {
            "mergeMap" if !value.is_object() => "mergeMap writes a map",
            "addToSet" if value.is_null() => "addToSet adds no null",
            _ => return Some(Content::Fixed(value.clone())),
        },
        (None, Some(expression)) => {
            let program = compiler.compile(&format!("{field}.valueExpression"), expression);
            return program.map(Content::Computed);
        }
        _ => {
            let problem = "exactly one of value and valueExpression is needed";
            compiler.report(field, problem.to_owned());
            return None;
        }
    };
    compiler.report(&format!("{field}.value"), problem.to_owned());
    None
}

fn written(
    spec: &Value,
    path: &Pointer,
    value: Option<Value>,
) -> Result<Vec<PatchOperation>, String> {
    match value {
        Some(value) => set(spec, path, value).map(Vec::from_iter),
        None => Ok(Vec::new()),
    }
}
