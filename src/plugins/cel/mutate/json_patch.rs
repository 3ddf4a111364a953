//! The mutation `jsonPatch`: operations that an expression writes itself.

use std::borrow::Cow;

use json_patch::PatchOperation;
use serde_json::Value;

use super::{Evaluation, Failure};
use crate::admission::verdict::FaultKind;
use crate::plugins::cel::meter::reading_json;
use crate::plugins::cel::program::Program;
use crate::plugins::cel::write::changes_nothing;

/// The operations that an expression gives, without those that change nothing and without the
/// tests, which have been made.
pub(super) fn operations<'a>(
    program: &'a Program,
    evaluation: Evaluation<'_, 'a>,
    spec: &Value,
) -> Result<Vec<PatchOperation>, Failure> {
    let operations = match evaluation.compute(program)? {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(operations)) => operations,
        Some(_) => {
            let message = "it gives no list of operations".to_owned();
            return Err(Failure::of(program, message));
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
            let paid = evaluation.meter.pay(copied);
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
