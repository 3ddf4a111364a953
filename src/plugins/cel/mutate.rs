//! Mutations: from what a policy says to the operations of a patch.
//!
//! An operation is made only where it changes something, so that a spec which already is as the
//! policy wants it stays unpatched.

use std::borrow::Cow;
use std::sync::Arc;

use ::cel::Env;
use json_patch::PatchOperation;
use json_patch::jsonptr::{Pointer, PointerBuf};
use serde_json::Value;

use super::json::to_json;
use super::meter::{self, Meter, reading_json};
use super::program::{Compiler, Program};
use super::scope::Scope;
use super::source;
use super::write::{changes_nothing, merge, remove, set};
use crate::admission::verdict::FaultKind;

/// A mutation, compiled.
pub(super) struct Mutation {
    when: Option<Program>,
    action: Action,
}

enum Action {
    Set(PointerBuf, Content),
    SetDefault(PointerBuf, Content),
    MergeMap(PointerBuf, Content),
    Remove(PointerBuf),
    JsonPatch(Program),
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

impl Failure {
    fn rule(message: String) -> Self {
        Self {
            kind: FaultKind::Rule,
            message,
            expression: None,
        }
    }
}

impl Mutation {
    /// Compiles one mutation; `None` with the reasons among the compiler's errors.
    pub(super) fn compile(
        compiler: &mut Compiler<'_>,
        field: &str,
        source: &source::Mutation,
    ) -> Option<Self> {
        let when = source.when.as_ref();
        let when = when.map(|when| compiler.compile(&format!("{field}.when"), when));
        let writes = [
            (
                "set",
                &source.set,
                Action::Set as fn(PointerBuf, Content) -> Action,
            ),
            ("setDefault", &source.set_default, Action::SetDefault),
            ("mergeMap", &source.merge_map, Action::MergeMap),
        ];
        let mut actions = Vec::new();
        for (name, write, action) in writes {
            if let Some(write) = write {
                actions.push(compile_write(
                    compiler,
                    &format!("{field}.{name}"),
                    name,
                    write,
                    action,
                ));
            }
        }
        if let Some(remove) = &source.remove {
            let path = pointer(compiler, &format!("{field}.remove.path"), &remove.path);
            actions.push(path.map(Action::Remove));
        }
        if let Some(patch) = &source.json_patch {
            let program =
                compiler.compile(&format!("{field}.jsonPatch.expression"), &patch.expression);
            actions.push(program.map(Action::JsonPatch));
        }
        if actions.len() != 1 {
            compiler.report(
                field,
                "exactly one of set, setDefault, mergeMap, remove and jsonPatch is needed"
                    .to_owned(),
            );
            return None;
        }
        let action = actions.pop().flatten()?;
        match when {
            None => Some(Self { when: None, action }),
            Some(when) => Some(Self {
                when: Some(when?),
                action,
            }),
        }
    }

    /// The operations that this mutation makes on `spec`, none where nothing changes.
    pub(super) fn operations(
        &self,
        env: &Arc<Env>,
        scope: &dyn Scope,
        meter: &Meter,
        spec: &Value,
    ) -> Result<Vec<PatchOperation>, Failure> {
        if let Some(when) = &self.when
            && !when.holds(env, scope).map_err(|why| failed(when, why))?
        {
            return Ok(Vec::new());
        }
        match &self.action {
            Action::Set(path, content) => write(spec, path, content.value(env, scope, meter)?),
            Action::SetDefault(path, content) => {
                if path.resolve(spec).is_ok_and(|value| !value.is_null()) {
                    return Ok(Vec::new());
                }
                let value = content.value(env, scope, meter)?;
                write(spec, path, value.filter(|value| !value.is_null()))
            }
            Action::MergeMap(path, content) => match content.value(env, scope, meter)? {
                None | Some(Value::Null) => Ok(Vec::new()),
                Some(Value::Object(members)) => merge(spec, path, members).map_err(Failure::rule),
                Some(_) => Err(Failure::rule("what mergeMap writes is no map".to_owned())),
            },
            Action::Remove(path) => Ok(remove(spec, path)),
            Action::JsonPatch(program) => json_patch(program, env, scope, meter, spec),
        }
    }
}

fn compile_write(
    compiler: &mut Compiler<'_>,
    field: &str,
    name: &str,
    write: &source::Write,
    action: fn(PointerBuf, Content) -> Action,
) -> Option<Action> {
    let path = pointer(compiler, &format!("{field}.path"), &write.path);
    let content = match (&write.value, &write.value_expression) {
        (Some(value), None) if name == "mergeMap" && !value.is_object() => {
            compiler.report(
                &format!("{field}.value"),
                "mergeMap writes a map".to_owned(),
            );
            None
        }
        (Some(value), None) => Some(Content::Fixed(value.clone())),
        (None, Some(expression)) => {
            let program = compiler.compile(&format!("{field}.valueExpression"), expression);
            program.map(Content::Computed)
        }
        _ => {
            compiler.report(
                field,
                "exactly one of value and valueExpression is needed".to_owned(),
            );
            None
        }
    };
    Some(action(path?, content?))
}

fn pointer(compiler: &mut Compiler<'_>, field: &str, path: &str) -> Option<PointerBuf> {
    let reason = match PointerBuf::parse(path) {
        Ok(pointer) if !pointer.is_root() => return Some(pointer),
        Ok(_) => {
            "the whole spec cannot be written: name a member, for instance /configuration/tags"
        }
        Err(_) if !path.starts_with('/') => "not a JSON pointer: it must start with /",
        Err(_) => "not a JSON pointer: ~ is written ~0 and / within a name ~1",
    };
    compiler.report(field, reason.to_owned());
    None
}

impl Content {
    fn value(
        &self,
        env: &Arc<Env>,
        scope: &dyn Scope,
        meter: &Meter,
    ) -> Result<Option<Value>, Failure> {
        match self {
            Content::Fixed(value) => Ok(Some(value.clone())),
            Content::Computed(program) => compute(program, env, scope, meter),
        }
    }
}

fn compute(
    program: &Program,
    env: &Arc<Env>,
    scope: &dyn Scope,
    meter: &Meter,
) -> Result<Option<Value>, Failure> {
    let value = program.evaluate(env, scope, |value| {
        // One text of the spec may be in the value many times over.
        let units = meter::reading_whole(value.as_ref(), meter.left());
        let paid = meter.pay(units);
        paid.map_err(|_| "it is too large".to_owned())?;
        to_json(value.as_ref())
    });
    value
        .and_then(|json| json)
        .map_err(|why| failed(program, why))
}

fn write(
    spec: &Value,
    path: &Pointer,
    value: Option<Value>,
) -> Result<Vec<PatchOperation>, Failure> {
    let operation = match value {
        Some(value) => set(spec, path, value).map_err(Failure::rule)?,
        None => None,
    };
    Ok(operation.into_iter().collect())
}

fn failed(program: &Program, message: String) -> Failure {
    Failure {
        kind: FaultKind::Rule,
        message,
        expression: Some(program.text.clone()),
    }
}

/// The operations that an expression gives, without those that change nothing and without the
/// tests, which have been made.
fn json_patch(
    program: &Program,
    env: &Arc<Env>,
    scope: &dyn Scope,
    meter: &Meter,
    spec: &Value,
) -> Result<Vec<PatchOperation>, Failure> {
    let operations = match compute(program, env, scope, meter)? {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(operations)) => operations,
        Some(_) => {
            let message = "it gives no list of operations".to_owned();
            return Err(failed(program, message));
        }
    };
    let mut patched = Cow::Borrowed(spec);
    let mut kept = Vec::new();
    for (position, operation) in operations.into_iter().enumerate() {
        let failure = |kind, why: &str| Failure {
            kind,
            message: format!("operation {position} of the patch {why}"),
            expression: Some(program.text.clone()),
        };
        let operation = serde_json::from_value(operation).map_err(|_| {
            failure(
                FaultKind::Rule,
                "is none of RFC 6902: op, path and value or from are needed",
            )
        })?;
        if changes_nothing(&operation, &patched) {
            continue;
        }
        if let PatchOperation::Copy(copy) = &operation {
            // Copies of copies double the spec each time.
            let copied = copy.from.resolve(patched.as_ref()).map_or(0, reading_json);
            let paid = meter.pay(copied);
            paid.map_err(|_| failure(FaultKind::Budget, "copies too much"))?;
        }
        json_patch::patch(patched.to_mut(), std::slice::from_ref(&operation)).map_err(|error| {
            let path = operation.path();
            failure(
                FaultKind::PatchApply,
                &format!("does not apply at {path}: {}", error.kind),
            )
        })?;
        if !matches!(operation, PatchOperation::Test(_)) {
            kept.push(operation);
        }
    }
    if patched.as_ref() == spec {
        kept.clear();
    }
    Ok(kept)
}
