//! The HTTP client under the exporter: the one that plugins and audit sinks are called with, so that
//! certificates, secrets and TLS are the same everywhere. It remembers what was answered last.

use std::fmt;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use flate2::write::GzEncoder;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, HeaderMap, HeaderValue, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;

use super::super::{Compression, Header, Settings};
use crate::identity::outgoing::{self, HttpsClient, authorization, causes};
use crate::identity::{in_file, secret};

/// What is read of an answer. It says how many spans were rejected and why, or less.
const ANSWER_BYTES: usize = 16 << 10;
/// What the log shows of it.
const SHOWN: usize = 200;

pub(super) struct Client {
    http: HttpsClient,
    headers: HeaderMap,
    compression: Compression,
    timeout: Duration,
    last: Mutex<Answer>,
}

/// What came of the last request.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    /// Why spans were not taken, or nothing.
    pub why: String,
    /// Sending the same again is no use.
    pub refused: bool,
    /// Spans of a request that was taken otherwise.
    pub rejected: usize,
}

impl Client {
    /// Reads certificates and secrets. Opens no connection yet.
    ///
    /// # Errors
    /// In words, naming the file.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(outgoing::USER_AGENT));
        if let Some(credentials) = &settings.credentials {
            headers.insert(AUTHORIZATION, authorization(credentials)?);
        }
        for (name, value) in &settings.headers {
            let mut value = match value {
                Header::Text(text) => HeaderValue::from_str(text)
                    .map_err(|_| format!("header `{name}`: not usable in a header"))?,
                Header::File(file) => HeaderValue::from_str(&secret(file)?)
                    .map_err(|_| in_file(file, "not usable in a header"))?,
            };
            value.set_sensitive(true);
            headers.insert(name.clone(), value);
        }
        Ok(Self {
            http: outgoing::client(settings.ca_file.as_deref(), settings.client_cert.as_ref())?,
            headers,
            compression: settings.compression,
            timeout: settings.timeout,
            last: Mutex::default(),
        })
    }

    /// What came of the last request, which is forgotten now.
    pub fn answer(&self) -> Answer {
        std::mem::take(&mut *self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, answer: Answer) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (mut head, mut body) = request.into_parts();
        if self.compression == Compression::Gzip {
            body = gzip(&body)?;
            head.headers
                .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        for (name, value) in &self.headers {
            head.headers.insert(name.clone(), value.clone());
        }
        let request = Request::from_parts(head, Full::new(body));
        let (head, body) = self.http.request(request).await?.into_parts();
        // A body that breaks off after its status says no less than an empty one.
        let body = Limited::new(body, ANSWER_BYTES).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        Ok(Response::from_parts(head, body))
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let response = match tokio::time::timeout(self.timeout, self.exchange(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                self.note(Answer {
                    why: causes(&*error),
                    ..Answer::default()
                });
                return Err(error);
            }
            Err(late) => {
                let patience = humantime::format_duration(self.timeout);
                self.note(Answer {
                    why: format!("no answer within {patience}"),
                    ..Answer::default()
                });
                return Err(late.into());
            }
        };
        self.note(read(response.status(), response.body()));
        Ok(response)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

fn gzip(text: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text)?;
    encoder.finish().map(Bytes::from)
}

/// What an answer says (OTLP specification, "OTLP/HTTP Response").
fn read(status: StatusCode, body: &[u8]) -> Answer {
    if status.is_success() {
        let response = ExportTraceServiceResponse::decode(body).unwrap_or_default();
        let partial = response.partial_success.unwrap_or_default();
        return Answer {
            why: format!("it rejected spans: {}", shown(&partial.error_message)),
            refused: false,
            rejected: usize::try_from(partial.rejected_spans).unwrap_or(0),
        };
    }
    let again = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    Answer {
        why: format!("HTTP {status}"),
        refused: status.is_client_error() && !again.contains(&status),
        rejected: 0,
    }
}

/// The beginning of a text, as a log line may hold it.
fn shown(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(SHOWN).collect()
}
