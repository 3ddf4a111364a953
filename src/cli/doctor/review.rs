//! The canary: one review of a run that is never started, sent as the dstack server sends reviews.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HOST, LOCATION, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::Full;
use rustls::AlertDescription;
use serde::Deserialize;
use serde_json::{Value, json};

use super::address::{Address, basic};
use super::connect::{Answer, Stream, exchange, tls_error, within};
use super::report::Report;

const CHECK: &str = "review";
/// What the canary is called unless its policy says otherwise.
pub const NAME: &str = "dstack-admission-canary";
/// What the message of the built-in policy `canary` says.
pub const CANARY_WORDS: &str = "reviews arrive and are decided here";
/// What helps where the canary is denied before its policy is asked, or without it.
pub const DENIED_BY_OTHERS: &str = "mend that plugin, or let it pass the canary's run; `{name: canary, use: canary}` has \
                                    to be in the chain";
/// A clock that is further off than this is set wrong.
const SKEW: Duration = Duration::from_secs(60);

/// What became of the canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// By the canary policy.
    Denied,
    /// It was decided, but the canary policy did not show.
    Decided,
    /// No review was made.
    Lost,
}

#[derive(Deserialize)]
struct Decided {
    error: Option<String>,
    decision: Option<String>,
    #[serde(rename = "spec")]
    _spec: Value,
}

/// Which run is asked for, and where.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    pub name: &'a str,
    pub project: &'a str,
    /// Whether the canary policy is said to be in the chain, so that anything but its denial is a failure.
    pub is_expected: bool,
}

impl Asking<'_> {
    /// Reports that something else than the canary's denial came back.
    pub fn undenied(
        self,
        report: &mut Report,
        check: &'static str,
        message: String,
        mend: impl Into<String>,
    ) {
        match self.is_expected {
            true => report.fail(check, message, mend),
            false => report.warn(check, message, mend),
        }
    }
}

/// The canary's spec under this name, as a server of the newest bundled version sends it.
pub fn canary(name: &str) -> Value {
    let mut spec: Value = serde_json::from_str(include_str!("canary.json")).unwrap_or_default();
    for place in ["/run_name", "/configuration/name"] {
        if let Some(place) = spec.pointer_mut(place) {
            *place = name.into();
        }
    }
    spec
}

/// Sends the canary and looks at what comes back.
pub async fn check(
    stream: impl Stream + 'static,
    address: &Address,
    credentials: Option<&(String, String)>,
    asking: Asking<'_>,
    timeout: Duration,
    report: &mut Report,
) -> Canary {
    let asked = async {
        let request = request(address, credentials, asking)?;
        exchange(stream, request).await
    };
    let answer = match within(timeout, "the review", asked).await {
        Ok(answer) => answer,
        Err(error) => {
            report.fail(
                CHECK,
                format!("no answer: {error:#}"),
                broken_mend(&error, address),
            );
            return Canary::Lost;
        }
    };
    clock(&answer, report);
    judge(&answer, address, credentials.is_some(), asking, report)
}

fn request(
    address: &Address,
    credentials: Option<&(String, String)>,
    Asking { name, project, .. }: Asking<'_>,
) -> anyhow::Result<Request<Full<Bytes>>> {
    let body = json!({"user": "dstack-admission-doctor", "project": project, "spec": canary(name)});
    let mut request = Request::post(format!("{}/apply_policies/on_run_apply", address.path))
        .header(HOST, address.authority())
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/json")
        .header(
            USER_AGENT,
            concat!("dstack-admission-doctor/", env!("CARGO_PKG_VERSION")),
        );
    if let Some((user, password)) = credentials {
        request = request.header(AUTHORIZATION, basic(user, password));
    }
    Ok(request.body(Full::new(body.to_string().into()))?)
}

/// What may be behind a connection that ended without an answer.
fn broken_mend(error: &anyhow::Error, address: &Address) -> &'static str {
    match tls_error(error) {
        Some(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)) => {
            "it asks for a client certificate, which the dstack server cannot show: use `auth.basic` in place of \
             `tls.clientCAFile`"
        }
        _ if !address.tls => "does it speak TLS? Then write https://",
        _ => "look into the log of dstack-admission",
    }
}

/// Compares this machine's clock with the one that dated the answer.
fn clock(answer: &Answer, report: &mut Report) {
    let date = answer.headers.get(DATE).and_then(|date| date.to_str().ok());
    let Some(theirs) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else {
        return;
    };
    let ours = SystemTime::now();
    let ahead = ours.duration_since(theirs);
    let (way, skew) = match &ahead {
        Ok(skew) => ("behind", *skew),
        Err(error) => ("ahead of", error.duration()),
    };
    if skew > SKEW {
        let seconds = skew.as_secs();
        let message = format!("the sidecar's clock is {seconds} s {way} this machine's");
        report.warn(
            "clock",
            message,
            "set both by NTP: certificates and exemptions depend on it",
        );
    } else {
        report.ok("clock", "this machine's and the sidecar's agree");
    }
}

fn judge(
    answer: &Answer,
    address: &Address,
    with_credentials: bool,
    asking: Asking<'_>,
    report: &mut Report,
) -> Canary {
    let status = answer.status;
    if status != StatusCode::OK {
        let (message, mend) = refusal(answer, address, with_credentials);
        report.fail(CHECK, message, mend);
        return Canary::Lost;
    }
    let Ok(decided) = serde_json::from_slice::<Decided>(&answer.body) else {
        let message = "the answer is none to a review, although its status is 200";
        report.fail(
            CHECK,
            message,
            "something else than dstack-admission answers there",
        );
        return Canary::Lost;
    };
    let error = decided.error.unwrap_or_default();
    let Some(decision) = decided.decision else {
        let message = "the canary was reviewed by a plugin server that is not dstack-admission";
        let mend = "point DSTACK_PLUGIN_SERVICE_URI to the sidecar, and chain that server behind it as a `rest` plugin";
        asking.undenied(report, CHECK, message.to_owned(), mend);
        return Canary::Decided;
    };
    if error.contains(CANARY_WORDS) {
        report.ok(
            CHECK,
            format!("the canary was denied by its policy (decision {decision})"),
        );
        return Canary::Denied;
    }
    let (message, mend) = match error.as_str() {
        "" => (
            format!("the canary was reviewed (decision {decision}) and allowed"),
            "put `{name: canary, use: canary}` at the end of the chain, and let its `match` take every project",
        ),
        error => (
            format!(
                "the canary was denied, but not by its policy: {}",
                beginning(error)
            ),
            DENIED_BY_OTHERS,
        ),
    };
    asking.undenied(report, CHECK, message, mend);
    Canary::Decided
}

/// The headline of a denial and its first reason.
pub fn beginning(denial: &str) -> String {
    let lines: Vec<_> = denial.lines().take(2).collect();
    lines.join(" ")
}

fn refusal(answer: &Answer, address: &Address, with_credentials: bool) -> (String, String) {
    let status = answer.status;
    match status {
        StatusCode::UNAUTHORIZED if with_credentials => (
            "the credentials are refused".to_owned(),
            "write those of `auth.basic` into the server's netrc file".to_owned(),
        ),
        StatusCode::UNAUTHORIZED => (
            "it asks for credentials, and none are sent".to_owned(),
            format!(
                "write `machine {} login USER password PASSWORD` into the netrc file of the dstack server's user",
                address.host
            ),
        ),
        StatusCode::NOT_FOUND => (
            format!("there are no reviews at {}", address.shown()),
            "the path in DSTACK_PLUGIN_SERVICE_URI has to be the sidecar's `pathPrefix`".to_owned(),
        ),
        status if status.is_redirection() => {
            let to = answer.headers.get(LOCATION).and_then(|to| to.to_str().ok());
            let to = to.unwrap_or("nowhere");
            (
                format!("it redirects to {to} (HTTP {})", status.as_u16()),
                "point DSTACK_PLUGIN_SERVICE_URI there: most redirects turn the review into a GET"
                    .to_owned(),
            )
        }
        status if status.is_server_error() => (
            format!("HTTP {status}"),
            "something between here and the sidecar answers for it: look into its log".to_owned(),
        ),
        status => {
            let text = String::from_utf8_lossy(&answer.body);
            let text: String = text
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(200)
                .collect();
            (
                format!("HTTP {status}: {text}"),
                "look into the log of dstack-admission".to_owned(),
            )
        }
    }
}
