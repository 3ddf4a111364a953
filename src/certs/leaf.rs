//! The server's certificate: whether the one at hand still serves, and a new one. Touches no file.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls_pki_types::ServerName;
use x509_parser::prelude::X509Certificate;

use super::authority::{self, Authority, BACKDATE, DAY};
use super::{CertsError, describe};

/// How long a server certificate is valid, unless its CA ends before.
const LIFE: Duration = Duration::from_secs(90 * DAY.as_secs());

/// From when until when a certificate is valid.
pub(super) struct Validity {
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

impl Validity {
    /// The end of the first two thirds of its life.
    pub(super) fn renewal(&self) -> SystemTime {
        let life = self.not_after.duration_since(self.not_before);
        self.not_before + life.unwrap_or_default() / 3 * 2
    }

    fn of(x509: &X509Certificate<'_>) -> Self {
        Self {
            not_before: authority::moment(x509.validity().not_before),
            not_after: authority::moment(x509.validity().not_after),
        }
    }
}

/// Why a server certificate was issued: what was wrong with the one that was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    Missing,
    /// It is no certificate with its key.
    Broken(&'static str),
    OtherNames,
    OtherAuthority,
    /// It is past two thirds of its life, or its life has not begun.
    Due,
    /// It was still good, and another one was asked for.
    Asked,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Missing => "there was none",
            Why::Broken(problem) => problem,
            Why::OtherNames => "the last one was made for other names",
            Why::OtherAuthority => "the last one was not signed by the CA that signs now",
            Why::Due => "the last one was due for renewal",
            Why::Asked => "it was asked for",
        })
    }
}

/// A name as it stands in a certificate: lower case, without the root's dot.
pub(super) fn san_text(name: &ServerName<'_>) -> String {
    let text = name.to_str();
    text.trim_end_matches('.').to_ascii_lowercase()
}

/// Whether the certificate and key in `pem` may go on serving, or why not.
pub(super) fn examine(
    pem: Option<&[u8]>,
    names: &BTreeSet<String>,
    signer: &Authority,
    now: SystemTime,
) -> Result<Validity, Why> {
    let (certificate, _) = authority::pair(pem.ok_or(Why::Missing)?).map_err(Why::Broken)?;
    let unreadable = Why::Broken("it holds no X.509 certificate");
    let x509 = authority::parse(&certificate).ok_or(unreadable)?;
    let ca = authority::parse(&signer.certificate).ok_or(Why::OtherAuthority)?;
    let named_by_ca = x509.issuer().as_raw() == ca.subject().as_raw();
    if !named_by_ca || x509.verify_signature(Some(ca.public_key())).is_err() {
        return Err(Why::OtherAuthority);
    }
    if describe::names(&x509).into_iter().collect::<BTreeSet<_>>() != *names {
        return Err(Why::OtherNames);
    }
    let validity = Validity::of(&x509);
    if now < validity.not_before || validity.renewal() <= now {
        return Err(Why::Due);
    }
    Ok(validity)
}

/// A new certificate with a new key, as PEM text of both.
pub(super) fn issue(
    names: &BTreeSet<String>,
    signer: &Authority,
    now: SystemTime,
) -> Result<(String, Validity), CertsError> {
    let key = KeyPair::generate()?;
    // Turns each text that is an address into an IP name, all others into DNS names.
    let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
    params.distinguished_name = authority::subject("dstack-admission");
    // RFC 5280 4.2.1: what OpenSSL's strict mode, the default of Python 3.13, insists on.
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let not_after = signer.not_after.min(now + LIFE);
    authority::set_validity(&mut params, now - BACKDATE, not_after);
    let issuer = Issuer::from_ca_cert_der(&signer.certificate, &signer.key)?;
    let certificate = params.signed_by(&key, &issuer)?;
    let x509 = authority::parse(certificate.der()).ok_or(rcgen::Error::CouldNotParseCertificate)?;
    let pem = certificate.pem() + &key.serialize_pem();
    Ok((pem, Validity::of(&x509)))
}
