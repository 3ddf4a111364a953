//! `healthcheck`: asks a running sidecar's admin address whether it is ready, for Docker's HEALTHCHECK and for exec
//! probes of Kubernetes.
//!
//! It reads one key of the configuration and compiles no chain, so it starts in milliseconds. A configuration that
//! was broken since does not make a sidecar unhealthy that goes on with the last good one.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::{TcpStream, lookup_host};

use super::HealthcheckArguments;
use crate::config::defaults;

/// More of an answer than this is not read.
const ANSWER_BYTES: usize = 64 << 10;

/// Succeeds when the sidecar answers that it is ready, or live.
pub fn run(arguments: &HealthcheckArguments) -> anyhow::Result<ExitCode> {
    let address = match &arguments.admin {
        Some(admin) => given(admin)?,
        None => configured(arguments.configured.config.as_deref())?,
    };
    let path = if arguments.live { "/livez" } else { "/readyz" };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answered = runtime.block_on(async {
        let asked = tokio::time::timeout(arguments.timeout.into(), ask(&address.at, path));
        let late = || {
            let timeout = humantime::format_duration(arguments.timeout.into());
            anyhow!("no answer within {timeout}")
        };
        asked.await.map_err(|_| late())?
    });
    let doubt = |error: anyhow::Error| match &address.doubt {
        Some(doubt) => error.context(doubt.clone()),
        None => error,
    };
    answered
        .with_context(|| format!("http://{}{path}", address.at))
        .map_err(doubt)?;
    Ok(ExitCode::SUCCESS)
}

/// Where to ask.
struct Address {
    /// `HOST:PORT`.
    at: String,
    /// Why this may be the wrong one.
    doubt: Option<String>,
}

/// The only key that is read. What else is wrong with the file is `check`'s to say.
#[derive(Default, Deserialize)]
struct AdminKey {
    admin: Option<String>,
}

/// The address that a sidecar with this configuration answers on.
fn configured(config: Option<&Path>) -> anyhow::Result<Address> {
    let Some(path) = config else {
        return callable(defaults::ADMIN, None);
    };
    let name = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("{name} cannot be read"))?;
    // An empty file is null, which is no map.
    match serde_yaml::from_str::<Option<AdminKey>>(&text) {
        Ok(key) => {
            let admin = key.unwrap_or_default().admin;
            callable(admin.as_deref().unwrap_or(defaults::ADMIN), None)
                .with_context(|| format!("{name}: admin"))
        }
        Err(error) => {
            let why = error.to_string();
            let admin = bare_admin(&text).unwrap_or(defaults::ADMIN);
            let doubt = format!("{name} is not readable ({why}), so {admin} was asked");
            callable(admin, Some(doubt.replace('\n', " ")))
        }
    }
}

/// The address in a text that is no YAML any more, so that a slip elsewhere in the file does not restart a sidecar that
/// could not start again: of the last line that begins with the key, if its value is one.
fn bare_admin(text: &str) -> Option<&str> {
    let mut values = text.lines().filter_map(|line| line.strip_prefix("admin:"));
    let value = values.next_back()?.split(" #").next()?;
    let value = value.trim().trim_matches(['"', '\'']);
    callable(value, None).is_ok().then_some(value)
}

/// An address from the command line: `http://HOST:PORT` or `HOST:PORT`.
fn given(admin: &str) -> anyhow::Result<Address> {
    if admin.starts_with("https://") {
        bail!("--admin {admin}: the admin address speaks plain HTTP, write http://");
    }
    let at = admin.strip_prefix("http://").unwrap_or(admin);
    callable(at.strip_suffix('/').unwrap_or(at), None).context("--admin")
}

/// An address to listen on, as one to call: every interface is reached by loopback.
fn callable(listen: &str, doubt: Option<String>) -> anyhow::Result<Address> {
    let wrong = || {
        anyhow!(
            "`{listen}` is no address; write it like `{}`",
            defaults::ADMIN
        )
    };
    let (host, port) = listen.rsplit_once(':').ok_or_else(wrong)?;
    let named = !host.contains(['/', '@', '?', '#']);
    let port = port
        .parse::<u16>()
        .ok()
        .filter(|_| named)
        .ok_or_else(wrong)?;
    if port == 0 {
        bail!("port 0 is any free one, which only the sidecar's log tells; give it with --admin");
    }
    let ip = match host {
        "" => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        host => host.trim_matches(['[', ']']).parse::<IpAddr>().ok(),
    };
    let at = match ip {
        Some(IpAddr::V4(ip)) if ip.is_unspecified() => {
            SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string()
        }
        Some(IpAddr::V6(ip)) if ip.is_unspecified() => {
            SocketAddr::from((Ipv6Addr::LOCALHOST, port)).to_string()
        }
        Some(ip) => SocketAddr::from((ip, port)).to_string(),
        None => format!("{host}:{port}"),
    };
    Ok(Address { at, doubt })
}

/// Asks once.
///
/// # Errors
/// Anything but an answer of 200, with what was answered.
async fn ask(at: &str, path: &str) -> anyhow::Result<()> {
    let resolved = lookup_host(at).await.context("its name does not resolve")?;
    let mut connected = Err(anyhow!("its name has no address"));
    for address in resolved {
        connected = TcpStream::connect(address).await.map_err(Into::into);
        if connected.is_ok() {
            break;
        }
    }
    let (mut send, connection) = http1::handshake(TokioIo::new(connected?)).await?;
    let request = Request::get(path).header(HOST, at);
    let request = request.body(Empty::<Bytes>::new())?;
    // Ends with the runtime.
    tokio::spawn(connection);
    let response = send.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES);
    let body = body.collect().await.map_err(anyhow::Error::from_boxed)?;
    let body = body.to_bytes();
    if status == http::StatusCode::OK {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&body);
    let text = text.lines().next().unwrap_or_default();
    bail!("HTTP {}: {text}", status.as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("127.0.0.1:9443", "127.0.0.1:9443")]
    #[case("0.0.0.0:9443", "127.0.0.1:9443")]
    #[case(":9443", "127.0.0.1:9443")]
    #[case("[::]:9443", "[::1]:9443")]
    #[case("[fd00::1]:9443", "[fd00::1]:9443")]
    #[case("10.0.0.7:80", "10.0.0.7:80")]
    #[case("admission.svc:9443", "admission.svc:9443")]
    fn an_address_to_listen_on_is_called_where_it_can_be(
        #[case] listen: &str,
        #[case] called: &str,
    ) {
        assert_eq!(callable(listen, None).unwrap().at, called);
    }

    #[rstest]
    #[case("http://127.0.0.1:9443/", "127.0.0.1:9443")]
    #[case("http://[::]:1", "[::1]:1")]
    #[case("localhost:1", "localhost:1")]
    fn an_admin_address_is_given_with_its_scheme_or_without(
        #[case] admin: &str,
        #[case] called: &str,
    ) {
        assert_eq!(given(admin).unwrap().at, called);
    }

    #[test]
    fn a_broken_configuration_leaves_the_default_and_a_doubt() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        fs::write(&path, "admin: [").unwrap();
        let address = configured(Some(&path)).unwrap();
        assert_eq!(address.at, defaults::ADMIN);
        let doubt = address.doubt.unwrap();
        assert!(doubt.contains("so 127.0.0.1:9443 was asked"), "{doubt}");
        assert_eq!(doubt.lines().count(), 1);
    }

    #[rstest]
    #[case("admin: 127.0.0.9:80\nplugins: [", "127.0.0.9:80")]
    #[case("plugins: [\nadmin: \"[::1]:80\" # here", "[::1]:80")]
    #[case("admin: :80\nplugins: [\r\n", ":80")]
    #[case("admin: {\n", defaults::ADMIN)]
    #[case("nested:\n  admin: 127.0.0.9:80\nplugins: [", defaults::ADMIN)]
    fn the_address_outlives_a_slip_elsewhere(#[case] text: &str, #[case] asked: &str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        fs::write(&path, text).unwrap();
        let address = configured(Some(&path)).unwrap();
        assert_eq!(address.at, callable(asked, None).unwrap().at);
        assert!(address.doubt.is_some_and(|doubt| doubt.contains(asked)));
    }

    #[rstest]
    #[case("off", "is no address")]
    #[case("127.0.0.1", "is no address")]
    #[case("127.0.0.1:http", "is no address")]
    #[case("http://127.0.0.1:9443/readyz", "is no address")]
    #[case("127.0.0.1:0", "port 0")]
    #[case("https://127.0.0.1:9443", "plain HTTP")]
    fn what_cannot_be_called_is_refused(#[case] admin: &str, #[case] why: &str) {
        let error = given(admin).err().map(|error| format!("{error:#}"));
        assert!(error.as_ref().is_some_and(|e| e.contains(why)), "{error:?}");
    }
}
