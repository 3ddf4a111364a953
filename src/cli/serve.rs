//! `serve`: load, bind, tell what the dstack server needs, serve, drain.

use std::io::{self, Write};
use std::path::Path;
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use rustls_pki_types::ServerName;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::live::{Bound, InForce, go_live};
use super::load::{fingerprint, load};
use super::{not_loaded, reload, unusable, workers};
use crate::admission::schema::SpecSchemas;
use crate::certs::Made;
use crate::config::resolve::Settings;
use crate::observe::audit::Sinks;
use crate::observe::logs;
use crate::observe::metrics::Metrics;
use crate::observe::traces::Traces;
use crate::plugins::python::remove_unused_environments;
use crate::server::{Server, Shared};

/// How long the last spans may take once every review has ended. With the grace period before it, this
/// still ends within the 30 s that Kubernetes gives.
const LAST_SPANS: Duration = Duration::from_secs(4);
/// How long, after the grace period or a second signal, whatever is still held up may hold the process:
/// more than workers, records and spans take where nothing is.
const LAST_OF_ALL: Duration = Duration::from_secs(10);
const AFTER_ABORT: Duration = Duration::from_secs(2);

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
    let mut members = settings.chain.members().iter();
    if members.any(|member| member.phases.mutating) {
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
    let clock = reload::WallClock::now();
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let hangup = signal(SignalKind::hangup())?;
    // Without a handler, a file that reaches the process's limit of size ends the process.
    let _file_size = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;

    let metrics = Arc::new(Metrics::new()?);
    let server = Server::bind(settings.listen, Some(settings.admin)).await?;
    let bound = Bound {
        listen: settings.listen,
        admin: settings.admin,
        log: settings.log.clone(),
    };
    let limits = settings.limits.clone();
    let grace_period = limits.grace_period;
    let (inputs, host) = (
        settings.inputs.clone(),
        settings.server_names.first().cloned(),
    );
    let pools = Arc::new(workers::pools(&metrics));
    let started = tokio::select! {
        started = workers::start(&settings.chain, &pools) => started,
        _ = term.recv() => return Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
    };
    if let Err(why) = started {
        return Ok(not_loaded(&why)?);
    }
    let state_dir = settings.state_dir.clone();
    let sinks = Arc::new(Sinks::new(metrics.audit.clone()));
    let traces = Arc::new(Traces::new(metrics.traces.clone()));
    let in_force = go_live(settings, &metrics, &sinks, &traces)?;
    metrics.loaded(&in_force.live.hash, SystemTime::now());
    announce(&server, host.as_ref(), &in_force).context("standard output")?;

    let listen = server.address()?;
    let admin = server.admin_address()?;
    let plugins = in_force.live.engine.chain().members().len();
    tracing::info!(%listen, admin = admin.map(tracing::field::display), plugins, hash = in_force.live.hash, "serving");

    let watch = reload::Watch {
        config: config.map(Path::to_owned),
        inputs,
        schemas,
        pools: Arc::clone(&pools),
        sinks: Arc::clone(&sinks),
        traces: Arc::clone(&traces),
        known,
        clock,
        bound,
    };
    let shared = Arc::new(Shared::new(in_force.live, metrics, limits));
    tokio::spawn(async move { remove_unused_environments(&state_dir).await });
    let reloading = tokio::spawn(watch.run(Arc::clone(&shared), hangup));

    let (stop, aborted) = (CancellationToken::new(), CancellationToken::new());
    let serving = server.serve(shared, stop.clone());
    tokio::pin!(serving);
    let in_time = tokio::select! {
        in_time = &mut serving => in_time,
        () = first_of(&mut term, &mut interrupt) => {
            end_within(grace_period + LAST_OF_ALL);
            tokio::spawn(abort_on_the_next(term, interrupt, aborted.clone()));
            drain(serving, &stop, &aborted).await
        }
    };
    reloading.abort();
    let closed = tokio::task::spawn_blocking(move || sinks.close());
    pools.stop().await;
    traces.close(LAST_SPANS).await;
    closed.await?;
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
    aborted: &CancellationToken,
) -> bool {
    tracing::info!("draining; a second signal aborts");
    stop.cancel();
    tokio::select! {
        in_time = serving => in_time,
        () = aborted.cancelled() => false,
    }
}

async fn first_of(term: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
}

async fn abort_on_the_next(mut term: Signal, mut interrupt: Signal, aborted: CancellationToken) {
    first_of(&mut term, &mut interrupt).await;
    end_within(AFTER_ABORT);
    aborted.cancel();
}

/// Ends the process after so long, whatever still holds it up: a log that nobody reads, a file that
/// does not answer, a plugin that does not end.
fn end_within(time: Duration) {
    thread::spawn(move || {
        thread::sleep(time);
        process::exit(1)
    });
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
