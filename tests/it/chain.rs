//! The chain over the wire: what plugins see, in which order, and what becomes of what they say.

use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::sidecar::{RUN, SPEC, body, post};
use crate::harness::{Fake, Gate, Home, Reply, Seen, Sidecar, eventually, parsed, tags, with};

#[rstest]
#[case::verbatim(|_: &mut Value| {})]
#[case::nulls_added(|spec: &mut Value| {
    spec["groups"] = Value::Null;
    spec["configuration"]["nodes_max"] = Value::Null;
})]
#[case::numbers_rewritten(|spec: &mut Value| {
    spec["configuration"]["nodes"] = json!(2.0);
    spec["eps"] = json!(0.00001);
})]
#[tokio::test]
async fn a_rest_plugin_that_changes_nothing_leaves_the_very_bytes(#[case] change: fn(&mut Value)) {
    let fake = Fake::start(move |seen| seen.answered(change)).await;
    let sidecar = Sidecar::with_plugins([fake.rest("reserializes")]).await;
    let answer = sidecar.review(SPEC).await;
    assert_eq!(answer.assert_allowed().spec(), SPEC);
    assert_eq!(fake.call().target, RUN);
    assert_eq!(fake.call().text, body(SPEC), "and it saw these bytes");
    assert_eq!(sidecar.audit()[0]["decision"], "allowed");
}

#[rstest]
#[tokio::test]
async fn a_patch_leaves_every_other_byte_as_it_was(#[values("webhook", "rest")] kind: &str) {
    let fake = match kind {
        "webhook" => Fake::start(tags("z", "9")).await,
        // As a plugin server does that writes the spec from its own models.
        _ => {
            Fake::start(|seen| {
                seen.answered(|spec| {
                    spec["configuration"]["tags"]["z"] = json!("9");
                    spec["configuration"]["nodes"] = json!(2.0);
                    spec["configuration"]["groups"] = Value::Null;
                })
            })
            .await
        }
    };
    let plugin = if kind == "webhook" {
        fake.webhook("tags")
    } else {
        fake.rest("tags")
    };
    let sidecar = Sidecar::with_plugins([plugin]).await;
    let answer = sidecar.review(SPEC).await;
    let squeezed = |text: &str| text.replace(' ', "");
    let expected = SPEC.replace(r#""z":"1""#, r#""z":"9""#);
    assert_eq!(
        squeezed(answer.assert_allowed().spec()),
        squeezed(&expected)
    );

    let audit = sidecar.audit();
    let patch = json!([{"op": "replace", "path": "/configuration/tags/z", "value": "9"}]);
    assert_eq!(
        (&audit[0]["decision"], &audit[0]["patch"]),
        (&json!("patched"), &patch)
    );
    sidecar
        .counted("request_total{decision=\"patched\",kind=\"run\"}", 1.0)
        .await;
}

#[tokio::test]
async fn each_mutating_plugin_sees_what_the_ones_before_it_made() {
    let first = Fake::start(tags("first", "1")).await;
    let second = Fake::start(|seen| {
        seen.answered(|spec| {
            let count = spec["configuration"]["tags"].as_object().unwrap().len();
            spec["configuration"]["tags"]["count"] = json!(count.to_string());
        })
    })
    .await;
    let judge = Fake::start(Seen::allowed).await;
    let judging = with(judge.webhook("judge"), json!({"phase": "validating"}));
    let sidecar =
        Sidecar::with_plugins([judging, first.webhook("first"), second.rest("second")]).await;
    let answer = sidecar.review(SPEC).await;
    let expected = json!({"z": "1", "a": "2", "first": "1", "count": "3"});
    assert_eq!(
        parsed(answer.assert_allowed().spec())["configuration"]["tags"],
        expected
    );
    assert_eq!(
        judge.call().spec()["configuration"]["tags"],
        expected,
        "it judges the end"
    );
}

#[tokio::test]
async fn what_a_webhook_is_asked_is_an_admission_review_of_the_spec() {
    let fake = Fake::start(Seen::allowed).await;
    let sidecar =
        Sidecar::with_plugins([with(fake.webhook("w"), json!({"timeout": "1500ms"}))]).await;
    sidecar.review(SPEC).await.assert_allowed();
    let seen = fake.call();
    assert_eq!(seen.target, "/validate?timeout=1s500ms");
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("x-dstack-admission-timeout-ms"), Some("1500"));
    let request = &seen.body["request"];
    assert_eq!(
        request["kind"],
        json!({"group": "dstack.ai", "version": "v1", "kind": "Run"})
    );
    assert_eq!(
        (&request["name"], &request["namespace"]),
        (&json!("r1"), &json!("main"))
    );
    assert_eq!(request["userInfo"], json!({"username": "alice"}));
    assert!(
        seen.text.contains(SPEC),
        "the spec's own bytes: {}",
        seen.text
    );
}

#[tokio::test]
async fn a_denial_while_mutating_ends_the_chain() {
    let denying = Fake::start(|seen| seen.denied("first word")).await;
    let later = Fake::start(tags("late", "1")).await;
    let judge = Fake::start(|seen| seen.denied("last word")).await;
    let judging = with(judge.webhook("judge"), json!({"phase": "validating"}));
    let sidecar =
        Sidecar::with_plugins([denying.webhook("denying"), later.webhook("later"), judging]).await;
    let answer = sidecar.review(SPEC).await;
    let expected = format!(
        "1 policy denies this run (decision {}):\n- denying: first word",
        answer.decision()
    );
    assert_eq!(answer.denial(), expected);
    assert_eq!(answer.spec(), SPEC);
    assert!(later.calls().is_empty() && judge.calls().is_empty());
    let denied = "plugin_rejection_total{error_type=\"no_error\",kind=\"run\",plugin=\"denying\"}";
    sidecar.counted(denied, 1.0).await;
}

#[tokio::test]
async fn a_denied_spec_is_answered_as_it_came_whatever_was_patched_before() {
    let patching = Fake::start(tags("x", "1")).await;
    let denying = Fake::start(|_| Reply::json(&json!({"spec": null, "error": "two\nlines"}))).await;
    let sidecar =
        Sidecar::with_plugins([patching.webhook("patching"), denying.rest("denying")]).await;
    let answer = sidecar.review(SPEC).await;
    assert!(
        answer.denial().ends_with("\n- denying: two\n  lines"),
        "{}",
        answer.denial()
    );
    assert_eq!(answer.spec(), SPEC);
    assert_eq!(denying.call().spec()["configuration"]["tags"]["x"], "1");
}

#[tokio::test]
async fn all_denials_of_the_validating_phase_are_in_one_message() {
    let one = Fake::start(|seen| seen.denied("too many GPUs")).await;
    let two = Fake::start(|_| Reply::json(&json!({"spec": {}, "error": "no tag"}))).await;
    let three = Fake::start(|_| Reply::text(500, "text/plain", "")).await;
    let validating = |plugin| with(plugin, json!({"phase": "validating"}));
    let plugins = [
        one.webhook("gpus"),
        two.rest("tags"),
        three.webhook("broken"),
    ]
    .map(validating);
    let sidecar = Sidecar::with_plugins(plugins).await;
    let answer = sidecar.review(SPEC).await;
    let denial = answer.denial();
    assert!(denial.starts_with("2 policies deny this run"), "{denial}");
    for line in [
        "\n- gpus: too many GPUs",
        "\n- tags: no tag",
        "\n- broken: it answered HTTP 500",
    ] {
        assert!(denial.contains(line), "{denial}");
    }
}

/// Whether the later plugin changes something decides whether the first is asked again.
#[rstest]
#[case::changed("IfNeeded", true, 2)]
#[case::unchanged("IfNeeded", false, 1)]
#[case::never("Never", true, 1)]
#[tokio::test]
async fn a_plugin_is_asked_again_if_needed(
    #[case] reinvocation: &str,
    #[case] changes: bool,
    #[case] calls: usize,
) {
    let first = Fake::start(Seen::allowed).await;
    let later = Fake::start(move |seen| match changes {
        true => tags("late", "1")(seen),
        false => seen.allowed(),
    })
    .await;
    let again = with(
        first.webhook("first"),
        json!({"reinvocation": reinvocation}),
    );
    let sidecar = Sidecar::with_plugins([again, later.webhook("later")]).await;
    sidecar.review(SPEC).await.assert_allowed();
    assert_eq!(first.calls().len(), calls);
    if calls == 2 {
        assert_eq!(
            first.calls()[1].spec()["configuration"]["tags"]["late"],
            "1"
        );
        assert_eq!(sidecar.audit()[0]["plugins"][2]["reinvoked"], true);
    }
}

#[tokio::test]
async fn a_spec_that_goes_on_changing_is_reported() {
    let counts = |name: &'static str| {
        move |seen: &Seen| {
            seen.answered(|spec| {
                let length = spec["configuration"][name].as_str().unwrap_or("").len();
                spec["configuration"][name] = json!("x".repeat(length + 1));
            })
        }
    };
    let (a, b) = (
        Fake::start(counts("a")).await,
        Fake::start(counts("b")).await,
    );
    let again = |plugin| with(plugin, json!({"reinvocation": "IfNeeded"}));
    let sidecar = Sidecar::with_plugins([again(a.rest("a")), again(b.rest("b"))]).await;
    sidecar.review(SPEC).await.assert_allowed();
    assert_eq!((a.calls().len(), b.calls().len()), (2, 2), "twice at most");
    assert_eq!(sidecar.audit()[0]["unsettled"], json!(["a"]));
}

#[rstest]
#[case::that_would_deny("Fail", 1.0)]
#[case::that_would_be_passed_over("Ignore", 0.0)]
#[tokio::test]
async fn a_fault_of_a_monitored_plugin_is_counted(#[case] policy: &str, #[case] would_deny: f64) {
    let broken = Fake::start(|_| Reply::text(500, "text/plain", "")).await;
    let keys = json!({"mode": "monitor", "failurePolicy": policy});
    let sidecar = Sidecar::with_plugins([with(broken.webhook("trial"), keys)]).await;
    sidecar.review(SPEC).await.assert_allowed();
    let of = "{error_type=\"status\",kind=\"run\",plugin=\"trial\"}";
    sidecar
        .counted(&format!("monitored_fault_total{of}"), 1.0)
        .await;
    sidecar
        .counted(
            "would_deny_total{kind=\"run\",plugin=\"trial\"}",
            would_deny,
        )
        .await;
    let failed_open = format!("plugin_fail_open_total{of}");
    assert_eq!(sidecar.metric(&failed_open).await, 0.0);
}

#[tokio::test]
async fn monitored_plugins_are_asked_after_the_answer_and_recorded_under_its_decision() {
    let gate = Gate::closed();
    let held = gate.clone();
    let patching = Fake::start(tags("shadow", "1")).await;
    let denying = Fake::start(move |seen| seen.denied("not in future").when(&held)).await;
    let monitor = |plugin| with(plugin, json!({"mode": "monitor"}));
    let plugins = [
        monitor(patching.webhook("patching")),
        monitor(denying.webhook("denying")),
    ];
    let sidecar = Sidecar::with_plugins(plugins).await;
    let answer = sidecar.review(SPEC).await;
    assert_eq!(
        answer.assert_allowed().spec(),
        SPEC,
        "answered while a monitored plugin still thinks"
    );
    gate.open();
    sidecar
        .counted("would_deny_total{kind=\"run\",plugin=\"denying\"}", 1.0)
        .await;
    sidecar
        .counted("would_patch_total{kind=\"run\",plugin=\"patching\"}", 1.0)
        .await;
    assert_eq!(
        denying.call().spec()["configuration"]["tags"]["shadow"],
        "1",
        "they see each other's changes"
    );

    eventually("both events are recorded", async || {
        sidecar.audit().len() == 2
    })
    .await;
    sidecar.counted("audit_event_total", 2.0).await;
    let audit = sidecar.audit();
    assert_eq!(
        (&audit[0]["stage"], &audit[0]["decision"]),
        (&json!("ResponseComplete"), &json!("allowed"))
    );
    assert_eq!(
        (&audit[1]["stage"], &audit[1]["decision"]),
        (&json!("MonitorComplete"), &json!("would_deny"))
    );
    for event in &audit {
        assert_eq!(event["auditID"], json!(answer.decision()));
    }
    assert_eq!(
        sidecar
            .metric("request_total{decision=\"denied\",kind=\"run\"}")
            .await,
        0.0
    );
}

#[rstest]
#[case::kind(json!({"kinds": ["fleet", "volume"]}), false)]
#[case::kind_of_several(json!({"kinds": ["fleet", "run"]}), true)]
#[case::project(json!({"projects": ["ma*"]}), true)]
#[case::excluded_project(json!({"projects": ["*", "!main"]}), false)]
#[case::only_excluding(json!({"projects": ["!research"]}), true)]
#[case::user(json!({"users": ["bob", "alice"]}), true)]
#[case::other_user(json!({"users": ["bob"]}), false)]
#[case::all_must_hold(json!({"kinds": ["run"], "projects": ["main"], "users": ["bob"]}), false)]
#[tokio::test]
async fn a_plugin_sees_the_reviews_that_match(#[case] scope: Value, #[case] sees: bool) {
    let fake = Fake::start(|seen| seen.denied("seen")).await;
    let sidecar =
        Sidecar::with_plugins([with(fake.webhook("picky"), json!({"match": scope}))]).await;
    assert_eq!(sidecar.review(SPEC).await.error().is_some(), sees);
    assert_eq!(fake.calls().len(), usize::from(sees));
}

#[rstest]
#[case::valid("main", "2999-12-31", true)]
#[case::other_project("research", "2999-12-31", false)]
#[case::expired("main", "2020-01-01", false)]
#[tokio::test]
async fn an_exemption_holds_for_its_reviews_until_its_day(
    #[case] project: &str,
    #[case] expires: &str,
    #[case] exempt: bool,
) {
    let fake = Fake::start(|seen| seen.denied("no")).await;
    let exemption = json!({
        "plugins": ["cost"], "match": {"projects": [project]}, "reason": "launch week", "expires": expires,
    });
    let keys = json!({"tls": "off", "plugins": [fake.webhook("cost")], "exemptions": [exemption]});
    let sidecar = Sidecar::start(keys).await;
    assert_eq!(sidecar.review(SPEC).await.error().is_none(), exempt);
    assert_eq!(fake.calls().is_empty(), exempt);
    if exempt {
        let part = &sidecar.audit()[0]["plugins"][0];
        assert_eq!(
            (&part["verdict"], &part["messages"]),
            (&json!("exempt"), &json!(["launch week"]))
        );
        sidecar
            .counted("plugin_exempted_total{kind=\"run\",plugin=\"cost\"}", 1.0)
            .await;
    }
}

#[tokio::test]
async fn warnings_and_annotations_are_passed_on_under_the_plugin_s_name() {
    let fake = Fake::start(|seen| {
        seen.reviewed(json!({"warnings": ["soon forbidden"], "auditAnnotations": {"rule": "7"}}))
    })
    .await;
    let sidecar = Sidecar::with_plugins([fake.webhook("w")]).await;
    let answer = sidecar.review(SPEC).await;
    assert_eq!(answer.assert_allowed().warnings(), ["w: soon forbidden"]);
    assert_eq!(sidecar.audit()[0]["annotations"], json!({"w/rule": "7"}));
}

#[tokio::test]
async fn only_listed_headers_reach_a_plugin_and_credentials_never() {
    let (listed, plain) = (
        Fake::start(Seen::allowed).await,
        Fake::start(Seen::allowed).await,
    );
    let forwarding = json!({"name": "listed", "webhook": {"url": listed.url(), "forwardHeaders": ["Traceparent"]}});
    let sidecar = Sidecar::with_plugins([forwarding, plain.webhook("plain")]).await;
    let mut request = post(RUN, body(SPEC));
    for (name, value) in [
        ("traceparent", "00-abc-def-01"),
        ("authorization", "Basic eDp5"),
        ("cookie", "c"),
        ("x-other", "o"),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    sidecar.send(request).await.assert_allowed();
    let seen = listed.call();
    assert_eq!(seen.header("traceparent"), Some("00-abc-def-01"));
    assert_eq!(plain.call().header("traceparent"), None);
    for seen in [seen, plain.call()] {
        for name in ["authorization", "cookie", "x-other"] {
            assert_eq!(seen.header(name), None, "{name}");
        }
    }
}

#[tokio::test]
async fn all_values_of_a_listed_header_reach_a_plugin_in_their_order() {
    let fake = Fake::start(Seen::allowed).await;
    let plugin = json!({"name": "w", "webhook": {"url": fake.url(), "forwardHeaders": ["x-team", "user-agent"]}});
    let sidecar = Sidecar::with_plugins([plugin]).await;
    let mut request = post(RUN, body(SPEC));
    let headers = request.headers_mut();
    for (name, value) in [("x-team", "a"), ("user-agent", "dstack"), ("x-team", "b")] {
        headers.append(name, value.parse().unwrap());
    }
    sidecar.send(request).await.assert_allowed();
    let seen = fake.call();
    let values = |name| Vec::from_iter(seen.headers.get_all(name));
    assert_eq!(values("x-team"), ["a", "b"]);
    assert_eq!(values("user-agent"), ["dstack"]);
}

#[tokio::test]
async fn a_message_of_megabytes_with_commands_for_a_terminal_is_cut_and_harmless() {
    let message = format!("no:\n\t\u{1b}[2J\u{202e}{}", "x".repeat(2_000_000));
    let fake = Fake::start(move |seen: &Seen| seen.denied(&message)).await;
    let sidecar = Sidecar::with_plugins([fake.webhook("w")]).await;
    let denial = sidecar.review(SPEC).await.denial();
    assert!(denial.contains("w: no:\n"), "{denial}");
    assert!(denial.contains("\t\u{fffd}[2J\u{fffd}xxx"), "{denial}");
    assert!(denial.ends_with("xxx…"), "it says that it is cut");
    assert!(denial.len() < 9_000, "{}", denial.len());
    let recorded = sidecar.audit()[0].to_string();
    assert!(recorded.len() < 40_000, "{}", recorded.len());
    assert!(!recorded.contains('\u{202e}'));
}

#[test]
fn a_match_condition_that_cannot_be_compiled_is_named_with_its_place() {
    let condition = json!({"name": "a", "expression": "foo == 1"});
    let plugin = json!({"name": "w", "match": {"conditions": [condition]}, "webhook": {"url": "http://127.0.0.1:1/"}});
    let (_, said) = Home::new().refused(&json!({"plugins": [plugin]}));
    let place = "plugins[0].match.conditions[0].expression: ";
    assert!(said.contains(place), "{said}");
}
