//! The served binary from outside: the real process, real sockets, real certificates, and plugin
//! servers that answer, stall and break as each test says. Nothing here looks inside.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod harness;

mod chain;
mod failure;
mod remote;
mod server;
mod tls;
