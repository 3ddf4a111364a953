//! The dstack server itself: its version, and whether its plugins are really loaded. It is asked for the plan of a run,
//! which starts nothing.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Request, StatusCode};
use http_body_util::Full;
use rustls_pki_types::CertificateDer;
use semver::Version;
use serde_json::{Value, json};

use super::address::Address;
use super::connect::{self, Answer, exchange, within};
use super::report::Report;
use super::review::{Asking, CANARY_WORDS, Canary, DENIED_BY_OTHERS, beginning};
use crate::admission::schema;
use crate::certs::trust;

const VERSION: &str = "version";
const PLUGINS: &str = "plugins";
/// The first version with the builtin `rest_plugin`.
const FIRST: Version = Version::new(0, 19, 11);
/// What a server says before a denial's own words.
const REJECTED: &str = "Apply request rejected: ";

/// A dstack server and who asks it.
pub struct Server<'a> {
    pub address: Address,
    pub token: &'a str,
    /// Trusted besides the public CAs.
    pub trusted: &'a [CertificateDer<'static>],
    pub timeout: Duration,
}

/// Looks at the server's version and asks it for the canary's plan. `canary` is what became of the one that was sent
/// past the server.
pub async fn check(server: &Server<'_>, asking: Asking<'_>, canary: Canary, report: &mut Report) {
    let info = match server.call("/api/server/get_info", &json!({})).await {
        Ok(answer) => answer,
        Err(error) => {
            let message = format!("{} does not answer: {error:#}", server.address.shown());
            report.fail(
                "server",
                message,
                "is --server the address of the dstack server's API?",
            );
            return;
        }
    };
    version(&info, report);
    let name = asking.name;
    let mut spec = super::review::canary(name);
    // What a server of an older version would not know is left to its own defaults.
    spec["configuration"] = json!({"type": "task", "name": name, "commands": ["true"]});
    spec["profile"] = json!({"name": "default"});
    let known = [
        "run_name",
        "configuration_path",
        "configuration",
        "profile",
        "ssh_key_pub",
    ];
    let spec: serde_json::Map<String, Value> = known
        .into_iter()
        .map(|key| (key.to_owned(), spec[key].take()))
        .collect();
    let path = format!("/api/project/{}/runs/get_plan", asking.project);
    match server.call(&path, &json!({"run_spec": spec})).await {
        Ok(answer) => plan(&answer, asking, canary, report),
        Err(error) => {
            let message = format!("no plan from {}: {error:#}", server.address.shown());
            report.fail(PLUGINS, message, "look into the dstack server's log");
        }
    }
}

impl Server<'_> {
    async fn call(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        let base = self.address.path.trim_end_matches('/');
        let request = Request::post(format!("{base}{path}"))
            .header(HOST, self.address.authority())
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Full::<Bytes>::new(body.to_string().into()))?;
        let tcp = within(self.timeout, "connecting", connect::tcp(&self.address)).await?;
        // The server itself waits 8 s for its plugin service before it answers.
        let patience = self.timeout * 2;
        if !self.address.tls {
            return within(patience, "the answer", exchange(tcp, request)).await;
        }
        let roots = trust::public_roots().chain(self.trusted.iter().cloned());
        let roots: Vec<_> = roots.collect();
        let handshake = connect::secure(tcp, &self.address, &roots);
        let secured = within(self.timeout, "the handshake", handshake).await?;
        secured.verdict?;
        within(patience, "the answer", exchange(secured.stream, request)).await
    }
}

/// Compares the server's version with those whose models are bundled.
fn version(info: &Answer, report: &mut Report) {
    let body: Value = serde_json::from_slice(&info.body).unwrap_or_default();
    let Some(text) = body["server_version"].as_str() else {
        let message = format!(
            "the server does not tell its version (HTTP {})",
            info.status
        );
        report.warn(
            VERSION,
            message,
            "see docs/upgrading.md for the versions that were tried",
        );
        return;
    };
    let newest = schema::versions()
        .filter_map(|version| Version::parse(version).ok())
        .max();
    match (Version::parse(text), newest) {
        (Ok(version), _) if version < FIRST => {
            let message = format!("dstack {version} has no rest_plugin");
            report.fail(
                VERSION,
                message,
                format!("upgrade dstack to {FIRST} or later"),
            );
        }
        (Ok(version), Some(newest)) if version > newest => {
            let message = format!(
                "dstack {version} is newer than {newest}, the newest whose models are bundled"
            );
            let mend =
                "patched specs are checked as far as their form is known; see docs/upgrading.md";
            report.warn(VERSION, message, mend);
        }
        (Ok(version), _) => report.ok(
            VERSION,
            format!(
                "dstack {version}, dstack-admission {}",
                env!("CARGO_PKG_VERSION")
            ),
        ),
        (Err(_), _) => {
            let message = format!("dstack {text} is no released version");
            report.warn(
                VERSION,
                message,
                "see docs/upgrading.md for the versions that were tried",
            );
        }
    }
}

/// What the answer to the canary's plan proves.
fn plan(answer: &Answer, asking: Asking<'_>, canary: Canary, report: &mut Report) {
    let message = message(answer);
    let not_loaded = "write `plugins: [rest_plugin]`, with an underscore, into the server's config.yml and restart it: of \
                      a plugin that it does not find it only logs `Enabled plugins not found`; it logs `Loaded plugin \
                      rest_plugin` when all is well";
    let project = asking.project;
    if let Some(denial) = message.strip_prefix(REJECTED) {
        if denial.contains(CANARY_WORDS) {
            report.ok(
                PLUGINS,
                "rest_plugin is loaded: the canary was denied through the dstack server",
            );
        } else {
            let why = beginning(denial);
            let message = format!("rest_plugin is loaded, but another policy denied: {why}");
            asking.undenied(report, PLUGINS, message, DENIED_BY_OTHERS);
        }
        return;
    }
    let lines_above = "rest_plugin is loaded; mend what failed above, in the environment of the server's own process \
                       (--env-of reads it)";
    let (said, mend) = match (answer.status, message.as_str()) {
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => (
            format!(
                "the token may not plan runs in project {project} (HTTP {})",
                answer.status.as_u16()
            ),
            "give the token of a member of that project with --token-file, and the project with --project",
        ),
        (StatusCode::NOT_FOUND, _) => (
            format!("no project {project}, or no dstack server (HTTP 404)"),
            "name a project with --project",
        ),
        (_, text) if text.starts_with("Could not connect to plugin service") => (
            "the server could not connect to its plugin service".to_owned(),
            lines_above,
        ),
        (_, text) if text.starts_with("Request to the plugin service failed") => (
            "the server's review failed: wrong credentials, a proxy's answer, or too late"
                .to_owned(),
            lines_above,
        ),
        (_, text) if text.contains("DSTACK_PLUGIN_SERVICE_URI is not set") => (
            text.to_owned(),
            "set it in the environment of the server's process",
        ),
        (_, text) if text.starts_with("Plugin service returned an invalid response") => (
            text.to_owned(),
            "something else than dstack-admission answers there, or a patch broke the spec: see its log",
        ),
        (status, _) if status.is_server_error() => (
            format!("the server answers HTTP {}", status.as_u16()),
            "look into the dstack server's log",
        ),
        _ if canary == Canary::Denied => (
            "the server does not ask its plugins: the canary's plan was not denied".to_owned(),
            not_loaded,
        ),
        _ => {
            let message = "the canary's plan was not denied: the server does not ask its plugins, or there is no policy \
                           `canary`";
            let mend = format!(
                "put `{{name: canary, use: canary}}` into the chain; if it is, {not_loaded}"
            );
            asking.undenied(report, PLUGINS, message.to_owned(), mend);
            return;
        }
    };
    report.fail(PLUGINS, said, mend);
}

/// The sentence that a user of the server reads.
fn message(answer: &Answer) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match &body["detail"] {
        Value::Array(parts) => {
            let parts: Vec<_> = parts
                .iter()
                .filter_map(|part| part["msg"].as_str())
                .collect();
            parts.join("\n")
        }
        Value::String(text) => text.clone(),
        _ => String::new(),
    }
}
