//! `schema`: the JSON Schema of a kind of file, with which an editor completes and checks, or of an
//! audit event.

use std::io::{self, Write};
use std::process::ExitCode;

use super::{SchemaArguments, SchemaOf, suite_schema};
use crate::config::schema::{schema, schema_of_written};
use crate::observe::record::event::Event;

/// Prints the schema.
pub fn run(arguments: &SchemaArguments) -> anyhow::Result<ExitCode> {
    let schema = match arguments.of {
        SchemaOf::Configuration => schema(),
        SchemaOf::Suite => suite_schema(),
        SchemaOf::AuditEvent => schema_of_written::<Event<'_>>(),
    };
    writeln!(io::stdout().lock(), "{schema:#}")?;
    Ok(ExitCode::SUCCESS)
}
