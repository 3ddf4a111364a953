//! What the documentation shows works: every example configuration, the rules in the README, and
//! the chain of the demo load without a problem or a warning.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::harness::environment::{real_python, wheels};

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
    configurations(&Path::new(ROOT).join("deploy/examples"), &mut found);
    found.push(Path::new(ROOT).join("deploy/quickstart.yaml"));
    assert!(found.len() >= 4, "{found:?}");
    for path in found {
        // Its packages are made by a test of its own.
        if path.ends_with("python-plugin.yaml") {
            continue;
        }
        let path = path.to_string_lossy();
        is_clean(&path, &check(&["--config", &path]));
    }
}

#[test]
fn a_misspelt_member_of_a_spec_is_warned_of_as_the_page_on_cel_shows() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = "apiVersion: dstack-admission/v1\nkind: AdmissionConfiguration\nplugins:\n- name: house-rules\n  cel:\n    validations:\n    - message: no\n      expression: '!has(spec.configuration.max_prise)'\n";
    fs::write(directory.path().join("admission.yaml"), text).expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_dstack-admission"))
        .args(["check", "--config", "admission.yaml"])
        .current_dir(directory.path())
        .output()
        .expect("the binary runs");
    assert!(output.status.success(), "{output:?}");
    let shown = String::from_utf8_lossy(&output.stdout);
    let (_, warnings) = shown.split_once("\nwarnings:\n").expect("warnings");
    let page = fs::read_to_string(Path::new(ROOT).join("docs/cel.md")).expect("the page");
    let indented = warnings.lines().map(|line| format!("    {line}\n"));
    let documented = format!("    warnings:\n{}", String::from_iter(indented));
    assert!(page.contains(&documented), "{documented}");
}

#[test]
fn the_example_with_a_python_plugin_is_clean_and_loads_it() {
    let path = Path::new(ROOT).join("deploy/examples/python-plugin.yaml");
    let text = fs::read_to_string(path).expect("the example");
    let mut example: Value = serde_yaml::from_str(&text).expect("YAML");
    let directory = tempfile::tempdir().expect("a directory");
    let [dstack, house] = wheels(directory.path());
    // From wheels here, instead of from an index.
    let python = &mut example["plugins"][0]["python"];
    python["install"] = json!(["--no-index", dstack, house]);
    python["interpreter"] = json!(real_python());
    example["stateDir"] = json!(directory.path().join("state"));
    let configuration = directory.path().join("admission.yaml");
    fs::write(&configuration, example.to_string()).expect("written");
    let output = check(&["--config", &configuration.to_string_lossy()]);
    is_clean("the example", &output);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("- house-rules: house_rules 1.2"), "{shown}");
}

#[test]
fn every_chain_in_the_documentation_loads() {
    let root = Path::new(ROOT);
    let mut pages = vec![root.join("README.md")];
    for entry in fs::read_dir(root.join("docs")).expect("the documentation") {
        let path = entry.expect("an entry").path();
        pages.extend(path.is_file().then_some(path));
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mut loaded = 0;
    for page in pages {
        let text = fs::read_to_string(&page).expect("a page");
        let blocks = text.split("```yaml\n").skip(1);
        for block in blocks.filter_map(|rest| rest.split("```").next()) {
            let header = "apiVersion: dstack-admission/v1\nkind: AdmissionConfiguration\n";
            let configuration = match block {
                chain if chain.starts_with("plugins:\n") => format!("{header}{chain}"),
                whole if whole.contains(header) => whole.to_owned(),
                _ => continue,
            };
            let path = directory.path().join(format!("{loaded}.yaml"));
            fs::write(&path, configuration).expect("written");
            let what = format!("{}:\n{block}", page.display());
            is_clean(&what, &check(&["--config", &path.to_string_lossy()]));
            loaded += 1;
        }
    }
    assert!(loaded > 30, "{loaded}");
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
