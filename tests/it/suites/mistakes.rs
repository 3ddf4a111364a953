//! What is said of mistakes in suites, and of runs that would run nothing.

use rstest::rstest;

use super::{Suites, TASK};

/// Both the key at fault and the line it stands on are told, with the nearest right name.
#[rstest]
#[case("case: []\n", &["8: case: unknown key; did you mean `cases`?"])]
#[case("", &["cases: required, but missing"])]
#[case("cases: []\n", &["8: cases: must not be empty"])]
#[case("configuration: a.yaml\ncases:\n- {name: a, spec: {}, kind: run, expect: {decision: denied}}\n", &["3: plugins: give only one of `configuration` and `plugins`"])]
#[case("cases:\n- name: a\n  spec: {}\n  kind: run\n  expect: {decison: denied}\n", &["12: cases[0].expect.decison: unknown key; did you mean `decision`?"])]
#[case("cases:\n- name: a\n  spec: {}\n  kind: run\n  denied_by: [x]\n  expect: {decision: denied}\n", &["12: cases[0].denied_by: unknown key; did you mean `deniedBy`, which belongs under `cases[].expect`?"])]
#[case("cases:\n- {name: a, spec: {}, kind: run, expect: {decision: denid}}\n", &["9: cases[0].expect.decision: unknown value `denid`; did you mean `denied`?"])]
#[case("cases:\n- {name: a, spec: {}, kind: runs, expect: {decision: denied}}\n", &["9: cases[0].kind: unknown value `runs`; did you mean `run`?"])]
#[case("cases:\n- {name: a, spec: {}, expect: {decision: denied}}\n", &["9: cases[0]: the spec's `configuration.type` does not tell what it is: say it with `kind`"])]
#[case("cases:\n- {name: a, kind: run, expect: {decision: denied}}\n", &["9: cases[0]: give one of `spec`, `file` and `from`"])]
#[case("cases:\n- {name: a, kind: run, spec: {}, file: b, expect: {decision: denied}}\n", &["9: cases[0]: give one of `spec`, `file` and `from`"])]
#[case("cases:\n- {name: a, kind: run, spec: {}, at: tomorrow, expect: {decision: denied}}\n", &["9: cases[0].at: not a time; one is written like `2026-12-31T18:00:00Z` or `2026-12-31`"])]
#[case("cases:\n- {name: a, file: none.json, expect: {decision: denied}}\n", &["9: cases[0].file: not readable as a spec: ./none.json: No such file or directory (os error 2)"])]
#[case("cases:\n- {name: a, file: a.test.yaml, expect: {decision: denied}}\n", &["9: cases[0]: the spec's `configuration.type` does not tell what it is: say it with `kind`"])]
#[case("cases:\n- &a {name: a, kind: run, spec: {}, expect: {decision: denied}}\n- *a\n", &["10: cases[1].name: `a` is the name of another case already"])]
#[case("cases:\n- {name: big, kind: run, spec: {}, expect: {decision: denied}}\n- {name: b, from: bigg, expect: {decision: denied}}\n", &["10: cases[1].from: there is no case `bigg`; did you mean `big`?"])]
#[case("cases:\n- {name: a, from: b, expect: {decision: denied}}\n- {name: b, from: c, expect: {decision: denied}}\n- {name: c, from: a, expect: {decision: denied}}\n", &["11: cases[2].from: goes round in a circle: `a` comes from this case"])]
#[case("cases:\n- {name: a, from: a, expect: {decision: denied}}\n", &["9: cases[0].from: goes round in a circle: `a` comes from this case"])]
#[case("cases:\n- name: a\n  kind: run\n  spec: {a: [1]}\n  edit:\n    set:\n      b: 1\n      /a/5: 1\n    remove:\n    - /c\n  expect: {decision: denied}\n", &["14: cases[0].edit.set.b: not a JSON Pointer: it must start with `/`", "15: cases[0].edit.set[\"/a/5\"]: /a is a list of 1, which has no item `5`; `-` appends", "17: cases[0].edit.remove[0]: there is nothing at /c"])]
#[case("cases:\n- {name: a, kind: run, spec: {}, edit: {sett: {}}, expect: {decision: denied}}\n", &["9: cases[0].edit.sett: unknown key; did you mean `set`?"])]
#[case("cases:\n- {name: a, kind: run, spec: {}, expect: {decision: allowed, messages: [x]}}\n", &["9: cases[0].expect.messages: cannot hold: it goes with `decision: denied`"])]
#[case("cases:\n- {name: a, kind: run, spec: {}, expect: {decision: denied, spec: {a: 1}}}\n", &["9: cases[0].expect.spec: cannot hold: it goes with what is admitted, not with `denied`"])]
#[case("cases:\n- {name: a, kind: run, spec: {}, expect: {decision: patched, spec: {}}}\n", &["9: cases[0].expect.spec: cannot fail: any spec holds nothing"])]
#[case("cases:\n- {name: a, kind: run, spec: {}, expect: {decision: denied, messages: [.*, '(']}}\n", &["9: cases[0].expect.messages[0]: cannot fail: it matches any text", "9: cases[0].expect.messages[1]: no regular expression: unclosed group"])]
#[case("cases:\n- {name: a, kind: run, spec: {}, expect: {decision: denied, messages: []}}\n", &["9: cases[0].expect.messages: must not be empty"])]
#[case("cases:\n- {name: a, kind: run, spec: {}, expect: {decision: denied, deniedBy: [gpu-limt]}}\n", &["9: cases[0].expect.deniedBy[0]: there is no plugin `gpu-limt`; did you mean `gpu-limit`?"])]
#[case("cases:\n- {name: a, kind: run, spec: {}, expect: {decision: patched, patch: [{op: ad, path: /a}]}}\n", &["9: cases[0].expect.patch[0]: no operation of a JSON Patch: unknown variant `ad`, expected one of `add`, `remove`, `replace`, `move`, `copy`, `test`"])]
#[case("cases:\n- {name: a, kind: run, spec: {}, expect: {decision: allowed, monitored: {}}}\n", &["9: cases[0].expect.monitored: nothing is expected: give `deny` or `patch`"])]
#[case("cases:\n- {name: a, kind: run, spec: {}, plugins: [], expect: {decision: allowed}}\n", &["9: cases[0].plugins: nothing is tested: the chain has no plugins"])]
#[case("cases:\n- name: a\n  kind: run\n  spec: {}\n  plugins:\n  - {name: x, cel: {validations: [{expression: efective.gpus.max < 1}]}}\n  expect: {decision: allowed}\n", &["13: cases[0].plugins[0].cel.validations[0].expression: "])]
fn a_mistake_is_told_with_its_line(#[case] cases: &str, #[case] expected: &[&str]) {
    let ran = Suites::of(cases).test(&["."]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{}", ran.err);
    let told: Vec<&str> = ran
        .err
        .lines()
        .filter(|line| line.starts_with("./a.test.yaml"))
        .collect();
    assert_eq!(told.len(), expected.len(), "{}", ran.err);
    for (told, expected) in told.iter().zip(expected) {
        let told = told.trim_start_matches("./a.test.yaml:").trim_start();
        match expected.strip_suffix(": ") {
            Some(beginning) => assert!(told.starts_with(beginning), "{told}"),
            None => assert_eq!(told, *expected),
        }
    }
}

#[test]
fn the_problems_of_all_suites_are_told_at_once_and_those_of_a_configuration_once() {
    let suites = Suites::new();
    suites.write("admission.yaml", "apiVersion: dstack-admission/v1\nkind: AdmissionConfiguration\nplugins:\n- {name: a, cell: {}}\n");
    let suite = "apiVersion: dstack-admission/v1\nkind: PolicyTests\nconfiguration: ../admission.yaml\ncases:\n- {name: a, kind: run, spec: {}, expect: {decision: no}}\n";
    suites.write("x/a.test.yaml", suite);
    suites.write("x/b.test.yml", suite.replace("../admission", "admission"));
    suites.write(
        "x/c.test.yaml",
        suite
            .replace("spec: {}", "spec: 5")
            .replace("decision: no", "decision: denied"),
    );
    let ran = suites.test(&["x"]);
    assert_eq!(ran.code, Some(2));
    insta::assert_snapshot!(ran.err, @r#"
    x/../admission.yaml:4: plugins[0].cell: unknown key; did you mean `cel`?
    x/a.test.yaml:5: cases[0].expect.decision: unknown value `no`; it can be `allowed`, `patched` or `denied`
    x/b.test.yml:3: configuration: there is no file x/admission.yaml
    x/b.test.yml:5: cases[0].expect.decision: unknown value `no`; it can be `allowed`, `patched` or `denied`
    x/c.test.yaml:5: cases[0].spec: expected a map, but this is a number
    dstack-admission: 5 problems in the suites, nothing was run
    "#);
}

#[rstest]
#[case::nothing_there(&["none"], 2, "none")]
#[case::a_directory_without_suites(&["empty"], 1, "empty has no suites: no file below it is named *.test.yaml or *.test.yml")]
#[case::one_of_two_without(&[".", "empty"], 1, "empty has no suites")]
#[case::only_hidden_suites(&["hidden"], 1, "hidden has no suites")]
#[case::nothing_selected(&["--run", "nothing like it", "a.test.yaml"], 1, "there is no case that matches `nothing like it`, nothing was run")]
#[case::no_regex(&["--run", "(", "."], 2, "unclosed group")]
#[case::no_percentage(&["--coverage", "101", "."], 2, "101 is not in 0..=100")]
#[case::no_path(&[], 2, "<PATH>...")]
fn a_run_of_nothing_is_no_success(
    #[case] arguments: &[&str],
    #[case] code: i32,
    #[case] why: &str,
) {
    let suites = Suites::of(&format!(
        "cases:\n- {{name: a, {TASK}, expect: {{decision: patched}}}}\n"
    ));
    suites.write("empty/admission.yaml", "");
    suites.write("empty/deeper/test.yaml", "");
    suites.write("hidden/.git/b.test.yaml", suites.read("a.test.yaml"));
    let ran = suites.test(arguments);
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (Some(code), ""),
        "{}",
        ran.err
    );
    assert!(ran.err.contains(why), "{}", ran.err);
}
