//! The limit that the product is measured against: a bare hyper and rustls server that parses a review and writes
//! its spec back. It has no policy, no metrics and no audit, and it listens on loopback only.
//!
//! TLS is what the product has: rustls' defaults (TLS 1.2 and 1.3, session tickets) with the ring provider, and
//! ALPN for HTTP/2 and HTTP/1.1. The allocator is the system's.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Parser;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A bare TLS server that answers each review with the spec it was sent.
#[derive(Parser)]
struct Args {
    /// Where to listen; a loopback address.
    #[arg(long)]
    listen: SocketAddr,
    /// PEM file of the server's certificate chain.
    #[arg(long)]
    cert: PathBuf,
    /// PEM file of the server's private key.
    #[arg(long)]
    key: PathBuf,
    /// Worker threads of the runtime.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// The request of dstack's REST plugin protocol.
#[derive(Deserialize)]
#[expect(
    dead_code,
    reason = "parsed because the product parses them, read by nobody"
)]
struct Review {
    user: String,
    project: String,
    spec: serde_json::Value,
}

/// The answer of dstack's REST plugin protocol.
#[derive(Serialize)]
struct Answer {
    spec: serde_json::Value,
    error: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    anyhow::ensure!(
        args.listen.ip().is_loopback(),
        "{} is not loopback",
        args.listen
    );
    let acceptor = acceptor(&args.cert, &args.key)?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(args.threads)
        .enable_all()
        .build()?
        // Spawned, since the thread that blocks on the runtime is not one of its workers.
        .block_on(async { tokio::spawn(serve(args.listen, acceptor)).await? })
}

fn acceptor(cert: &Path, key: &Path) -> anyhow::Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("cannot read {}", cert.display()))?;
    let key = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("cannot read {}", key.display()))?;
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()?
    .with_no_client_auth()
    .with_single_cert(chain, key)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(tls)))
}

async fn serve(listen: SocketAddr, acceptor: TlsAcceptor) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(connection(stream, acceptor.clone()));
    }
}

/// Serves one connection; how it ends is the client's affair.
async fn connection(stream: TcpStream, acceptor: TlsAcceptor) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let protocol = auto::Builder::new(TokioExecutor::new());
    // The protocol is known from ALPN, so nothing is read ahead to find it out.
    let protocol = if is_http2 {
        protocol.http2_only()
    } else {
        protocol.http1_only()
    };
    protocol
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .await
        .map_err(anyhow::Error::from_boxed)
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let answered = async {
        let body = request.into_body().collect().await?.to_bytes();
        let review: Review = serde_json::from_slice(&body)?;
        anyhow::Ok(serde_json::to_vec(&Answer {
            spec: review.spec,
            error: None,
        })?)
    };
    let mut response = Response::default();
    match answered.await {
        Ok(body) => {
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                header::HeaderValue::from_static("application/json"),
            );
            *response.body_mut() = Full::from(body);
        }
        Err(_) => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    Ok(response)
}
