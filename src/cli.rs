//! The command line: what each command takes, and the one place that joins configuration, engine,
//! server and records.

mod certs;
mod check;
mod doctor;
mod explain;
mod healthcheck;
mod live;
mod load;
mod migrate;
mod plain;
mod policies;
mod reload;
mod replay;
mod review;
mod schema;
mod serve;
mod specs;
mod test;
mod workers;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use regex::Regex;

pub use self::test::suite_schema;
use crate::admission::review::Kind;

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
    /// Ask a running sidecar whether it is ready: for Docker's HEALTHCHECK and exec probes.
    Healthcheck(HealthcheckArguments),
    /// Load a configuration, show its chain and worst-case time, and list every problem.
    Check(Configured),
    /// Decide specs from files as `serve` would, and show each plugin's part.
    Review(ReviewArguments),
    /// List the built-in policies, or show one with its parameters and an example.
    Policies(PoliciesArguments),
    /// Print the JSON Schema of the configuration, for editors.
    Schema(SchemaArguments),
    /// Decide the reviews of an audit log by another configuration, and show what would change.
    Replay(ReplayArguments),
    /// Make, renew and show certificates, and merge CAs into what the dstack server trusts.
    #[command(subcommand)]
    Certs(certs::Certs),
    /// Look from the dstack server's side at what lies between it and the sidecar, and say how to mend it.
    Doctor(DoctorArguments),
    /// Tell from the audit log who asked for what, what each plugin said, and who set which field.
    Explain(ExplainArguments),
    /// Run suites of policy tests, and say which rules no case ever made fire.
    Test(TestArguments),
    /// Move the Python plugins of a dstack server into a sidecar: show or write both configurations.
    Migrate(MigrateArguments),
}

#[derive(Debug, Args)]
struct Configured {
    /// The configuration file. Without it: an embedded default that listens on loopback and only watches.
    #[arg(short, long, value_name = "FILE", env = "DSTACK_ADMISSION_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct HealthcheckArguments {
    #[command(flatten)]
    configured: Configured,
    /// The admin address, `http://HOST:PORT`. Without it, the configuration tells.
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// Ask only whether it lives, not whether it is ready.
    #[arg(long)]
    live: bool,
    /// How long an answer is waited for.
    #[arg(long, default_value = "2s", value_name = "TIME")]
    timeout: humantime::Duration,
}

#[derive(Debug, Args)]
struct DoctorArguments {
    /// The sidecar's address. Without it, DSTACK_PLUGIN_SERVICE_URI of the environment.
    #[arg(long, value_name = "URI")]
    uri: Option<String>,
    /// CAs to trust, a file or a hashed directory. Without it, REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE.
    #[arg(long, value_name = "PATH")]
    ca_bundle: Option<PathBuf>,
    /// The file with credentials. Without it, NETRC or ~/.netrc.
    #[arg(long, value_name = "FILE")]
    netrc: Option<PathBuf>,
    /// Take the environment of this process, which is the dstack server's.
    #[arg(long, value_name = "PID")]
    env_of: Option<u32>,
    /// The address of the dstack server, to be asked whether its plugins are loaded.
    #[arg(long, value_name = "URL", requires = "token_file")]
    server: Option<String>,
    /// A file with the token of a user of the dstack server.
    #[arg(long, value_name = "FILE", requires = "server")]
    token_file: Option<PathBuf>,
    /// A project of that user.
    #[arg(long, default_value = "main", value_name = "NAME", value_parser = project)]
    project: String,
    /// The dstack server's configuration. Without it, ~/.dstack/server/config.yml if it is there.
    #[arg(long, value_name = "FILE")]
    server_config: Option<PathBuf>,
    /// The sidecar's admin address, to be asked for its version.
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// The name of the run that the policy `canary` denies. When it is given, that denial has to come back.
    #[arg(long, value_name = "NAME")]
    canary: Option<String>,
    /// How long each step may take. The dstack server itself waits 8 s.
    #[arg(long, default_value = "8s", value_name = "TIME")]
    timeout: humantime::Duration,
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

/// A project's name as it can stand in an address.
fn project(name: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match !name.is_empty() && name.chars().all(plain) {
        true => Ok(name.to_owned()),
        false => Err("a project's name has letters, digits, `-`, `_` and `.`".to_owned()),
    }
}

#[derive(Debug, Args)]
struct ReviewArguments {
    #[command(flatten)]
    configured: Configured,
    /// JSON or YAML files: a spec, or a whole request body `{user, project, spec}`. `-` is standard input.
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

#[derive(Debug, Args)]
struct SchemaArguments {
    /// The kind of file.
    #[arg(value_enum, default_value = "configuration")]
    of: SchemaOf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SchemaOf {
    Configuration,
    Suite,
    AuditEvent,
}

#[derive(Debug, Args)]
struct PoliciesArguments {
    /// The policies to show. Without any, all are listed.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[arg(short, long, value_enum, default_value = "text")]
    output: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
    Markdown,
}

#[derive(Debug, Args)]
struct ReplayArguments {
    /// Audit logs that were written at the level `Spec`, plain or gzip. `-` is standard input.
    #[arg(long, required = true, num_args = 1.., value_name = "LOG")]
    audit: Vec<PathBuf>,
    /// The configuration that decides this time.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Ask webhooks and REST plugin servers too, which then see old reviews. Otherwise they are left out.
    #[arg(long)]
    call_remote: bool,
    /// Differences that are fine: they do not make the exit code 1.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "CHANGE")]
    allow: Vec<replay::compare::Change>,
    /// How many examples of each kind of difference are shown.
    #[arg(long, default_value_t = 10, value_name = "N")]
    show: u16,
    #[command(flatten)]
    chosen: replay::filter::Chosen,
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Debug, Args)]
struct ExplainArguments {
    /// A decision's id, or the beginning of one. Without it, decisions are listed.
    id: Option<String>,
    /// Audit logs, plain or gzip; what they were rotated to is found beside them. `-` is standard input.
    #[arg(long, num_args = 1.., value_name = "LOG")]
    audit: Vec<PathBuf>,
    /// The configuration whose audit files are read, unless `--audit` names some.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only runs, fleets, volumes and gateways of this name. A glob, `!` excludes; may be repeated.
    #[arg(long = "run", visible_alias = "name", value_parser = replay::filter::pattern, value_name = "GLOB")]
    names: Vec<String>,
    /// Only reviews of this trace, the `traceID` of their events: 32 hex digits.
    #[arg(long, value_parser = explain::trace, value_name = "HEX")]
    trace: Option<String>,
    #[command(flatten)]
    chosen: replay::filter::Chosen,
    /// Explain the latest of these decisions.
    #[arg(long)]
    last: bool,
    /// How many of the latest are listed.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    show: u16,
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Debug, Args)]
struct TestArguments {
    /// Suites, or directories: every file below them named `*.test.yaml` or `*.test.yml` is a suite.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Only the cases for which this matches `SUITE/CASE`, the suite's path and the case's name.
    #[arg(long, value_name = "REGEX")]
    run: Option<Regex>,
    /// Count the rules of built-in policies, too.
    #[arg(long)]
    built_in: bool,
    /// Fail when less than this percentage of the rules fire.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(..=100))]
    coverage: Option<u8>,
    /// Rewrite in the suites what failing cases expect, and show the difference.
    #[arg(long)]
    update: bool,
    /// Name the cases that pass, too.
    #[arg(short, long)]
    verbose: bool,
    #[arg(short, long, value_enum, default_value = "text")]
    output: TestOutput,
    /// Write the report there, and one for people to standard output.
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct MigrateArguments {
    /// The dstack server's configuration file, such as `~/.dstack/server/config.yml`.
    #[arg(value_name = "SERVER_CONFIG")]
    server_config: PathBuf,
    /// The Python that the dstack server runs in, which is asked for the order of the plugins.
    #[arg(long, value_name = "PYTHON", default_value = "python3")]
    interpreter: PathBuf,
    /// The sidecar's configuration file.
    #[arg(short, long, value_name = "FILE", default_value = "admission.yaml")]
    output: PathBuf,
    /// Write both files. The server's old one stays beside it, as `.bak`.
    #[arg(long)]
    write: bool,
    /// Overwrite a sidecar's configuration, or a `.bak`, that is there already.
    #[arg(long, requires = "write")]
    force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TestOutput {
    Text,
    Json,
    Junit,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindArgument {
    Run,
    Fleet,
    Volume,
    Gateway,
}

impl From<KindArgument> for Kind {
    fn from(argument: KindArgument) -> Self {
        match argument {
            KindArgument::Run => Kind::Run,
            KindArgument::Fleet => Kind::Fleet,
            KindArgument::Volume => Kind::Volume,
            KindArgument::Gateway => Kind::Gateway,
        }
    }
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
        Command::Certs(command) => certs::run(&command),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Healthcheck(arguments) => healthcheck::run(&arguments),
        Command::Check(configured) => check::run(configured.config.as_deref()),
        Command::Review(arguments) => review::run(&arguments),
        Command::Policies(arguments) => policies::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Migrate(arguments) => migrate::run(&arguments),
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

/// Says which of the files that were named cannot be read, and why.
fn unreadable(why: &anyhow::Error) -> io::Result<ExitCode> {
    writeln!(io::stderr(), "dstack-admission: {why:#}")?;
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
