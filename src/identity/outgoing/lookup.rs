//! Looks host names up as the system does. A failure keeps a type of its own, which the I/O error of the
//! system's resolver does not have.

use std::io;
use std::task::{Context, Poll};

use futures_util::TryFutureExt;
use futures_util::future::MapErr;
use hyper_util::client::legacy::connect::dns::{GaiAddrs, GaiFuture, GaiResolver, Name};
use tower_service::Service;

/// The system's resolver.
#[derive(Clone, Debug)]
pub struct Resolver(GaiResolver);

/// A host name that has no address.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UnknownHost(io::Error);

impl Resolver {
    pub fn new() -> Self {
        Self(GaiResolver::new())
    }
}

impl Service<Name> for Resolver {
    type Response = GaiAddrs;
    type Error = UnknownHost;
    type Future = MapErr<GaiFuture, fn(io::Error) -> UnknownHost>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), UnknownHost>> {
        self.0.poll_ready(context).map_err(UnknownHost)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        self.0.call(name).map_err(UnknownHost)
    }
}
