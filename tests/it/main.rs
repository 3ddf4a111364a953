//! The served binary from outside: the real process, real sockets, real certificates, and plugin
//! servers that answer, stall and break as each test says. Nothing here looks inside.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and then shows what the sidecar said"
)]

mod harness;

mod audit;
mod certs;
mod chain;
mod decisions;
mod doctor;
mod documents;
mod examples;
mod explain;
mod failure;
mod fan_out;
mod healthcheck;
mod install;
mod leaks;
mod levels;
mod migrate;
mod patience;
mod python;
mod records;
mod reload;
mod remote;
mod replay;
mod review;
mod server;
mod suites;
mod tls;
mod traces;
mod work;
