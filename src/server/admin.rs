//! The admin port: `/metrics`, `/livez`, `/readyz`, `/configz` and `/decisions` over plain HTTP. It
//! shows no secret and decides nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::places::{self, Places};
use super::{Shared, decisions};

const TEXT: &str = "text/plain; charset=utf-8";
/// How many connections fit. When all are taken, the oldest makes room.
const CONNECTIONS: usize = 64;
/// Probes and scrapers are few and quick.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let address = listener.local_addr();
    let loopback = address.is_ok_and(|address| address.ip().is_loopback());
    let places = Arc::new(Places::new(places::beside(CONNECTIONS)));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Some(place) = places.take() else {
            continue;
        };
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| {
                std::future::ready(Ok::<_, Infallible>(answer(&shared, loopback, &request)))
            });
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT);
            tokio::select! {
                _ = builder.serve_connection(TokioIo::new(stream), service) => {}
                () = stop.cancelled() => {}
                () = place.evicted() => {}
            }
        });
    }
}

fn answer(shared: &Shared, loopback: bool, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n");
        let allowed = HeaderValue::from_static("GET, HEAD");
        refused.headers_mut().insert(ALLOW, allowed);
        return refused;
    }
    match request.uri().path() {
        "/decisions" | "/decisions.css" | "/configz"
            if loopback && !decisions::is_own_host(request.headers(), request.uri()) =>
        {
            text(
                StatusCode::MISDIRECTED_REQUEST,
                TEXT,
                "ask by `localhost` or by an IP address\n",
            )
        }
        "/decisions" | "/decisions.css" if !shared.live.load().decisions_page => text(
            StatusCode::NOT_FOUND,
            TEXT,
            "this page is off; `decisionsPage: true` turns it on\n",
        ),
        "/decisions" => decisions::page(&shared.recent, request.uri().query()),
        "/decisions.css" => decisions::answer("text/css", decisions::STYLE),
        "/livez" => text(StatusCode::OK, TEXT, "ok\n"),
        "/readyz" => match shared.readiness.reasons().as_slice() {
            [] => text(StatusCode::OK, TEXT, "ok\n"),
            reasons => text(
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT,
                format!("not ready: {}\n", reasons.join(", ")),
            ),
        },
        "/configz" => text(
            StatusCode::OK,
            "application/json",
            shared.live.load().configz.clone(),
        ),
        "/metrics" => metrics(shared),
        _ => text(
            StatusCode::NOT_FOUND,
            TEXT,
            "/metrics /livez /readyz /configz /decisions\n",
        ),
    }
}

fn metrics(shared: &Shared) -> Response<Full<Bytes>> {
    for (plugin, is_open) in shared.live.load().engine.breakers() {
        shared.metrics.breaker(plugin, is_open);
    }
    match shared.metrics.render() {
        Ok((metrics, content_type)) => text(StatusCode::OK, &content_type, metrics),
        Err(error) => {
            let error = format!("{error}\n");
            text(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error)
        }
    }
}

fn text(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    if let Ok(content_type) = HeaderValue::from_str(content_type) {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}
