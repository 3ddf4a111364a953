//! From a remote plugin's settings as typed to what its client is made of.

use std::path::{Path, PathBuf};

use http::{HeaderName, Uri};

use super::chain::Build;
use super::notes::Notes;
use super::places::{item, member};
use super::plugin::{Basic, Remote};
use super::{defaults, env};
use crate::identity::outgoing::{ClientCert, Credentials};
use crate::plugins::breaker;
use crate::plugins::http::Settings;

/// Headers that belong to one connection or one caller and are never passed on.
const NEVER_FORWARDED: [&str; 8] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "proxy-authorization",
    "transfer-encoding",
];

impl Build<'_> {
    /// The settings of a plugin that is called over HTTP. Notes all that is wrong with them.
    pub(super) fn remote(&mut self, remote: &Remote, path: &str) -> Option<Settings> {
        let url = self.notes.outgoing_url(
            &remote.url,
            remote.allow_plain_http,
            "the specs and their secrets",
            &member(path, "url"),
        );
        let (cert, key) = (&remote.client_cert_file, &remote.client_key_file);
        let client_cert = self
            .notes
            .client_cert(cert.as_deref(), key.as_deref(), path);
        let credentials = self.notes.credentials(
            remote.bearer_token_file.as_deref(),
            remote.basic.as_ref(),
            path,
        );
        self.notes.outgoing_inputs(
            [&remote.ca_file, cert, key, &remote.bearer_token_file],
            remote.basic.as_ref(),
        );
        let max_response_bytes = remote
            .max_response_bytes
            .unwrap_or(defaults::MAX_RESPONSE_BYTES)
            .0;
        Some(Settings {
            url: url?,
            ca_file: remote.ca_file.clone(),
            client_cert,
            credentials,
            forward_headers: self.forward_headers(remote, path),
            max_response_bytes: usize::try_from(max_response_bytes).unwrap_or(usize::MAX),
            breaker: breaker::Settings {
                failures: remote
                    .breaker
                    .failures
                    .unwrap_or(defaults::BREAKER_FAILURES),
                open_for: remote
                    .breaker
                    .open_for
                    .unwrap_or(defaults::BREAKER_OPEN_FOR)
                    .0,
            },
        })
    }

    fn forward_headers(&mut self, remote: &Remote, path: &str) -> Vec<HeaderName> {
        let mut names = Vec::new();
        for (index, text) in remote.forward_headers.iter().enumerate() {
            let parsed = text
                .parse::<HeaderName>()
                .map_err(|_| format!("`{text}` is no header name"));
            let parsed = parsed.and_then(|name| match NEVER_FORWARDED.contains(&name.as_str()) {
                true => Err(format!("`{name}` is never passed on")),
                false => Ok(name),
            });
            let place = item(&member(path, "forwardHeaders"), index);
            if let Some(name) = self.notes.noted(&place, parsed) {
                if !self
                    .forward_headers
                    .iter()
                    .any(|known| known == name.as_str())
                {
                    self.forward_headers.push(name.as_str().to_owned());
                }
                names.push(name);
            }
        }
        names
    }
}

/// Reads a URL. What parses one takes any number for a port, and has none where it is too large.
///
/// # Errors
/// In words, when it is none.
pub fn parse_url(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|e| format!("no URL: {e}"))?;
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, it)| it);
    let port = url.host().and_then(|host| host_and_port.strip_prefix(host));
    match port.and_then(|port| port.strip_prefix(':')) {
        Some(port) if !port.is_empty() && port.parse::<u16>().is_err() => {
            Err(format!("no URL: port {port} is not among 0 to 65535"))
        }
        _ => Ok(url),
    }
}

impl Notes {
    /// The address of something that is called. `what` it is shown must not be read on the way.
    pub(super) fn outgoing_url(
        &mut self,
        text: &str,
        allow_plain_http: bool,
        what: &str,
        path: &str,
    ) -> Option<Uri> {
        let expanded =
            env::expand_env(text, |name| std::env::var(name).ok()).map_err(|e| e.to_string());
        let text = self.noted(path, expanded)?;
        let url = self.noted(path, parse_url(&text))?;
        let authority = url
            .authority()
            .map(|authority| authority.as_str())
            .unwrap_or_default();
        let why = match url.scheme_str() {
            _ if authority.contains('@') => {
                "credentials do not belong into a URL: use `basic` or `bearerTokenFile`".to_owned()
            }
            Some("https") => return Some(url),
            Some("http") if allow_plain_http || is_loopback(&url) => return Some(url),
            Some("http") => format!(
                "plain HTTP beyond loopback shows {what} to the network; \
                 use https, or set `allowPlainHttp: true`"
            ),
            _ => "write a whole URL, such as `https://policy.example.com/validate`".to_owned(),
        };
        self.problem(path, why);
        None
    }

    /// The certificate that is shown, of the map at `path`.
    pub(super) fn client_cert(
        &mut self,
        cert: Option<&Path>,
        key: Option<&Path>,
        path: &str,
    ) -> Option<ClientCert> {
        match (cert, key) {
            (Some(cert), Some(key)) => {
                return Some(ClientCert {
                    cert_file: cert.to_owned(),
                    key_file: key.to_owned(),
                });
            }
            (None, None) => {}
            (Some(_), None) => {
                let place = member(path, "clientCertFile");
                self.problem(place, "needs `clientKeyFile` beside it");
            }
            (None, Some(_)) => {
                let place = member(path, "clientKeyFile");
                self.problem(place, "needs `clientCertFile` beside it");
            }
        }
        None
    }

    /// The credentials that are shown, of the map at `path`.
    pub(super) fn credentials(
        &mut self,
        token_file: Option<&Path>,
        basic: Option<&Basic>,
        path: &str,
    ) -> Option<Credentials> {
        match (token_file, basic) {
            (None, None) => None,
            (Some(file), None) => Some(Credentials::Bearer {
                token_file: file.to_owned(),
            }),
            (None, Some(basic)) => Some(Credentials::Basic {
                username: basic.username.clone(),
                password_file: basic.password_file.clone(),
            }),
            (Some(_), Some(_)) => {
                let place = member(path, "basic");
                self.problem(place, "give only one of `basic` and `bearerTokenFile`");
                None
            }
        }
    }

    /// Remembers the files by which a connection is made.
    pub(super) fn outgoing_inputs(&mut self, files: [&Option<PathBuf>; 4], basic: Option<&Basic>) {
        let password = basic.map(|basic| &basic.password_file);
        for file in files.into_iter().flatten().chain(password) {
            self.input(file);
        }
    }
}

pub(super) fn is_loopback(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("https://h:65535/x", None)]
    #[case("https://h:/x", None)]
    #[case("https://u:70000@h/x", None)]
    #[case("http://[::1]:8080", None)]
    #[case(
        "http://127.0.0.1:80000/x",
        Some("no URL: port 80000 is not among 0 to 65535")
    )]
    #[case(
        "https://[::1]:65536",
        Some("no URL: port 65536 is not among 0 to 65535")
    )]
    #[case(
        "https://u:p@h:99999/",
        Some("no URL: port 99999 is not among 0 to 65535")
    )]
    fn a_port_has_sixteen_bits(#[case] text: &str, #[case] problem: Option<&str>) {
        assert_eq!(parse_url(text).err().as_deref(), problem);
    }
}
