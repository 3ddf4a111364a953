//! `migrate`, with a real Python that has plugins: what it shows, what it writes, and that the sidecar
//! then loads it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::harness::environment::environment;

const SERVER: &str = "\
# The server of the team.
projects:
  - name: main
plugins: # reviewed by the platform team
  - house_other # first, or so we think
  - rest_plugin
  - gone
  - house_rules

encryption:
  keys: [{type: aes, secret: hidden}]
";
const MIGRATED: &str = "\
# The server of the team.
projects:
  - name: main
plugins: # reviewed by the platform team
  - rest_plugin

encryption:
  keys: [{type: aes, secret: hidden}]
";

struct Server {
    dir: TempDir,
}

impl Server {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.yml"), text).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn command(&self, command: &str) -> Command {
        let mut process = Command::new(env!("CARGO_BIN_EXE_dstack-admission"));
        process
            .arg(command)
            .current_dir(self.dir.path())
            .env_clear();
        process
    }

    fn migrate(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        said(
            self.command("migrate")
                .args(["config.yml"])
                .args(arguments)
                .output()
                .unwrap(),
        )
    }

    /// With the plugins `house_rules` and `house_other`, in this order.
    fn python(&self) -> String {
        let python = environment(&self.path("venv"));
        python.to_str().unwrap().to_owned()
    }
}

fn said(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn both_configurations_are_shown_and_nothing_is_written() {
    let server = Server::new(SERVER);
    let python = server.python();
    let mut command = server.command("migrate");
    command
        .args(["config.yml", "--interpreter", &python])
        .env("DSTACK_PLUGIN_SERVICE_URI", "http://127.0.0.1:8000");
    let (code, out, err) = said(command.output().unwrap());
    assert_eq!(code, Some(0), "{err}");

    let first = out.find("- name: house_rules").expect("a plugin");
    let second = out.find("- name: house_other").expect("a plugin");
    let last = out
        .find("url: \"http://127.0.0.1:8000\"")
        .expect("a plugin");
    assert!(first < second && second < last, "{out}");
    assert!(
        out.contains("# install: [house==1.2, dstack==0.0.1]"),
        "{out}"
    );
    for line in [
        "-  - house_rules",
        "   - rest_plugin",
        "enabled: house_other, rest_plugin, gone, house_rules",
    ] {
        assert!(out.contains(line), "{line}: {out}");
    }
    assert!(!out.contains("hidden"), "{out}");
    assert!(
        err.contains("warning: `gone` is enabled, but not found"),
        "{err}"
    );
    assert_eq!(server.text("config.yml"), SERVER);
    assert_eq!(fs::read_dir(server.dir.path()).unwrap().count(), 2);
}

#[test]
fn what_is_written_loads_and_the_old_file_stays_beside() {
    let server = Server::new(SERVER);
    let python = server.python();
    let path = server.path("config.yml");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    // As a container has it: a link to where the file is.
    fs::rename(&path, server.path("real.yml")).unwrap();
    symlink("real.yml", &path).unwrap();

    let (code, _, err) = server.migrate(&["--interpreter", &python, "--write"]);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(server.text("config.yml"), MIGRATED);
    assert_eq!(server.text("real.yml.bak"), SERVER);
    assert!(path.is_symlink());
    for name in ["real.yml", "real.yml.bak"] {
        let mode = server.path(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }

    let sidecar = server.text("admission.yaml");
    let state = server.path("state");
    let state = format!("stateDir: {}\ntls: off\nplugins:", state.display());
    fs::write(
        server.path("admission.yaml"),
        sidecar.replace("plugins:", &state),
    )
    .unwrap();
    let mut check = server.command("check");
    let (code, out, err) = said(check.args(["--config", "admission.yaml"]).output().unwrap());
    assert_eq!(code, Some(0), "{err}");
    let loaded = out.split("loaded:").nth(1).expect("loaded plugins");
    assert!(
        loaded.find("house_rules") < loaded.find("house_other"),
        "{out}"
    );

    let (code, _, err) = server.migrate(&["--interpreter", &python, "--write"]);
    assert_eq!(code, Some(2));
    assert!(
        err.contains("enables `rest_plugin` alone: there is nothing to migrate"),
        "{err}"
    );
}

#[test]
fn nothing_is_overwritten_unless_it_is_asked_for() {
    let server = Server::new(SERVER);
    let python = server.python();
    let write = ["--interpreter", python.as_str(), "--write"];
    for existing in ["admission.yaml", "config.yml.bak"] {
        fs::write(server.path(existing), "mine").unwrap();
        let (code, _, err) = server.migrate(&write);
        assert_eq!(code, Some(2));
        assert!(
            err.contains(&format!("{existing} is there already")),
            "{err}"
        );
        assert_eq!(server.text(existing), "mine");
        assert_eq!(server.text("config.yml"), SERVER);
        fs::remove_file(server.path(existing)).unwrap();
    }
    let (code, _, err) =
        server.migrate(&[&write[..], &["--output", "config.yml", "--force"]].concat());
    assert_eq!(code, Some(2));
    assert!(err.contains("is the server's own configuration"), "{err}");
    assert_eq!(server.text("config.yml"), SERVER);

    fs::write(server.path("admission.yaml"), "mine").unwrap();
    let (code, _, err) = server.migrate(&[&write[..], &["--force"]].concat());
    assert_eq!(code, Some(0), "{err}");
    assert!(server.text("admission.yaml").contains("house_rules"));
}

#[test]
fn a_server_whose_python_is_not_known_is_migrated_in_the_order_of_its_list() {
    let server = Server::new("plugins: [house_other, house_rules]\n");
    for (python, why) in [
        (
            "/nowhere/python",
            "/nowhere/python is no program that can be run",
        ),
        ("/bin/false", "/bin/false ended with"),
    ] {
        let (code, out, err) = server.migrate(&["--interpreter", python]);
        assert_eq!(code, Some(0), "{err}");
        assert!(
            err.contains("warning: the plugins stand in the order of the list"),
            "{err}"
        );
        assert!(err.contains(why), "{err}");
        assert!(
            out.find("- name: house_other") < out.find("- name: house_rules"),
            "{out}"
        );
    }
    let bare = server.path("bare");
    let made = Command::new("python3")
        .args(["-m", "venv", "--without-pip"])
        .arg(&bare)
        .status();
    assert!(made.expect("install python3").success());
    let (code, _, err) = server.migrate(&["--interpreter", "./bare/bin/python3"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("bin/python3 has no dstack"), "{err}");
}

#[test]
fn what_is_no_servers_configuration_is_refused() {
    for (text, why) in [
        ("plugins: [", "config.yml: no YAML: "),
        ("plugins: {}\n", "config.yml: `plugins` is no list"),
        ("projects: []\n", "config.yml: it enables no `plugins`"),
        (
            "plugins: [rest_plugin]\n",
            "config.yml: it enables `rest_plugin` alone",
        ),
    ] {
        let server = Server::new(text);
        let (code, _, err) = server.migrate(&["--write"]);
        assert_eq!(code, Some(2), "{text}");
        assert!(err.contains(why), "{err}");
        assert!(!Path::exists(&server.path("admission.yaml")));
    }
    let server = Server::new("");
    let output = server.command("migrate").arg("missing.yml").output();
    let (code, _, err) = said(output.unwrap());
    assert_eq!(code, Some(2));
    assert!(err.contains("missing.yml: No such file"), "{err}");
}
