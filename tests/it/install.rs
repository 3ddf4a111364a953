//! Environments that are made for a Python plugin: from wheels, without the network, once.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::harness::environment::{real_python, wheels};
use crate::harness::sidecar::SPEC;
use crate::harness::{Home, Sidecar, eventually, with};

/// A directory with wheels, and the plugin that is in them.
fn home() -> (Home, Value) {
    let home = Home::new();
    let directory = home.path("wheels");
    std::fs::create_dir(&directory).unwrap();
    let [dstack, house] = wheels(&directory);
    let plugin = json!({
        "name": "legacy",
        "python": {
            "plugin": "house_rules",
            "interpreter": real_python(),
            "install": ["--no-index", dstack, house],
        },
    });
    (home, plugin)
}

fn keys(plugin: &Value) -> Value {
    json!({"tls": "off", "plugins": [plugin]})
}

fn check(home: &Home, plugin: &Value) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dstack-admission"))
        .env_clear()
        .env("PIP_RETRIES", "0")
        .arg("check")
        .arg("--config")
        .arg(home.configure(&keys(plugin)))
        .output()
        .unwrap()
}

#[tokio::test]
async fn an_environment_is_made_once_and_anew_when_it_is_not_whole() {
    let (home, plugin) = home();
    let checked = check(&home, &plugin);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success(), "{said}");
    assert!(
        said.contains("INFO the environment is made plugin=legacy"),
        "{said}"
    );
    let shown = String::from_utf8(checked.stdout).unwrap();
    assert!(
        shown.contains("legacy: house_rules 1.2, dstack 0.0.1"),
        "{shown}"
    );

    let sidecar = Sidecar::start_in(home, keys(&plugin)).await;
    sidecar.review(SPEC).await.assert_allowed();
    let there = sidecar.logged("the environment is there already").await;
    let environment = Path::new(there["environment"].as_str().unwrap());
    let made = std::fs::metadata(environment.join("pyvenv.cfg"))
        .unwrap()
        .modified()
        .unwrap();

    // As a crash in the middle would leave it.
    let home = sidecar.stop().await;
    std::fs::remove_file(environment.join("dstack-admission-complete")).unwrap();
    std::fs::write(environment.join("half-made"), "").unwrap();
    assert!(check(&home, &plugin).status.success());
    let anew = std::fs::metadata(environment.join("pyvenv.cfg"))
        .unwrap()
        .modified()
        .unwrap();
    assert!(anew > made && !environment.join("half-made").exists());
}

#[test]
fn a_state_directory_that_cannot_be_written_is_named_with_what_to_do() {
    let (home, plugin) = home();
    let state = home.write("no-directory", "").join("state");
    let config = home.configure(&with(keys(&plugin), json!({"stateDir": state})));
    let spec = home.write("spec.json", SPEC);
    for arguments in [vec!["check"], vec!["review", spec.to_str().unwrap()]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dstack-admission"));
        command
            .args(&arguments)
            .arg("--config")
            .arg(&config)
            .env_clear();
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        let why = format!("plugin `legacy` was not loaded: {}/python", state.display());
        assert!(said.contains(&why), "{said}");
        let what = "set `stateDir` to a directory that this user can write";
        assert!(said.contains(what), "{said}");
    }
}

#[test]
fn what_does_not_have_its_hash_is_not_installed() {
    let (home, plugin) = home();
    let wheel = plugin["python"]["install"][1].as_str().unwrap();
    let hashed = format!("{wheel} --hash=sha256:{}", "0".repeat(64));
    let plugin = with(
        plugin.clone(),
        json!({"python": {"install": ["--no-index", hashed]}}),
    );
    let checked = check(&home, &plugin);
    assert_eq!(checked.status.code(), Some(2));
    let said = String::from_utf8(checked.stderr).unwrap();
    assert!(
        said.contains("plugin `legacy` was not loaded: its environment cannot be made"),
        "{said}"
    );
    assert!(said.contains("DO NOT MATCH THE HASHES"), "{said}");
}

const COMPLETE: &str = "dstack-admission-complete";

/// Makes it look as if an environment was last used long ago.
fn unused_for_long(environment: &Path) {
    let complete = environment.join(COMPLETE);
    let file = File::options().append(true).open(complete).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(30 * 24 * 3600);
    file.set_modified(long_ago).unwrap();
}

#[tokio::test]
async fn what_no_configuration_uses_any_more_is_removed_and_what_is_in_use_stays() {
    let (home, plugin) = home();
    assert!(check(&home, &plugin).status.success());
    let root = home.path("state/python/environments");
    let made = std::fs::read_dir(&root).unwrap();
    let made: Vec<PathBuf> = made.map(|entry| entry.unwrap().path()).collect();
    let used = made.into_iter().find(|path| path.is_dir()).unwrap();
    // As one that was made for other requirements.
    let unused = root.join("0".repeat(40));
    let make_unused = || {
        std::fs::create_dir(&unused).unwrap();
        std::fs::write(unused.with_extension("lock"), "").unwrap();
        std::fs::write(unused.join(COMPLETE), "a==1").unwrap();
        unused_for_long(&unused);
    };
    make_unused();

    let sidecar = Sidecar::start_in(home, keys(&plugin)).await;
    eventually("it is removed", async || !unused.exists()).await;
    make_unused();
    unused_for_long(&used);
    let timeout = with(plugin, json!({"timeout": "1s"}));
    sidecar.home.configure(&keys(&timeout));
    eventually("it is removed", async || !unused.exists()).await;
    sidecar.review(SPEC).await.assert_allowed();
    assert!(used.join(COMPLETE).exists());
}
