//! Policies as their authors see them: expressions over specs, and what comes out.

mod budget;
mod compile;
mod expressions;
mod fast;
mod functions;
mod mutations;
mod outcomes;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use super::source::Source;
use super::{CompileError, Policy};
use crate::admission::review::{Kind, Review, Spec};
use crate::admission::revision::Revision;
use crate::admission::verdict::{Call, Fault, Outcome, Phase, Verdict};

/// A run like those dstack sends, nulls included.
fn run() -> Value {
    json!({
        "run_name": "train",
        "configuration": {
            "type": "task", "name": "train", "max_price": null, "image": "ghcr.io/acme/train:1",
            "privileged": false, "docker": null, "commands": ["python train.py", "sleep 1"],
            "env": {"HF_TOKEN": "s3cr3t", "a-b": "x"}, "tags": null, "nodes": 2,
            "volumes": [{"instance_path": "/data", "path": "/data"}],
            "groups": [{"name": "a", "replicas": {"min": 1, "max": 3}}, {"name": "b", "replicas": {"min": 0, "max": 1}}],
        },
        "profile": {"max_price": 2.5, "regions": ["eu-1", "us-2"], "empty": [], "none": {}},
        "n": 7, "negative": -7, "big": 9_223_372_036_854_775_807_u64, "huge": 18_446_744_073_709_551_615_u64,
        "one": 1.0, "matrix": [[1, 2], [3]], "map": {"a": 1, "b": [true, null]},
    })
}

fn call(spec: &Value, phase: Phase) -> Call {
    let spec = Spec::parse(spec.to_string().into()).unwrap();
    let value = Arc::clone(spec.value());
    let review = Review {
        id: "01JD4X".to_owned(),
        kind: Kind::Run,
        user: "ada".to_owned(),
        project: "ml-research".to_owned(),
        received: SystemTime::UNIX_EPOCH,
        headers: Vec::new(),
        trace: None,
        spec,
    };
    Call {
        review: Arc::new(review),
        spec: Arc::new(Revision::new(Kind::Run, Arc::clone(&value), value)),
        phase,
        span: None,
    }
}

fn source(source: Value) -> Source {
    serde_json::from_value(source).unwrap()
}

fn params() -> Value {
    json!({"limit": 8, "pattern": "^[a-z]+$", "allow": ["a", "b"], "table": {"x": [1, 2]}})
}

fn policy(keys: Value) -> Policy {
    Policy::compile(&source(keys), &params()).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn errors(keys: Value) -> Vec<CompileError> {
    Policy::compile(&source(keys), &params())
        .err()
        .unwrap_or_default()
}

fn validate(keys: Value, spec: &Value) -> Result<Verdict, Fault> {
    outcome(&policy(keys), spec, Phase::Validating)
}

fn outcome(policy: &Policy, spec: &Value, phase: Phase) -> Result<Verdict, Fault> {
    match policy.evaluate(&call(spec, phase)) {
        Outcome::Verdict(verdict) => Ok(verdict),
        Outcome::Fault(fault) => Err(fault),
        Outcome::Skipped(name) => panic!("skipped by {name}"),
    }
}

/// What a condition on the run above gives.
fn holds(expression: &str) -> Result<bool, String> {
    holds_on(expression, &run())
}

fn holds_on(expression: &str, spec: &Value) -> Result<bool, String> {
    let verdict = validate(json!({"validations": [{"expression": expression}]}), spec);
    verdict
        .map(|verdict| verdict.denials.is_empty())
        .map_err(|fault| fault.message)
}

/// Unoptimised frames are ten times as large as those of a release build, for which the limits
/// are made.
fn on_a_large_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::Builder::new()
        .stack_size(32 * 1024 * 1024)
        .spawn(work);
    thread.unwrap().join().unwrap()
}

/// What work gives, and how long it kept this thread busy, whatever else the machine does.
fn busy<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let before = now();
    let done = work();
    (done, now() - before)
}
