//! Why no answer came, in two texts: for the user without addresses, names and times, for the log with all.

use std::error::Error;

use http::Uri;
use hyper_util::client::legacy;
use rustls::{AlertDescription, CertificateError};

use crate::admission::verdict::{Fault, FaultKind};
use crate::identity::outgoing::{UnknownHost, address, causes};

/// The fault of a plugin to which no request could be made.
pub(super) fn fault(error: &legacy::Error, url: &Uri) -> Fault {
    let fault = match cause::<rustls::Error>(error) {
        Some(tls) => {
            let why = tls_words(tls);
            let message = format!("no TLS connection to it could be made: {why}");
            Fault::new(FaultKind::Tls, message)
        }
        None if error.is_connect() => {
            let why = match cause::<UnknownHost>(error) {
                Some(_) => Some("unknown host".to_owned()),
                None => cause::<std::io::Error>(error).map(|io| io.kind().to_string()),
            };
            let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
            let message = format!("no connection to it could be made{why}");
            Fault::new(FaultKind::Connect, message)
        }
        None => Fault::new(
            FaultKind::Transport,
            "the connection to it broke before it answered",
        ),
    };
    fault.with_detail(format!("{}: {}", address(url), causes(error)))
}

/// What a user may read of a failed handshake.
fn tls_words(error: &rustls::Error) -> &'static str {
    use rustls::Error as Tls;
    match error {
        Tls::InvalidCertificate(error) => certificate_words(error),
        Tls::NoCertificatesPresented => "it shows no certificate",
        Tls::AlertReceived(
            AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure,
        ) => "it refused the handshake; it may want a client certificate",
        Tls::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied,
        ) => "it refused the client certificate",
        Tls::AlertReceived(AlertDescription::ProtocolVersion) | Tls::PeerIncompatible(_) => {
            "it speaks no version or cipher of TLS that is taken here"
        }
        Tls::AlertReceived(_) => "it refused the handshake",
        Tls::InvalidMessage(_) => "it does not speak TLS",
        _ => "the handshake failed",
    }
}

fn certificate_words(error: &CertificateError) -> &'static str {
    use CertificateError as Certificate;
    match error {
        Certificate::Expired | Certificate::ExpiredContext { .. } => "its certificate has expired",
        Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
            "its certificate is not valid yet"
        }
        Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
            "its certificate is for another name"
        }
        Certificate::UnknownIssuer => "its certificate is from an unknown issuer",
        Certificate::Revoked => "its certificate has been revoked",
        Certificate::InvalidPurpose | Certificate::InvalidPurposeContext { .. } => {
            "its certificate is not one for servers"
        }
        Certificate::BadSignature => "the signature of its certificate is wrong",
        Certificate::BadEncoding => "its certificate cannot be read",
        _ => "its certificate is not valid",
    }
}

/// The first cause of a type, looking into I/O errors, which hide theirs.
fn cause<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    let mut next = Some(error);
    let mut found = None;
    while let Some(error) = next {
        found = error.downcast_ref::<E>().or(found);
        let inside = error
            .downcast_ref::<std::io::Error>()
            .and_then(|io| io.get_ref());
        next = match inside {
            Some(inside) => Some(inside),
            None => error.source(),
        };
    }
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[rstest]
    #[case::name(
        CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("10.1.2.3").unwrap(),
            presented: vec!["DnsName(\"inner.example\")".to_owned()],
        },
        "its certificate is for another name"
    )]
    #[case::expired(CertificateError::ExpiredContext { time: at(2), not_after: at(1) }, "its certificate has expired")]
    #[case::early(CertificateError::NotValidYetContext { time: at(1), not_before: at(2) }, "its certificate is not valid yet")]
    #[case::issuer(
        CertificateError::UnknownIssuer,
        "its certificate is from an unknown issuer"
    )]
    #[case::revoked(CertificateError::Revoked, "its certificate has been revoked")]
    #[case::else_(
        CertificateError::UnhandledCriticalExtension,
        "its certificate is not valid"
    )]
    fn a_bad_certificate_is_told_without_names_or_times(
        #[case] error: CertificateError,
        #[case] words: &str,
    ) {
        assert_eq!(tls_words(&rustls::Error::InvalidCertificate(error)), words);
    }
}
