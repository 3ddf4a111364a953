//! What one review costs in rules: `effective`, all built-in policies together, and its audit line, on a
//! spec of median size. The reference is a fixed amount of arithmetic, so that figures of two machines
//! compare.

#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first error")]

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use dstack_admission::admission::effective::effective;
use dstack_admission::admission::review::{Kind, Review};
use dstack_admission::admission::revision::Revision;
use dstack_admission::admission::verdict::{Call, Phase};
use dstack_admission::config::{self, resolve};
use dstack_admission::engine::Engine;
use dstack_admission::observe::record::{Level, Record, Stage};
use dstack_admission::plugins::Backend;
use dstack_admission::protocol::dstack::decode_request;
use tokio::time::Instant;

const SPEC: &str = "tests/specs/0.22.5/plain-service-full.json";
const CHAIN: &str = "tests/bench/library.yaml";

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn review() -> Review {
    let request = decode_request(&Bytes::from(read(SPEC))).unwrap();
    Review {
        id: "01JD4X0000000000000000000".to_owned(),
        kind: Kind::Run,
        user: request.user,
        project: request.project,
        received: SystemTime::now(),
        headers: Vec::new(),
        spec: request.spec,
    }
}

/// 100,000 rounds of a linear congruential generator.
fn reference(c: &mut Criterion) {
    c.bench_function("reference", |b| {
        b.iter(|| {
            (0..100_000_u64).fold(black_box(1_u64), |x, _| {
                x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1)
            })
        });
    });
}

fn what_a_spec_asks_for(c: &mut Criterion) {
    let review = review();
    c.bench_function("effective", |b| {
        b.iter(|| {
            let spec = black_box(review.spec.value());
            effective(Kind::Run, spec, spec)
        });
    });
}

/// A chain of every built-in policy, which the spec keeps to.
fn engine() -> Engine {
    let loaded = config::parse(&read(CHAIN), CHAIN);
    let settings = loaded
        .then(|loaded| resolve::resolve(loaded, SystemTime::now()))
        .map_err(|problems| problems.to_string())
        .unwrap();
    Engine::new(settings.chain, settings.deadline)
}

fn the_library(c: &mut Criterion) {
    let engine = engine();
    let none = Engine::new(Default::default(), engine.deadline());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let review = Arc::new(review());
    let mut group = c.benchmark_group("review");
    for (name, engine) in [("no plugin", &none), ("every built-in policy", &engine)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let review = Arc::clone(&review);
                runtime.block_on(engine.decide(review, Instant::now()))
            });
        });
    }
    group.finish();
}

/// The audit line of one review that every built-in policy has looked at.
fn the_record(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let decision = runtime.block_on(engine().decide(Arc::new(review()), Instant::now()));
    let record = Record {
        decision: &decision,
        stage: Stage::ResponseComplete,
        took: Duration::from_millis(1),
        completed: SystemTime::now(),
        configuration: "0123456789abcdef0123456789abcdef01234567",
    };
    let mut group = c.benchmark_group("record");
    for level in [Level::Metadata, Level::Patch, Level::Spec] {
        group.bench_function(level.as_str(), |b| b.iter(|| record.audit_line(level)));
    }
    group.finish();
}

/// Each built-in policy in the phases in which it is called.
fn each_policy(c: &mut Criterion) {
    let review = Arc::new(review());
    let value = Arc::clone(review.spec.value());
    let spec = Arc::new(Revision::new(Kind::Run, Arc::clone(&value), value));
    let call = |phase| Call {
        review: Arc::clone(&review),
        spec: Arc::clone(&spec),
        phase,
    };
    let calls = [call(Phase::Mutating), call(Phase::Validating)];
    let engine = engine();
    let mut group = c.benchmark_group("policy");
    for member in engine.chain().members() {
        let Backend::BuiltIn(built_in) = &member.plugin.backend else {
            continue;
        };
        let asked: Vec<&Call> = calls
            .iter()
            .filter(|call| member.phases.contains(call.phase) && member.scope.covers(&review))
            .collect();
        group.bench_function(&built_in.name, |b| {
            b.iter(|| {
                for call in &asked {
                    black_box(built_in.policy.evaluate(call));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(
    benches,
    reference,
    what_a_spec_asks_for,
    the_library,
    the_record,
    each_policy
);
criterion_main!(benches);
