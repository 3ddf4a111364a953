//! Putting settings in force: certificates, sinks and the engine are made from them.

use std::net::SocketAddr;
use std::time::SystemTime;

use serde_json::json;

use crate::admission::chain::Member;
use crate::certs::{self, Made};
use crate::config::resolve::{Log, Settings, Tls, worst_case};
use crate::engine::Engine;
use crate::observe::audit::{Audit, Form, Format, Sinks, Target};
use crate::observe::metrics::Metrics;
use crate::observe::traces::{self, About, Site, Traces};
use crate::plugins::Plugin;
use crate::protocol::dstack::endpoint;
use crate::server::{Live, tls};

/// What a reload cannot change, besides the limits: the addresses of the open ports, and the log.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub log: Log,
}

/// A configuration made ready to be put in force.
pub(super) struct InForce {
    pub live: Live,
    /// The certificates that were made for it, if they were.
    pub made: Option<Made>,
}

/// Makes settings what connections use: certificates, sinks, the engine. Blocks for as long as
/// reading and writing files takes.
pub(super) fn go_live(
    settings: Settings,
    metrics: &Metrics,
    sinks: &Sinks,
    traces: &Traces,
) -> anyhow::Result<InForce> {
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
    let audit =
        Audit::open(&settings.audit, sinks, &settings.state_dir).map_err(anyhow::Error::msg)?;
    metrics.deadline(settings.deadline);
    metrics.count_projects(settings.metrics.projects);
    let kind_of = |plugin: &Plugin| plugin.backend.as_str();
    let prefix = settings.path_prefix.trim_matches('/');
    let path = |kind| match prefix {
        "" => format!("/apply_policies/{}", endpoint(kind)),
        prefix => format!("/{prefix}/apply_policies/{}", endpoint(kind)),
    };
    let site = Site {
        scheme: if tls.is_some() { "https" } else { "http" },
        path: &path,
    };
    let tracer = traces
        .tracer(
            settings.tracing.as_ref(),
            &site,
            settings.chain.members(),
            about,
        )
        .map_err(anyhow::Error::msg)?;
    let live = Live {
        plugins: metrics.plugins(settings.chain.members(), kind_of),
        engine: Engine::new(settings.chain, settings.deadline),
        audit,
        tracer,
        recording: settings.recording,
        decisions_page: settings.decisions_page,
        auth: settings.auth,
        path_prefix: settings.path_prefix,
        forward_headers: settings.forward_headers,
        hash: settings.hash,
        configz,
        tls: tls.map(|loaded| loaded.config),
    };
    Ok(InForce { live, made })
}

/// What traces tell of a plugin.
fn about(plugin: &Plugin) -> About<'_> {
    About {
        kind: plugin.backend.as_str(),
        url: plugin.backend.url(),
    }
}

/// What `/configz` shows: the settings that are in force, without secrets and without addresses,
/// which may hold some.
fn configz(settings: &Settings) -> String {
    let period = |period| humantime::format_duration(period).to_string();
    let limits = &settings.limits;
    let sinks = settings.audit.sinks.iter().map(shown_sink);
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
        "audit": {
            "level": settings.recording.level.as_str(),
            "rules": settings.recording.rules.len(),
            "sinks": sinks.collect::<Vec<_>>(),
        },
        "tracing": settings.tracing.as_ref().map(shown_tracing),
        "decisionsPage": settings.decisions_page,
        "plugins": settings.chain.members().iter().map(shown_plugin).collect::<Vec<_>>(),
        "exemptions": exemptions.collect::<Vec<_>>(),
    });
    format!("{shown:#}\n")
}

fn shown_plugin(member: &Member<Plugin>) -> serde_json::Value {
    json!({
        "name": member.name,
        "kind": member.plugin.backend.as_str(),
        "mode": member.mode.as_str(),
        "mutating": member.phases.mutating,
        "validating": member.phases.validating,
        "failurePolicy": member.failure_policy.as_str(),
        "reinvocation": format!("{:?}", member.reinvocation),
        "timeout": humantime::format_duration(member.timeout).to_string(),
    })
}

fn shown_tracing(tracing: &traces::Settings) -> serde_json::Value {
    let sampler = tracing.sampler;
    json!({"otlp": {"parentBased": sampler.parent_based, "ratio": sampler.ratio}})
}

fn shown_sink(sink: &Target) -> serde_json::Value {
    let mode = sink.mode().as_str();
    match sink {
        Target::Stdout => json!({"stdout": {}}),
        Target::File(file) => {
            let keep = &file.rotation.keep;
            let period = |period| humantime::format_duration(period).to_string();
            json!({"file": {
                "path": file.path,
                "mode": mode,
                "maxSize": file.rotation.max_size,
                "rotateEvery": file.rotation.every.map(period),
                "maxAge": keep.max_age.map(period),
                "maxBackups": keep.max_backups,
                "compress": keep.form == Form::Gzip,
            }})
        }
        Target::Http(http) => {
            let format = match &http.shipping.format {
                Format::Ndjson => "ndjson",
                Format::Loki { .. } => "loki",
            };
            json!({"http": {"name": http.name, "mode": mode, "format": format}})
        }
    }
}
