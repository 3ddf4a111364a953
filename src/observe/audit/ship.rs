//! A spool's events on their way to a receiver: batch after batch, in order. What the receiver does
//! not take now is sent again, ever more rarely; what it refuses for good is counted and dropped.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT,
};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::meters::{Loss, SinkMeters};
use super::push::Format;
use super::spool::{Batch, Spool};
use crate::identity::outgoing::{
    self, ClientCert, Credentials, HttpsClient, address, authorization, causes,
};

/// Where a sink's events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipping {
    pub url: Uri,
    pub format: Format,
    /// PEM certificates to trust instead of the public ones.
    pub ca_file: Option<PathBuf>,
    pub client_cert: Option<ClientCert>,
    pub credentials: Option<Credentials>,
    /// Events of one request.
    pub batch_max_size: usize,
    /// How long events are gathered.
    pub batch_max_wait: Duration,
}

/// How long a receiver may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long is waited before the second and the last attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// What is read of an answer that is no success.
const ANSWER_BYTES: usize = 4 << 10;

/// A client of one receiver.
pub(super) struct Receiver {
    http: HttpsClient,
    headers: HeaderMap,
    to: Shipping,
}

/// Ships what a spool holds.
pub(super) struct Shipper {
    pub spool: Arc<Spool>,
    pub receiver: watch::Receiver<Arc<Receiver>>,
    pub meters: Arc<SinkMeters>,
    /// No more lines come: what is there is shipped, then it ends.
    pub closing: CancellationToken,
    /// It ends after the attempt that is under way.
    pub stop: CancellationToken,
}

/// What came of one attempt.
enum Attempt {
    Taken,
    TooLarge,
    Refused(Refused),
    Later {
        why: String,
        pause: Option<Duration>,
    },
}

/// An answer that says that sending this batch again is no use.
#[derive(Debug, thiserror::Error)]
#[error("the receiver refused them with HTTP {status}: {text}")]
struct Refused {
    status: StatusCode,
    text: String,
}

impl Loss for Refused {
    fn reason(&self) -> &'static str {
        "rejected"
    }
}

impl Receiver {
    /// Reads certificates and credentials. Opens no connection yet.
    ///
    /// # Errors
    /// In words, naming the file.
    pub fn new(to: &Shipping) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        let content_type = HeaderValue::from_static(to.format.content_type());
        headers.insert(CONTENT_TYPE, content_type);
        headers.insert(USER_AGENT, HeaderValue::from_static(outgoing::USER_AGENT));
        if let Some(credentials) = &to.credentials {
            headers.insert(AUTHORIZATION, authorization(credentials)?);
        }
        Ok(Self {
            http: outgoing::client(to.ca_file.as_deref(), to.client_cert.as_ref())?,
            headers,
            to: to.clone(),
        })
    }

    async fn send(&self, body: Bytes) -> Attempt {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = http::Method::POST;
        request.uri_mut().clone_from(&self.to.url);
        request.headers_mut().clone_from(&self.headers);
        let answer = timeout(PATIENCE, self.http.request(request)).await;
        let response = match answer {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return later(causes(&error)),
            Err(_) => return later(format!("no answer within {PATIENCE:?}")),
        };
        let (head, body) = response.into_parts();
        let status = head.status;
        // Read to its end, so that the connection can be used again.
        let body = timeout(PATIENCE, Limited::new(body, ANSWER_BYTES).collect()).await;
        if status.is_success() {
            return Attempt::Taken;
        }
        let text = match body {
            Ok(Ok(collected)) => one_line(&collected.to_bytes()),
            _ => String::new(),
        };
        let again = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
        if status == StatusCode::PAYLOAD_TOO_LARGE {
            Attempt::TooLarge
        } else if status.is_server_error() || again.contains(&status) || is_of_the_way(status) {
            let to = head.headers.get(LOCATION).and_then(|to| to.to_str().ok());
            let text = to.map_or(text, |to| format!("it redirects to {to}"));
            let pause = head.headers.get(RETRY_AFTER);
            let pause = pause.and_then(|value| value.to_str().ok()?.parse().ok());
            Attempt::Later {
                why: format!("HTTP {status} {text}"),
                pause: pause.map(Duration::from_secs),
            }
        } else {
            Attempt::Refused(Refused { status, text })
        }
    }
}

impl Shipper {
    pub async fn run(self) {
        let mut pause = FIRST_PAUSE;
        let mut most = usize::MAX;
        let mut failing = false;
        while self.gather().await {
            let receiver = Arc::clone(&self.receiver.borrow());
            let size = receiver.to.batch_max_size.min(most);
            let Some(batch) = self.batch(size).await else {
                continue;
            };
            match receiver.send(receiver.to.format.body(&batch.lines)).await {
                Attempt::Taken => {
                    if std::mem::take(&mut failing) {
                        let url = address(&receiver.to.url);
                        tracing::info!(url, "audit events are shipped again");
                    }
                    self.meters.shipped(batch.events);
                    (pause, most) = (FIRST_PAUSE, most.saturating_mul(2));
                    self.done(batch).await;
                }
                Attempt::TooLarge if batch.events > 1 => most = batch.events as usize / 2,
                Attempt::TooLarge => {
                    let refused = Refused {
                        status: StatusCode::PAYLOAD_TOO_LARGE,
                        text: "one event is too large".to_owned(),
                    };
                    self.meters.failed(batch.events, &refused);
                    self.done(batch).await;
                }
                Attempt::Refused(refused) => {
                    self.meters.failed(batch.events, &refused);
                    self.done(batch).await;
                }
                Attempt::Later { why, pause: asked } => {
                    let url = address(&receiver.to.url);
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(url, why, "audit events are not shipped; they wait on disk");
                    }
                    let rest =
                        asked.map_or_else(|| jittered(pause), |asked| asked.min(LONGEST_PAUSE));
                    self.rest(rest).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Waits for events worth a request. False when there is nothing more to do.
    async fn gather(&self) -> bool {
        let mut until = None;
        loop {
            if self.stop.is_cancelled() {
                return false;
            }
            let receiver = Arc::clone(&self.receiver.borrow());
            let to = &receiver.to;
            let events = self.spool.events();
            let closing = self.closing.is_cancelled();
            if events >= to.batch_max_size as u64 || closing && events > 0 {
                return true;
            }
            if closing {
                return false;
            }
            if events > 0 {
                let until = *until.get_or_insert_with(|| Instant::now() + to.batch_max_wait);
                tokio::select! {
                    () = tokio::time::sleep_until(until) => return true,
                    () = self.spool.grown.notified() => {}
                    () = self.closing.cancelled() => {}
                    () = self.stop.cancelled() => {}
                }
            } else {
                tokio::select! {
                    () = self.spool.grown.notified() => {}
                    () = self.closing.cancelled() => {}
                    () = self.stop.cancelled() => {}
                }
            }
        }
    }

    async fn batch(&self, most: usize) -> Option<Batch> {
        let spool = Arc::clone(&self.spool);
        let read = tokio::task::spawn_blocking(move || spool.batch(most)).await;
        match read.map_err(std::io::Error::other).flatten() {
            Ok(batch) => batch,
            Err(error) => {
                tracing::error!(%error, "the audit spool cannot be read");
                self.rest(LONGEST_PAUSE).await;
                None
            }
        }
    }

    async fn done(&self, batch: Batch) {
        let spool = Arc::clone(&self.spool);
        let done = tokio::task::spawn_blocking(move || spool.done(&batch)).await;
        if let Err(error) = done.map_err(std::io::Error::other).flatten() {
            tracing::error!(%error, "the audit spool cannot note what was shipped");
        }
    }

    /// Waits before the next attempt, but not beyond a change of the receiver.
    async fn rest(&self, time: Duration) {
        let mut receiver = self.receiver.clone();
        receiver.mark_unchanged();
        tokio::select! {
            () = sleep(time) => {}
            Ok(()) = receiver.changed() => {}
            () = self.stop.cancelled() => {}
        }
    }
}

/// Whether an answer is about how it was asked and not about the events: credentials and addresses
/// are mended by people, and what was recorded meanwhile must not be lost to that.
fn is_of_the_way(status: StatusCode) -> bool {
    const OF_THE_WAY: [StatusCode; 5] = [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::NOT_FOUND,
        StatusCode::METHOD_NOT_ALLOWED,
        StatusCode::PROXY_AUTHENTICATION_REQUIRED,
    ];
    status.is_redirection() || OF_THE_WAY.contains(&status)
}

fn later(why: String) -> Attempt {
    Attempt::Later { why, pause: None }
}

/// Between half and the whole of a time, so that many senders do not come at once.
fn jittered(time: Duration) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let part = f64::from(now.unwrap_or_default().subsec_micros() % 1000) / 1000.0;
    time.mul_f64(0.5 + part / 2.0)
}

/// The beginning of an answer, as a log line may hold it.
fn one_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let text = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    text.take(200).collect::<String>().trim().to_owned()
}
