//! `review`: how it ends.

use std::process::Command;

use rstest::rstest;
use serde_json::json;

use crate::harness::Home;
use crate::harness::sidecar::SPEC;

#[rstest]
#[case::allowed(&["good.json"], 0, "")]
#[case::denied(&["good.json", "bad.json"], 1, "")]
#[case::missing(&["good.json", "missing.json"], 2, "missing.json: No such file")]
#[case::not_json(&["broken.json"], 2, "broken.json: ")]
#[case::of_no_kind(&["other.json"], 2, "other.json")]
fn its_exit_code_tells_a_denial_from_what_cannot_be_read(
    #[case] files: &[&str],
    #[case] code: i32,
    #[case] words: &str,
) {
    let home = Home::new();
    let config = home.configure(&json!({"plugins": [{"name": "no", "use": "forbid-privileged"}]}));
    home.write("good.json", SPEC);
    home.write(
        "bad.json",
        SPEC.replace(r#""nodes": 2"#, r#""privileged": true"#),
    );
    home.write("broken.json", "{");
    home.write("other.json", "{}");
    let mut review = Command::new(env!("CARGO_BIN_EXE_dstack-admission"));
    review.arg("review").arg("--config").arg(config);
    let output = review
        .args(files.iter().map(|name| home.path(name)))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(words), "{said}");
}
