//! Connections as the dstack server makes them: TCP, TLS verified by exactly its bundle, one HTTP/1.1 exchange. Each
//! step is waited for no longer than the server would.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use super::address::Address;
use crate::certs::describe::describe;

/// More of an answer than this is not read.
const ANSWER_BYTES: usize = 8 << 20;

/// A stream of bytes, encrypted or not.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A TLS connection, whose certificate may have been refused: nothing was sent over it yet.
pub struct Secured {
    pub stream: Box<dyn Stream>,
    /// As the server showed it, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    pub verdict: Result<(), rustls::Error>,
    /// `TLSv1_3`.
    pub version: String,
}

/// A whole answer.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Waits for a step of this name.
///
/// # Errors
/// The step's own, and that it took too long.
pub async fn within<T, E: Into<anyhow::Error>>(
    timeout: Duration,
    step: &str,
    work: impl Future<Output = Result<T, E>>,
) -> anyhow::Result<T> {
    match tokio::time::timeout(timeout, work).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => {
            let timeout = humantime::format_duration(timeout);
            Err(anyhow::anyhow!("{step}: nothing within {timeout}"))
        }
    }
}

/// Connects to the first address that takes the connection, as Python does.
pub async fn tcp(address: &Address) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host(address.authority()).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Makes the handshake and verifies by `trusted` alone, without ending the connection when that fails.
///
/// # Errors
/// When no handshake comes about at all.
pub async fn secure(
    tcp: TcpStream,
    address: &Address,
    trusted: &[CertificateDer<'static>],
) -> anyhow::Result<Secured> {
    let name = ServerName::try_from(address.host.clone())?;
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted.iter().cloned());
    let strict =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let observer = Arc::new(Observer {
        strict: strict.build()?,
        trusted: trusted.to_vec(),
        provider: Arc::clone(&provider),
        seen: OnceLock::new(),
    });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::<Observer>::clone(&observer))
        .with_no_client_auth();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await?;
    let version = stream.get_ref().1.protocol_version();
    let unseen = || (Vec::new(), Err(rustls::Error::NoCertificatesPresented));
    let (chain, verdict) = observer.seen.get().cloned().unwrap_or_else(unseen);
    Ok(Secured {
        stream: Box::new(stream),
        chain,
        verdict,
        version: version
            .and_then(|version| version.as_str())
            .unwrap_or("TLS")
            .to_owned(),
    })
}

/// One request and its answer.
///
/// # Errors
/// When the connection ends before a whole answer.
pub async fn exchange(
    stream: impl Stream + 'static,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Answer> {
    let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the runtime.
    tokio::spawn(connection);
    let response = send.send_request(request).await?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES).collect().await;
    let body = body.map_err(anyhow::Error::from_boxed)?;
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body: body.to_bytes(),
    })
}

/// The TLS error under another, if there is one.
pub fn tls_error(error: &anyhow::Error) -> Option<&rustls::Error> {
    error.chain().find_map(|cause| {
        // An I/O error does not tell of the error in it as its source.
        let io = cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        let inside = io.and_then(|inside| inside.downcast_ref::<rustls::Error>());
        inside.or_else(|| cause.downcast_ref::<rustls::Error>())
    })
}

type Seen = (Vec<CertificateDer<'static>>, Result<(), rustls::Error>);

/// Verifies as rustls does and remembers what came of it. It lets every handshake end, so that what is wrong can be
/// told; whoever uses the connection looks at the verdict first.
#[derive(Debug)]
struct Observer {
    strict: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
    seen: OnceLock<Seen>,
}

impl Observer {
    /// OpenSSL trusts a certificate that is in the bundle itself, even one that calls itself a CA.
    fn is_pinned(&self, leaf: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> bool {
        let now = std::time::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        let valid = describe(leaf)
            .is_some_and(|leaf| leaf.is_ca && leaf.not_before <= now && now < leaf.not_after);
        let parsed = ParsedCertificate::try_from(leaf);
        let named =
            parsed.is_ok_and(|leaf| rustls::client::verify_server_name(&leaf, name).is_ok());
        valid && named && self.trusted.iter().any(|trusted| trusted == leaf)
    }
}

impl ServerCertVerifier for Observer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict = self
            .strict
            .verify_server_cert(leaf, intermediates, name, ocsp, now)
            .map(drop);
        let verdict = match verdict {
            Err(_) if self.is_pinned(leaf, name, now) => Ok(()),
            verdict => verdict,
        };
        let chain = std::iter::once(leaf).chain(intermediates);
        let chain = chain.map(|one| one.clone().into_owned()).collect();
        let _ = self.seen.set((chain, verdict));
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}
