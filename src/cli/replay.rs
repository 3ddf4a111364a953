//! `replay`: decides the reviews of an audit log by another configuration, with the engine that
//! serves, and shows what would change, and for whom. It writes no record and no metric.

pub(super) mod compare;
pub(super) mod filter;
mod report;
mod show;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::available_parallelism;

use bytes::Bytes;
use futures_util::stream::{FuturesOrdered, StreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use self::compare::{Change, compare};
use self::filter::Filter;
use self::report::{Replayed, Report, Seen};
use self::show::Conditions;
use super::load::load;
use super::{Output, ReplayArguments, UNUSABLE, not_loaded, unusable, workers};
use crate::admission::chain::{Member, Mode};
use crate::admission::review::{Kind, Review, Spec};
use crate::engine::Engine;
use crate::observe::events::lines::{Line, Lines};
use crate::observe::events::{About, Event};
use crate::plugins::{Backend, Plugin};

/// Reviews in hand at once, for each core: enough that none idles while lines are read in order.
const AT_ONCE: usize = 16;
/// Bytes of logs from which on a progress bar is worth its place.
const LONG: u64 = 16 << 20;

/// Replays. Exit code 1 when something is decided otherwise and `--allow` does not say that it may.
pub fn run(arguments: &ReplayArguments) -> anyhow::Result<ExitCode> {
    let mut settings = match load(Some(&arguments.config), &Arc::default()) {
        Ok(settings) => settings,
        Err(problems) => return Ok(unusable(&problems)?),
    };
    let filter = match Filter::new(&arguments.chosen) {
        Ok(filter) => filter,
        Err(why) => return refused(&why),
    };
    let lines = match Lines::open(&arguments.audit) {
        Ok(lines) => lines,
        Err(error) => return refused(&error.to_string()),
    };
    let left_out = match arguments.call_remote {
        true => Vec::new(),
        false => settings.chain.retain(|member| !is_remote(member)),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let (_progress, pools) = workers::offline()?;
    if let Err(why) = runtime.block_on(workers::start(&settings.chain, &pools)) {
        return Ok(not_loaded(&why)?);
    }
    let left_out: Vec<LeftOut> = left_out.iter().map(LeftOut::new).collect();
    let mut members = settings.chain.members().iter();
    let replay = Arc::new(Replay {
        monitors: members.any(|member| member.mode == Mode::Monitor),
        engine: Engine::new(settings.chain, settings.deadline),
        filter,
        left_out: left_out.iter().map(|out| Arc::clone(&out.name)).collect(),
    });
    let report = runtime.block_on(replay_all(replay, lines, arguments.show.into()));
    runtime.block_on(pools.stop());

    let conditions = Conditions {
        file: arguments.config.display().to_string(),
        hash: &settings.hash,
        left_out: &left_out,
    };
    let mut out = io::stdout().lock();
    match arguments.output {
        Output::Text => show::text(&mut out, &report, &conditions)?,
        Output::Json => writeln!(out, "{:#}", show::json(&report, &conditions))?,
    }
    out.flush()?;
    if let Some(why) = report.nothing() {
        return refused(&format!("nothing was replayed: {why}"));
    }
    let differs =
        |change: &Change| report.group(*change).count > 0 && !arguments.allow.contains(change);
    let changes = [Change::NewlyDenied, Change::NewlyAllowed, Change::Patched];
    Ok(match changes.iter().any(differs) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

/// A plugin that is not asked about old reviews.
struct LeftOut {
    name: Arc<str>,
    kind: &'static str,
}

impl LeftOut {
    fn new(member: &Member<Plugin>) -> Self {
        Self {
            name: Arc::clone(&member.name),
            kind: member.plugin.backend.as_str(),
        }
    }
}

/// Whether somebody else's server would see old reviews.
fn is_remote(member: &Member<Plugin>) -> bool {
    matches!(
        member.plugin.backend,
        Backend::Webhook(_) | Backend::Rest(_)
    )
}

fn refused(why: &str) -> anyhow::Result<ExitCode> {
    writeln!(io::stderr(), "dstack-admission: {why}")?;
    Ok(ExitCode::from(UNUSABLE))
}

/// Reads lines on this thread and decides them on the others, as many at once as memory is meant
/// for. What comes of them is taken in the order of the lines.
async fn replay_all(replay: Arc<Replay>, mut lines: Lines, examples: usize) -> Report {
    let cores = available_parallelism().map_or(1, usize::from);
    let bar = progress(&lines);
    let mut report = Report::default();
    let mut in_hand = FuturesOrdered::new();
    loop {
        while in_hand.len() < cores * AT_ONCE {
            let Some(Line { file, number, text }) = lines.next() else {
                break;
            };
            let replay = Arc::clone(&replay);
            let seen = tokio::spawn(async move {
                match text {
                    Ok(text) => replay.line(&text).await,
                    Err(error) => Seen::Unreadable(error.to_string()),
                }
            });
            in_hand.push_back(async move { (file, number, seen.await) });
        }
        let Some((file, number, seen)) = in_hand.next().await else {
            break;
        };
        let broken = |error| Seen::Unreadable(format!("deciding it failed: {error}"));
        report.add(&file, number, seen.unwrap_or_else(broken), examples);
        bar.set_position(lines.read());
    }
    bar.finish_and_clear();
    report
}

/// A bar of the bytes read, for a person who waits.
fn progress(lines: &Lines) -> ProgressBar {
    let length = lines.length().filter(|length| *length >= LONG);
    let Some(length) = length.filter(|_| io::stderr().is_terminal()) else {
        return ProgressBar::hidden();
    };
    let template = "{bytes} of {total_bytes} [{bar:40}] {percent}%, {eta} left";
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// What every line is decided with.
struct Replay {
    engine: Engine,
    /// Whether the chain has monitored plugins.
    monitors: bool,
    filter: Filter,
    left_out: Vec<Arc<str>>,
}

impl Replay {
    async fn line(&self, line: &Bytes) -> Seen {
        let event = match Event::parse(line) {
            Ok(event) => event,
            Err(error) => return Seen::Unreadable(error.to_string()),
        };
        match event.about() {
            About::Decision => {}
            About::Monitored => return Seen::Monitored,
            About::Other => return Seen::Unreadable(format!("unknown stage `{}`", event.stage)),
        }
        let object = &event.object_ref;
        let of_kind = |kind: &Kind| kind.resource() == &*object.resource;
        let Some(kind) = Kind::ALL.into_iter().find(of_kind) else {
            return Seen::Unreadable(format!("unknown resource `{}`", object.resource));
        };
        let (project, user) = (&*object.namespace, &*event.user.username);
        if !self.filter.takes(kind, project, user, event.received) {
            return Seen::FilteredOut;
        }
        let Some(text) = event.spec else {
            return Seen::WithoutSpec;
        };
        let spec = match Spec::parse(line.slice_ref(text.get().as_bytes())) {
            Ok(spec) => spec,
            Err(error) => return Seen::Unreadable(error.to_string()),
        };
        let review = Arc::new(Review {
            id: event.id.to_string(),
            kind,
            user: user.to_owned(),
            project: project.to_owned(),
            received: event.received,
            // They are not recorded.
            headers: Vec::new(),
            trace: None,
            spec,
        });
        let decision = self.engine.decide(review, Instant::now()).await;
        let shadow = match self.monitors {
            true => Some(self.engine.monitor(&decision).await),
            false => None,
        };
        let outcome = compare(&event, &decision, &self.left_out);
        let redacted = !event.redacted.is_empty();
        Seen::Replayed(Box::new(Replayed::new(
            outcome,
            redacted,
            &decision,
            shadow.as_ref(),
        )))
    }
}
