//! `check`: loads all that `serve` would load and shows the chain as it will run.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::load::load;
use super::workers::{self, Loaded};
use super::{not_loaded, unusable};
use crate::admission::chain::{Member, Mode, OnConflict};
use crate::admission::scope::Globs;
use crate::admission::verdict::Phase;
use crate::config::resolve::{Settings, Tls, worst_case};
use crate::plugins::Plugin;

/// Shows the chain, or every problem with exit code 2.
pub fn run(config: Option<&Path>) -> anyhow::Result<ExitCode> {
    let settings = match load(config, &Arc::default()) {
        Ok(settings) => settings,
        Err(problems) => return Ok(unusable(&problems)?),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (_progress, pools) = workers::offline()?;
    let loaded = runtime.block_on(async {
        let loaded = workers::start(&settings.chain, &pools).await;
        pools.stop().await;
        loaded
    });
    let mut out = io::stdout().lock();
    show(&mut out, &settings)?;
    match loaded {
        Ok(loaded) => {
            show_loaded(&mut out, &loaded)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(why) => Ok(not_loaded(&why)?),
    }
}

fn show_loaded(out: &mut impl Write, loaded: &[Loaded]) -> io::Result<()> {
    if !loaded.is_empty() {
        writeln!(out, "\nloaded:")?;
    }
    for Loaded { name, started } in loaded {
        let ready = &started.ready;
        let (plugin, dstack, python) = (&ready.plugin.name, &ready.dstack, &ready.python);
        let version = ready
            .plugin
            .version
            .as_deref()
            .unwrap_or("of unknown version");
        writeln!(
            out,
            "   - {name}: {plugin} {version}, dstack {dstack}, Python {python}"
        )?;
    }
    Ok(())
}

fn show(out: &mut impl Write, settings: &Settings) -> io::Result<()> {
    let tls = match &settings.tls {
        Tls::Off => "plain HTTP".to_owned(),
        Tls::Made { .. } => format!(
            "TLS, certificate made under {}",
            settings.state_dir.display()
        ),
        Tls::Files { settings, .. } => format!("TLS, certificate {}", settings.cert_file.display()),
    };
    writeln!(out, "listen      {} ({tls})", settings.listen)?;
    writeln!(out, "admin       {}", settings.admin)?;
    let (deadline, worst) = (
        period(settings.deadline),
        period(worst_case(&settings.chain)),
    );
    writeln!(
        out,
        "deadline    {deadline}; in the worst case the plugins take {worst}"
    )?;

    let members = settings.chain.members();
    writeln!(out, "\nmutating, in order:")?;
    let mut place = 0;
    for stage in settings.chain.stages() {
        let of_stage = &members[stage.members.clone()];
        let group: Vec<_> = of_stage
            .iter()
            .filter(|member| takes_part(member, Phase::Mutating))
            .collect();
        if group.is_empty() {
            continue;
        }
        place += 1;
        let at_once = match (of_stage.len(), stage.on_conflict) {
            (1, _) => "",
            (_, OnConflict::Deny) => "  (at once; a conflict denies)",
            (_, OnConflict::LastWins) => "  (at once; on a conflict the last wins)",
        };
        for (index, member) in group.into_iter().enumerate() {
            let number = if index == 0 {
                format!("{place}.")
            } else {
                String::new()
            };
            writeln!(out, "{number:>4} {}{at_once}", line(member))?;
        }
    }
    none_if(out, place == 0)?;

    writeln!(out, "\nvalidating, all at once:")?;
    let validating: Vec<_> = members
        .iter()
        .filter(|member| takes_part(member, Phase::Validating))
        .collect();
    validating
        .iter()
        .try_for_each(|member| writeln!(out, "   - {}", line(member)))?;
    none_if(out, validating.is_empty())?;

    let monitored: Vec<_> = members
        .iter()
        .filter(|member| member.mode == Mode::Monitor)
        .collect();
    if !monitored.is_empty() {
        writeln!(out, "\nmonitored, after the answer:")?;
        monitored
            .iter()
            .try_for_each(|member| writeln!(out, "   - {}", line(member)))?;
    }
    if !settings.chain.exemptions().is_empty() {
        writeln!(out, "\nexemptions:")?;
    }
    for exemption in settings.chain.exemptions() {
        let until = humantime::format_rfc3339_seconds(exemption.expires);
        let plugins = exemption.plugins.join(", ");
        writeln!(out, "   - {plugins}, until {until}: {}", exemption.reason)?;
    }
    if !settings.warnings.is_empty() {
        writeln!(out, "\nwarnings:")?;
    }
    settings.warnings.iter().try_for_each(|warning| {
        let lines = warning.to_string().replace('\n', "\n     ");
        writeln!(out, "   - {lines}")
    })
}

fn none_if(out: &mut impl Write, none: bool) -> io::Result<()> {
    if none {
        writeln!(out, "   (none)")
    } else {
        Ok(())
    }
}

fn takes_part(member: &Member<Plugin>, phase: Phase) -> bool {
    member.mode == Mode::Enforce && member.phases.contains(phase)
}

fn line(member: &Member<Plugin>) -> String {
    let kinds = member.scope.kinds.as_ref().map(|kinds| {
        let names: Vec<_> = kinds.iter().map(|kind| kind.as_str()).collect();
        format!(" kinds={}", names.join(","))
    });
    let globs =
        |name: &str, globs: &Option<Globs>| globs.as_ref().map(|globs| format!(" {name}={globs}"));
    let scope = [
        kinds,
        globs("projects", &member.scope.projects),
        globs("users", &member.scope.users),
    ];
    let scope: String = scope.into_iter().flatten().collect();
    let kind = member.plugin.backend.as_str();
    let (policy, timeout) = (member.failure_policy, period(member.timeout));
    let time = if member.plugin.backend.is_remote() {
        format!(" timeout={timeout}")
    } else {
        String::new()
    };
    format!(
        "{:<24} {kind:<8} failurePolicy={policy:?}{time}{scope}",
        member.name
    )
}

fn period(period: Duration) -> String {
    humantime::format_duration(period).to_string()
}
