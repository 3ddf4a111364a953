//! A bounded load generator: a fixed number of reviews over a fixed number of connections, each answer checked, the
//! latencies printed as JSON. It speaks to loopback addresses only and never asks longer than ten seconds for one answer.
//!
//! In mode `new` it does what Python's `requests.post` does: for each review a new TCP connection and a full TLS
//! handshake with an X25519 key share, nothing resumed, and the socket closed without a TLS goodbye.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The longest that one review may take, connecting included.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends reviews to a server on loopback and prints how long they took.
#[derive(Parser)]
struct Args {
    /// The server's address; a loopback address.
    #[arg(long)]
    connect: SocketAddr,
    /// The name that the server's certificate must carry.
    #[arg(long, default_value = "localhost")]
    server_name: String,
    /// The path to post to.
    #[arg(long, default_value = "/apply_policies/on_run_apply")]
    path: String,
    /// PEM file of the CA that signed the server's certificate.
    #[arg(long)]
    ca: PathBuf,
    /// File whose bytes are each request's body.
    #[arg(long)]
    body: PathBuf,
    /// How many reviews to send in all.
    #[arg(long)]
    requests: usize,
    /// How many reviews are under way at once.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// What is done about connections.
    #[arg(long, value_enum)]
    mode: Mode,
    /// `user:password` for HTTP Basic authentication.
    #[arg(long)]
    basic: Option<String>,
    /// What each answer must be.
    #[arg(long, value_enum, default_value_t = Expect::Allowed)]
    expect: Expect,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Mode {
    /// A new connection and a full handshake for each review.
    New,
    /// Each connection carries its reviews one after the other.
    Keepalive,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Expect {
    /// Every review is allowed.
    Allowed,
    /// Allowed or denied; the denials are counted.
    Either,
}

/// What an answer must look like; the spec is looked at no further.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    spec: &'a RawValue,
    error: Option<String>,
}

/// What every worker needs to send its reviews.
struct Target {
    args: Args,
    connector: TlsConnector,
    server_name: ServerName<'static>,
    body: Bytes,
    authorization: Option<HeaderValue>,
    /// Reviews that no worker has taken yet.
    left: AtomicUsize,
    denied: AtomicUsize,
}

type Sender = SendRequest<Full<Bytes>>;
type Driver = Connection<TokioIo<TlsStream<TcpStream>>, Full<Bytes>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let target = Arc::new(Target::new(Args::parse())?);
    // Kept connections are opened before the clock starts: their handshakes are no part of a review's latency.
    let mut kept = Vec::new();
    for _ in 0..target.args.connections {
        kept.push(target.keep().await?);
    }
    let started = Instant::now();
    let mut workers = JoinSet::new();
    for kept in kept {
        workers.spawn(worker(target.clone(), kept));
    }
    let mut latencies = Vec::with_capacity(target.args.requests);
    while let Some(worker) = workers.join_next().await {
        latencies.extend(worker??);
    }
    let seconds = started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let milliseconds = |quantile: f64| {
        let index = (latencies.len() as f64 * quantile).ceil() as usize;
        latencies
            .get(index.saturating_sub(1))
            .map(|latency| latency.as_secs_f64() * 1000.0)
    };
    let report = serde_json::json!({
        "requests": latencies.len(),
        "denied": target.denied.load(Ordering::Relaxed),
        "seconds": seconds,
        "perSecond": latencies.len() as f64 / seconds,
        "p50Ms": milliseconds(0.50),
        "p95Ms": milliseconds(0.95),
        "p99Ms": milliseconds(0.99),
        "maxMs": milliseconds(1.0),
    });
    std::io::Write::write_all(&mut std::io::stdout(), format!("{report}\n").as_bytes())?;
    Ok(())
}

impl Target {
    fn new(args: Args) -> anyhow::Result<Self> {
        ensure!(
            args.connect.ip().is_loopback(),
            "{} is not loopback",
            args.connect
        );
        let mut provider = rustls::crypto::ring::default_provider();
        provider.kx_groups = vec![rustls::crypto::ring::kx_group::X25519];
        let mut roots = rustls::RootCertStore::empty();
        roots.add(
            CertificateDer::from_pem_file(&args.ca)
                .with_context(|| format!("cannot read {}", args.ca.display()))?,
        )?;
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.resumption = rustls::client::Resumption::disabled();
        let authorization = args.basic.as_ref().map(|credentials| {
            let encoded = base64::engine::general_purpose::STANDARD.encode(credentials);
            HeaderValue::try_from(format!("Basic {encoded}"))
        });
        Ok(Self {
            connector: TlsConnector::from(Arc::new(tls)),
            server_name: ServerName::try_from(args.server_name.clone())?,
            body: std::fs::read(&args.body)
                .with_context(|| format!("cannot read {}", args.body.display()))?
                .into(),
            authorization: authorization.transpose()?,
            left: AtomicUsize::new(args.requests),
            denied: AtomicUsize::new(0),
            args,
        })
    }

    /// Takes one of the reviews that are left.
    fn take(&self) -> bool {
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            })
            .is_ok()
    }

    async fn connect(&self) -> anyhow::Result<(Sender, Driver)> {
        let stream = TcpStream::connect(self.args.connect).await?;
        stream.set_nodelay(true)?;
        let stream = self
            .connector
            .connect(self.server_name.clone(), stream)
            .await?;
        Ok(handshake(TokioIo::new(stream)).await?)
    }

    /// Opens a connection that stays open, if the mode is to keep connections.
    async fn keep(&self) -> anyhow::Result<Option<Sender>> {
        if self.args.mode == Mode::New {
            return Ok(None);
        }
        let (sender, driver) = tokio::time::timeout(PATIENCE, self.connect())
            .await
            .context("no connection in time")??;
        tokio::spawn(driver);
        Ok(Some(sender))
    }

    /// Sends one review and checks its answer.
    async fn review(&self, sender: &mut Sender) -> anyhow::Result<()> {
        let mut request = Request::post(&self.args.path)
            .header(header::HOST, &self.args.server_name)
            .header(header::USER_AGENT, "bench")
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        sender.ready().await?;
        let response = sender
            .send_request(request.body(Full::new(self.body.clone()))?)
            .await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(
            status == StatusCode::OK,
            "answered {status}: {}",
            String::from_utf8_lossy(&body)
        );
        let answer: Answer =
            serde_json::from_slice(&body).context("the answer is not a review's")?;
        ensure!(
            answer.spec.get().starts_with('{'),
            "the answer's spec is no object"
        );
        match (answer.error, self.args.expect) {
            (None, _) => {}
            (Some(_), Expect::Either) => _ = self.denied.fetch_add(1, Ordering::Relaxed),
            (Some(error), Expect::Allowed) => bail!("denied: {error}"),
        }
        Ok(())
    }
}

/// Sends reviews, one after the other, until none are left; gives back how long each took.
async fn worker(target: Arc<Target>, mut kept: Option<Sender>) -> anyhow::Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    while target.take() {
        let started = Instant::now();
        let review = async {
            if let Some(sender) = &mut kept {
                return target.review(sender).await;
            }
            let (mut sender, mut driver) = target.connect().await?;
            // Driven here and then dropped, so that the socket closes as `requests` closes it.
            tokio::select! {
                biased;
                answered = target.review(&mut sender) => answered,
                ended = &mut driver => Err(ended.err().map_or_else(|| anyhow::anyhow!("connection closed"), Into::into)),
            }
        };
        tokio::time::timeout(PATIENCE, review)
            .await
            .context("no answer in time")??;
        latencies.push(started.elapsed());
    }
    Ok(latencies)
}
