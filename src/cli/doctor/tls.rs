//! The way to the sidecar: its name, a TCP connection, the TLS handshake, and the certificate that it shows.

use std::time::{Duration, SystemTime};

use rustls::{AlertDescription, CertificateError};
use rustls_pki_types::CertificateDer;
use tokio::net::lookup_host;

use super::address::Address;
use super::bundle::Bundle;
use super::connect::{self, Secured, Stream, tls_error, within};
use super::report::Report;
use crate::certs::describe::{Description, describe, is_named_issuer};

const DAY: u64 = 24 * 60 * 60;
/// A made certificate is renewed 30 days before its end.
const SOON: Duration = Duration::from_secs(14 * DAY);

const CA_MEND: &str = "let another CA sign the certificate, and give that to the dstack server: `dstack-admission certs bundle`; \
                       a CA that the sidecar made is followed by the next in time, so here the server has an old trust";

/// Connects as the dstack server would; nothing where a review could not be sent.
pub async fn check(
    address: &Address,
    bundle: Option<&Bundle>,
    timeout: Duration,
    report: &mut Report,
) -> Option<Box<dyn Stream>> {
    let host = &address.host;
    let resolved = within(timeout, "resolving", lookup_host(address.authority())).await;
    match resolved.map(Iterator::collect::<Vec<_>>) {
        Ok(found) if !found.is_empty() => {
            let found: Vec<_> = found
                .iter()
                .map(|address| address.ip().to_string())
                .collect();
            report.ok("name", format!("{host} is {}", found.join(", ")));
        }
        found => {
            let why = found
                .err()
                .map_or("it has no address".to_owned(), |e| format!("{e:#}"));
            let mend = "name a host in DSTACK_PLUGIN_SERVICE_URI that resolves where the dstack server runs";
            report.fail("name", format!("{host} does not resolve: {why}"), mend);
            return None;
        }
    }
    let tcp = match within(timeout, "connecting", connect::tcp(address)).await {
        Ok(tcp) => tcp,
        Err(why) => {
            let message = format!("no connection to {}: {why:#}", address.authority());
            let mend = "is dstack-admission running, does its `listen` have this port, and does nothing filter it?";
            report.fail("tcp", message, mend);
            return None;
        }
    };
    report.ok("tcp", format!("{} takes connections", address.authority()));
    if !address.tls {
        return Some(Box::new(tcp));
    }
    let bundle = bundle?;
    let handshake = connect::secure(tcp, address, &bundle.certificates);
    let secured = match within(timeout, "the handshake", handshake).await {
        Ok(secured) => secured,
        Err(error) => {
            report.fail(
                "tls",
                format!("no TLS handshake: {error:#}"),
                handshake_mend(&error),
            );
            return None;
        }
    };
    verified(secured, address, bundle, report)
}

/// What may be behind a handshake that did not come about.
fn handshake_mend(error: &anyhow::Error) -> &'static str {
    match tls_error(error) {
        Some(rustls::Error::InvalidMessage(_)) => {
            "what answers speaks no TLS: write http:// (loopback only), or take `tls: off` out of the sidecar's \
             configuration"
        }
        Some(rustls::Error::AlertReceived(
            AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure,
        )) => "the server has to take TLS 1.2 or 1.3",
        Some(_) => "look into the log of what listens there",
        None => "something that speaks no TLS listens there, or a firewall cuts connections",
    }
}

fn verified(
    secured: Secured,
    address: &Address,
    bundle: &Bundle,
    report: &mut Report,
) -> Option<Box<dyn Stream>> {
    let leaf = secured.chain.first()?;
    let leaf_description = describe(leaf)?;
    match &secured.verdict {
        Ok(()) => {
            // Verification here never asks whether a CA of the bundle has expired; OpenSSL, and so the server, does.
            if let Some(message) = spent(&secured.chain, bundle) {
                report.fail("tls", message, CA_MEND);
                return None;
            }
            let message = format!("{}, verified by {}", secured.version, bundle.name);
            report.ok("tls", message);
            certificate(&secured.chain, &leaf_description, bundle, report);
            Some(secured.stream)
        }
        Err(error) => {
            let (message, mend) = refusal(error, &leaf_description, address, bundle);
            report.fail("tls", message, mend);
            None
        }
    }
}

/// What is wrong with the dates of the CA of the bundle, if anything is.
fn spent(chain: &[CertificateDer<'_>], bundle: &Bundle) -> Option<String> {
    let now = SystemTime::now();
    let root = root(chain, bundle)?;
    if root.not_before <= now && now <= root.not_after {
        return None;
    }
    let why = root.concern(now)?;
    Some(format!("the CA {} in {} {why}", root.subject, bundle.name))
}

/// The CA of the bundle that signed the chain: of several with its name, the one that lasts longest of those that have
/// begun.
fn root(chain: &[CertificateDer<'_>], bundle: &Bundle) -> Option<Description> {
    let (last, now) = (chain.last()?, SystemTime::now());
    let named = bundle.certificates.iter();
    let named = named.filter(|one| is_named_issuer(one, last));
    let described = named.filter_map(describe);
    described.max_by_key(|one| (one.not_before <= now, one.not_after))
}

/// Why a certificate was refused, and what to do.
fn refusal(
    error: &rustls::Error,
    leaf: &Description,
    address: &Address,
    bundle: &Bundle,
) -> (String, String) {
    let date = humantime::format_rfc3339_seconds;
    let rustls::Error::InvalidCertificate(why) = error else {
        let message = format!("the certificate of {} is refused: {error}", leaf.subject);
        return (
            message,
            "make another one: `dstack-admission certs make`".to_owned(),
        );
    };
    match why {
        CertificateError::UnknownIssuer => (
            format!("the certificate's issuer `{}` is not in {}", leaf.issuer, bundle.name),
            "set REQUESTS_CA_BUNDLE as `dstack-admission serve` prints it, or merge that CA into it: `dstack-admission \
             certs bundle`"
                .to_owned(),
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            let names = match leaf.names.as_slice() {
                [] => "no name (a subject alone does not count)".to_owned(),
                names => names.join(", "),
            };
            (
                format!("the certificate is for {names}, not for {}", address.host),
                format!(
                    "write one of these into DSTACK_PLUGIN_SERVICE_URI, or `serverNames: [{}]` into the sidecar's \
                     configuration",
                    address.host
                ),
            )
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            format!("the certificate expired at {}", date(leaf.not_after)),
            "renew it: `dstack-admission certs renew`; or is the clock of this machine ahead?".to_owned(),
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            format!("the certificate is not valid before {}", date(leaf.not_before)),
            "set the clocks of this machine and of the sidecar's right".to_owned(),
        ),
        why => (
            format!("the certificate of {} is refused: {why}", leaf.subject),
            "make another one: `dstack-admission certs make`".to_owned(),
        ),
    }
}

/// What is still good, but not for long or not everywhere.
fn certificate(
    chain: &[CertificateDer<'_>],
    leaf: &Description,
    bundle: &Bundle,
    report: &mut Report,
) {
    const CHECK: &str = "certificate";
    let left = leaf.not_after.duration_since(SystemTime::now());
    let left = left.unwrap_or_default();
    let days = left.as_secs() / DAY;
    let intermediates = chain.iter().skip(1).filter_map(describe);
    let root = root(chain, bundle);
    let aging = root
        .as_ref()
        .and_then(|root| Some((root.subject.clone(), root.concern(SystemTime::now())?)));
    let all = [Some(leaf.clone())].into_iter().flatten();
    let mut all = all.chain(intermediates).chain(root);
    let lax = all.find_map(|one| Some((one.subject.clone(), *one.not_strict.first()?)));
    if left < SOON {
        let mend = "renew it: `dstack-admission certs renew`, or whoever made it; a made certificate renews itself";
        report.warn(CHECK, format!("it ends in {days} days"), mend);
    } else if let Some((subject, why)) = aging {
        report.warn(CHECK, format!("the CA {subject} {why}"), CA_MEND);
    } else if let Some((subject, why)) = lax {
        let message = format!("Python 3.13 and later refuse {subject}: {why}");
        let mend = "make it anew, with authority and subject key identifiers and key usage, as `dstack-admission certs \
                    make` does";
        report.warn(CHECK, message, mend);
    } else {
        let names = leaf.names.join(", ");
        report.ok(CHECK, format!("for {names}, {days} days left"));
    }
}
