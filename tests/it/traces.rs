//! Traces of reviews: what a caller says of its trace, what plugins are told of it, and the spans that
//! a receiver of OTLP gets.

#[cfg(feature = "otlp")]
mod receiver;
#[cfg(feature = "otlp")]
mod sending;
#[cfg(feature = "otlp")]
mod spans;
#[cfg(not(feature = "otlp"))]
mod without;

use http::Request;

use crate::harness::client::Body;
use crate::harness::sidecar::{RUN, SPEC, body, post};

/// The trace of the examples of W3C Trace Context.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A run to review, with these headers.
fn asked(headers: &[(&'static str, &str)]) -> Request<Body> {
    let mut request = post(RUN, body(SPEC));
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}
