//! What the documentation shows works: every example configuration, the rules in the README, and
//! the chain of the demo load without a problem or a warning.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn check(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dstack-admission"));
    command
        .arg("check")
        .args(arguments)
        .current_dir(ROOT)
        .env_clear();
    command.output().expect("the binary runs")
}

fn is_clean(what: &str, output: &Output) {
    let shown = String::from_utf8_lossy(&output.stdout);
    let problems = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}:\n{problems}");
    assert!(!shown.contains("warnings:"), "{what}:\n{shown}");
}

fn configurations(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            configurations(&path, found);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
            && !path.to_string_lossy().ends_with(".test.yaml")
        {
            found.push(path);
        }
    }
}

#[test]
fn every_example_configuration_is_clean() {
    let mut found = Vec::new();
    configurations(&Path::new(ROOT).join("deploy"), &mut found);
    assert!(found.len() >= 2, "{found:?}");
    for path in found {
        let path = path.to_string_lossy();
        is_clean(&path, &check(&["--config", &path]));
    }
}

#[test]
fn the_rules_in_the_readme_load() {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).expect("the README");
    let blocks = readme
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    let chains: Vec<&str> = blocks
        .filter(|block| block.starts_with("plugins:\n  - name:"))
        .collect();
    assert!(!chains.is_empty());
    let directory = tempfile::tempdir().expect("a directory");
    for (index, chain) in chains.into_iter().enumerate() {
        let path = directory.path().join(format!("{index}.yaml"));
        let header = "apiVersion: dstack-admission/v1\nkind: AdmissionConfiguration\n";
        fs::write(&path, format!("{header}{chain}")).expect("written");
        is_clean(chain, &check(&["--config", &path.to_string_lossy()]));
    }
}

#[test]
fn the_embedded_default_only_watches() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = Command::new(env!("CARGO_BIN_EXE_dstack-admission"))
        .arg("check")
        .env_clear()
        .env("HOME", directory.path())
        .output()
        .expect("the binary runs");
    is_clean("the embedded default", &output);
    let shown = String::from_utf8_lossy(&output.stdout);
    let enforced = shown.split("monitored").next().expect("text");
    assert_eq!(enforced.matches("(none)").count(), 2, "{shown}");
    assert!(shown.contains("no-privileged"), "{shown}");
}
