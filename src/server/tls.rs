//! The server's TLS: certificate, key, and whose client certificates are taken.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::CertificateDer;
use x509_parser::parse_x509_certificate;

use crate::identity::{certificates, in_file, private_key, roots};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// Callers must show a certificate of one of these CAs.
    pub client_ca_file: Option<PathBuf>,
}

/// What was loaded: ready for handshakes, and until when.
pub struct Loaded {
    pub config: Arc<ServerConfig>,
    pub expires: SystemTime,
}

/// Loads the files: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1.
///
/// # Errors
/// In words, naming the file.
pub fn load(settings: &Settings) -> Result<Loaded, String> {
    let chain = certificates(&settings.cert_file)?;
    let expires = expiry(&chain[0]).map_err(|why| in_file(&settings.cert_file, why))?;
    let key = private_key(&settings.key_file)?;

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = match &settings.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let roots = Arc::new(roots(file)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|e| in_file(file, e))?)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|e| in_file(&settings.cert_file, e))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // The dstack server makes a new TLS client for each call and never resumes a session.
    config.send_tls13_tickets = 0;
    Ok(Loaded {
        config: Arc::new(config),
        expires,
    })
}

fn expiry(certificate: &CertificateDer<'_>) -> Result<SystemTime, String> {
    let (_, parsed) = parse_x509_certificate(certificate).map_err(|e| e.to_string())?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
    Ok(UNIX_EPOCH + Duration::from_secs(seconds))
}
