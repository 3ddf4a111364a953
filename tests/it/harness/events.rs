//! What an audit event has to look like, by the schema that the program itself publishes.

use std::process::Command;
use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::Value;

/// What `schema audit-event` prints.
pub fn schema() -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dstack-admission"));
    let output = command.args(["schema", "audit-event"]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The event, which has every member that it must have and none that the schema does not name.
pub fn fitting(event: Value) -> Value {
    static CLOSED: OnceLock<Validator> = OnceLock::new();
    let validator = CLOSED.get_or_init(|| {
        let mut schema = schema();
        close(&mut schema);
        jsonschema::validator_for(&schema).unwrap()
    });
    if let Err(error) = validator.validate(&event) {
        panic!("{}: {error}: {event:#}", error.instance_path());
    }
    event
}

fn close(schema: &mut Value) {
    if schema.get("properties").is_some() {
        schema["additionalProperties"] = false.into();
    }
    match schema {
        Value::Object(members) => members.values_mut().for_each(close),
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}
