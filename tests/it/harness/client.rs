//! What the dstack server does to the sidecar, and what a bad client does: connections of every
//! kind, whole requests or bytes.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, SupportedProtocolVersion};
use rustls_pki_types::ServerName;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificates::{Pair, roots};

pub type Body = BoxBody<Bytes, std::io::Error>;

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|e| match e {}).boxed()
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(borrow)]
    spec: &'a RawValue,
    error: Option<String>,
    decision: String,
    #[serde(default)]
    warnings: Vec<String>,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("no JSON ({e}): {}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn parts(&self) -> Parts<'_> {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text());
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("no review's answer ({e}): {}", self.text()))
    }

    /// The very text of the answered spec.
    pub fn spec(&self) -> &str {
        self.parts().spec.get()
    }

    /// The denial, if it is one.
    pub fn error(&self) -> Option<String> {
        self.parts().error
    }

    pub fn denial(&self) -> String {
        let allowed = || panic!("expected a denial: {}", self.text());
        self.error().unwrap_or_else(allowed)
    }

    pub fn decision(&self) -> String {
        self.parts().decision
    }

    pub fn warnings(&self) -> Vec<String> {
        self.parts().warnings
    }

    #[track_caller]
    pub fn assert_allowed(&self) -> &Self {
        assert_eq!(self.error(), None, "{}", self.text());
        self
    }
}

/// How a client offers to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// A client's TLS: whom it trusts and what it shows.
#[derive(Clone)]
pub struct Trust {
    pub ca_pem: String,
    pub client: Option<Pair>,
    pub versions: Vec<&'static SupportedProtocolVersion>,
}

impl Trust {
    pub fn new(ca_pem: impl Into<String>) -> Self {
        Self {
            ca_pem: ca_pem.into(),
            client: None,
            versions: rustls::ALL_VERSIONS.to_vec(),
        }
    }

    fn config(&self, protocol: Protocol) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(roots(&self.ca_pem));
        let mut config = match &self.client {
            None => builder.with_no_client_auth(),
            Some(pair) => builder
                .with_client_auth_cert(pair.chain(), pair.private_key())
                .unwrap(),
        };
        config.alpn_protocols = match protocol {
            Protocol::Http1 => vec![b"http/1.1".to_vec()],
            Protocol::Http2 => vec![b"h2".to_vec()],
        };
        Arc::new(config)
    }

    /// Makes the handshake, expecting a certificate for the address that is connected to.
    pub async fn secure(
        &self,
        tcp: TcpStream,
        protocol: Protocol,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::from(tcp.peer_addr()?.ip());
        let connector = TlsConnector::from(self.config(protocol));
        connector.connect(name, tcp).await
    }
}

/// A stream of bytes to the sidecar, encrypted or not.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Opens a stream.
pub async fn stream(
    address: SocketAddr,
    trust: Option<&Trust>,
    protocol: Protocol,
) -> std::io::Result<Box<dyn Stream>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    match trust {
        None => Ok(Box::new(tcp)),
        Some(trust) => Ok(Box::new(trust.secure(tcp, protocol).await?)),
    }
}

/// A connection that carries one request after the other.
pub enum Connection {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Connection {
    pub async fn open(
        address: SocketAddr,
        trust: Option<&Trust>,
        protocol: Protocol,
    ) -> std::io::Result<Self> {
        let io = TokioIo::new(stream(address, trust, protocol).await?);
        let connection = match protocol {
            Protocol::Http1 => {
                let (send, connection) =
                    http1::handshake(io).await.map_err(std::io::Error::other)?;
                tokio::spawn(connection);
                Self::Http1(send)
            }
            Protocol::Http2 => {
                let (send, connection) = http2::handshake(TokioExecutor::new(), io)
                    .await
                    .map_err(std::io::Error::other)?;
                tokio::spawn(connection);
                Self::Http2(send)
            }
        };
        Ok(connection)
    }

    pub async fn send(&mut self, mut request: Request<Body>) -> hyper::Result<Answer> {
        let response = match self {
            Self::Http1(send) => {
                send.ready().await?;
                send.send_request(request).await?
            }
            Self::Http2(send) => {
                let path = request.uri().path();
                *request.uri_mut() = format!("https://localhost{path}").parse().unwrap();
                request.headers_mut().remove("host");
                send.ready().await?;
                send.send_request(request).await?
            }
        };
        let (head, body) = response.into_parts();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.collect().await?.to_bytes(),
        })
    }
}
