//! The HTTP client that webhooks and REST plugins share: one pool of connections for each plugin,
//! its trust and credentials, one retry on connect, a cap on what comes back, a circuit breaker.
//!
//! It knows no protocol: bytes out, bytes in, and whatever goes wrong as a [`Fault`].

mod unreachable;

use std::path::PathBuf;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT,
};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};

use super::breaker::{self, Attempt, Breaker};
use crate::admission::trace::{SpanId, TRACEPARENT, TRACESTATE, Trace};
use crate::admission::verdict::{Budget, Call, Fault, FaultKind};
use crate::identity::outgoing::{
    self, ClientCert, Credentials, HttpsClient, address, authorization,
};

/// Tells a plugin how long its answer is waited for, in milliseconds.
const TIMEOUT_HEADER: &str = "x-dstack-admission-timeout-ms";

/// Where a remote plugin is and how it is spoken to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `https://host[:port]/path`, or `http://` where that was allowed.
    pub url: Uri,
    /// PEM certificates to trust instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// PEM certificate chain and key that this client shows.
    pub client_cert: Option<ClientCert>,
    pub credentials: Option<Credentials>,
    /// Headers of the dstack server's request that are passed on, such as `traceparent`.
    pub forward_headers: Vec<HeaderName>,
    pub max_response_bytes: usize,
    pub breaker: breaker::Settings,
}

/// A client of one plugin. Cheap to share, safe to use from many reviews at once.
#[derive(Debug)]
pub struct Client {
    http: HttpsClient,
    url: Uri,
    headers: HeaderMap,
    forward_headers: Vec<HeaderName>,
    max_response_bytes: usize,
    breaker: Breaker,
}

impl Client {
    /// Reads certificates and credentials. Opens no connection yet.
    ///
    /// # Errors
    /// In words, naming the file.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        let http = outgoing::client(settings.ca_file.as_deref(), settings.client_cert.as_ref())?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(outgoing::USER_AGENT));
        if let Some(credentials) = &settings.credentials {
            headers.insert(AUTHORIZATION, authorization(credentials)?);
        }
        Ok(Self {
            http,
            url: settings.url.clone(),
            headers,
            forward_headers: settings.forward_headers.clone(),
            max_response_bytes: settings.max_response_bytes,
            breaker: Breaker::new(settings.breaker),
        })
    }

    pub fn url(&self) -> &Uri {
        &self.url
    }

    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Posts a body to `url` and returns the body of a 2xx answer. Whoever calls drops this at the
    /// end of the budget; the breaker then counts a failure.
    ///
    /// # Errors
    /// Every other ending, in words for the user (without the address) and for the log (with it).
    pub async fn post(
        &self,
        url: &Uri,
        call: &Call,
        body: Bytes,
        budget: Budget,
    ) -> Result<Bytes, Fault> {
        let Some(mut attempt) = self.breaker.attempt() else {
            let failures = self.breaker.failures();
            let message =
                format!("it was not asked, since its last {failures} calls failed; try again soon");
            return Err(Fault::new(FaultKind::CircuitOpen, message).with_detail(address(url)));
        };
        attempt.inconclusive_if(budget.is_scant);
        let answer = self.exchange(url, call, body, budget, attempt).await;
        answer.map_err(|fault| match fault.detail {
            Some(_) => fault,
            None => fault.with_detail(address(url)),
        })
    }

    /// One exchange. The attempt succeeds when the plugin is there to answer, whatever it says.
    async fn exchange(
        &self,
        url: &Uri,
        call: &Call,
        body: Bytes,
        budget: Budget,
        attempt: Attempt<'_>,
    ) -> Result<Bytes, Fault> {
        let mut retried = false;
        let response = loop {
            let request = self.request(url, call, body.clone(), budget)?;
            match self.http.request(request).await {
                Ok(response) => break response,
                Err(error) if error.is_connect() && !retried => retried = true,
                Err(error) => {
                    attempt.failed();
                    return Err(unreachable::fault(&error, url));
                }
            }
        };

        let status = response.status();
        if status.is_redirection() {
            attempt.succeeded();
            let to = response
                .headers()
                .get(LOCATION)
                .and_then(|to| to.to_str().ok())
                .unwrap_or("nowhere");
            let message = format!(
                "it redirects (HTTP {}), which is not followed",
                status.as_u16()
            );
            return Err(Fault::new(FaultKind::Status, message)
                .with_detail(format!("{} redirects to {to}", address(url))));
        }
        if !status.is_success() {
            match status.is_server_error() {
                true => attempt.failed(),
                false => attempt.succeeded(),
            }
            let message = format!("it answered HTTP {status}");
            return Err(Fault::new(FaultKind::Status, message));
        }
        let limited = Limited::new(response.into_body(), self.max_response_bytes);
        match limited.collect().await {
            Ok(collected) => {
                attempt.succeeded();
                Ok(collected.to_bytes())
            }
            Err(error) if error.is::<LengthLimitError>() => {
                attempt.succeeded();
                let message = format!(
                    "its answer is larger than {} bytes",
                    self.max_response_bytes
                );
                Err(Fault::new(FaultKind::TooLarge, message))
            }
            Err(error) => {
                attempt.failed();
                Err(Fault::new(FaultKind::Transport, "its answer broke off")
                    .with_detail(format!("{}: {error}", address(url))))
            }
        }
    }

    fn request(
        &self,
        url: &Uri,
        call: &Call,
        body: Bytes,
        budget: Budget,
    ) -> Result<Request<Full<Bytes>>, Fault> {
        let mut request = Request::post(url).body(Full::new(body)).map_err(|e| {
            Fault::new(FaultKind::Connect, "its address is no valid URL")
                .with_detail(format!("{}: {e}", address(url)))
        })?;
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        headers.insert(
            TIMEOUT_HEADER,
            HeaderValue::from(budget.limit.as_millis() as u64),
        );
        for name in &self.forward_headers {
            let given = call.review.headers.iter();
            let values = given.filter(|(given, _)| name == given.as_str());
            let mut values = values.filter_map(|(_, value)| HeaderValue::from_str(value).ok());
            if let Some(first) = values.next() {
                headers.insert(name.clone(), first);
            }
            for further in values {
                headers.append(name.clone(), further);
            }
        }
        if let Some((trace, span)) = call.trace() {
            go_on_with(trace, span, headers);
        }
        Ok(request)
    }
}

/// Names the span that calls, in place of the caller's that may be passed on.
fn go_on_with(trace: &Trace, span: SpanId, headers: &mut HeaderMap) {
    headers.remove(TRACESTATE);
    if let Ok(value) = HeaderValue::try_from(trace.traceparent(span)) {
        headers.insert(TRACEPARENT, value);
    }
    if let Some(Ok(value)) = trace.state.as_deref().map(HeaderValue::from_str) {
        headers.insert(TRACESTATE, value);
    }
}
