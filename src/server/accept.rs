//! Connections to the review port: accept, handshake, HTTP. Each is a task that ends with its
//! connection; none can keep others out.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::places::{Place, Places};
use super::{Shared, handler, places};

/// What a client that speaks plain HTTP to a TLS port reads.
const PLAIN_HTTP_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n\
Content-Length: 64\r\nConnection: close\r\n\r\n{\"error\": \"this port speaks HTTPS; use https:// in the address\"}";

/// How much a client that speaks plain HTTP may go on sending before it reads its answer.
const READ_BEFORE_CLOSE: u64 = 64 * 1024;

/// How long a caller who has connected before the drain, or during it, may take to begin to ask.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// Serves connections until `stop`, then those that the kernel has accepted already.
pub async fn serve(listener: TcpListener, shared: &Arc<Shared>, stop: CancellationToken) {
    let places = Arc::new(Places::new(places::that_fit(shared.limits.connections)));
    let mut backoff = Backoff::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                backoff = Backoff::default();
                admit(shared, &places, stream, &stop);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; trying again");
                shared
                    .metrics
                    .connection_error_total
                    .with_label_values(&["accept"])
                    .inc();
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }
    while let Some(Ok((stream, _))) = listener.accept().now_or_never() {
        admit(shared, &places, stream, &stop);
    }
}

fn admit(shared: &Arc<Shared>, places: &Arc<Places>, stream: TcpStream, stop: &CancellationToken) {
    let Some(place) = places.take() else {
        shared
            .metrics
            .connection_error_total
            .with_label_values(&["too_many"])
            .inc();
        return;
    };
    let _ = stream.set_nodelay(true);
    let (shared, stop) = (Arc::clone(shared), stop.clone());
    shared.clone().tasks.spawn(async move {
        shared.metrics.connections.inc();
        let ended = connection(&shared, stream, &place, stop).await;
        shared.metrics.connections.dec();
        if let Err(reason) = ended {
            shared
                .metrics
                .connection_error_total
                .with_label_values(&[reason])
                .inc();
        }
    });
}

/// One connection to its end. An error is a label for the metric.
async fn connection(
    shared: &Arc<Shared>,
    stream: TcpStream,
    place: &Place,
    stop: CancellationToken,
) -> Result<(), &'static str> {
    let tls = shared.live.load().tls.clone();
    let Some(tls) = tls else {
        return http(shared, stream, false, place, stop).await;
    };

    let handshake = tokio::time::timeout(shared.limits.handshake_timeout, handshake(stream, tls));
    let stream = tokio::select! {
        () = place.evicted() => return Err("evicted"),
        handshake = handshake => handshake.unwrap_or(Err("handshake_timeout"))?,
    };
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    http(shared, stream, is_http2, place, stop).await
}

async fn handshake(
    mut stream: TcpStream,
    tls: Arc<ServerConfig>,
) -> Result<TlsStream<TcpStream>, &'static str> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(1) if first[0].is_ascii_uppercase() => {
            let _ = stream.write_all(PLAIN_HTTP_ANSWER).await;
            let _ = stream.shutdown().await;
            // What was sent is read, since closing on unread bytes would reset the answer away.
            let _ =
                tokio::io::copy(&mut stream.take(READ_BEFORE_CLOSE), &mut tokio::io::sink()).await;
            Err("plain_http")
        }
        // Opened and closed again, as probes do.
        Ok(0) => Err("closed"),
        _ => TlsAcceptor::from(tls)
            .accept(stream)
            .await
            .map_err(|error| {
                tracing::debug!(%error, "TLS handshake failed");
                "handshake"
            }),
    }
}

async fn http<S>(
    shared: &Arc<Shared>,
    stream: S,
    is_http2: bool,
    place: &Place,
    stop: CancellationToken,
) -> Result<(), &'static str>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| {
        let busy = place.busy();
        let answer = handler::answer(Arc::clone(shared), request);
        async move {
            let response = answer.await;
            drop(busy);
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let io = TokioIo::new(stream);
    let timeout = shared.limits.header_timeout;
    let ended = if is_http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(Some(timeout));
        let connection = builder.serve_connection(io, service);
        // HTTP/2 itself waits for its first bytes for ever.
        tokio::select! {
            ended = until_done(connection, place, stop, timeout) => ended,
            () = place.unasked_for(timeout) => return Err("header_timeout"),
        }
    } else {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(timeout);
        let connection = builder.serve_connection(io, service);
        until_done(connection, place, stop, timeout).await
    };
    match ended {
        _ if place.is_evicted() => Err("evicted"),
        // Between two requests nobody is late.
        Err(error) if error.is_timeout() && place.was_asked() => Ok(()),
        Err(error) if error.is_timeout() => Err("header_timeout"),
        Err(error) if error.is_parse() => Err("bad_http"),
        // Callers may hang up as they like; dstack does so without saying goodbye.
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Drives a connection to its end. Told to go, it answers what it has begun; and since its caller
/// saw a server that serves, it takes the first request if that is still on its way. A caller who
/// then neither asks nor leaves is left after `timeout`.
async fn until_done<C>(
    connection: C,
    place: &Place,
    stop: CancellationToken,
    timeout: Duration,
) -> hyper::Result<()>
where
    C: GracefulConnection<Error = hyper::Error>,
{
    let mut connection = std::pin::pin!(connection);
    let told_to_go = async {
        stop.cancelled().await;
        let _ = tokio::time::timeout(FIRST_REQUEST, place.asked()).await;
    };
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = place.evicted() => {}
        () = told_to_go => {}
    }
    connection.as_mut().graceful_shutdown();
    loop {
        // Half a request holds no place that another caller needs.
        let patience = if place.is_evicted() {
            Duration::ZERO
        } else {
            timeout
        };
        match tokio::time::timeout(patience, connection.as_mut()).await {
            Ok(ended) => return ended,
            Err(_) if !place.is_busy() => return Ok(()),
            Err(_) if place.is_evicted() => return connection.await,
            Err(_) => {}
        }
    }
}

/// Whether an accept error is about the connection that was to be accepted, and no other.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

#[derive(Default)]
struct Backoff(u32);

impl Backoff {
    fn next(&mut self) -> Duration {
        self.0 = (self.0 + 1).min(7);
        Duration::from_millis(5 << self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_plain_http_declares_its_length() {
        let text = std::str::from_utf8(PLAIN_HTTP_ANSWER).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("Content-Length: {}\r\n", body.len())),
            "{}",
            body.len()
        );
    }
}
