//! `doctor`, run with the environment that a dstack server would have: in a good set-up, and in each bad one.

mod answers;
mod credentials;
mod dstack;
mod trust;

use std::path::Path;
use std::process::{Command, Stdio};

use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::{Home, Sidecar};

/// One run of the doctor: the environment of the dstack server, and the command line.
#[derive(Clone, Default)]
pub struct Doctor {
    variables: Vec<(String, String)>,
    arguments: Vec<String>,
}

/// What the doctor found.
pub struct Diagnosis {
    pub findings: Vec<Value>,
    /// All that it said.
    pub text: String,
}

impl Doctor {
    /// For a sidecar at this address.
    pub fn at(uri: impl Into<String>) -> Self {
        Self::default().with("DSTACK_PLUGIN_SERVICE_URI", uri)
    }

    /// With what a sidecar printed for the dstack server.
    pub fn of(sidecar: &Sidecar) -> Self {
        let mut doctor = Self::default().with("HOME", sidecar.home.path("").display().to_string());
        for line in sidecar.stdout() {
            let (name, value) = line.split_once('=').unwrap();
            doctor = doctor.with(name, value);
        }
        doctor
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self = self.without(name);
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    pub fn with_path(self, name: &str, path: impl AsRef<Path>) -> Self {
        self.with(name, path.as_ref().to_str().unwrap())
    }

    pub fn without(mut self, name: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self
    }

    pub fn variable(&self, name: &str) -> &str {
        let mut found = self.variables.iter().filter(|(known, _)| known == name);
        &found.next().unwrap().1
    }

    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dstack-admission"));
        command.arg("doctor").args(&self.arguments);
        command.env_clear().envs(self.variables.clone());
        command.stdin(Stdio::null());
        command
    }

    pub async fn run(&self) -> Diagnosis {
        let mut command = self.command();
        command.args(["-o", "json"]);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = output.await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let shown: Value = serde_json::from_str(&text)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        let findings = shown["findings"].as_array().unwrap().clone();
        let failed = findings.iter().any(|finding| finding["status"] == "fail");
        assert_eq!(shown["ok"], json!(!failed));
        assert_eq!(output.status.code(), Some(i32::from(failed)));
        Diagnosis { findings, text }
    }

    /// A command line that cannot be used.
    pub fn refused(&self) -> String {
        let output = self.command().output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

impl Diagnosis {
    /// The finding of a check, of which there must be one.
    #[track_caller]
    pub fn of(&self, check: &str) -> &Value {
        let mut of = self.findings.iter().filter(|found| found["check"] == check);
        let found = of
            .next()
            .unwrap_or_else(|| panic!("no {check}: {}", self.text));
        assert!(of.next().is_none(), "{}", self.text);
        found
    }

    /// A check must have come out like this, say this, and how to mend it unless all is well.
    #[track_caller]
    pub fn assert(&self, check: &str, status: &str, words: &str) -> &Self {
        let found = self.of(check);
        assert_eq!(found["status"], status, "{}", self.text);
        let message = found["message"].as_str().unwrap();
        let mend = found["mend"].as_str().unwrap_or_default();
        let said = format!("{message} -> {mend}");
        assert!(said.contains(words), "{said}");
        assert_eq!(mend.is_empty(), status == "ok", "{said}");
        self
    }

    #[track_caller]
    pub fn assert_well(&self) -> &Self {
        let bad = |found: &&Value| found["status"] != "ok";
        let bad: Vec<_> = self.findings.iter().filter(bad).collect();
        assert!(bad.is_empty(), "{bad:#?}");
        self
    }
}

/// A sidecar with a canary and made certificates.
pub async fn sidecar() -> Sidecar {
    Sidecar::start(json!({"plugins": [{"name": "canary", "use": "canary"}]})).await
}

#[tokio::test]
async fn a_good_set_up_is_well_throughout() {
    let sidecar = sidecar().await;
    let admin = format!("http://{}", sidecar.admin);
    let doctor = Doctor::of(&sidecar).arg("--admin").arg(admin);
    let diagnosis = doctor.run().await;
    diagnosis.assert_well();
    let checks: Vec<_> = diagnosis
        .findings
        .iter()
        .map(|found| &found["check"])
        .collect();
    assert_eq!(
        checks,
        [
            "uri",
            "proxy",
            "bundle",
            "aws-bundle",
            "netrc",
            "name",
            "tcp",
            "tls",
            "certificate",
            "clock",
            "review",
            "sidecar",
        ]
    );
    diagnosis
        .assert("bundle", "ok", "certificates")
        .assert("tls", "ok", "TLSv1_3")
        .assert("review", "ok", "the canary was denied by its policy");
    let records = sidecar.audit();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["decision"], "denied");
}

#[tokio::test]
async fn another_name_of_the_canary_is_asked_for() {
    let canary = json!({"name": "canary", "use": "canary", "with": {"name": "tweety"}});
    let sidecar = Sidecar::start(json!({"plugins": [canary]})).await;
    let doctor = Doctor::of(&sidecar);
    doctor.run().await.assert("review", "warn", "use: canary");
    let named = doctor.arg("--canary").arg("tweety");
    named.run().await.assert_well();
}

#[rstest]
#[case::missing(|doctor: Doctor| doctor.without("DSTACK_PLUGIN_SERVICE_URI"), "uri", "fail", "not set")]
#[case::no_scheme(|doctor: Doctor| port(doctor, "localhost:PORT"), "uri", "fail", "write DSTACK_")]
#[case::query(|doctor: Doctor| port(doctor, "https://localhost:PORT?a=b"), "uri", "fail", "a query")]
#[case::userinfo(|doctor: Doctor| port(doctor, "https://u:p4ss@localhost:PORT"), "uri", "fail", "netrc")]
#[case::slash(|doctor: Doctor| port(doctor, "https://localhost:PORT/"), "uri", "warn", "slash")]
#[case::prefix(|doctor: Doctor| port(doctor, "https://localhost:PORT/x"), "review", "fail", "pathPrefix")]
#[case::plain(|doctor: Doctor| port(doctor, "http://localhost:PORT"), "review", "fail", "use https://")]
#[case::no_host(|doctor: Doctor| port(doctor, "https://no-such-host.invalid:PORT").arg("--timeout").arg("2s"),
    "name", "fail", "does not resolve")]
#[case::flag(|doctor: Doctor| doctor.arg("--uri").arg("https://127.0.0.1:1"), "tcp", "fail", "refused")]
#[case::proxy(|doctor: Doctor| doctor.with("HTTPS_PROXY", "http://u:p4ss@proxy:1"), "proxy", "fail", "NO_PROXY")]
#[case::all_proxy(|doctor: Doctor| doctor.with("all_proxy", "socks5://proxy"), "proxy", "fail", "proxy")]
#[case::hidden(|doctor: Doctor| doctor.with("HTTPS_PROXY", "p").with("NO_PROXY", "localhost").with("no_proxy", "x"),
    "proxy", "fail", "add localhost to no_proxy, in small letters")]
#[case::no_proxy(|doctor: Doctor| doctor.with("HTTPS_PROXY", "p").with("NO_PROXY", "localhost"),
    "proxy", "ok", "NO_PROXY covers localhost")]
#[tokio::test]
async fn a_mistake_on_the_way_is_named_with_how_to_mend_it(
    #[case] change: fn(Doctor) -> Doctor,
    #[case] check: &str,
    #[case] status: &str,
    #[case] words: &str,
) {
    let sidecar = sidecar().await;
    let diagnosis = change(Doctor::of(&sidecar)).run().await;
    diagnosis.assert(check, status, words);
    assert!(!diagnosis.text.contains("p4ss"), "{}", diagnosis.text);
}

/// With another address, `PORT` in it being the sidecar's.
fn port(doctor: Doctor, uri: &str) -> Doctor {
    let good = doctor.variable("DSTACK_PLUGIN_SERVICE_URI").to_owned();
    let (_, port) = good.rsplit_once(':').unwrap();
    let uri = uri.replace("PORT", port);
    doctor.with("DSTACK_PLUGIN_SERVICE_URI", uri)
}

#[tokio::test]
async fn the_environment_of_another_process_is_read() {
    let sidecar = sidecar().await;
    let mut other = Command::new("sleep");
    other
        .arg("60")
        .env_clear()
        .envs(Doctor::of(&sidecar).variables);
    let mut other = other.spawn().unwrap();
    let process = other.id().to_string();
    let diagnosis = Doctor::default().arg("--env-of").arg(process).run().await;
    other.kill().unwrap();
    other.wait().unwrap();
    diagnosis
        .assert_well()
        .assert("tls", "ok", "verified by REQUESTS_CA_BUNDLE=");
}

#[rstest]
#[case::token(&["--server", "http://127.0.0.1:3000"], "--token-file")]
#[case::no_process(&["--env-of", "4294967295"], "/proc/4294967295/environ cannot be read")]
#[case::no_token(&["--server", "http://h", "--token-file", "/nowhere/token"], "/nowhere/token")]
#[case::empty_token(&["--server", "http://h", "--token-file", "/dev/null"], "it is empty")]
#[case::server(&["--server", "h:1", "--token-file", "/proc/self/comm"], "--server h:1: it has no scheme")]
#[case::admin(&["--admin", "https://127.0.0.1:9443"], "plain HTTP")]
#[case::project(&["--project", "a/b"], "a project's name")]
fn a_command_line_that_cannot_be_used_says_why(#[case] arguments: &[&str], #[case] why: &str) {
    let one_more = |doctor: Doctor, argument: &&str| doctor.arg(*argument);
    let doctor = arguments.iter().fold(Doctor::default(), one_more);
    let said = doctor.refused();
    assert!(said.contains(why), "{said}");
}

#[tokio::test]
async fn a_person_reads_a_line_for_each_finding_and_how_to_mend_it() {
    let home = Home::new();
    let config = home.write("config.yml", "plugins: [rest-plugin]\n");
    let doctor = Doctor::default().arg("--server-config").arg("config.yml");
    let mut command = doctor.command();
    command.current_dir(config.parent().unwrap());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap(), @r"
    FAIL  config       config.yml enables `rest-plugin`, which the server does not find: it is rest_plugin
                       -> write `plugins: [rest_plugin]` into config.yml, and restart the dstack server
    FAIL  uri          DSTACK_PLUGIN_SERVICE_URI is not set
                       -> set it to the address that `dstack-admission serve` prints, such as https://localhost:8443, in the environment of the dstack server, or name that process with --env-of

    2 failed, 0 to look at
    ");
}

#[tokio::test]
async fn a_sidecar_of_another_version_or_not_ready_shows_by_its_admin_address() {
    use crate::harness::{Fake, Reply};

    let answer = |path: &str| match path {
        "/readyz" => Reply::text(200, "text/plain", "ok\n"),
        _ => Reply::text(
            200,
            "text/plain",
            "dstack_admission_build_info{version=\"9.9.9\"} 1\n",
        ),
    };
    let other = Fake::start(move |seen| answer(&seen.target)).await;
    let draining = Fake::start(|_| Reply::text(503, "text/plain", "not ready: draining\n")).await;
    let run = async |admin: &str| Doctor::default().arg("--admin").arg(admin).run().await;
    run(&other.url())
        .await
        .assert("sidecar", "warn", "version 9.9.9");
    run(&draining.url())
        .await
        .assert("sidecar", "fail", "not ready: draining");
    run("http://127.0.0.1:1")
        .await
        .assert("sidecar", "fail", "does not answer");
}
