//! No secret of a spec gets out: not into a sink, the log, a metric, a page or an answer's words,
//! whatever the kind, the level and the decision.

use std::fmt::Write as _;
use std::process::Command;

use dstack_admission::observe::traces::BUILT_IN;
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::sidecar::{RUN, body, post};
use crate::harness::{Fake, Home, Protocol, Reply, Sidecar, eventually, in_time, with};

/// The marks of secrets: at a secret place, and in a text by its shape.
const CANARY: &str = "canary-4f9a";
const SHAPED: &str = "hf_CANARY4f9aCANARY4f9aCANARY4f9a";

/// A secret of its own for each place, so that a leak tells where it comes from.
fn canary(place: &str) -> String {
    format!("{CANARY}-{place}")
}

/// A spec of a kind with a secret in each place where that kind may have one.
fn spec(kind: &str) -> Value {
    // Credentials as cloud providers hand them out: JSON of several lines, in which much is escaped.
    let credentials = json!({"type": "service_account", "private_key": format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", canary("key")), "note": canary("tür \"x\"")});
    let env = json!({"CREDENTIALS": format!("{credentials:#}"), "HF_TOKEN": canary("env"), "REFERENCE": "${{ secrets.hf }}", "PIN": 4_711_471_147_u64});
    let auth = json!({"username": canary("username"), "password": canary("password")});
    let key = |place: &str| json!({"public": "ssh-rsa AAAA", "private": format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n", canary(place))});
    let labels = json!({"ticket": canary("configured")});
    let configuration = match kind {
        "run" => json!({
            "type": "service", "name": "x", "image": "acme/x", "env": env, "registry_auth": auth,
            "labels": labels,
            "commands": [
                format!("export HF_TOKEN={SHAPED}"),
                format!("git clone https://me:{}@host/x.git", canary("clone")),
                format!("curl -H 'Authorization: Bearer {}' https://host", canary("bearer")),
                format!("login --with {}", canary("env")),
            ],
            "init": [format!("echo {SHAPED}")], "setup": [format!("echo {SHAPED}")],
            "entrypoint": format!("sh -c 'login --password {}'", canary("entrypoint")),
            "groups": [{"registry_auth": auth, "commands": [format!("echo {SHAPED}")], "env": env}],
            "probes": [{"type": "http", "url": format!("/x?key={}", canary("probe-url")), "body": canary("probe-body"),
                        "headers": [{"name": "authorization", "value": canary("probe-header")}]}],
            "repos": [{"url": format!("https://me:{}@host/x.git", canary("repo")), "path": "a"},
                      {"url": "https", "path": format!("{}@host/x.git", canary("repo-path"))}],
        }),
        "fleet" => json!({
            "type": "fleet", "name": "x", "env": env, "registry_auth": auth, "labels": labels,
            "ssh_config": {"user": "u", "ssh_key": key("fleet-key"), "proxy_jump": {"ssh_key": key("jump-key")},
                           "hosts": [{"hostname": "h", "ssh_key": key("host-key"), "proxy_jump": {"ssh_key": key("host-jump-key")}}]},
        }),
        other => {
            json!({"type": other, "name": "x", "backend": "aws", "region": "eu", "labels": labels,
                        "tags": {"note": format!("use {SHAPED}")}})
        }
    };
    let mut spec = json!({"configuration": configuration});
    if kind == "run" {
        spec["run_name"] = json!("x");
        spec["repo_data"] =
            json!({"repo_url": format!("https://me:{}@host/x.git", canary("repo-data"))});
    }
    spec
}

/// Everything that a spec has, in words, as a careless plugin would say it.
fn echo(spec: &Value) -> String {
    let mut words = String::new();
    leaves(spec, &mut words);
    words
}

fn leaves(value: &Value, words: &mut String) {
    match value {
        Value::Object(members) => members.values().for_each(|value| leaves(value, words)),
        Value::Array(elements) => elements.iter().for_each(|value| leaves(value, words)),
        other => {
            let _ = write!(words, "{} | ", other.as_str().unwrap_or_default());
        }
    }
}

/// A plugin that repeats the whole spec wherever it may say something, and denies if told to.
async fn parrot(denies: bool) -> Fake {
    Fake::start(move |seen| {
        let (words, quoted) = (echo(seen.spec()), seen.spec().to_string());
        let mut response = json!({
            "uid": seen.body["request"]["uid"], "allowed": !denies,
            "warnings": [words, quoted], "auditAnnotations": {"saw": words, "quoted": quoted},
        });
        if denies {
            response["status"] = json!({"message": format!("{words}\n{quoted}"), "reason": quoted});
        }
        seen.reviewed(response)
    })
    .await
}

/// A plugin that overwrites secrets with other secrets, by JSON Patch with a test of the old ones.
async fn rewriter() -> Fake {
    Fake::start(|seen| {
        let configuration = &seen.spec()["configuration"];
        let mut operations = vec![
            json!({"op": "add", "path": "/spec/configuration/added", "value": format!("echo {SHAPED}")}),
            json!({"op": "test", "path": "/spec/configuration/labels", "value": configuration["labels"]}),
        ];
        if let Some(old) = configuration.pointer("/env/HF_TOKEN") {
            operations.extend([
                json!({"op": "test", "path": "/spec/configuration/env/HF_TOKEN", "value": old}),
                json!({"op": "replace", "path": "/spec/configuration/env/HF_TOKEN", "value": canary("new-env")}),
                json!({"op": "copy", "from": "/spec/configuration/env/HF_TOKEN", "path": "/spec/configuration/copied"}),
                json!({"op": "add", "path": "/spec/configuration/moved", "value": {"deep": [old]}}),
                json!({"op": "replace", "path": "/spec/configuration/registry_auth", "value": {"username": canary("new-user"), "password": canary("new-password")}}),
            ]);
        }
        seen.patched(json!(operations))
    })
    .await
}

#[rstest]
#[case::no_object(r#"{"user": "alice", "project": "main", "spec": "canary-4f9a"}"#)]
#[case::no_name(r#"{"user": ["canary-4f9a"], "project": "main", "spec": {}}"#)]
#[case::no_json(r#"{"user": "alice", "project": "main", "spec": {"env": "canary-4f9a""#)]
#[case::bad_token(r#"{"user": "alice", "project": "main", "spec": {"env": canary-4f9a}}"#)]
#[case::no_review(r#"["canary-4f9a"]"#)]
#[tokio::test]
async fn what_is_no_review_is_refused_without_its_words(#[case] body: &str) {
    let log = json!({"format": "json", "level": "trace"});
    let sidecar = Sidecar::start(json!({"tls": "off", "log": log})).await;
    let answer = sidecar.post(RUN, body).await;
    assert_eq!(answer.status, 400);
    sidecar.logged("request refused").await;
    let said = format!("{}{:?}", answer.text(), sidecar.log());
    assert!(!said.contains("canary"), "{said}");
}

/// A plugin that answers with nonsense full of secrets.
async fn broken() -> Fake {
    Fake::start(|seen| {
        seen.reviewed(json!({"uid": echo(seen.spec()), "allowed": echo(seen.spec())}))
    })
    .await
}

/// Plugins that fail in other ways and say with what: by an error page, by text in place of an answer,
/// by patches that do not apply or that no dstack takes, by a rule that errors.
async fn failing() -> (Vec<Fake>, Vec<Value>) {
    let page = Fake::start(|seen| Reply::text(500, "text/html", seen.spec().to_string())).await;
    let text = Fake::start(|seen| Reply::text(200, "text/plain", echo(seen.spec()))).await;
    let stale = Fake::start(|seen| {
        let env = &seen.spec()["configuration"]["env"];
        seen.patched(json!([
            {"op": "test", "path": "/spec/configuration/name", "value": env},
            {"op": "replace", "path": format!("/spec/configuration/{CANARY}"), "value": env},
        ]))
    })
    .await;
    let unfit = Fake::start(|seen| {
        let configuration = &seen.spec()["configuration"];
        let (env, labels) = (&configuration["env"], &configuration["labels"]);
        seen.patched(json!([
            {"op": "add", "path": "/spec/configuration/max_price", "value": env},
            {"op": "add", "path": "/spec/configuration/backends", "value": [labels["ticket"], env["HF_TOKEN"]]},
        ]))
    })
    .await;
    let errs = json!({"name": "errs", "cel": {"validations": [
        {"expression": "int(spec.configuration.labels.ticket) > 0"},
        {"expression": "spec.configuration.env.HF_TOKEN + 1 > 0"},
        {"expression": "timestamp(spec.configuration.env.CREDENTIALS) > timestamp(0)"},
    ]}});
    let mut plugins = vec![
        page.webhook("page"),
        page.rest("page-of-rest"),
        text.webhook("text"),
        text.rest("text-of-rest"),
        stale.webhook("stale"),
        unfit.webhook("unfit"),
        errs,
    ];
    for plugin in &mut plugins {
        plugin["failurePolicy"] = json!("Ignore");
    }
    (vec![page, text, stale, unfit], plugins)
}

#[rstest]
#[tokio::test]
async fn no_secret_gets_out(
    #[values("None", "Metadata", "Patch", "Spec")] level: &str,
    #[values("patched", "denied")] decided: &str,
) {
    let (parrot, rewriter, broken) = (
        parrot(decided == "denied").await,
        rewriter().await,
        broken().await,
    );
    let rule = json!({"cel": {"validations": [{
        "expression": if decided == "denied" { "false" } else { "true" },
        "messageExpression": "'no: ' + string(spec.configuration.labels.ticket)",
    }]}, "name": "house-rules"});
    let mut ignored = broken.rest("broken");
    ignored["failurePolicy"] = json!("Ignore");
    let mut watching = parrot.webhook("watching");
    watching["mode"] = json!("monitor");
    let home = Home::new();
    let file = json!({"file": {"path": home.path("audit.log")}});
    let traced = Fake::start(|_| Reply::text(200, "application/x-protobuf", "")).await;
    let (_fakes, mut plugins) = failing().await;
    plugins.extend([
        rewriter.webhook("rewriter"),
        ignored,
        rule,
        parrot.webhook("parrot"),
        watching,
    ]);
    let keys = json!({
        "tls": "off", "log": {"format": "json", "level": "trace"},
        "audit": {"level": level, "sinks": [file, {"stdout": {}}], "redact": ["/configuration/labels/*"]},
        "plugins": plugins,
    });
    let otlp = json!({"endpoint": traced.url(), "batchMaxWait": "20ms"});
    let keys = match BUILT_IN {
        true => with(keys, json!({"tracing": {"otlp": otlp}})),
        false => keys,
    };
    let sidecar = Sidecar::start_in(home, keys).await;
    let mut connection = sidecar.connect(Protocol::Http1).await;
    let mut said = String::new();
    for kind in ["run", "fleet", "volume", "gateway"] {
        let request = post(
            &format!("/apply_policies/on_{kind}_apply"),
            body(&spec(kind).to_string()),
        );
        let answer = in_time("an answer", connection.send(request))
            .await
            .unwrap();
        assert_eq!(
            answer.error().is_some(),
            decided == "denied",
            "{}",
            answer.text()
        );
        let _ = write!(
            said,
            "{:?} {:?} {:?}",
            answer.error(),
            answer.warnings(),
            answer.headers
        );
        // The spec itself goes back whole: its secrets are the user's own.
        assert!(answer.spec().contains(CANARY) || answer.spec().contains(SHAPED));
    }
    let shown = async || sidecar.admin("/decisions?format=json").await.json()["decisions"].clone();
    eventually("all is recorded", async || {
        let entries = shown().await;
        let told = entries.as_array().is_some_and(|entries| {
            entries.len() == 4 && entries.iter().all(|entry| !entry["monitored"].is_null())
        });
        told && (level == "None" || (sidecar.audit().len() == 8 && sidecar.stdout().len() >= 9))
    })
    .await;

    if BUILT_IN {
        eventually("all spans are sent", async || {
            sidecar.metric("trace_spans_waiting").await == 0.0
                && sidecar.metric("trace_spans_exported_total").await >= 20.0
        })
        .await;
        let sent = traced.calls().into_iter().map(|call| call.text);
        said.extend(sent);
    }
    for path in [
        "/decisions",
        "/decisions?format=json",
        "/configz",
        "/metrics",
        "/livez",
        "/readyz",
    ] {
        said += sidecar.admin(path).await.text();
    }
    said += &format!("{:?}{:?}", sidecar.stdout(), sidecar.log());
    said += &std::fs::read_to_string(sidecar.home.path("audit.log")).unwrap();
    for output in ["text", "json"] {
        let explained = Command::new(env!("CARGO_BIN_EXE_dstack-admission"))
            .args([
                "explain",
                "--last",
                "--audit",
                "audit.log",
                "--output",
                output,
            ])
            .current_dir(sidecar.home.path(""))
            .output()
            .unwrap();
        assert_eq!(explained.status.success(), level != "None");
        said += &String::from_utf8_lossy(&explained.stdout);
        said += &String::from_utf8_lossy(&explained.stderr);
    }
    for mark in [CANARY, SHAPED, "4711471147"] {
        if let Some(at) = said.find(mark) {
            let from = said[..at]
                .char_indices()
                .rev()
                .nth(300)
                .map_or(0, |(at, _)| at);
            panic!("{mark} got out: {}", &said[from..(at + 60).min(said.len())]);
        }
    }
    let events = sidecar.audit();
    let redacted = |place: &str| {
        events.iter().any(|event| {
            event["redacted"]
                .as_array()
                .is_some_and(|all| all.contains(&json!(place)))
        })
    };
    let is_recorded = level != "None";
    assert_eq!(redacted("plugins/parrot/warnings"), is_recorded);
    assert_eq!(
        redacted("/configuration/env/HF_TOKEN"),
        ["Patch", "Spec"].contains(&level)
    );
    assert_eq!(
        redacted("/configuration/labels/ticket"),
        ["Patch", "Spec"].contains(&level)
    );
    assert_eq!(redacted("/configuration/probes/0/body"), level == "Spec");
    if level == "Spec" {
        let whole = Value::from(events).to_string();
        assert!(whole.contains("${{ secrets.hf }}") && whole.contains("acme/x"));
    }
}
