//! The command line: what each command takes, and the one place that joins configuration, engine,
//! server and records.

mod check;
mod live;
mod load;
mod reload;
mod review;
mod serve;
mod workers;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Exit codes: 0 is fine, 1 is a denial or a failure, 2 is a configuration or call that is not usable.
const UNUSABLE: u8 = 2;

/// An admission controller for the dstack server: reviews every spec that users apply.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer the reviews of a dstack server.
    Serve(Configured),
    /// Load a configuration, show its chain and worst-case time, and list every problem.
    Check(Configured),
    /// Decide specs from files as `serve` would, and show each plugin's part.
    Review(ReviewArguments),
}

#[derive(Debug, Args)]
struct Configured {
    /// The configuration file. Without it: an embedded default that listens on loopback and only watches.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ReviewArguments {
    #[command(flatten)]
    configured: Configured,
    /// JSON files: a spec, or a whole request body `{user, project, spec}`. `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What the spec is. Without it, its `configuration.type` tells.
    #[arg(long)]
    kind: Option<KindArgument>,
    /// Who applies it. Without it, the request body tells, else `admin`.
    #[arg(long)]
    user: Option<String>,
    /// The project it is applied in. Without it, the request body tells, else `main`.
    #[arg(long)]
    project: Option<String>,
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindArgument {
    Run,
    Fleet,
    Volume,
    Gateway,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Serve(configured) => serve::run(configured.config.as_deref()),
        Command::Check(configured) => check::run(configured.config.as_deref()),
        Command::Review(arguments) => review::run(&arguments),
    };
    match result {
        Ok(code) => code,
        // Whoever reads the output has read enough, as `head` does. What was left unsaid may be a denial.
        Err(error) if is_broken_pipe(&error) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "dstack-admission: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
}

/// Shows which plugins of a configuration cannot be used.
fn not_loaded(why: &workers::NotLoaded) -> io::Result<ExitCode> {
    writeln!(io::stderr(), "dstack-admission: {why}")?;
    Ok(ExitCode::from(UNUSABLE))
}

/// Shows what is wrong with a configuration.
fn unusable(problems: &crate::config::Problems) -> io::Result<ExitCode> {
    let mut err = io::stderr().lock();
    writeln!(err, "{problems}")?;
    let count = problems.len();
    let noun = if count == 1 { "problem" } else { "problems" };
    writeln!(err, "dstack-admission: {count} {noun} in the configuration")?;
    Ok(ExitCode::from(UNUSABLE))
}
