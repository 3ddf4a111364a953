//! dstack-admission: a Kubernetes-style admission controller for the dstack server.

pub mod admission;
pub mod certs;
pub mod cli;
pub mod config;
pub mod engine;
pub mod identity;
pub mod observe;
pub mod plugins;
pub mod protocol;
pub mod server;

#[cfg(test)]
mod architecture;
