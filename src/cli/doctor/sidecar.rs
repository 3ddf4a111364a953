//! The sidecar's own side, by its admin address: whether it is ready, and its version.

use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::Full;

use super::address::Address;
use super::connect::{self, Answer, exchange, within};
use super::report::Report;

const CHECK: &str = "sidecar";

/// Asks for readiness and version.
pub async fn check(admin: &Address, timeout: Duration, report: &mut Report) {
    let (ready, metrics) = (
        call(admin, "/readyz", timeout).await,
        call(admin, "/metrics", timeout).await,
    );
    let (ready, metrics) = match (ready, metrics) {
        (Ok(ready), Ok(metrics)) => (ready, metrics),
        (Err(error), _) | (_, Err(error)) => {
            let message = format!("{} does not answer: {error:#}", admin.shown());
            report.fail(
                CHECK,
                message,
                "is --admin the sidecar's `admin` address, and may this machine reach it?",
            );
            return;
        }
    };
    if ready.status != StatusCode::OK {
        let text = String::from_utf8_lossy(&ready.body);
        let message = format!("it is {}", text.trim());
        report.fail(CHECK, message, "wait, or look into its log");
        return;
    }
    let own = env!("CARGO_PKG_VERSION");
    match version(&metrics) {
        Some(version) if version == own => report.ok(CHECK, format!("ready, version {version}")),
        Some(version) => {
            let message = format!("ready, version {version}, and this doctor is of {own}");
            report.warn(
                CHECK,
                message,
                "use the doctor of the sidecar's own version",
            );
        }
        None => report.warn(
            CHECK,
            "ready, of unknown version",
            "is that dstack-admission?",
        ),
    }
}

async fn call(admin: &Address, path: &str, timeout: Duration) -> anyhow::Result<Answer> {
    let request = Request::get(path).header(HOST, admin.authority());
    let request = request.body(Full::<Bytes>::default())?;
    let tcp = within(timeout, "connecting", connect::tcp(admin)).await?;
    within(timeout, "the answer", exchange(tcp, request)).await
}

/// The label of `dstack_admission_build_info`.
fn version(metrics: &Answer) -> Option<String> {
    let text = str::from_utf8(&metrics.body).ok()?;
    let line = text
        .lines()
        .find(|line| line.starts_with("dstack_admission_build_info{"))?;
    let (_, rest) = line.split_once("version=\"")?;
    let (version, _) = rest.split_once('"')?;
    Some(version.to_owned())
}
