//! `DSTACK_PLUGIN_SERVICE_URI`: what the dstack server makes of it, and what it gives away.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode_str;
use rustls_pki_types::ServerName;

use super::environment::Environment;
use super::report::Report;
use crate::config::parse_url;

/// What the dstack server reads its address from.
pub const URI: &str = "DSTACK_PLUGIN_SERVICE_URI";
const CHECK: &str = "uri";
const EXAMPLE: &str = "https://localhost:8443";

/// The address of a server, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub tls: bool,
    /// Without brackets.
    pub host: String,
    pub port: u16,
    /// What requests put before their own path, beginning with `/` unless it is empty.
    pub path: String,
    /// Username and password, decoded.
    pub userinfo: Option<(String, String)>,
}

impl Address {
    /// Takes an address apart.
    ///
    /// # Errors
    /// In words, without what could be a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let uri = parse_url(text)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(other) => return Err(format!("its scheme is {other}, not https")),
            None => return Err("it has no scheme".to_owned()),
        };
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or("it names no host")?;
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        if ServerName::try_from(host.as_str()).is_err() {
            return Err(format!(
                "{host} is neither a DNS name nor a whole IP address, so no certificate is for it"
            ));
        }
        let userinfo = uri.authority().and_then(|authority| {
            let (userinfo, _) = authority.as_str().rsplit_once('@')?;
            let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
            let decode = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
            Some((decode(user), decode(password)))
        });
        Ok(Self {
            tls,
            host,
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            path: match uri.path() {
                "/" if !text.ends_with('/') => String::new(),
                path => path.to_owned(),
            },
            userinfo,
        })
    }

    pub const fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// `HOST:PORT`, as a `host` header and a resolver take it.
    pub fn authority(&self) -> String {
        let (host, port) = (&self.host, self.port);
        match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        }
    }

    /// The address without its credentials.
    pub fn shown(&self) -> String {
        format!("{}://{}{}", self.scheme(), self.authority(), self.path)
    }

    /// Whether it names this very machine, as far as its spelling tells.
    pub fn is_loopback(&self) -> bool {
        let ip = self.host.parse::<std::net::IpAddr>();
        self.host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
    }
}

/// A username and password as the header `authorization` has them.
pub fn basic(user: &str, password: &str) -> String {
    let pair = format!("{user}:{password}");
    format!("Basic {}", BASE64_STANDARD.encode(pair))
}

/// Looks at the address. Without one that can be called, there is nothing more to look at.
pub fn check(environment: &Environment, report: &mut Report) -> Option<Address> {
    let Some(text) = environment.get(URI) else {
        let mend = format!(
            "set it to the address that `dstack-admission serve` prints, such as {EXAMPLE}, in the environment of the \
             dstack server, or name that process with --env-of"
        );
        report.fail(CHECK, format!("{URI} is not set"), mend);
        return None;
    };
    let address = match Address::parse(text.trim()) {
        Ok(address) => address,
        Err(why) => {
            let mend = format!("write {URI} like {EXAMPLE}");
            report.fail(CHECK, format!("{URI} cannot be called: {why}"), mend);
            return None;
        }
    };
    let shown = address.shown();
    let breaking = [
        (
            '?',
            "a query, and the path of every review is written behind it",
        ),
        ('#', "a fragment, which swallows the path of every review"),
    ];
    let broken = breaking.iter().find(|(sign, _)| text.contains(*sign));
    if let Some((sign, why)) = broken {
        let mend = format!("take everything from `{sign}` on out of {URI}");
        report.fail(CHECK, format!("{shown} has {why}"), mend);
        return None;
    }
    if text.trim() != text {
        let mend = format!("take the blanks at the ends of {URI} away");
        report.fail(CHECK, format!("{shown} has blanks around it"), mend);
        return None;
    }
    if address.userinfo.is_some() {
        report.fail(
            CHECK,
            format!("{URI} holds credentials: the dstack server logs them, and shows them to every user while it cannot \
                 connect"),
            format!("write {URI}={shown}, and the credentials into the server's netrc file (see docs/doctor.md)"),
        );
    } else if !address.tls && !address.is_loopback() {
        let message = format!("{shown} is plain HTTP: specs and their secrets travel in clear");
        report.warn(CHECK, message, "serve TLS, and write https://");
    } else if address.path.ends_with('/') {
        let message = format!("{shown} ends with a slash, so paths begin with two");
        report.warn(
            CHECK,
            message,
            "dstack-admission takes that; write it without",
        );
    } else {
        report.ok(CHECK, shown);
    }
    Some(address)
}

#[cfg(test)]
mod tests {
    use super::super::report::Status;
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("https://localhost:8443", true, "localhost", 8443, "")]
    #[case(
        "https://Admission.example.com",
        true,
        "admission.example.com",
        443,
        ""
    )]
    #[case("http://[::1]:80/a/b", false, "::1", 80, "/a/b")]
    #[case("http://h/", false, "h", 80, "/")]
    fn an_address_is_taken_apart(
        #[case] text: &str,
        #[case] tls: bool,
        #[case] host: &str,
        #[case] port: u16,
        #[case] path: &str,
    ) {
        let address = Address::parse(text).unwrap();
        assert_eq!((address.tls, address.port), (tls, port));
        assert_eq!((&*address.host, &*address.path), (host, path));
        assert_eq!(address.userinfo, None);
    }

    #[test]
    fn credentials_are_decoded_and_never_shown() {
        let address = Address::parse("https://d%40s:p%3aw%2F@h:1/x").unwrap();
        let expected = ("d@s".to_owned(), "p:w/".to_owned());
        assert_eq!(address.userinfo, Some(expected));
        assert_eq!(address.shown(), "https://h:1/x");
    }

    #[rstest]
    #[case(None, Status::Fail)]
    #[case(Some(""), Status::Fail)]
    #[case(Some("localhost:8443"), Status::Fail)]
    #[case(Some("ftp://localhost"), Status::Fail)]
    #[case(Some("https://"), Status::Fail)]
    #[case(Some("https://localhost:99999"), Status::Fail)]
    #[case(Some("https://127.1:8443"), Status::Fail)]
    #[case(Some("https://localhost:8443?team=a"), Status::Fail)]
    #[case(Some("https://localhost:8443/#x"), Status::Fail)]
    #[case(Some("https://localhost:8443 "), Status::Fail)]
    #[case(Some("https://dstack:s3cret@localhost:8443"), Status::Fail)]
    #[case(Some("https://localhost:8443/"), Status::Warn)]
    #[case(Some("http://admission.example.com"), Status::Warn)]
    #[case(Some("http://127.0.0.1:8080"), Status::Ok)]
    #[case(Some("https://localhost:8443/admission"), Status::Ok)]
    fn every_mistake_in_the_address_is_seen(#[case] uri: Option<&str>, #[case] expected: Status) {
        let mut environment = Environment::default();
        if let Some(uri) = uri {
            environment.set(URI, uri.to_owned());
        }
        let mut report = Report::default();
        let _ = check(&environment, &mut report);
        assert_eq!(report.worst(), expected, "{report:?}");
        assert!(!format!("{report:?}").contains("s3cret"));
    }
}
