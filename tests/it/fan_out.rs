//! Plugins that are asked at once: how long that takes, and what becomes of their patches.

use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::sidecar::SPEC;
use crate::harness::{Fake, Gate, Seen, Sidecar, eventually, parsed, tags, with};

/// Plugins that answer only once all of them were asked prove that none waits for another.
#[rstest]
#[tokio::test]
async fn plugins_of_one_stage_are_asked_at_once(#[values("fanOut", "validating")] stage: &str) {
    let gate = Gate::closed();
    let held = || {
        let gate = gate.clone();
        Fake::start(move |seen| seen.allowed().when(&gate))
    };
    let (a, b, c) = (held().await, held().await, held().await);
    let plugins = [a.webhook("a"), b.webhook("b"), c.webhook("c")];
    let plugins = match stage {
        "fanOut" => json!([{"fanOut": plugins}]),
        _ => json!(plugins.map(|plugin| with(plugin, json!({"phase": "validating"})))),
    };
    let sidecar = Sidecar::start(json!({"tls": "off", "plugins": plugins})).await;
    let all_asked = async {
        eventually("all are asked while none has answered", async || {
            [&a, &b, &c].iter().all(|fake| fake.calls().len() == 1)
        })
        .await;
        gate.open();
    };
    let (answer, ()) = tokio::join!(sidecar.review(SPEC), all_asked);
    answer.assert_allowed();
}

#[tokio::test]
async fn a_fan_out_takes_as_long_as_its_slowest_member() {
    let delay = Duration::from_secs(1);
    let slow = Fake::start(move |seen| seen.allowed().after(delay)).await;
    let members = ["a", "b", "c", "d"].map(|name| slow.webhook(name));
    let sidecar = Sidecar::with_plugins([json!({"fanOut": members})]).await;
    let asked = Instant::now();
    sidecar.review(SPEC).await.assert_allowed();
    let took = asked.elapsed();
    assert!(took >= delay && took < delay * 3, "{took:?}");
}

async fn fan_out(fakes: [(&str, &Fake); 2], keys: Value) -> Sidecar {
    let members = fakes.map(|(name, fake)| fake.webhook(name));
    Sidecar::with_plugins([with(json!({"fanOut": members}), keys)]).await
}

#[tokio::test]
async fn the_patches_of_a_fan_out_are_merged() {
    let appends = |word: &'static str| {
        move |seen: &Seen| {
            let tag = format!("/spec/configuration/tags/{word}");
            seen.patched(json!([
                {"op": "add", "path": "/spec/configuration/commands/-", "value": word},
                {"op": "add", "path": tag, "value": "1"},
                {"op": "add", "path": "/spec/configuration/priority", "value": 5},
            ]))
        }
    };
    let (a, b) = (
        Fake::start(appends("a1")).await,
        Fake::start(appends("b1")).await,
    );
    let sidecar = fan_out([("a", &a), ("b", &b)], json!({})).await;
    let answer = sidecar.review(SPEC).await;
    let configuration = &parsed(answer.assert_allowed().spec())["configuration"];
    assert_eq!(configuration["commands"], json!(["true", "a1", "b1"]));
    assert_eq!(
        configuration["tags"],
        json!({"z": "1", "a": "2", "a1": "1", "b1": "1"})
    );
    assert_eq!(configuration["priority"], 5, "both agree about it");
}

#[tokio::test]
async fn a_conflict_in_a_fan_out_names_both_plugins_and_the_path() {
    let (a, b) = (
        Fake::start(tags("team", "x")).await,
        Fake::start(tags("team", "y")).await,
    );
    let sidecar = fan_out([("a", &a), ("b", &b)], json!({})).await;
    let denial = sidecar.review(SPEC).await.denial();
    let line = "- b: its change of /configuration/tags/team conflicts with that of a";
    assert!(denial.contains(line), "{denial}");
    sidecar
        .counted("patch_conflict_total{kind=\"run\",plugin=\"b\"}", 1.0)
        .await;
    assert_eq!(sidecar.audit()[0]["plugins"][1]["verdict"], "conflict");
}

#[tokio::test]
async fn with_last_wins_the_later_plugin_of_a_fan_out_wins() {
    let (a, b) = (
        Fake::start(tags("team", "x")).await,
        Fake::start(tags("team", "y")).await,
    );
    let sidecar = fan_out([("a", &a), ("b", &b)], json!({"onConflict": "lastWins"})).await;
    let answer = sidecar.review(SPEC).await;
    let spec = parsed(answer.assert_allowed().spec());
    assert_eq!(spec["configuration"]["tags"]["team"], "y");
}
