//! `review`: decides specs from files with the engine that serves, and shows each plugin's part.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use serde_json::{Value, json};
use similar::TextDiff;
use tokio::time::Instant;
use ulid::Ulid;

use super::load::load;
use super::{Output, ReviewArguments, not_loaded, specs, unreadable, unusable, workers};
use crate::admission::decision::{Decision, Part, PartResult};
use crate::admission::review::Review;
use crate::engine::Engine;

/// Decides every file. Exit code 1 when one of them is denied, 2 when one cannot be read.
pub fn run(arguments: &ReviewArguments) -> anyhow::Result<ExitCode> {
    let settings = match load(arguments.configured.config.as_deref(), &Arc::default()) {
        Ok(settings) => settings,
        Err(problems) => return Ok(unusable(&problems)?),
    };
    let reviews = arguments
        .files
        .iter()
        .map(|file| Ok((file, read(file, arguments)?)));
    let reviews = match reviews.collect::<anyhow::Result<Vec<_>>>() {
        Ok(reviews) => reviews,
        Err(why) => return Ok(unreadable(&why)?),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (_progress, pools) = workers::offline()?;
    if let Err(why) = runtime.block_on(workers::start(&settings.chain, &pools)) {
        return Ok(not_loaded(&why)?);
    }
    let engine = Engine::new(settings.chain, settings.deadline);

    let mut out = io::stdout().lock();
    let mut denied = false;
    for (file, review) in reviews {
        let (decision, shadow) = runtime.block_on(async {
            let decision = engine.decide(review, Instant::now()).await;
            let shadow = engine.monitor(&decision).await;
            (decision, shadow)
        });
        denied |= !decision.allowed();
        match arguments.output {
            Output::Text => show(&mut out, file, &decision, &shadow)?,
            Output::Json => writeln!(out, "{}", json(file, &decision, &shadow))?,
        }
    }
    runtime.block_on(pools.stop());
    Ok(if denied {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn read(file: &Path, arguments: &ReviewArguments) -> anyhow::Result<Arc<Review>> {
    let found = specs::read(file)?;
    let kind = match arguments.kind {
        Some(kind) => kind.into(),
        None => specs::kind_of(found.spec.value()).with_context(|| {
            let name = file.display();
            format!("{name}: its `configuration.type` does not tell what it is; say it with --kind")
        })?,
    };
    let given = |given: &Option<String>, found: Option<String>, default: &str| {
        given
            .clone()
            .or(found)
            .unwrap_or_else(|| default.to_owned())
    };
    Ok(Arc::new(Review {
        id: Ulid::generate().to_string(),
        kind,
        user: given(&arguments.user, found.user, "admin"),
        project: given(&arguments.project, found.project, "main"),
        received: SystemTime::now(),
        headers: Vec::new(),
        trace: None,
        spec: found.spec,
    }))
}

fn show(
    out: &mut impl Write,
    file: &Path,
    decision: &Decision,
    shadow: &Decision,
) -> io::Result<()> {
    let review = &decision.review;
    let (kind, name) = (review.kind, review.name().unwrap_or("(unnamed)"));
    writeln!(
        out,
        "{}: {kind} {name}, {} in {}",
        file.display(),
        review.user,
        review.project
    )?;
    writeln!(out, "{}", decision.as_str())?;
    for part in &decision.parts {
        show_part(out, part, "")?;
    }
    for part in &shadow.parts {
        show_part(out, part, "monitored, ")?;
    }
    for warning in decision.warnings() {
        writeln!(out, "  warning: {warning}")?;
    }
    if let Some(denial) = decision.denial() {
        writeln!(out, "\n{denial}")?;
    }
    if decision.allowed() && !decision.patch.is_empty() {
        let (before, after) = (pretty(review.spec.value()), pretty(&decision.spec));
        let diff = TextDiff::from_lines(&before, &after);
        write!(
            out,
            "\n{}",
            diff.unified_diff()
                .context_radius(2)
                .header("as applied", "as admitted")
        )?;
    }
    writeln!(out)
}

fn show_part(out: &mut impl Write, part: &Part, note: &str) -> io::Result<()> {
    let verdict = verdict(part);
    let again = if part.reinvoked { ", again" } else { "" };
    let took = part.took.as_secs_f64() * 1e3;
    writeln!(
        out,
        "  {:<24} {verdict:<12} ({note}{}{again}, {took:.1} ms)",
        part.plugin,
        part.phase.as_str()
    )?;
    for message in messages(part) {
        writeln!(out, "    {}", message.replace('\n', "\n    "))?;
    }
    for operation in &part.patch {
        writeln!(out, "    {operation}")?;
    }
    Ok(())
}

fn verdict(part: &Part) -> &'static str {
    match &part.result {
        PartResult::Allowed if !part.patch.is_empty() => "patched",
        result => result.as_str(),
    }
}

fn messages(part: &Part) -> Vec<String> {
    match &part.result {
        PartResult::Allowed => Vec::new(),
        PartResult::Denied(denials) => denials
            .iter()
            .map(|denial| denial.message.clone())
            .collect(),
        PartResult::Failed(fault) | PartResult::FailedOpen(fault) => {
            let detail = fault.detail.iter().cloned();
            std::iter::once(fault.message.clone())
                .chain(detail)
                .collect()
        }
        PartResult::Conflict { with, path } => vec![format!("conflicts with {with} at {path}")],
        PartResult::Skipped(condition) => vec![format!("condition is false: {condition}")],
        PartResult::Exempt(reason) => vec![format!("exempt: {reason}")],
    }
}

fn json(file: &Path, decision: &Decision, shadow: &Decision) -> Value {
    let part = |part: &Part| {
        json!({
            "plugin": part.plugin,
            "phase": part.phase.as_str(),
            "verdict": verdict(part),
            "reinvoked": part.reinvoked,
            "durationSeconds": part.took.as_secs_f64(),
            "messages": messages(part),
            "patch": part.patch,
            "warnings": part.warnings,
        })
    };
    let review = &decision.review;
    json!({
        "file": file,
        "decision": decision.as_str(),
        "id": review.id,
        "kind": review.kind.as_str(),
        "user": review.user,
        "project": review.project,
        "name": review.name(),
        "message": decision.denial(),
        "warnings": decision.warnings().collect::<Vec<_>>(),
        "plugins": decision.parts.iter().map(part).collect::<Vec<_>>(),
        "monitored": shadow.parts.iter().map(part).collect::<Vec<_>>(),
        "patch": decision.patch,
        "spec": *decision.spec,
    })
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
