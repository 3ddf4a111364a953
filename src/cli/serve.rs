//! `serve`: load, bind, tell what the dstack server needs, serve, drain.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use rustls_pki_types::ServerName;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::load::{fingerprint, load};
use super::{reload, unusable};
use crate::admission::chain::{Member, Mode};
use crate::admission::schema::SpecSchemas;
use crate::certs::{self, Made};
use crate::config::resolve::{Settings, Tls, worst_case};
use crate::engine::Engine;
use crate::observe::audit::{Audit, Target};
use crate::observe::logs;
use crate::observe::metrics::Metrics;
use crate::plugins::Plugin;
use crate::server::{Live, Server, Shared, tls};

/// Serves until a signal ends it.
pub fn run(config: Option<&Path>) -> anyhow::Result<ExitCode> {
    let schemas = Arc::new(SpecSchemas::new());
    let settings = match load(config, &schemas) {
        Ok(settings) => settings,
        Err(problems) => return Ok(unusable(&problems)?),
    };
    let _log = logs::start(settings.log.format, settings.log.level)?;
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    if settings
        .chain
        .members()
        .iter()
        .any(|member| member.phases.mutating)
    {
        let warmed = Arc::clone(&schemas);
        runtime.spawn_blocking(move || warmed.warm());
    }
    runtime.block_on(serve(config, schemas, settings))
}

async fn serve(
    config: Option<&Path>,
    schemas: Arc<SpecSchemas>,
    settings: Settings,
) -> anyhow::Result<ExitCode> {
    // At once after loading, so that no later change is taken for what was loaded.
    let known = fingerprint(&settings.inputs);
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let hangup = signal(SignalKind::hangup())?;

    let metrics = Arc::new(Metrics::new()?);
    let server = Server::bind(settings.listen, Some(settings.admin)).await?;
    let bound = Bound {
        listen: settings.listen,
        admin: settings.admin,
    };
    let limits = settings.limits.clone();
    let (inputs, host) = (
        settings.inputs.clone(),
        settings.server_names.first().cloned(),
    );
    let in_force = go_live(settings, &metrics)?;
    metrics.loaded(&in_force.live.hash, SystemTime::now());
    announce(&server, host.as_ref(), &in_force).context("standard output")?;

    let listen = server.address()?;
    let admin = server.admin_address()?;
    let plugins = in_force.live.engine.chain().members().len();
    tracing::info!(%listen, admin = admin.map(tracing::field::display), plugins, hash = in_force.live.hash, "serving");

    let watch = reload::Watch {
        config: config.map(Path::to_owned),
        inputs,
        known,
        schemas,
        bound,
    };
    let shared = Arc::new(Shared::new(in_force.live, metrics, limits));
    let reloading = tokio::spawn(watch.run(Arc::clone(&shared), hangup));

    let stop = CancellationToken::new();
    let serving = server.serve(shared, stop.clone());
    tokio::pin!(serving);
    let in_time = tokio::select! {
        in_time = &mut serving => in_time,
        _ = term.recv() => drain(serving, &stop, &mut term, &mut interrupt).await,
        _ = interrupt.recv() => drain(serving, &stop, &mut term, &mut interrupt).await,
    };
    reloading.abort();
    match in_time {
        true => tracing::info!("drained"),
        false => tracing::warn!("stopped before every review in hand had ended"),
    }
    Ok(if in_time {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The first signal drains, the second aborts.
async fn drain(
    serving: impl Future<Output = bool>,
    stop: &CancellationToken,
    term: &mut tokio::signal::unix::Signal,
    interrupt: &mut tokio::signal::unix::Signal,
) -> bool {
    tracing::info!("draining; a second signal aborts");
    stop.cancel();
    tokio::select! {
        in_time = serving => in_time,
        _ = term.recv() => false,
        _ = interrupt.recv() => false,
    }
}

/// The addresses of the open ports, which a reload cannot change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub listen: SocketAddr,
    pub admin: SocketAddr,
}

/// A configuration made ready to be put in force.
pub(super) struct InForce {
    pub live: Live,
    /// The certificates that were made for it, if they were.
    pub made: Option<Made>,
}

/// Makes settings what connections use: certificates, sinks, the engine. Blocks for as long as
/// reading and writing files takes.
pub(super) fn go_live(settings: Settings, metrics: &Metrics) -> anyhow::Result<InForce> {
    let configz = configz(&settings);
    let (tls, made) = match settings.tls {
        Tls::Off => (None, None),
        Tls::Files { loaded, .. } => (Some(loaded), None),
        Tls::Made { client_ca_file } => {
            let made = certs::ensure(
                &settings.state_dir,
                &settings.server_names,
                SystemTime::now(),
            )?;
            for done in &made.done {
                tracing::info!("{done}");
            }
            metrics.certificate_expires("ca", made.ca_not_after);
            let files = tls::Settings {
                cert_file: made.server_file.clone(),
                key_file: made.server_file.clone(),
                client_ca_file,
            };
            (
                Some(tls::load(&files).map_err(anyhow::Error::msg)?),
                Some(made),
            )
        }
    };
    if let Some(loaded) = &tls {
        metrics.certificate_expires("server", loaded.expires);
    }
    let audit = Audit::open(&settings.audit, metrics.audit_error_total.clone())
        .map_err(anyhow::Error::msg)?;
    let names = settings
        .chain
        .members()
        .iter()
        .map(|member| Arc::clone(&member.name));
    let live = Live {
        plugins: metrics.plugins(names),
        engine: Engine::new(settings.chain, settings.deadline),
        audit,
        auth: settings.auth,
        path_prefix: settings.path_prefix,
        forward_headers: settings.forward_headers,
        hash: settings.hash,
        configz,
        tls: tls.map(|loaded| loaded.config),
    };
    Ok(InForce { live, made })
}

/// Prints what a person sets on the dstack server, one `NAME=VALUE` a line.
fn announce(server: &Server, host: Option<&ServerName<'_>>, in_force: &InForce) -> io::Result<()> {
    let address = server.address()?;
    let host = match host {
        Some(host) => host.to_str().into_owned(),
        None => address.ip().to_string(),
    };
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    };
    let scheme = if in_force.live.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let prefix = in_force.live.path_prefix.trim_matches('/');
    let path = if prefix.is_empty() {
        String::new()
    } else {
        format!("/{prefix}")
    };

    let mut out = io::stdout().lock();
    writeln!(
        out,
        "DSTACK_PLUGIN_SERVICE_URI={scheme}://{host}:{}{path}",
        address.port()
    )?;
    for (name, value) in in_force.made.iter().flat_map(Made::server_environment) {
        writeln!(out, "{name}={}", value.display())?;
    }
    out.flush()
}

/// What `/configz` shows: the settings that are in force, without secrets and without addresses,
/// which may hold some.
fn configz(settings: &Settings) -> String {
    let period = |period| humantime::format_duration(period).to_string();
    let limits = &settings.limits;
    let sinks = settings.audit.sinks.iter().map(|sink| match sink {
        Target::Stdout => json!({"stdout": {}}),
        Target::File { path, mode } => json!({"file": {"path": path, "mode": format!("{mode:?}")}}),
    });
    let tls = match &settings.tls {
        Tls::Off => "off",
        Tls::Made { .. } => "made",
        Tls::Files { .. } => "files",
    };
    let exemptions = settings.chain.exemptions().iter().map(|exemption| {
        let expires = humantime::format_rfc3339_seconds(exemption.expires).to_string();
        json!({"plugins": exemption.plugins, "reason": exemption.reason, "expires": expires})
    });
    let shown = json!({
        "hash": settings.hash,
        "listen": settings.listen,
        "admin": settings.admin,
        "stateDir": settings.state_dir,
        "tls": tls,
        "pathPrefix": settings.path_prefix,
        "deadline": period(settings.deadline),
        "worstCase": period(worst_case(&settings.chain)),
        "limits": {
            "bodyBytes": limits.body_bytes,
            "inFlight": limits.in_flight,
            "inFlightWait": period(limits.in_flight_wait),
            "connections": limits.connections,
        },
        "audit": {"level": settings.audit.level.as_str(), "sinks": sinks.collect::<Vec<_>>()},
        "plugins": settings.chain.members().iter().map(shown_plugin).collect::<Vec<_>>(),
        "exemptions": exemptions.collect::<Vec<_>>(),
    });
    format!("{shown:#}\n")
}

fn shown_plugin(member: &Member<Plugin>) -> serde_json::Value {
    json!({
        "name": member.name,
        "kind": member.plugin.backend.as_str(),
        "mode": if member.mode == Mode::Enforce { "enforce" } else { "monitor" },
        "mutating": member.phases.mutating,
        "validating": member.phases.validating,
        "failurePolicy": format!("{:?}", member.failure_policy),
        "reinvocation": format!("{:?}", member.reinvocation),
        "timeout": humantime::format_duration(member.timeout).to_string(),
    })
}
