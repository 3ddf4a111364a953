//! Coverage, and the reports for CI systems.

use std::fs;

use serde_json::{Value, json};

use super::{HEAD, Suites, TASK};

#[test]
fn rules_that_never_fire_are_named_and_a_threshold_fails() {
    let suites = Suites::of(&format!(
        "cases:\n- {{name: a, {TASK}, expect: {{decision: patched}}}}\n"
    ));
    let ran = suites.test(&["."]);
    assert_eq!(ran.code, Some(0), "no threshold, no failure");
    let coverage = ran.out.split_once("fail\n").unwrap().1;
    insta::assert_snapshot!(coverage, @r#"
    coverage 1 of 2 rules (50 %)
      never fired: gpu-limit validations[0] (./a.test.yaml): effective.gpus.max <= 8
    "#);

    assert_eq!(suites.test(&["--coverage", "50", "."]).code, Some(0));
    let ran = suites.test(&["--coverage", "51", "."]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.out
            .ends_with("50 % of the rules fire, less than 51 %\n"),
        "{}",
        ran.out
    );

    // The other rule fires in a suite with a chain of its own, which is another policy.
    let denied = "expect: {decision: denied}, edit: {set: {/configuration/nodes: 4}}";
    suites.write(
        "b.test.yaml",
        format!("{HEAD}cases:\n- {{name: b, {TASK}, {denied}}}\n"),
    );
    assert_eq!(suites.report(&[])["coverage"]["rules"], 4);
    // In a case of the same suite with the same plugins it is the same.
    let plugins = HEAD
        .split_once("plugins:\n")
        .unwrap()
        .1
        .replace('\n', "\n  ");
    let case = format!(
        "- name: b\n  {TASK}\n  edit: {{set: {{/configuration/nodes: 4}}}}\n  expect: {{decision: denied}}\n  plugins:\n  {plugins}\n"
    );
    suites.write("b.test.yaml", "");
    fs::remove_file(suites.path("b.test.yaml")).unwrap();
    suites.write("a.test.yaml", suites.read("a.test.yaml") + &case);
    let coverage = &suites.report(&["--coverage", "100"])["coverage"];
    assert_eq!(
        *coverage,
        json!({"rules": 2, "fired": 2, "percent": 100, "threshold": 100, "neverFired": []})
    );
}

#[test]
fn a_configuration_that_two_suites_test_is_covered_by_both() {
    let suites = Suites::new();
    let chain = HEAD.replace("PolicyTests", "AdmissionConfiguration");
    suites.write("admission.yaml", chain);
    let suite = |configuration: &str, nodes: u32, decision: &str| {
        format!(
            "apiVersion: dstack-admission/v1\nkind: PolicyTests\nconfiguration: {configuration}\ncases:\n- {{name: a, {TASK}, edit: {{set: {{/configuration/nodes: {nodes}}}}}, expect: {{decision: {decision}}}}}\n"
        )
    };
    suites.write("a.test.yaml", suite("admission.yaml", 1, "patched"));
    suites.write("b/b.test.yaml", suite("../admission.yaml", 4, "denied"));
    let coverage = &suites.report(&[])["coverage"];
    assert_eq!(
        (&coverage["rules"], &coverage["fired"]),
        (&json!(2), &json!(2))
    );
}

#[test]
fn junit_xml_tells_each_case_to_a_ci_system() {
    let suites = Suites::of(&format!(
        "cases:\n- name: \"a <b> & 'c' \\\"d\\\" \\u0007 é\"\n  {TASK}\n  expect: {{decision: patched}}\n- name: it fails\n  {TASK}\n  expect: {{decision: denied, messages: [\"<]]>&\"]}}\n"
    ));
    let ran = suites.test(&[
        "-o",
        "junit",
        "--output-file",
        "reports/junit.xml",
        "--coverage",
        "100",
        ".",
    ]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(
        ran.out.contains("FAIL  ./a.test.yaml: 1 of 2 cases"),
        "people read theirs: {}",
        ran.out
    );

    let text = suites.read("reports/junit.xml");
    let xml = roxmltree::Document::parse(&text).unwrap();
    let root = xml.root_element();
    let counts = |node: roxmltree::Node| {
        ["tests", "failures", "errors"].map(|name| node.attribute(name).unwrap().to_owned())
    };
    assert_eq!(
        (root.tag_name().name(), counts(root)),
        ("testsuites", ["3", "2", "0"].map(str::to_owned))
    );
    let children = |node: roxmltree::Node<'_, '_>| {
        node.children()
            .filter(|child| child.is_element())
            .map(|child| child.id())
            .collect::<Vec<_>>()
    };
    let suites: Vec<_> = children(root)
        .into_iter()
        .filter_map(|id| xml.get_node(id))
        .collect();
    let [suite, coverage] = suites[..] else {
        panic!("{text}")
    };
    assert_eq!(
        (suite.attribute("name"), counts(suite)),
        (Some("./a.test.yaml"), ["2", "1", "0"].map(str::to_owned))
    );
    let cases: Vec<_> = suite
        .children()
        .filter(|child| child.has_tag_name("testcase"))
        .collect();
    let [passed, failed] = cases[..] else {
        panic!("{text}")
    };
    assert_eq!(
        passed.attribute("name"),
        Some("a <b> & 'c' \"d\" \u{fffd} é")
    );
    assert_eq!(
        (passed.attribute("classname"), passed.attribute("line")),
        (Some("./a.test.yaml"), Some("9"))
    );
    assert!(passed.attribute("time").unwrap().parse::<f64>().unwrap() >= 0.0);
    assert!(children(passed).is_empty());
    let failure = failed
        .children()
        .find(|child| child.has_tag_name("failure"))
        .unwrap();
    assert_eq!(
        failure.attribute("message"),
        Some("decision: expected denied, got patched")
    );
    assert!(
        failure
            .text()
            .unwrap()
            .contains("\"path\":\"/configuration/max_price\""),
        "{text}"
    );
    let uncovered = coverage
        .descendants()
        .find(|child| child.has_tag_name("failure"))
        .unwrap();
    assert!(
        uncovered.text().unwrap().contains(
            "never fired: gpu-limit validations[0] (./a.test.yaml): effective.gpus.max <= 8"
        ),
        "{text}"
    );
}

#[test]
fn the_json_report_holds_all_of_it() {
    let suites = Suites::of(&format!(
        "cases:\n- {{name: a, {TASK}, expect: {{decision: allowed}}}}\n"
    ));
    let ran = suites.test(&["-o", "json", "."]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(1), ""));
    let mut report: Value = serde_json::from_str(&ran.out).unwrap();
    let took = report["suites"][0]["cases"][0]["durationSeconds"].take();
    assert!(took.as_f64().is_some_and(|took| took > 0.0));
    let expected = json!({
        "result": "fail", "cases": 1, "passed": 0, "failed": 1,
        "suites": [{
            "file": "./a.test.yaml",
            "leftOut": [],
            "cases": [{
                "name": "a", "line": 9, "result": "fail", "decision": "patched", "durationSeconds": null,
                "failures": [{
                    "key": "decision",
                    "message": "expected allowed, got patched\n  {\"op\":\"add\",\"path\":\"/configuration/max_price\",\"value\":2.0}",
                }],
            }],
        }],
        "coverage": {
            "rules": 2, "fired": 1, "percent": 50, "threshold": null,
            "neverFired": [{
                "policy": "gpu-limit", "file": "./a.test.yaml", "rule": "validations[0]",
                "text": "effective.gpus.max <= 8",
            }],
        },
    });
    assert_eq!(report, expected);
}
