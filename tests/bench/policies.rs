//! What one review costs in rules: `effective`, and all built-in policies together, on a spec of
//! median size; and what its audit record costs. The reference is a fixed amount of arithmetic, so that figures of two machines
//! compare.

#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first error")]

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use dstack_admission::admission::decision::{Change, Decision, Part, PartResult};
use dstack_admission::admission::effective::effective_tree;
use dstack_admission::admission::patch::{Compare, diff};
use dstack_admission::admission::review::{Kind, Review};
use dstack_admission::admission::revision::Revision;
use dstack_admission::admission::verdict::{Call, Denial, Phase};
use dstack_admission::config::{self, resolve};
use dstack_admission::engine::Engine;
use dstack_admission::observe::record::{Level, Record, Recording, Stage};
use dstack_admission::observe::redaction::redact;
use dstack_admission::observe::repeats::Repeats;
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
        trace: None,
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
            effective_tree(Kind::Run, spec, spec)
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

/// The audit line of one review at each level: of a spec that nobody changed, of one that a plugin
/// changed, and of one that a plugin denied in words.
fn the_record(c: &mut Criterion) {
    let review = Arc::new(review());
    let came = Arc::clone(review.spec.value());
    let mut changed = serde_json::Value::clone(&came);
    changed["configuration"]["max_price"] = 2.0.into();
    let changed = Arc::new(changed);
    let part = |result, patch, change| Part {
        took: Duration::from_micros(100),
        patch,
        change,
        ..Part::new(0, &"cost".into(), Phase::Mutating, result)
    };
    let patch = diff(&came, &changed, Compare::Exactly);
    let change = Change {
        before: Arc::clone(&came),
        after: Arc::clone(&changed),
    };
    let denial = Denial {
        message: "at most 8 GPUs, this asks for up to 16".to_owned(),
        reason: None,
    };
    let decide = |spec: &Arc<serde_json::Value>, part| {
        Decision::new(
            Arc::clone(&review),
            Arc::clone(spec),
            vec![part],
            Vec::new(),
        )
    };
    let decisions = [
        (
            "allowed",
            decide(&came, part(PartResult::Allowed, Vec::new(), None)),
        ),
        (
            "patched",
            decide(&changed, part(PartResult::Allowed, patch, Some(change))),
        ),
        (
            "denied",
            decide(
                &came,
                part(PartResult::Denied(vec![denial]), Vec::new(), None),
            ),
        ),
    ];
    let repeats = Repeats::default();
    let mut group = c.benchmark_group("record");
    group.bench_function("repeat", |b| b.iter(|| repeats.of(&review)));
    for level in [Level::Metadata, Level::Patch, Level::Spec] {
        let recording = Recording {
            level,
            ..Recording::default()
        };
        for (name, decision) in &decisions {
            group.bench_function(format!("{} of {name}", level.as_str()), |b| {
                b.iter(|| {
                    // Only what a plugin said is copied to be redacted.
                    let mut told = decision.clone();
                    let redacted = redact(&mut told, &recording.secrets);
                    let record = Record {
                        decision: &told,
                        stage: Stage::ResponseComplete,
                        took: Duration::from_millis(1),
                        completed: SystemTime::UNIX_EPOCH,
                        configuration: "5ba93c9db0cff93f52b521d7420e43f6eda2784f",
                        recording: &recording,
                        redacted: &redacted,
                        repeat_of: None,
                    };
                    record.audit_line()
                });
            });
        }
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
        span: None,
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
