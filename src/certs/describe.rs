//! What a certificate says, for people and for programs: names, validity, usage, fingerprint, and what OpenSSL's strict
//! mode would refuse in it. It verifies no signature and trusts nobody.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::oid_registry::{
    OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, OID_X509_EXT_SUBJECT_KEY_IDENTIFIER,
};
use x509_parser::prelude::{GeneralName, X509Certificate, X509Version};

use super::authority;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Before its end a CA is to be replaced: its successor has to reach everybody who trusts it.
const CA_SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    pub subject: String,
    pub issuer: String,
    /// DNS names and addresses, in the order of the certificate.
    pub names: Vec<String>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    pub is_ca: bool,
    /// As RFC 5280 names them: `digitalSignature`, `keyCertSign`.
    pub key_usage: Vec<&'static str>,
    pub extended_key_usage: Vec<String>,
    /// In hexadecimal digits, pairs apart by colons.
    pub serial: String,
    /// SHA-256 of the whole certificate, as `openssl x509 -fingerprint -sha256` prints it.
    pub fingerprint: String,
    /// What Python 3.13 and later refuse, which verify strictly: each a few words.
    pub not_strict: Vec<&'static str>,
}

impl Description {
    /// Why nobody should rely on it from `now` on, in a few words: it has expired, is not valid yet, or is a CA that ends
    /// within 30 days.
    pub fn concern(&self, now: SystemTime) -> Option<String> {
        let date = humantime::format_rfc3339_seconds;
        let Ok(left) = self.not_after.duration_since(now) else {
            return Some(format!("expired at {}", date(self.not_after)));
        };
        if now < self.not_before {
            return Some(format!("is not valid before {}", date(self.not_before)));
        }
        let days = left.as_secs() / DAY.as_secs();
        let soon = self.is_ca && left < CA_SOON;
        soon.then(|| format!("ends at {}, in {days} days", date(self.not_after)))
    }
}

/// Describes a certificate, or nothing if it is no X.509.
pub fn describe(certificate: &CertificateDer<'_>) -> Option<Description> {
    let x509 = authority::parse(certificate)?;
    let usage = x509.key_usage().ok().flatten();
    Some(Description {
        subject: x509.subject().to_string(),
        issuer: x509.issuer().to_string(),
        names: names(&x509),
        not_before: authority::moment(x509.validity().not_before),
        not_after: authority::moment(x509.validity().not_after),
        is_ca: x509.is_ca(),
        key_usage: usage.map_or_else(Vec::new, |usage| key_usages(usage.value.flags)),
        extended_key_usage: extended(&x509),
        serial: colons(x509.raw_serial()),
        fingerprint: colons(&Sha256::digest(certificate)),
        not_strict: not_strict(&x509),
    })
}

/// Whether `issuer` has the name that `certificate` says it was issued by.
pub fn is_named_issuer(issuer: &CertificateDer<'_>, certificate: &CertificateDer<'_>) -> bool {
    let subject = authority::parse(issuer);
    let named = authority::parse(certificate);
    subject
        .zip(named)
        .is_some_and(|(subject, named)| subject.subject().as_raw() == named.issuer().as_raw())
}

/// DNS names and addresses of the subject alternative name.
pub(super) fn names(x509: &X509Certificate<'_>) -> Vec<String> {
    let extension = x509.subject_alternative_name().ok().flatten();
    let names = extension.iter().flat_map(|san| &san.value.general_names);
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(octets) => address(octets),
        other => other.to_string(),
    };
    names.map(text).collect()
}

fn address(octets: &[u8]) -> String {
    let four = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    let sixteen = <[u8; 16]>::try_from(octets).map(IpAddr::from);
    four.or(sixteen)
        .map(|ip| ip.to_string())
        .unwrap_or_default()
}

fn key_usages(flags: u16) -> Vec<&'static str> {
    // RFC 5280 4.2.1.3, from bit 0.
    let names = [
        "digitalSignature",
        "nonRepudiation",
        "keyEncipherment",
        "dataEncipherment",
        "keyAgreement",
        "keyCertSign",
        "cRLSign",
        "encipherOnly",
        "decipherOnly",
    ];
    let set = names.iter().enumerate();
    set.filter(|(bit, _)| flags >> bit & 1 == 1)
        .map(|(_, name)| *name)
        .collect()
}

fn extended(x509: &X509Certificate<'_>) -> Vec<String> {
    let Some(usage) = x509.extended_key_usage().ok().flatten() else {
        return Vec::new();
    };
    let usage = usage.value;
    let known = [
        ("anyExtendedKeyUsage", usage.any),
        ("serverAuth", usage.server_auth),
        ("clientAuth", usage.client_auth),
    ];
    let known = known.into_iter().filter(|(_, set)| *set);
    let others = usage.other.iter().map(|oid| oid.to_id_string());
    known
        .map(|(name, _)| name.to_owned())
        .chain(others)
        .collect()
}

/// What `X509_V_FLAG_X509_STRICT` refuses (`check_extensions` in OpenSSL's `crypto/x509/x509_vfy.c`).
fn not_strict(x509: &X509Certificate<'_>) -> Vec<&'static str> {
    let has = |oid| x509.iter_extensions().any(|extension| extension.oid == oid);
    let constraints = x509.basic_constraints().ok().flatten();
    let usage = x509.key_usage().ok().flatten();
    let signs = usage
        .as_ref()
        .is_some_and(|usage| usage.value.key_cert_sign());
    let is_ca = x509.is_ca();
    let self_signed = x509.subject().as_raw() == x509.issuer().as_raw();
    let rules = [
        (x509.version() != X509Version::V3, "it is not of version 3"),
        (
            !self_signed && !has(OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER),
            "no authority key identifier",
        ),
        (
            is_ca && !has(OID_X509_EXT_SUBJECT_KEY_IDENTIFIER),
            "a CA without subject key identifier",
        ),
        (is_ca && usage.is_none(), "a CA without key usage"),
        (
            is_ca && !constraints.as_ref().is_some_and(|found| found.critical),
            "a CA whose basic constraints are not critical",
        ),
        (!is_ca && signs, "keyCertSign without being a CA"),
    ];
    let broken = rules.into_iter().filter(|(broken, _)| *broken);
    broken.map(|(_, words)| words).collect()
}

fn colons(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 3);
    for (index, byte) in bytes.iter().enumerate() {
        let colon = if index == 0 { "" } else { ":" };
        let _ = write!(text, "{colon}{byte:02X}");
    }
    text
}
