//! The listening side: bind, serve, drain. A review enters here and its answer leaves here.
//!
//! Each state is a type: [`Server::bind`] opens the ports before anything is spawned, and only a
//! bound server can serve. Nothing here knows what a plugin says or where a setting comes from.

pub mod accept;
pub mod admin;
pub mod auth;
mod decisions;
pub mod handler;
mod places;
pub mod readiness;
mod refusal;
mod settled;
pub mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::Engine;
use crate::observe::audit::Audit;
use crate::observe::metrics::{Metrics, PluginMetrics};
use crate::observe::recent::Recent;
use crate::observe::record::Recording;
use crate::observe::repeats::Repeats;
use crate::observe::traces::Tracer;
use auth::Auth;
use readiness::Readiness;

/// Bounds on what callers may do to this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub body_bytes: usize,
    /// Reviews in hand at once.
    pub in_flight: usize,
    /// How long a review waits for its turn.
    pub in_flight_wait: Duration,
    pub connections: usize,
    pub handshake_timeout: Duration,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    /// How long reviews in hand may take once the process is told to stop.
    pub grace_period: Duration,
}

/// One loaded configuration in force. A reload swaps it as a whole; a review keeps the one it began with.
pub struct Live {
    pub engine: Engine,
    pub plugins: PluginMetrics,
    pub audit: Audit,
    pub tracer: Tracer,
    /// What is recorded of which reviews.
    pub recording: Recording,
    /// Whether the admin port shows the latest decisions.
    pub decisions_page: bool,
    pub auth: Auth,
    /// The path before `/apply_policies`.
    pub path_prefix: String,
    /// The request headers that plugins want passed on, in lower case.
    pub forward_headers: Vec<String>,
    /// The hash of the configuration file.
    pub hash: String,
    /// What `/configz` shows.
    pub configz: String,
    /// Absent: plain HTTP, on loopback only.
    pub tls: Option<Arc<ServerConfig>>,
}

/// What every connection shares.
pub struct Shared {
    pub live: ArcSwap<Live>,
    pub metrics: Arc<Metrics>,
    pub readiness: Readiness,
    pub recent: Recent,
    repeats: Repeats,
    limits: Limits,
    turns: Arc<Semaphore>,
    /// Connections and what goes on after an answer; waited for when draining.
    tasks: TaskTracker,
}

impl Shared {
    pub fn new(live: Live, metrics: Arc<Metrics>, limits: Limits) -> Self {
        let in_flight = i64::try_from(limits.in_flight).unwrap_or(i64::MAX);
        metrics.in_flight_limit.set(in_flight);
        Self {
            live: ArcSwap::from_pointee(live),
            metrics,
            readiness: Readiness::default(),
            recent: Recent::default(),
            repeats: Repeats::default(),
            turns: Arc::new(Semaphore::new(limits.in_flight)),
            limits,
            tasks: TaskTracker::new(),
        }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// A server whose ports are open and that serves nobody yet.
pub struct Server {
    listener: TcpListener,
    admin: Option<TcpListener>,
}

impl Server {
    /// Opens the ports.
    ///
    /// # Errors
    /// When an address cannot be bound, naming it.
    pub async fn bind(listen: SocketAddr, admin: Option<SocketAddr>) -> io::Result<Self> {
        let open = async |address: SocketAddr| {
            let listener = TcpListener::bind(address).await;
            listener
                .map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {address}: {e}")))
        };
        let admin = match admin {
            Some(address) => Some(open(address).await?),
            None => None,
        };
        Ok(Self {
            listener: open(listen).await?,
            admin,
        })
    }

    /// The address of the review port, with the port that the system chose if it was 0.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The address of the admin port.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn admin_address(&self) -> io::Result<Option<SocketAddr>> {
        self.admin.as_ref().map(TcpListener::local_addr).transpose()
    }

    /// Serves until `stop`, then drains: takes what the kernel has accepted already, lets every
    /// review in hand end, within the grace period. Returns whether all of them did.
    pub async fn serve(self, shared: Arc<Shared>, stop: CancellationToken) -> bool {
        let admin_stop = CancellationToken::new();
        let admin = self.admin.map(|listener| {
            tokio::spawn(admin::serve(
                listener,
                Arc::clone(&shared),
                admin_stop.clone(),
            ))
        });

        accept::serve(self.listener, &shared, stop).await;
        let _draining = shared.readiness.hold("draining");
        shared.tasks.close();
        let in_time = tokio::time::timeout(shared.limits.grace_period, shared.tasks.wait())
            .await
            .is_ok();

        admin_stop.cancel();
        if let Some(admin) = admin {
            let _ = admin.await;
        }
        in_time
    }
}
