//! `doctor`: looks from the dstack server's side at everything between it and the sidecar, and says how to mend what is
//! wrong. It changes nothing and starts nothing; its canary is a review of a run that nobody asked for.

mod address;
mod bundle;
mod connect;
mod environment;
mod netrc;
mod proxy;
mod report;
mod review;
mod server;
mod server_config;
mod sidecar;
mod tls;

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::json;

use self::address::Address;
use self::environment::Environment;
use self::report::{Report, Status};
use self::review::{Asking, Canary};
use self::server::Server;
use super::{DoctorArguments, Output, UNUSABLE};

/// Looks at everything, shows it, and fails if something has to be mended.
pub fn run(arguments: &DoctorArguments) -> anyhow::Result<ExitCode> {
    let (environment, asked) = match understood(arguments) {
        Ok(understood) => understood,
        Err(error) => {
            writeln!(io::stderr(), "dstack-admission: {error:#}")?;
            return Ok(ExitCode::from(UNUSABLE));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut report = Report::default();
    runtime.block_on(examine(&environment, &asked, arguments, &mut report));
    // A name that does not resolve may still be looked up on a thread of its own.
    runtime.shutdown_background();

    let healthy = report.worst() < Status::Fail;
    let mut out = io::stdout().lock();
    match arguments.output {
        Output::Text => report.show(&mut out)?,
        Output::Json => {
            let report = json!({"ok": healthy, "findings": report.findings()});
            writeln!(out, "{report:#}")?;
        }
    }
    Ok(match healthy {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// What the command line asks for besides the environment.
struct Asked {
    server: Option<(Address, String)>,
    admin: Option<Address>,
}

/// Makes sense of the command line.
fn understood(arguments: &DoctorArguments) -> anyhow::Result<(Environment, Asked)> {
    let mut environment = match arguments.env_of {
        Some(process) => Environment::of(process)?,
        None => Environment::own(),
    };
    if let Some(uri) = &arguments.uri {
        environment.set(address::URI, uri.clone());
    }
    for (name, path) in [
        ("REQUESTS_CA_BUNDLE", &arguments.ca_bundle),
        ("NETRC", &arguments.netrc),
    ] {
        if let Some(path) = path {
            environment.set_path(name, path);
        }
    }
    let parse = |option: &str, text: &String| {
        let address = Address::parse(text).map_err(anyhow::Error::msg);
        address.with_context(|| format!("{option} {text}"))
    };
    let server = match (&arguments.server, &arguments.token_file) {
        (Some(server), Some(file)) => {
            let token = secret(file)?;
            Some((parse("--server", server)?, token))
        }
        _ => None,
    };
    let admin = arguments.admin.as_ref();
    let admin = admin.map(|admin| parse("--admin", admin)).transpose()?;
    if admin.as_ref().is_some_and(|admin| admin.tls) {
        bail!("--admin: the admin address speaks plain HTTP, write http://");
    }
    Ok((environment, Asked { server, admin }))
}

fn secret(file: &Path) -> anyhow::Result<String> {
    let name = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("--token-file {name}"))?;
    match text.trim() {
        "" => bail!("--token-file {name}: it is empty"),
        token => Ok(token.to_owned()),
    }
}

/// Every check, in the order in which a review meets what is checked.
async fn examine(
    environment: &Environment,
    asked: &Asked,
    arguments: &DoctorArguments,
    report: &mut Report,
) {
    let timeout = arguments.timeout.into();
    let config = arguments.server_config.as_deref();
    server_config::check(config, environment, report);
    if environment.is_elsewhere() {
        let message = "that process is in another network namespace, where loopback is another one";
        let mend =
            "run the doctor there: nsenter --net --target PID dstack-admission doctor --env-of PID";
        report.warn("network", message, mend);
    }
    let asking = Asking {
        name: arguments.canary.as_deref().unwrap_or(review::NAME),
        project: &arguments.project,
        is_expected: arguments.canary.is_some(),
    };
    let mut canary = Canary::Lost;
    let mut trusted = Vec::new();
    if asked.server.is_some() && environment.get(address::URI).is_none() {
        let message = format!(
            "{} is not set here: the server alone is asked",
            address::URI
        );
        report.ok("uri", message);
    } else if let Some(address) = address::check(environment, report) {
        proxy::check(&address, environment, report);
        let bundle = bundle::check(environment, address.tls, report);
        let credentials = netrc::check(&address, environment, report);
        let stream = tls::check(&address, bundle.as_ref(), timeout, report).await;
        if let Some(stream) = stream {
            let credentials = credentials.as_ref();
            canary = review::check(stream, &address, credentials, asking, timeout, report).await;
        }
        trusted = bundle.map_or(trusted, |bundle| bundle.certificates);
    }
    if let Some(admin) = &asked.admin {
        sidecar::check(admin, timeout, report).await;
    }
    if let Some((address, token)) = &asked.server {
        let server = Server {
            address: address.clone(),
            token,
            trusted: &trusted,
            timeout,
        };
        server::check(&server, asking, canary, report).await;
    }
}
