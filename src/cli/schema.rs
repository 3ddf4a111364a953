//! `schema`: the JSON Schema of a kind of file, with which an editor completes and checks.

use std::io::{self, Write};
use std::process::ExitCode;

use super::{SchemaArguments, SchemaOf, suite_schema};
use crate::config::schema::schema;

/// Prints the schema.
pub fn run(arguments: &SchemaArguments) -> anyhow::Result<ExitCode> {
    let schema = match arguments.of {
        SchemaOf::Configuration => schema(),
        SchemaOf::Suite => suite_schema(),
    };
    writeln!(io::stdout().lock(), "{schema:#}")?;
    Ok(ExitCode::SUCCESS)
}
