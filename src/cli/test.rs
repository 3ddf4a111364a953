//! `test`: runs suites of policy tests with the engine that serves, says which rules no case ever made
//! fire, and rewrites expectations on request. No plugin is called over the network.

mod compare;
mod coverage;
mod edit;
mod expected;
mod file;
mod junit;
mod report;
mod rewrite;
mod source;
mod suite;
mod update;
pub(super) mod yaml;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use tokio::runtime::Runtime;
use walkdir::{DirEntry, WalkDir};

use self::coverage::Coverage;
pub use self::file::suite_schema;
use self::report::{CaseReport, Report, SuiteReport, counted};
use self::suite::{Case, Loader, Suite, Tested};
use self::update::{Rewritten, Update};
use super::{TestArguments, TestOutput, UNUSABLE, not_loaded, workers};

/// Runs all suites. Exit code 1 when a case fails, too few rules fire or nothing was tested, 2 when a
/// suite is not usable.
pub fn run(arguments: &TestArguments) -> anyhow::Result<ExitCode> {
    let paths = match find(&arguments.paths) {
        Ok(paths) => paths,
        Err(unfound) => return Ok(unfound.show()?),
    };
    let mut loader = Loader::default();
    let suites: Vec<Suite> = paths.iter().filter_map(|path| loader.load(path)).collect();
    let problems = loader.into_problems();
    if !problems.is_empty() || suites.len() < paths.len() {
        let mut err = io::stderr().lock();
        writeln!(err, "{problems}")?;
        let count = counted(problems.len(), "problem");
        writeln!(
            err,
            "dstack-admission: {count} in the suites, nothing was run"
        )?;
        return Ok(ExitCode::from(UNUSABLE));
    }
    let selected = selected(suites, arguments);
    if selected.is_empty() {
        let wanted = arguments
            .run
            .as_ref()
            .map(|run| format!(" that matches `{run}`"));
        let wanted = wanted.unwrap_or_default();
        writeln!(
            io::stderr(),
            "dstack-admission: there is no case{wanted}, nothing was run"
        )?;
        return Ok(ExitCode::FAILURE);
    }

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (_progress, pools) = workers::offline()?;
    for chain in chains(&selected) {
        let started = workers::start(chain.engine.chain(), &pools);
        if let Err(why) = runtime.block_on(started) {
            return Ok(not_loaded(&why)?);
        }
    }
    let mut coverage = Coverage::new(arguments.built_in);
    let mut people = people(arguments);
    let mut rewritten = 0;
    let mut reports = Vec::new();
    for suite in &selected {
        let (mut report, expectations) = run_suite(&runtime, suite, &mut coverage);
        if arguments.update && !expectations.is_empty() {
            match update(&suite.path, &expectations, &mut people) {
                Ok(()) => {
                    rewritten += expectations.len();
                    report.rewritten();
                }
                Err(error) => writeln!(io::stderr(), "dstack-admission: {error:#}")?,
            }
        }
        reports.push(report);
    }
    let report = Report {
        suites: reports,
        // Of a few cases it would say little.
        coverage: (arguments.run.is_none() || arguments.coverage.is_some()).then_some(coverage),
        threshold: arguments.coverage,
    };
    runtime.block_on(pools.stop());
    write_report(arguments, &report, &mut people)?;
    if arguments.update {
        writeln!(people, "{} rewritten", counted(rewritten, "expectation"))?;
    }
    Ok(match report.passes() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Why there is nothing to run.
#[derive(Default)]
struct Unfound {
    /// Paths that cannot be read.
    unreadable: Vec<String>,
    /// Directories without suites.
    empty: Vec<PathBuf>,
}

impl Unfound {
    fn show(&self) -> io::Result<ExitCode> {
        let mut err = io::stderr().lock();
        for why in &self.unreadable {
            writeln!(err, "dstack-admission: {why}")?;
        }
        for path in &self.empty {
            let path = path.display();
            writeln!(
                err,
                "dstack-admission: {path} has no suites: no file below it is named *.test.yaml or *.test.yml"
            )?;
        }
        Ok(match self.unreadable.is_empty() {
            true => ExitCode::FAILURE,
            false => ExitCode::from(UNUSABLE),
        })
    }
}

/// The suites among and below the paths, in the order of their names, each once.
fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Unfound> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut unfound = Unfound::default();
    for path in paths {
        let before = found.len();
        for entry in WalkDir::new(path)
            .sort_by_file_name()
            .into_iter()
            .filter_entry(is_visible)
        {
            match entry {
                Ok(entry) if is_suite(&entry) => found.push(entry.into_path()),
                Ok(_) => {}
                Err(error) => unfound.unreadable.push(error.to_string()),
            }
        }
        if found.len() == before && path.is_dir() {
            unfound.empty.push(path.clone());
        }
    }
    if !unfound.unreadable.is_empty() || !unfound.empty.is_empty() {
        return Err(unfound);
    }
    let mut known = Vec::new();
    found.retain(|path| {
        let path = path.canonicalize().unwrap_or_else(|_| path.clone());
        let is_new = !known.contains(&path);
        known.push(path);
        is_new
    });
    Ok(found)
}

/// Hidden directories hold what tools keep; those that mounts of Kubernetes are made of, too.
fn is_visible(entry: &DirEntry) -> bool {
    entry.depth() == 0 || !entry.file_name().to_string_lossy().starts_with('.')
}

/// A file that was named, or one whose name says so.
fn is_suite(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy();
    let named = name.ends_with(".test.yaml") || name.ends_with(".test.yml");
    (entry.depth() == 0 || named) && entry.path().is_file()
}

/// The suites with the cases that are asked for.
fn selected(suites: Vec<Suite>, arguments: &TestArguments) -> Vec<Suite> {
    let Some(wanted) = &arguments.run else {
        return suites;
    };
    let wanted = |mut suite: Suite| {
        let path = suite.path.display().to_string();
        suite
            .cases
            .retain(|case| wanted.is_match(&format!("{path}/{}", case.name)));
        (!suite.cases.is_empty()).then_some(suite)
    };
    suites.into_iter().filter_map(wanted).collect()
}

/// The chains under test, each once.
fn chains(suites: &[Suite]) -> Vec<&Arc<Tested>> {
    let mut chains: Vec<&Arc<Tested>> = Vec::new();
    for case in suites.iter().flat_map(|suite| &suite.cases) {
        if !chains.iter().any(|known| Arc::ptr_eq(known, &case.chain)) {
            chains.push(&case.chain);
        }
    }
    chains
}

/// Runs a suite. Also returns new expectations for the cases that fail, by their index.
fn run_suite(
    runtime: &Runtime,
    suite: &Suite,
    coverage: &mut Coverage,
) -> (SuiteReport, Vec<(usize, Rewritten)>) {
    let mut left_out: Vec<String> = Vec::new();
    let mut expectations: Vec<(usize, Rewritten)> = Vec::new();
    let mut cases = Vec::new();
    for case in &suite.cases {
        for name in &case.chain.left_out {
            if !left_out.contains(name) {
                left_out.push(name.clone());
            }
        }
        let (report, rewritten) = run_case(runtime, case, coverage);
        // Of a case that holds for several files the first that fails is rewritten.
        let known = expectations
            .last()
            .is_some_and(|(index, _)| *index == case.index);
        let rewritten = rewritten.filter(|_| !known);
        expectations.extend(rewritten.map(|rewritten| (case.index, rewritten)));
        cases.push(report);
    }
    let report = SuiteReport {
        path: suite.path.clone(),
        left_out,
        cases,
    };
    (report, expectations)
}

fn run_case(
    runtime: &Runtime,
    case: &Case,
    coverage: &mut Coverage,
) -> (CaseReport, Option<Rewritten>) {
    let started = Instant::now();
    let engine = &case.chain.engine;
    let (decision, shadow) = runtime.block_on(async {
        let review = Arc::clone(&case.review);
        let decision = engine.decide(review, tokio::time::Instant::now()).await;
        let shadow = engine.monitor(&decision).await;
        (decision, shadow)
    });
    coverage.count(&case.chain, [&decision, &shadow]);
    let mismatches = case.expected.mismatches(&decision, &shadow);
    let rewritten =
        (!mismatches.is_empty()).then(|| Rewritten::new(&case.expected, &decision, &shadow));
    let report = CaseReport {
        name: case.name.clone(),
        line: case.line,
        decision: decision.as_str(),
        took: started.elapsed(),
        mismatches,
        rewritten: false,
    };
    (report, rewritten)
}

/// Rewrites a suite after the difference has been shown.
fn update(
    path: &Path,
    expectations: &[(usize, Rewritten)],
    people: &mut dyn Write,
) -> anyhow::Result<()> {
    let update = Update::new(path, expectations)?;
    write!(people, "{}", update.diff(path))?;
    update.write(path)
}

/// Where the text for people goes: to standard output, unless that is for a program.
fn people(arguments: &TestArguments) -> Box<dyn Write> {
    match (arguments.output, &arguments.output_file) {
        (TestOutput::Text, _) | (_, Some(_)) => Box::new(io::stdout()),
        _ => Box::new(io::stderr()),
    }
}

/// Writes the report as it is asked for. With a file for it, people read theirs besides.
fn write_report(
    arguments: &TestArguments,
    report: &Report,
    mut people: &mut dyn Write,
) -> anyhow::Result<()> {
    match &arguments.output_file {
        Some(path) => {
            let name = || path.display().to_string();
            let mut file = create(path).with_context(name)?;
            formatted(&mut file, arguments, report).with_context(name)?;
            file.flush().with_context(name)?;
            report::text(&mut people, report, arguments.verbose)?;
        }
        None => formatted(&mut io::stdout().lock(), arguments, report)?,
    }
    Ok(())
}

fn create(path: &Path) -> io::Result<BufWriter<File>> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    Ok(BufWriter::new(File::create(path)?))
}

fn formatted(out: &mut impl Write, arguments: &TestArguments, report: &Report) -> io::Result<()> {
    match arguments.output {
        TestOutput::Text => report::text(out, report, arguments.verbose),
        TestOutput::Json => report::json(out, report),
        TestOutput::Junit => junit::write(out, report),
    }
}
