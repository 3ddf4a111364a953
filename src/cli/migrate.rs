//! `migrate`: from the Python plugins that a dstack server runs in its own process to a sidecar with the
//! same plugins. Without `--write` it only shows what it would write.

mod files;
mod installed;
mod plan;
mod server;

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use similar::TextDiff;

use self::files::Existing;
use self::installed::Installed;
use self::plan::{Plan, Rest};
use self::server::{REST_PLUGIN, ServerConfig};
use super::{MigrateArguments, UNUSABLE};
use crate::config::python;

/// Shows or writes both configurations. Exit code 2 when the server's cannot be used.
pub fn run(arguments: &MigrateArguments) -> anyhow::Result<ExitCode> {
    match migrate(arguments)? {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(why) => {
            writeln!(io::stderr(), "dstack-admission: {why}")?;
            Ok(ExitCode::from(UNUSABLE))
        }
    }
}

/// The inner error is what is wrong with the input.
fn migrate(arguments: &MigrateArguments) -> anyhow::Result<Result<(), String>> {
    let path = &arguments.server_config;
    let at = |why: String| format!("{}: {why}", path.display());
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return Ok(Err(at(error.to_string()))),
    };
    let config = match ServerConfig::parse(&text) {
        Ok(config) => config,
        Err(why) => return Ok(Err(at(why))),
    };
    if config.plugins == [REST_PLUGIN] && rest().is_none() {
        return Ok(Err(at(format!(
            "it enables `{REST_PLUGIN}` alone: there is nothing to migrate"
        ))));
    }
    let rewritten = match config.with_rest_plugin_alone() {
        Ok(rewritten) => rewritten,
        Err(why) => return Ok(Err(at(why))),
    };
    let (interpreter, installed) = ask(&arguments.interpreter)?;
    // What nobody named and cannot be asked is not worth naming.
    let named = arguments.interpreter != Path::new(python::INTERPRETER);
    let interpreter = interpreter.filter(|_| named || installed.is_ok());
    let plan = Plan::new(
        &config.plugins,
        interpreter.as_deref(),
        installed.as_ref().map_err(String::as_str),
        rest(),
    );
    if plan.is_empty() {
        let warnings = plan.warnings.join("\n");
        return Ok(Err(at(format!(
            "nothing of it can be migrated: {warnings}"
        ))));
    }
    let sidecar = plan.configuration(path);

    let output = &arguments.output;
    let existing = match arguments.force {
        true => Existing::Overwrite,
        false => Existing::Refuse,
    };
    if arguments.write
        && let Err(why) = files::check(output, path, existing)
    {
        return Ok(Err(why));
    }
    let mut out = io::stdout().lock();
    show_found(&mut out, &config, installed.as_ref().ok(), &plan)?;
    let mut err = io::stderr().lock();
    for warning in &plan.warnings {
        writeln!(err, "warning: {warning}")?;
    }
    let is_migrated = rewritten == text;
    if arguments.write {
        files::write_new(output, &sidecar, existing)?;
        writeln!(out, "\nwrote {}", output.display())?;
        if !is_migrated {
            let backup = files::replace(path, &text, &rewritten)?;
            let (path, backup) = (path.display(), backup.display());
            writeln!(out, "wrote {path}; as it was: {backup}")?;
        }
    } else {
        writeln!(out, "\n{}:\n\n{}", output.display(), indented(&sidecar))?;
        // Not the whole file, which holds credentials.
        let diff = TextDiff::from_lines(text.as_str(), rewritten.as_str());
        let (name, context) = (path.display().to_string(), 2);
        let mut diff = diff.unified_diff();
        let diff = diff
            .context_radius(context)
            .header(&name, &name)
            .to_string();
        if !is_migrated {
            writeln!(out, "the changes of {name}:\n\n{}", indented(&diff))?;
        }
    }
    show_next(&mut out, arguments)?;
    Ok(Ok(()))
}

/// The interpreter, if there is one, and what is installed there.
fn ask(given: &Path) -> anyhow::Result<(Option<PathBuf>, Result<Installed, String>)> {
    let interpreter = match python::interpreter(given) {
        Ok(interpreter) => interpreter,
        Err(why) => return Ok((None, Err(why))),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let installed = runtime.block_on(installed::ask(&interpreter));
    Ok((Some(interpreter), installed))
}

/// The plugin server of the dstack server's `rest_plugin`, where this is run in the server's environment.
fn rest() -> Option<Rest> {
    let given = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let uri = given("DSTACK_PLUGIN_SERVICE_URI")?;
    let ca_file = given("REQUESTS_CA_BUNDLE").map(PathBuf::from);
    Some(Rest::new(&uri, ca_file))
}

fn show_found(
    out: &mut impl Write,
    config: &ServerConfig<'_>,
    installed: Option<&Installed>,
    plan: &Plan,
) -> io::Result<()> {
    writeln!(out, "enabled: {}", config.plugins.join(", "))?;
    if let Some(installed) = installed {
        let dstack = installed.dstack.as_deref().unwrap_or_default();
        writeln!(
            out,
            "installed: dstack {dstack}, Python {}",
            installed.python
        )?;
        for found in &installed.found {
            let package = found.package.as_deref().unwrap_or("an unknown package");
            let version = found.version.as_deref().unwrap_or_default();
            let note = match plan.not_enabled.contains(&found.name) {
                true => "; found, but not enabled",
                false => "",
            };
            writeln!(out, "  - {} ({package} {version}{note})", found.name)?;
        }
    }
    Ok(())
}

fn show_next(out: &mut impl Write, arguments: &MigrateArguments) -> io::Result<()> {
    let output = arguments.output.display();
    let first = match arguments.write {
        true => "",
        false => "  - have both files written: the same command with --write\n",
    };
    write!(
        out,
        "\nnext:\n{first}\
         \x20 - list under `env` what the plugins read of the environment: workers inherit nothing else\n\
         \x20 - dstack-admission check --config {output}\n\
         \x20 - dstack-admission serve --config {output}, which prints what to set on the dstack server:\n\
         \x20   DSTACK_PLUGIN_SERVICE_URI, REQUESTS_CA_BUNDLE and AWS_CA_BUNDLE\n\
         \x20 - restart the dstack server with these and `plugins: [{REST_PLUGIN}]`\n"
    )
}

fn indented(text: &str) -> String {
    let line = |line: &str| match line {
        "" => "\n".to_owned(),
        line => format!("    {line}\n"),
    };
    text.lines().map(line).collect()
}
