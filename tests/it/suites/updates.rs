//! `--update`: expectations rewritten in place, and every other character as it was.

use rstest::rstest;
use serde_json::Value;

use super::{HEAD, Suites, TASK};

/// A suite with comments and formatting of its own, each expectation of which is wrong.
const WRONG: &str = "\
# Above all.
cases:
  # Above a case.
  - name: flow          # behind a name
    SPEC
    expect: {decision: denied, messages: [never]} # behind

  - name: block
    from: flow
    edit: {set: {/configuration/nodes: 3}}
    expect:
      # inside
      decision: patched   # was it?
      spec:
        configuration:
          max_price: 9
      warnings: []   # stays as it is

  - name: \"spec: ünï\"
    from: flow
    expect: {
      decision: patched,
      spec: {configuration: {max_price: 7, type: task, gone: {deep: 1}}}
    }

  - {name: all flow, from: block, expect: {decision: allowed}}

  - name: patch
    expect:
      decision: patched
      patch:
        - {op: add, path: /configuration/max_price, value: 3} # cheap
    # between
    from: flow
  - name: right
    from: flow
    expect: {decision:   patched}
# Below all.
";

#[rstest]
#[case::plain("", "\n")]
#[case::as_windows_has_it("\u{feff}", "\r\n")]
fn an_update_rewrites_what_fails_and_nothing_else(#[case] mark: &str, #[case] line_end: &str) {
    let text = |body: &str| format!("{mark}{}", format!("{HEAD}{body}").replace('\n', line_end));
    let suites = Suites::new();
    suites.write("a.test.yaml", text(&WRONG.replace("SPEC", TASK)));
    let before = suites.read("a.test.yaml");
    assert_eq!(suites.test(&["."]).code, Some(1));
    assert_eq!(
        suites.read("a.test.yaml"),
        before,
        "nothing is rewritten unless asked for"
    );

    let ran = suites.test(&["--update", "."]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert!(
        ran.out.ends_with("5 expectations rewritten\n"),
        "{}",
        ran.out
    );
    assert!(
        ran.out.contains("+++ ./a.test.yaml"),
        "the difference is shown: {}",
        ran.out
    );
    let after = suites.read("a.test.yaml");
    let body = after
        .strip_prefix(mark)
        .unwrap()
        .replace(line_end, "\n")
        .replace(TASK, "SPEC");
    insta::allow_duplicates! {
        insta::assert_snapshot!(body.strip_prefix(HEAD).unwrap(), @r#"
        # Above all.
        cases:
          # Above a case.
          - name: flow          # behind a name
            SPEC
            expect: {decision: patched} # behind

          - name: block
            from: flow
            edit: {set: {/configuration/nodes: 3}}
            expect:
              # inside
              decision: denied   # was it?
              messages:
                - "gpu-limit: at most 8 GPUs"
              warnings: []   # stays as it is

          - name: "spec: ünï"
            from: flow
            expect: {decision: patched, spec: {configuration: {max_price: 2.0, type: task}}}

          - {name: all flow, from: block, expect: {decision: denied, messages: ["gpu-limit: at most 8 GPUs"]}}

          - name: patch
            expect:
              decision: patched
              patch:
                - {op: add, path: /configuration/max_price, value: 2.0} # cheap
            # between
            from: flow
          - name: right
            from: flow
            expect: {decision:   patched}
        # Below all.
        "#);
    }
    assert_eq!(
        after,
        text(&body.strip_prefix(HEAD).unwrap().replace("SPEC", TASK)),
        "line ends as they were"
    );

    let again = suites.test(&["--update", "."]);
    assert_eq!(again.code, Some(0), "{}", again.out);
    assert!(
        again.out.ends_with("0 expectations rewritten\n"),
        "{}",
        again.out
    );
    assert_eq!(suites.read("a.test.yaml"), after);
}

#[test]
fn an_update_of_the_selected_cases_leaves_the_others() {
    let suites = Suites::of(&format!(
        "cases:\n- {{name: a, {TASK}, expect: {{decision: allowed}}}}\n- {{name: b, {TASK}, expect: {{decision: allowed}}}}\n"
    ));
    let ran = suites.test(&["--update", "--run", "/b$", "-o", "json", "."]);
    assert_eq!(ran.code, Some(0));
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["suites"][0]["cases"][0]["result"], "rewritten");
    assert!(
        ran.err.contains("+++ ./a.test.yaml"),
        "not in between the JSON: {}",
        ran.err
    );
    let text = suites.read("a.test.yaml");
    assert_eq!(
        (
            text.matches("decision: allowed").count(),
            text.matches("decision: patched").count()
        ),
        (1, 1)
    );
}

#[test]
fn an_expectation_that_is_shared_is_not_changed_for_one_case_alone() {
    let suites = Suites::of(&format!(
        "cases:\n- {{name: a, {TASK}, expect: &same {{decision: allowed}}}}\n- {{name: b, {TASK}, expect: *same}}\n"
    ));
    let before = suites.read("a.test.yaml");
    let ran = suites.test(&["--update", "--run", "/a$", "."]);
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    let said =
        "./a.test.yaml: the expectations cannot be rewritten here: more than they would change";
    assert!(ran.err.contains(said), "{}", ran.err);
    assert_eq!(suites.read("a.test.yaml"), before);

    let ran = suites.test(&["--update", "."]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert_eq!(suites.test(&["."]).code, Some(0));
}
