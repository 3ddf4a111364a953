//! From a remote plugin's settings as typed to what its client is made of.

use http::{HeaderName, Uri};

use super::chain::Build;
use super::places::{item, member};
use super::plugin::Remote;
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
        let url = self.url(remote, path);
        let client_cert = match (&remote.client_cert_file, &remote.client_key_file) {
            (Some(cert), Some(key)) => Some(ClientCert {
                cert_file: cert.clone(),
                key_file: key.clone(),
            }),
            (None, None) => None,
            (Some(_), None) => {
                self.notes.problem(
                    member(path, "clientCertFile"),
                    "needs `clientKeyFile` beside it",
                );
                None
            }
            (None, Some(_)) => {
                self.notes.problem(
                    member(path, "clientKeyFile"),
                    "needs `clientCertFile` beside it",
                );
                None
            }
        };
        let credentials = match (&remote.bearer_token_file, &remote.basic) {
            (None, None) => None,
            (Some(file), None) => Some(Credentials::Bearer {
                token_file: file.clone(),
            }),
            (None, Some(basic)) => Some(Credentials::Basic {
                username: basic.username.clone(),
                password_file: basic.password_file.clone(),
            }),
            (Some(_), Some(_)) => {
                self.notes.problem(
                    member(path, "basic"),
                    "give only one of `basic` and `bearerTokenFile`",
                );
                None
            }
        };
        let password = remote.basic.as_ref().map(|basic| &basic.password_file);
        let files = [
            &remote.ca_file,
            &remote.client_cert_file,
            &remote.client_key_file,
            &remote.bearer_token_file,
        ];
        for file in files.into_iter().flatten().chain(password) {
            self.notes.input(file);
        }
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

    fn url(&mut self, remote: &Remote, path: &str) -> Option<Uri> {
        let path = member(path, "url");
        let expanded = env::expand_env(&remote.url, |name| std::env::var(name).ok())
            .map_err(|e| e.to_string());
        let text = self.notes.noted(&path, expanded)?;
        let parsed = text.parse::<Uri>().map_err(|e| format!("no URL: {e}"));
        let url = self.notes.noted(&path, parsed)?;
        let authority = url
            .authority()
            .map(|authority| authority.as_str())
            .unwrap_or_default();
        let why = match url.scheme_str() {
            _ if authority.contains('@') => {
                "credentials do not belong into a URL: use `basic` or `bearerTokenFile`"
            }
            Some("https") => return Some(url),
            Some("http") if remote.allow_plain_http || is_loopback(&url) => return Some(url),
            Some("http") => {
                "plain HTTP beyond loopback shows the specs and their secrets to the network; \
                 use https, or set `allowPlainHttp: true`"
            }
            _ => "write a whole URL, such as `https://policy.example.com/validate`",
        };
        self.notes.problem(path, why);
        None
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

fn is_loopback(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}
