//! `schema`: the JSON Schema of the configuration, with which an editor completes and checks.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::schema::schema;

/// Prints the schema.
pub fn run() -> anyhow::Result<ExitCode> {
    writeln!(io::stdout().lock(), "{:#}", schema())?;
    Ok(ExitCode::SUCCESS)
}
