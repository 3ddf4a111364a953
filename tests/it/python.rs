//! dstack plugins in Python behind the served binary: what they say, what becomes of reviews when
//! their processes misbehave, and that no process is left.

use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::environment::environment;
use crate::harness::sidecar::SPEC;
use crate::harness::{Home, Sidecar, eventually, with};

const RELOADED: &str = "config_reload_total{result=\"success\"}";

/// A directory with an environment of Python, and the plugin that is installed there.
fn home() -> (Home, Value) {
    let home = Home::new();
    let interpreter = environment(&home.path("venv"));
    let plugin = json!({
        "name": "legacy",
        "python": {"plugin": "house_rules", "interpreter": interpreter},
    });
    (home, plugin)
}

fn keys(plugin: &Value) -> Value {
    json!({"tls": "off", "plugins": [plugin]})
}

/// A sidecar whose one plugin has these keys too.
async fn sidecar(more: Value) -> Sidecar {
    let (home, plugin) = home();
    Sidecar::start_in(home, keys(&with(plugin, more))).await
}

/// A run on which the plugin does this.
fn run(what: &str) -> String {
    SPEC.replace(r#""a" : "2""#, &format!(r#""do" : "{what}""#))
}

async fn pid(sidecar: &Sidecar) -> i32 {
    let denial = sidecar.review(&run("pid")).await.denial();
    let words = denial.split_ascii_whitespace();
    words
        .filter_map(|word| word.parse().ok())
        .next_back()
        .expect("a process id")
}

fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with('Z'))
}

#[tokio::test]
async fn a_plugin_allows_changes_and_denies() {
    let sidecar = sidecar(json!({})).await;
    sidecar.review(SPEC).await.assert_allowed();
    assert_eq!(sidecar.review(SPEC).await.spec(), SPEC);

    let tagged = run("tag").replace(r#""tag"}"#, r#""tag", "by": "house"}"#);
    assert_eq!(
        sidecar.review(&run("tag")).await.json()["spec"],
        serde_json::from_str::<Value>(&tagged).unwrap()
    );
    let denial = sidecar.review(&run("deny")).await.denial();
    assert!(
        denial.contains("legacy: alice may not do this in main"),
        "{denial}"
    );
    let patch = &sidecar.audit()[2]["plugins"][0]["patch"];
    assert_eq!(
        *patch,
        json!([{"op": "add", "path": "/configuration/tags/by", "value": "house"}])
    );
}

#[tokio::test]
async fn an_exception_is_a_fault_whose_traceback_stays_in_the_log() {
    let sidecar = sidecar(json!({})).await;
    let denial = sidecar.review(&run("raise")).await.denial();
    assert!(
        denial.contains("KeyError") && !denial.contains("secret"),
        "{denial}"
    );
    assert_eq!(sidecar.audit()[0]["plugins"][0]["errorType"], "exception");
}

#[tokio::test]
async fn a_traceback_that_quotes_the_spec_is_logged_without_its_secrets() {
    let (home, plugin) = home();
    let log = json!({"format": "json", "level": "trace"});
    let sidecar = Sidecar::start_in(home, with(keys(&plugin), json!({"log": log}))).await;
    // What is cut off of an exception's words ends within a secret.
    let spec = json!({"configuration": {
        "type": "task", "tags": {"do": "quote"},
        "env": {"KEY": "it's a \"canary\"\nof two lines, canary", "LONG": "canary-".repeat(200)},
    }});
    let denial = sidecar.review(&spec.to_string()).await.denial();
    let fault = sidecar.logged("plugin fault").await;
    let detail = fault["detail"].as_str().unwrap();
    assert!(
        detail.contains("Traceback") && detail.contains("[redacted]"),
        "{detail}"
    );
    let said = format!("{denial}{:?}{:?}", sidecar.log(), sidecar.audit());
    assert!(!said.contains("canary"), "{said}");
}

#[tokio::test]
async fn a_worker_that_hangs_or_dies_costs_the_review_it_is_about() {
    let sidecar = sidecar(json!({"timeout": "500ms"})).await;
    let first = pid(&sidecar).await;
    let denial = sidecar.review(&run("hang")).await.denial();
    assert!(
        denial.contains("legacy: it did not answer within 500ms"),
        "{denial}"
    );
    eventually("it is gone", async || !runs(first)).await;
    sidecar
        .counted("python_workers{plugin=\"legacy\",state=\"idle\"}", 1.0)
        .await;

    let denial = sidecar.review(&run("exit")).await.denial();
    assert!(
        denial.contains("legacy: its process ended before it answered"),
        "{denial}"
    );
    sidecar
        .counted("python_workers{plugin=\"legacy\",state=\"idle\"}", 1.0)
        .await;
    sidecar.review(SPEC).await.assert_allowed();
    for reason in ["timeout", "crash"] {
        let restarts =
            format!("python_worker_restarts_total{{plugin=\"legacy\",reason=\"{reason}\"}}");
        assert_eq!(sidecar.metric(&restarts).await, 1.0);
    }
    assert_eq!(
        sidecar
            .metric("python_worker_start_seconds_count{plugin=\"legacy\"}")
            .await,
        3.0
    );
    let memory = "python_worker_resident_memory_bytes{plugin=\"legacy\",worker=\"0\"}";
    assert!(sidecar.metric(memory).await > 1e6);
    assert_eq!(
        sidecar
            .metric("python_queue_length{plugin=\"legacy\"}")
            .await,
        0.0
    );
}

#[tokio::test]
async fn every_review_is_answered_while_workers_are_killed() {
    let sidecar = sidecar(json!({"python": {"workers": 2}})).await;
    for _ in 0..5 {
        let reviews = async {
            for _ in 0..20 {
                let answer = sidecar.review(SPEC).await;
                assert_eq!(answer.status, 200);
                if let Some(denial) = answer.json()["error"].as_str() {
                    assert!(
                        denial.contains("its process ended before it answered"),
                        "{denial}"
                    );
                }
            }
        };
        let killing = async {
            let denial = sidecar.review(&run("pid")).await.denial();
            let words = denial.split_ascii_whitespace();
            if let Some(pid) = words.filter_map(|word| word.parse().ok()).next_back() {
                let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
            }
        };
        tokio::join!(reviews, killing);
    }
    sidecar
        .counted("python_workers{plugin=\"legacy\",state=\"idle\"}", 2.0)
        .await;
}

#[tokio::test]
async fn what_a_plugin_logs_and_prints_is_in_the_log_with_its_name() {
    let sidecar = sidecar(json!({})).await;
    sidecar.review(&run("log")).await.assert_allowed();
    for (message, level) in [("logged", "WARN"), ("printed", "INFO")] {
        let line = sidecar.logged(message).await;
        assert_eq!(
            (&line["plugin"], &line["level"]),
            (&json!("legacy"), &json!(level))
        );
    }
    let loaded = sidecar.logged("loaded plugin").await;
    assert_eq!(
        (&loaded["version"], &loaded["dstack"]),
        (&json!("1.2"), &json!("0.0.1"))
    );
    let found = sidecar.logged("found a plugin that is not enabled").await;
    assert_eq!(found["found"], "house_other");
}

#[tokio::test]
async fn a_worker_inherits_nothing_that_is_not_listed() {
    let sidecar = sidecar(json!({})).await;
    let denial = sidecar.review(&run("environment")).await.denial();
    let names = [
        "DSTACK_ADMISSION_LOG_LEVEL",
        "HOME",
        "LANG",
        "PATH",
        "PYTHONUNBUFFERED",
    ];
    for name in names {
        assert!(denial.contains(name), "{denial}");
    }
    assert!(!denial.contains("PWD"), "{denial}");
}

#[test]
fn a_plugin_that_is_not_installed_is_named_with_the_nearest() {
    let (home, plugin) = home();
    let plugin = with(plugin, json!({"python": {"plugin": "house_rule"}}));
    let (code, said) = home.refused(&keys(&plugin));
    assert_eq!(code, Some(2));
    assert!(said.contains("plugin `legacy` was not loaded: "), "{said}");
    assert!(said.contains("no entry point `house_rule`"), "{said}");
    let found = "found: house_other, house_rules; did you mean `house_rules`?";
    assert!(said.contains(found), "{said}");
}

#[tokio::test]
async fn a_reload_restarts_only_what_changed() {
    let (home, plugin) = home();
    let sidecar = Sidecar::start_in(home, keys(&plugin)).await;
    let first = pid(&sidecar).await;

    let timeout = with(plugin.clone(), json!({"timeout": "1s"}));
    sidecar.home.configure(&keys(&timeout));
    sidecar.counted(RELOADED, 1.0).await;
    assert_eq!(pid(&sidecar).await, first);

    let recycled = with(plugin.clone(), json!({"python": {"recycleAfter": 1000}}));
    sidecar.home.configure(&keys(&recycled));
    sidecar.counted(RELOADED, 2.0).await;
    let second = pid(&sidecar).await;
    assert_ne!(second, first);
    eventually("the first has ended", async || !runs(first)).await;

    let missing = with(plugin, json!({"python": {"plugin": "missing"}}));
    sidecar.home.configure(&keys(&missing));
    sidecar
        .counted("config_reload_total{result=\"failure\"}", 1.0)
        .await;
    assert_eq!(pid(&sidecar).await, second, "the last good one stays");
}

#[tokio::test]
async fn what_workers_need_is_made_again_where_it_has_gone() {
    let sidecar = sidecar(json!({})).await;
    let first = pid(&sidecar).await;
    std::fs::remove_dir_all(sidecar.home.path("state/python")).unwrap();
    kill_process(Pid::from_raw(first).unwrap(), Signal::KILL).unwrap();
    eventually("another answers", async || {
        sidecar.review(SPEC).await.error().is_none()
    })
    .await;
    assert_ne!(pid(&sidecar).await, first);
}

#[tokio::test]
async fn no_worker_is_left_when_the_sidecar_ends() {
    for signal in [Signal::TERM, Signal::KILL] {
        let mut sidecar = sidecar(json!({"python": {"workers": 2}})).await;
        let worker = pid(&sidecar).await;
        sidecar.signal(signal);
        let code = sidecar.exit_code().await;
        assert_eq!(code, (signal == Signal::TERM).then_some(0));
        eventually("it has ended", async || !runs(worker)).await;
    }
}

#[tokio::test]
async fn a_review_in_hand_is_answered_before_the_workers_end() {
    let mut sidecar = sidecar(json!({"timeout": "1s"})).await;
    let worker = pid(&sidecar).await;
    let ending = async {
        let busy = "python_workers{plugin=\"legacy\",state=\"busy\"}";
        sidecar.counted(busy, 1.0).await;
        sidecar.signal(Signal::TERM);
    };
    let hang = run("hang");
    let (answer, ()) = tokio::join!(sidecar.review(&hang), ending);
    let denial = answer.denial();
    assert!(denial.contains("it did not answer within 1s"), "{denial}");
    assert_eq!(sidecar.exit_code().await, Some(0));
    assert!(!runs(worker));
}

#[test]
fn every_command_that_decides_starts_the_workers() {
    let (home, plugin) = home();
    let config = home.configure(&keys(&plugin));
    let spec = home.write("spec.json", run("deny"));
    let output = |command: &str, arguments: &[&Path]| {
        Command::new(env!("CARGO_BIN_EXE_dstack-admission"))
            .env_clear()
            .env("HOME", home.path("user"))
            .arg(command)
            .args(arguments)
            .output()
            .unwrap()
    };
    let check = output("check", &["--config".as_ref(), &config]);
    let shown = String::from_utf8(check.stdout).unwrap();
    assert_eq!(check.status.code(), Some(0), "{shown}");
    let loaded = "   - legacy: house_rules 1.2, dstack 0.0.1, Python 3.";
    assert!(shown.contains(loaded), "{shown}");

    let review = output("review", &["--config".as_ref(), &config, &spec]);
    let shown = String::from_utf8(review.stdout).unwrap();
    assert_eq!(review.status.code(), Some(1), "{shown}");
    assert!(shown.contains("admin may not do this in main"), "{shown}");

    let suite = json!({
        "apiVersion": "dstack-admission/v1",
        "kind": "PolicyTests",
        "plugins": [plugin],
        "cases": [{
            "name": "the plugin denies",
            "file": spec,
            "user": "alice",
            "expect": {"decision": "denied", "messages": ["alice may not do this in main"]},
        }],
    });
    let suite = home.write("house.test.yaml", suite.to_string());
    let test = output("test", &[&suite]);
    let shown = String::from_utf8(test.stdout).unwrap();
    assert_eq!(test.status.code(), Some(0), "{shown}");
}
