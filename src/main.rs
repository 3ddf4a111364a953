//! Parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    dstack_admission::cli::main()
}
