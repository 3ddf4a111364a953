mod hostile;
mod mistakes;
mod sinks;
#[cfg(feature = "otlp")]
mod tracing;

use std::time::Duration;

use rstest::rstest;

use super::audit::SinkMode;
use super::file::Tls;
use super::plugin::{KindName, Mode, OnConflict, PluginEntry};
use super::recording::AuditLevel;
use super::units::{ByteCount, Expiry, Period};
use super::*;

const HEAD: &str = "apiVersion: dstack-admission/v1\nkind: AdmissionConfiguration\n";

/// The example of the documentation, whole.
const EXAMPLE: &str = r#"
apiVersion: dstack-admission/v1
kind: AdmissionConfiguration
listen: 127.0.0.1:8443
admin: 127.0.0.1:9443            # /metrics /livez /readyz /configz; plain HTTP
stateDir: /var/lib/dstack-admission
tls: {certFile: /tls/tls.crt, keyFile: /tls/tls.key, clientCAFile: /tls/ca.crt}
auth: {basic: {username: dstack, passwordFile: /auth/password}}
deadline: 5s
limits: {bodyBytes: 8MiB, inFlight: 256, connections: 1024}
audit:
  level: Patch                   # None | Metadata | Patch | Spec
  sinks:
    - file: {path: /var/log/audit.log, mode: blocking-strict, maxSize: 100MB, maxBackups: 10}
    - stdout: {}
plugins:
  - name: no-privileged
    use: forbid-privileged                       # a built-in policy
  - name: cost
    use: max-price
    with: {limit: 2.0}
    match: {kinds: [run], projects: ["*", "!research"]}
  - name: house-rules
    cel:
      variables:   [{name: team, expression: "project.split('-')[0]"}]
      validations: [{expression: "effective.gpus.max <= 8", message: "at most 8 GPUs"}]
      mutations:
        - mergeMap: {path: /configuration/tags, value: {managed-by: platform}}
        - jsonPatch: {expression: "[{'op':'add','path':'/configuration/tags/team','value':variables.team}]"}
  - name: legacy
    python: {plugin: my_dstack_plugin, workers: 2}   # entry point in the group dstack.plugins
  - fanOut:
      - {name: quota, rest: {url: https://quota:8000, caFile: /tls/ca.crt}}
      - {name: kubewarden, webhook: {url: https://policy-server/validate/x, caFile: /tls/ca.crt, clientCertFile: /tls/client.crt}}
  - name: new-rule
    mode: monitor
    cel: {validations: [{expression: "true"}]}
exemptions:
  - {plugins: [cost], match: {projects: [demo]}, reason: "launch week, TICKET-12", expires: 2026-12-31}
"#;

fn load(text: &str) -> Loaded {
    match parse(text, "config.yaml").into_result() {
        Ok(loaded) => loaded,
        Err(problems) => panic!("{problems}"),
    }
}

/// Each problem of a file that begins with [`HEAD`], without the file's name.
fn problems(body: &str) -> Vec<String> {
    problems_of(&format!("{HEAD}{body}"))
}

fn problems_of(text: &str) -> Vec<String> {
    let problems = match parse(text, "config.yaml").into_result() {
        Ok(_) => Problems::default(),
        Err(problems) => problems,
    };
    let shown = problems.iter().map(ToString::to_string);
    shown
        .map(|line| line.replacen("config.yaml:", "", 1))
        .collect()
}

#[test]
fn the_documented_example_is_read() {
    let file = load(EXAMPLE).file;
    assert_eq!(file.deadline, Some(Period(Duration::from_secs(5))));
    assert_eq!(file.limits.body_bytes, Some(ByteCount(8 << 20)));
    assert!(matches!(file.tls, Some(Tls::Files(files)) if files.client_ca_file.is_some()));
    assert_eq!(file.audit.level, Some(AuditLevel::Patch));
    let given: Vec<_> = file.audit.sinks.iter().map(audit::Sink::given).collect();
    assert_eq!(given, [["file"], ["stdout"]]);
    let sink = file.audit.sinks[0].file.as_ref();
    assert_eq!(sink.and_then(|s| s.mode), Some(SinkMode::BlockingStrict));
    let kinds: Vec<_> = file.plugins.iter().flat_map(PluginEntry::given).collect();
    assert_eq!(kinds, ["use", "use", "cel", "python", "fanOut", "cel"]);
    let cost = file.plugins[1].r#match.as_ref();
    assert_eq!(
        cost.and_then(|m| m.kinds.as_deref()),
        Some([KindName::Run].as_slice())
    );
    assert_eq!(file.plugins[5].mode, Some(Mode::Monitor));
    let until = Expiry::parse("2026-12-31");
    assert_eq!(Ok(file.exemptions[0].expires), until);
}

#[test]
fn keys_of_a_later_stage_find_their_lines() {
    let places = load(EXAMPLE).places;
    assert_eq!(
        places.line("plugins[2].cel.mutations[1].jsonPatch"),
        Some(29)
    );
    assert_eq!(places.line("plugins[4].fanOut[1].webhook.url"), Some(34));
    let problem = places.problem("plugins[4].fanOut[0].timeout", "longer than the deadline");
    assert_eq!(
        problem.to_string(),
        "config.yaml:33: plugins[4].fanOut[0].timeout: longer than the deadline"
    );
}

#[test]
fn a_later_stage_adds_its_problems_to_those_of_the_file() {
    let text = format!(
        "{HEAD}deadline: 5\nplugins:\n- name: one\n  wbehook: {{url: x}}\n- name: two\n  use: max-price\n  with: {{limit: 1}}\n"
    );
    let result: Result<(), Problems> = parse(&text, "a.yaml").then(|loaded| {
        let places = &loaded.places;
        assert_eq!(loaded.file.plugins.len(), 2);
        let found = [
            places.problem("plugins[0]", "needs one of `use`, `cel`, …"),
            places.problem("plugins[1].use", "not today"),
        ];
        Err(found.into_iter().collect())
    });
    assert_eq!(
        result.unwrap_err().to_string(),
        "a.yaml:3: deadline: expected a string such as `5s`, but this is a number\n\
         a.yaml:6: plugins[0].wbehook: unknown key; did you mean `webhook`?\n\
         a.yaml:8: plugins[1].use: not today"
    );
}

#[test]
fn a_file_with_problems_never_gets_through_a_later_stage() {
    let parsed = parse(&format!("{HEAD}deadlin: 5s\n"), "a.yaml");
    let mut ran = false;
    let result = parsed.then(|_| {
        ran = true;
        Ok(())
    });
    assert!(ran && result.is_err());
}

#[rstest]
#[case("tls: off\n")]
#[case("tls: 'off'\n")]
#[case("tls: false\n")]
fn tls_is_switched_off_in_every_spelling_of_off(#[case] body: &str) {
    let file = load(&format!("{HEAD}{body}")).file;
    assert!(matches!(file.tls, Some(Tls::Off)));
}

#[test]
fn a_key_with_nothing_after_it_is_as_good_as_none() {
    let body = "listen:\ntls:\nlimits:\n  bodyBytes:\nplugins:\n#- name: a\nexemptions: ~\n";
    let file = load(&format!("{HEAD}{body}")).file;
    assert!(file.listen.is_none() && file.tls.is_none() && file.plugins.is_empty());
}

#[test]
fn what_is_set_by_a_rule_may_be_null() {
    let body = "plugins:\n- cel: {mutations: [{set: {path: /a, value: null}}]}\n";
    let file = load(&format!("{HEAD}{body}")).file;
    let source = file.plugins[0].cel.as_ref().unwrap();
    let write = source.mutations[0].set.as_ref().unwrap();
    assert_eq!(write.value, Some(serde_json::Value::Null));
}

#[test]
fn anchors_and_aliases_are_unfolded() {
    let body = "plugins:\n- {name: a, use: set-tags, with: {tags: {a: b}}, match: &m {kinds: [run]}}\n- {name: b, use: set-tags, with: {tags: {a: b}}, match: *m, onConflict: lastWins}\n";
    let plugins = load(&format!("{HEAD}{body}")).file.plugins;
    let kinds = plugins[1].r#match.as_ref().and_then(|m| m.kinds.clone());
    assert_eq!(kinds, Some(vec![KindName::Run]));
    assert_eq!(plugins[1].on_conflict, Some(OnConflict::LastWins));
}

#[rstest]
#[case("", "empty; a configuration begins with")]
#[case("# nothing\n", "empty; a configuration begins with")]
#[case("---\n", "empty; a configuration begins with")]
#[case("- a\n", "a configuration is a map of keys")]
#[case("hello", "a configuration is a map of keys")]
#[case("\0\u{1}", "not valid YAML")]
#[case("a: [", "not valid YAML")]
#[case("a: 18446744073709551616000\n", "not valid YAML")]
fn what_is_no_configuration_is_refused(#[case] text: &str, #[case] expected: &str) {
    let found = problems_of(text);
    assert!(found[0].contains(expected), "{found:?}");
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_are_read() {
    load(&format!(
        "\u{feff}{}",
        EXAMPLE.trim_start().replace('\n', "\r\n")
    ));
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("config.yaml");
    let problems = read(&missing).into_result().unwrap_err().to_string();
    let expected = format!("{}: cannot be read: No such file", missing.display());
    assert!(problems.starts_with(&expected), "{problems}");
    std::fs::write(&missing, b"\xff\xfe").unwrap();
    let problems = read(&missing).into_result().unwrap_err().to_string();
    assert!(problems.ends_with("not a text in UTF-8"), "{problems}");
    std::fs::write(&missing, EXAMPLE).unwrap();
    assert_eq!(
        read(&missing).into_result().unwrap().hash,
        load(EXAMPLE).hash
    );
}
