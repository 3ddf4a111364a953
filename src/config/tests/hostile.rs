//! Files that are wrong on purpose, at random or by the thousand.

use std::time::{Duration, Instant};

use rstest::rstest;

use super::*;

/// Each line holds the one before ten times.
fn laughs(leaf: &str) -> String {
    let line = |level: usize| {
        let aliases = format!("*a{},", level - 1).repeat(10);
        format!("a{level}: &a{level} [{aliases}]\n")
    };
    let lines: Vec<String> = (1..12).map(line).collect();
    format!("{HEAD}a0: &a0 {leaf}\n{}", lines.concat())
}

fn many_keys(count: usize) -> String {
    let lines: Vec<String> = (0..count).map(|n| format!("colour{n}: red\n")).collect();
    format!("{HEAD}{}", lines.concat())
}

#[rstest]
#[case(laughs("lol"))]
#[case(laughs("[]"))]
#[case(format!("{HEAD}a: &a {}\nb: [{}]\n", "x".repeat(500_000), "*a,".repeat(1000)))]
#[case(format!("{HEAD}a: {}", "[".repeat(200_000)))]
#[case(format!("{HEAD}a: {}", "{a: ".repeat(50_000)))]
#[case(format!("{HEAD}a:\n{}", "- ".repeat(200_000)))]
#[case(format!("{HEAD}a: [{}]", "1,".repeat(400_000)))]
#[case(format!("{HEAD}{}: {{a: 1}}", "k".repeat(500_000)))]
#[case("#".repeat(2 << 20))]
#[case(many_keys(2_000))]
fn a_hostile_file_is_refused_at_once(#[case] text: String) {
    let started = Instant::now();
    assert!(parse(&text, "a.yaml").into_result().is_err());
    // Seconds would do for a person; unfolding any of these takes hours or all memory.
    assert!(started.elapsed() < Duration::from_secs(120));
}

/// Every pointer into `value`, the root's first.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let key = key.replace('~', "~0").replace('/', "~1");
                pointers(value, &format!("{at}/{key}"), found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                pointers(value, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn whatever_stands_at_whatever_place_the_rest_can_still_be_looked_at() {
    let schema = schema::schema();
    let checker = Checker::new(&schema).unwrap();
    let places = load(EXAMPLE).places;
    let example: Value = serde_yaml::from_str(EXAMPLE).unwrap();
    let mut all = Vec::new();
    pointers(&example, "", &mut all);
    let junk =
        r#"[null, true, 5, -1, 0.5, "", "x", [], [null], ["x"], [{}], {}, {"x": 1}, {"x": null}]"#;
    let junk: Vec<Value> = serde_json::from_str(junk).unwrap();
    for pointer in all.iter().skip(1) {
        for value in &junk {
            let mut document = example.clone();
            *document.pointer_mut(pointer).unwrap() = value.clone();
            let result = checker.check(document, &places);
            let mended = result
                .mended
                .unwrap_or_else(|| panic!("{pointer} = {value}"));
            let typed = serde_json::from_value::<AdmissionConfiguration>(mended);
            assert!(typed.is_ok(), "{pointer} = {value}: {typed:?}");
            let lined = result.problems.iter().all(|p| p.place.line.is_some());
            assert!(lined, "{pointer} = {value}: {}", result.problems);
        }
    }
}
