//! `test`, the command: suites in a directory of their own, run by the real binary.

mod mistakes;
mod reports;
mod updates;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Fake, Seen};

/// A suite's first lines, up to where cases begin: on line 8.
const HEAD: &str = "\
apiVersion: dstack-admission/v1
kind: PolicyTests
plugins:
- name: gpu-limit
  cel: {validations: [{expression: effective.gpus.max <= 8, message: at most 8 GPUs}]}
- name: price
  cel: {mutations: [{setDefault: {path: /configuration/max_price, value: 2.0}}]}
";

/// A case of a task with some GPUs, without its expectation.
const TASK: &str =
    "spec: {configuration: {type: task, resources: {gpu: {count: {min: 1, max: 4}}}}}";

/// What the command said and how it ended.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

/// A directory of suites.
struct Suites(TempDir);

impl Suites {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// With one suite: these cases below [`HEAD`].
    fn of(cases: &str) -> Self {
        let suites = Self::new();
        suites.write("a.test.yaml", format!("{HEAD}{cases}"));
        suites
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Runs `test` in the directory, with nothing of this process's environment.
    fn test(&self, arguments: &[&str]) -> Ran {
        run_in(self.0.path(), arguments)
    }

    /// Runs it on all suites, which are usable, and takes its report.
    fn report(&self, arguments: &[&str]) -> Value {
        let ran = self.test(&[arguments, &["-o", "json", "."]].concat());
        serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}{}", ran.out, ran.err))
    }
}

fn run_in(directory: &Path, arguments: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_dstack-admission"))
        .arg("test")
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .output()
        .expect("the binary runs");
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn the_example_passes_and_makes_every_rule_fire() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ran = run_in(root, &["--coverage", "100", "deploy/examples/policies"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert!(
        ran.out.contains("coverage 6 of 6 rules (100 %)"),
        "{}",
        ran.out
    );
}

#[test]
fn a_failing_case_shows_what_was_expected_and_what_came() {
    let suites = Suites::of(&format!(
        "cases:
- name: it passes
  {TASK}
  expect: {{decision: patched}}
- name: another decision
  from: it passes
  edit: {{set: {{/configuration/nodes: 3}}}}
  expect: {{decision: patched, spec: {{configuration: {{max_price: 2}}}}}}
- name: another reason
  from: another decision
  expect: {{decision: denied, messages: [at most 4], deniedBy: [price]}}
- name: another spec
  from: it passes
  edit: {{set: {{/configuration/max_price: 7}}}}
  expect: {{decision: allowed, spec: {{configuration: {{type: task, max_price: 2.0, nodes: 1}}}}}}
- name: another patch
  from: it passes
  expect:
    decision: patched
    patch: [{{op: add, path: /configuration/max_price, value: 3}}]
"
    ));
    let ran = suites.test(&["-v", "."]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(1), ""));
    insta::assert_snapshot!(ran.out, @r#"
    FAIL  ./a.test.yaml: 4 of 5 cases
      ok    it passes
      FAIL  another decision (line 12)
            decision: expected patched, got denied
                - gpu-limit: at most 8 GPUs
      FAIL  another reason (line 16)
            messages: no denial matches `at most 4`
              not expected as a denial:
                - gpu-limit: at most 8 GPUs
            deniedBy: expected price, got gpu-limit
      FAIL  another spec (line 19)
            spec: the admitted spec is another
              --- expected
              +++ got
              @@ -2,6 +2,5 @@
                 "configuration": {
                   "type": "task",
              -    "max_price": 2.0,
              -    "nodes": 1
              +    "max_price": 7
                 }
               }
      FAIL  another patch (line 23)
            patch: the patch is another
              --- expected
              +++ got
              @@ -1 +1 @@
              -{"op":"add","path":"/configuration/max_price","value":3}
              +{"op":"add","path":"/configuration/max_price","value":2.0}
    5 cases in 1 suite: 1 pass, 4 fail
    coverage 2 of 2 rules (100 %)
    "#);
}

#[test]
fn suites_are_found_at_any_depth_and_run_once() {
    let suites = Suites::of(&format!(
        "cases:\n- {{name: a, {TASK}, expect: {{decision: patched}}}}\n"
    ));
    let suite = suites.read("a.test.yaml");
    suites.write("b/c/d.test.yml", &suite);
    suites.write("b/any-name.yaml", &suite);
    let ran = suites.test(&[".", "a.test.yaml", "b/any-name.yaml", "b"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let lines: Vec<&str> = ran.out.lines().collect();
    let expected = [
        "ok    ./a.test.yaml: 1 case",
        "ok    ./b/c/d.test.yml: 1 case",
        "ok    b/any-name.yaml: 1 case",
        "3 cases in 3 suites: 3 pass, 0 fail",
    ];
    assert_eq!(lines[..4], expected);
}

#[test]
fn cases_are_selected_by_suite_and_name() {
    let suites = Suites::of(&format!(
        "cases:\n- {{name: first one, {TASK}, expect: {{decision: patched}}}}\n- {{name: second one, {TASK}, expect: {{decision: patched}}}}\n"
    ));
    suites.write("b.test.yaml", suites.read("a.test.yaml"));
    let names = |run: &str| -> Vec<String> {
        let report = suites.report(&["--run", run]);
        let suites = report["suites"].as_array().unwrap().iter();
        let cases = suites.flat_map(|suite| {
            let cases = suite["cases"].as_array().unwrap().iter();
            cases.map(|case| format!("{}/{}", suite["file"], case["name"]).replace('"', ""))
        });
        cases.collect()
    };
    assert_eq!(
        names("second"),
        ["./a.test.yaml/second one", "./b.test.yaml/second one"]
    );
    assert_eq!(names("b.test.yaml/first"), ["./b.test.yaml/first one"]);
    assert_eq!(names("^./a.*/(first|second) one$").len(), 2);
    let ran = suites.test(&["--run", "first", "."]);
    assert!(
        !ran.out.contains("coverage"),
        "of a part it would say little: {}",
        ran.out
    );
}

#[test]
fn a_case_comes_from_another_one_with_all_that_is_reviewed() {
    let suites = Suites::new();
    suites.write("specs/body.json", r#"{"user": "ada", "project": "lab", "spec": {"configuration": {"type": "task", "nodes": 1}}}"#);
    suites.write("specs/spec.yaml", "configuration: {type: task, nodes: 1}\n");
    suites.write("a.test.yaml", r#"
apiVersion: dstack-admission/v1
kind: PolicyTests
user: bob
plugins:
- name: who
  cel:
    validations:
    - {expression: "false", messageExpression: "user + ' in ' + project + ' ' + kind + ' ' + string(spec.configuration.nodes)"}
cases:
- {name: last, from: middle, user: eve, edit: {set: {/configuration/nodes: 3}}, expect: {decision: denied, messages: [eve in lab run 3]}}
- {name: middle, from: first, edit: {set: {/configuration/nodes: 2}}, expect: {decision: denied, messages: [ada in lab run 2]}}
- {name: first, file: specs/body.json, expect: {decision: denied, messages: [ada in lab run 1]}}
- {name: bare, file: specs/spec.yaml, expect: {decision: denied, messages: [bob in main run 1]}}
- {name: inline, spec: {configuration: {nodes: 4}}, kind: fleet, project: p, expect: {decision: denied, messages: [bob in p fleet 4]}}
- {name: its kind, from: inline, expect: {decision: denied, messages: [bob in p fleet 4]}}
"#);
    let ran = suites.test(&["."]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
}

#[test]
fn a_rule_that_errors_is_never_a_pass_unseen() {
    let suites = Suites::new();
    let suite = |open: &str, closed: &str| {
        format!(
            "apiVersion: dstack-admission/v1
kind: PolicyTests
cases:
- name: closed
  kind: run
  spec: {{}}
  plugins: [{{name: broken, cel: {{validations: [{{expression: spec.none > 1}}]}}}}]
  expect: {{decision: denied, deniedBy: [broken]{closed}}}
- name: open
  from: closed
  plugins: [{{name: broken, failurePolicy: Ignore, cel: {{validations: [{{expression: spec.none > 1}}]}}}}]
  expect: {{decision: allowed{open}}}
"
        )
    };
    suites.write("a.test.yaml", suite("", ""));
    let ran = suites.test(&["."]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.out.contains("messages: not expected as a denial:"),
        "{}",
        ran.out
    );
    assert!(
        ran.out.contains("warnings: not expected as a warning:"),
        "{}",
        ran.out
    );
    assert_eq!(ran.out.matches("(it failed)").count(), 2, "{}", ran.out);

    suites.write(
        "a.test.yaml",
        suite(
            ", warnings: [cannot be evaluated]",
            ", messages: [cannot be evaluated]",
        ),
    );
    let ran = suites.test(&["."]);
    assert_eq!(ran.code, Some(0), "{}", ran.out);
}

#[tokio::test]
async fn plugins_over_http_are_left_out_and_nothing_of_the_server_is_needed() {
    let fake = Fake::start(Seen::allowed).await;
    let suites = Suites::new();
    let configuration = json!({
        "apiVersion": "dstack-admission/v1",
        "kind": "AdmissionConfiguration",
        "listen": "dstack.example.com:443",
        "tls": {"certFile": "/nowhere/tls.crt", "keyFile": "/nowhere/tls.key"},
        "auth": {"bearerTokenFile": "/nowhere/token"},
        "plugins": [
            fake.webhook("hook"),
            {"fanOut": [
                {"name": "quota", "rest": {"url": "https://${QUOTA}", "caFile": "/nowhere/ca.crt"}},
                {"name": "tag", "cel": {"mutations": [{"set": {"path": "/configuration/priority", "value": 1}}]}},
            ]},
        ],
        "exemptions": [{"plugins": ["hook", "tag"], "match": {"users": ["ada"]}, "reason": "x", "expires": "2026-06-30"}],
    });
    suites.write("admission.yaml", configuration.to_string());
    suites.write(
        "a.test.yaml",
        "
apiVersion: dstack-admission/v1
kind: PolicyTests
configuration: admission.yaml
cases:
- {name: tagged, kind: run, spec: {}, expect: {decision: patched, spec: {configuration: {priority: 1}}}}
- {name: exempt, from: tagged, user: ada, expect: {decision: allowed}}
- {name: later, from: exempt, at: 2026-07-01, expect: {decision: patched}}
",
    );
    let ran = suites.test(&["."]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert!(
        ran.out
            .contains("2 remote plugins are left out: hook, quota"),
        "{}",
        ran.out
    );
    assert!(fake.calls().is_empty());

    suites.write(
        "a.test.yaml",
        suites
            .read("a.test.yaml")
            .replace("decision: allowed", "decision: denied, deniedBy: [hook]"),
    );
    let ran = suites.test(&["."]);
    assert!(
        ran.err
            .contains("`hook` is called over HTTP, so no test asks it"),
        "{}",
        ran.err
    );
}

#[test]
fn what_monitored_plugins_would_do_can_be_expected() {
    let suites = Suites::new();
    let suite = |deny: &str, patch: &str| {
        format!("apiVersion: dstack-admission/v1
kind: PolicyTests
plugins:
- {{name: no, mode: monitor, cel: {{validations: [{{expression: 'false'}}]}}}}
- {{name: tag, mode: monitor, cel: {{mutations: [{{set: {{path: /configuration/priority, value: 1}}}}]}}}}
cases:
- {{name: a, kind: run, spec: {{}}, expect: {{decision: allowed, monitored: {{deny: [{deny}], patch: [{patch}]}}}}}}
")
    };
    suites.write("a.test.yaml", suite("no", "tag"));
    let report = suites.report(&[]);
    assert_eq!(report["result"], "pass", "{report:#}");
    assert_eq!(
        report["coverage"]["fired"], 2,
        "their rules fire, too: {report:#}"
    );

    suites.write("a.test.yaml", suite("", "no"));
    let failures = &suites.report(&[])["suites"][0]["cases"][0]["failures"];
    let expected = json!([
        {"key": "monitored.deny", "message": "expected none, got no"},
        {"key": "monitored.patch", "message": "expected no, got tag"},
    ]);
    assert_eq!(*failures, expected);
}
