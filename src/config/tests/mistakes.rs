//! What is said of each mistake that people make.

use rstest::rstest;

use super::*;

#[rstest]
// Unknown keys: near ones, ones that belong elsewhere, ones that are nowhere.
#[case("lisen: x\n", "3: lisen: unknown key; did you mean `listen`?")]
#[case(
    "state_dir: x\n",
    "3: state_dir: unknown key; did you mean `stateDir`?"
)]
#[case(
    "plugins:\n- name: a\n  tiemout: 1s\n",
    "5: plugins[0].tiemout: unknown key; did you mean `timeout`?"
)]
#[case(
    "timeout: 2s\n",
    "3: timeout: unknown key; it belongs under `plugins[]`"
)]
#[case(
    "plugins:\n- name: a\n  url: x\n",
    "5: plugins[0].url: unknown key; it belongs under `plugins[].webhook` or under `plugins[].rest`"
)]
#[case(
    "plugins:\n- fanOut:\n  - name: a\n    url: x\n",
    "6: plugins[0].fanOut[0].url: unknown key; it belongs under `plugins[].webhook` or under `plugins[].rest`"
)]
#[case(
    "limits:\n  deadline: 5s\n",
    "4: limits.deadline: unknown key; it belongs at the top level"
)]
#[case(
    "limits:\n  inflight: 5\n",
    "4: limits.inflight: unknown key; did you mean `inFlight`?"
)]
#[case(
    "auth: {password: hunter2}\n",
    "3: auth.password: unknown key; did you mean `passwordFile`, which belongs under `auth.basic`?"
)]
#[case(
    "auth: {colour: red}\n",
    "3: auth.colour: unknown key; known here: `basic`, `bearerTokenFile`"
)]
#[case(
    "audit:\n  sinks:\n  - stdout: {path: x}\n",
    "5: audit.sinks[0].stdout.path: unknown key; it belongs under `audit.sinks[].file`"
)]
#[case(
    "tls: {certfile: x}\n",
    "3: tls.certfile: unknown key; did you mean `certFile`?"
)]
// Values of another type or form.
#[case(
    "listen: 8443\n",
    "3: listen: expected a string such as `127.0.0.1:8443`, but this is a number"
)]
#[case(
    "deadline: 5\n",
    "3: deadline: expected a string such as `5s`, but this is a number"
)]
#[case(
    "deadline: 5 s\n",
    "3: deadline: a duration has no spaces; a duration is written like `5s`, `1m30s` or `500ms`"
)]
#[case(
    "limits: {bodyBytes: 8mb}\n",
    "3: limits.bodyBytes: `mb` is no unit of size, did you mean `MB`?; a size is written like `8MiB`, `8Mi`, `100MB` or `8388608`"
)]
#[case(
    "limits: {bodyBytes: true}\n",
    "3: limits.bodyBytes: expected a whole number or a string such as `8MiB`, but this is `true`"
)]
#[case("limits: {inFlight: 0}\n", "3: limits.inFlight: must be at least 1")]
#[case(
    "limits: {inFlight: many}\n",
    "3: limits.inFlight: expected a whole number, but this is a string"
)]
#[case("limits: 5\n", "3: limits: expected a map, but this is a number")]
#[case("plugins: {a: b}\n", "3: plugins: expected a list, but this is a map")]
#[case(
    "plugins:\n- a\n",
    "4: plugins[0]: expected a map, but this is a string"
)]
#[case("plugins:\n-\n", "4: plugins[0]: expected a map, but this is empty")]
#[case(
    "plugins:\n- match: {kinds: run}\n",
    "4: plugins[0].match.kinds: expected a list, but this is a string"
)]
#[case(
    "plugins:\n- mayPatch: x\n",
    "4: plugins[0].mayPatch: expected a list such as `[\"/configuration/name\"]`, but this is a string"
)]
#[case("tls: on\n", "3: tls: expected `off` or a map, but this is a string")]
#[case("tls: true\n", "3: tls: expected `off` or a map, but this is `true`")]
#[case(
    "tls: {certFile: 5}\n",
    "3: tls.certFile: expected a string, but this is a number"
)]
// Names out of a few.
#[case(
    "plugins:\n- mode: Enforce\n",
    "4: plugins[0].mode: unknown value `Enforce`; did you mean `enforce`?"
)]
#[case(
    "plugins:\n- mode: warn\n",
    "4: plugins[0].mode: unknown value `warn`; it can be `enforce` or `monitor`"
)]
#[case(
    "plugins:\n- match: {kinds: [run, runs]}\n",
    "4: plugins[0].match.kinds[1]: unknown value `runs`; did you mean `run`?"
)]
#[case(
    "plugins:\n- phase: 5\n",
    "4: plugins[0].phase: expected `mutating` or `validating`, but this is a number"
)]
#[case(
    "log: {level: verbose}\n",
    "3: log.level: unknown value `verbose`; it can be `error`, `warn`, `info`, `debug` or `trace`"
)]
// What is required.
#[case(
    "plugins:\n- name: a\n  webhook:\n    caFile: x\n",
    "5: plugins[0].webhook.url: required, but missing"
)]
#[case(
    "plugins:\n- name: a\n  webhook: {url: }\n",
    "5: plugins[0].webhook.url: required, but missing"
)]
#[case(
    "plugins:\n- name: a\n  webhook: {urll: x}\n",
    "5: plugins[0].webhook.urll: unknown key; did you mean `url`?"
)]
#[case(
    "exemptions:\n- {plugins: [], match: {}, reason: x, expires: 2026-12-31}\n",
    "4: exemptions[0].plugins: must not be empty"
)]
#[case(
    "limits:\n  inFlight: 4294967296\n",
    "4: limits.inFlight: must be at most 4294967295"
)]
#[case("stateDir: ''\n", "3: stateDir: must not be empty")]
#[case(
    "audit:\n  sinks:\n  - file: {path: ''}\n",
    "5: audit.sinks[0].file.path: must not be empty"
)]
#[case("plugins:\n- fanOut: []\n", "4: plugins[0].fanOut: must not be empty")]
#[case(
    "plugins:\n- match: {projects: []}\n",
    "4: plugins[0].match.projects: must not be empty"
)]
#[case(
    "exemptions:\n- {plugins: [a], match: {users: []}, reason: x, expires: 2026-12-31}\n",
    "4: exemptions[0].match.users: must not be empty"
)]
#[case(
    "exemptions:\n- {plugins: [a], match: {}, reason: x, expires: soon}\n",
    "4: exemptions[0].expires: not a date; a date is written like `2026-12-31` or `2026-12-31T18:00:00Z`"
)]
// What YAML allows and a configuration does not.
#[case(
    "admin: a\nlisten: b\nadmin: c\n",
    "5: admin: written twice, first on line 3"
)]
#[case(
    "listen: !secret b\n",
    "3: listen: the YAML tag `!secret` has no meaning here"
)]
#[case("---\nlisten: b\n", "3: a second YAML document; only one is read")]
#[case(
    "limits: &a {}\nlog:\n  <<: *a\n",
    "5: merge keys (`<<`) are not read; write the keys out"
)]
fn each_mistake_is_named_with_its_line(#[case] body: &str, #[case] expected: &str) {
    let found = problems(body);
    assert_eq!(found, [expected]);
}

#[test]
fn every_problem_is_listed_at_once_in_the_order_of_its_line() {
    let found = problems_of(
        "\
apiVersion: dstack-admission/v2
listen: 8443
deadline: 5
audit:
  level: patch
  sinks:
    - file: {mode: strict}
plugins:
  - name: one
    failurepolicy: Fail
    timeout: 2 minutes
  - fanOut:
      - name: two
        webhook:
          url: https://example.com
          breaker: {failures: 0}
      - name: three
        cel:
          validations:
            - expression: 'true'
            - expresion: 'true'
    onConflict: lastwins
exemptions:
  - plugins: [one]
    reason: because
colour: red
deadline: 6s
",
    );
    assert_eq!(
        found,
        [
            " kind: required, but missing",
            "1: apiVersion: unknown value `dstack-admission/v2`; did you mean `dstack-admission/v1`?",
            "2: listen: expected a string such as `127.0.0.1:8443`, but this is a number",
            "5: audit.level: unknown value `patch`; did you mean `Patch`?",
            "7: audit.sinks[0].file.mode: unknown value `strict`; it can be `batch`, `blocking` or `blocking-strict`",
            "7: audit.sinks[0].file.path: required, but missing",
            "10: plugins[0].failurepolicy: unknown key; did you mean `failurePolicy`?",
            "11: plugins[0].timeout: a duration has no spaces; a duration is written like `5s`, `1m30s` or `500ms`",
            "16: plugins[1].fanOut[0].webhook.breaker.failures: must be at least 1",
            "21: plugins[1].fanOut[1].cel.validations[1].expresion: unknown key; did you mean `expression`?",
            "22: plugins[1].onConflict: unknown value `lastwins`; did you mean `lastWins`?",
            "24: exemptions[0].match: required, but missing",
            "24: exemptions[0].expires: required, but missing",
            "26: colour: unknown key",
            "27: deadline: written twice, first on line 3",
        ]
    );
}
