//! The HTTP client that webhooks and REST plugins share: one pool of connections for each plugin,
//! its trust and credentials, one retry on connect, a cap on what comes back, a circuit breaker.
//!
//! It knows no protocol: bytes out, bytes in, and whatever goes wrong as a [`Fault`].

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT,
};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;

use super::breaker::{self, Attempt, Breaker};
use crate::admission::review::Review;
use crate::admission::verdict::{Budget, Fault, FaultKind};
use crate::identity::{certificates, in_file, private_key, roots, secret};

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

#[derive(Clone, Debug)]
pub struct ClientCert {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

#[derive(Clone, Debug)]
pub enum Credentials {
    Bearer {
        token_file: PathBuf,
    },
    Basic {
        username: String,
        password_file: PathBuf,
    },
}

/// A client of one plugin. Cheap to share, safe to use from many reviews at once.
#[derive(Debug)]
pub struct Client {
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
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
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls_config(settings)?)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(connector);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(https);

        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let agent = concat!("dstack-admission/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
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
        review: &Review,
        body: Bytes,
        budget: Budget,
    ) -> Result<Bytes, Fault> {
        let Some(mut attempt) = self.breaker.attempt() else {
            let failures = self.breaker.failures();
            let message =
                format!("it was not asked, since its last {failures} calls failed; try again soon");
            return Err(Fault::new(FaultKind::CircuitOpen, message).with_detail(address(url)));
        };
        attempt.inconclusive_if(budget.cut_short);
        let answer = self.exchange(url, review, body, budget, attempt).await;
        answer.map_err(|fault| match fault.detail {
            Some(_) => fault,
            None => fault.with_detail(address(url)),
        })
    }

    /// One exchange. The attempt succeeds when the plugin is there to answer, whatever it says.
    async fn exchange(
        &self,
        url: &Uri,
        review: &Review,
        body: Bytes,
        budget: Budget,
        attempt: Attempt<'_>,
    ) -> Result<Bytes, Fault> {
        let mut retried = false;
        let response = loop {
            let request = self.request(url, review, body.clone(), budget)?;
            match self.http.request(request).await {
                Ok(response) => break response,
                Err(error) if error.is_connect() && !retried => retried = true,
                Err(error) => return Err(unreachable_fault(&error, url)),
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
            if !status.is_server_error() {
                attempt.succeeded();
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
            Err(error) => Err(Fault::new(FaultKind::Transport, "its answer broke off")
                .with_detail(format!("{}: {error}", address(url)))),
        }
    }

    fn request(
        &self,
        url: &Uri,
        review: &Review,
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
        for (name, value) in &review.headers {
            let name = self
                .forward_headers
                .iter()
                .find(|listed| *listed == name.as_str());
            if let (Some(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
                headers.insert(name.clone(), value);
            }
        }
        Ok(request)
    }
}

/// An address as the log may show it: a query may hold a secret.
fn address(url: &Uri) -> String {
    let (scheme, host) = (
        url.scheme_str().unwrap_or_default(),
        url.authority().map_or("", |a| a.as_str()),
    );
    format!("{scheme}://{host}{}", url.path())
}

fn unreachable_fault(error: &legacy::Error, url: &Uri) -> Fault {
    let detail = format!("{}: {}", address(url), causes(error));
    let fault = match cause::<rustls::Error>(error) {
        Some(tls) => Fault::new(
            FaultKind::Tls,
            format!("no TLS connection to it could be made: {tls}"),
        ),
        None if error.is_connect() => {
            let why = cause::<std::io::Error>(error).map(|io| io.kind().to_string());
            let why = why.unwrap_or_else(|| "unknown host".to_owned());
            Fault::new(
                FaultKind::Connect,
                format!("no connection to it could be made ({why})"),
            )
        }
        None => Fault::new(
            FaultKind::Transport,
            "the connection to it broke before it answered",
        ),
    };
    fault.with_detail(detail)
}

/// The first cause of a type, looking into I/O errors, which hide theirs.
fn cause<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    let mut next = Some(error);
    let mut found = None;
    while let Some(error) = next {
        found = error.downcast_ref::<E>().or(found);
        let inside = error
            .downcast_ref::<std::io::Error>()
            .and_then(|io| io.get_ref());
        next = match inside {
            Some(inside) => Some(inside),
            None => error.source(),
        };
    }
    found
}

fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

fn tls_config(settings: &Settings) -> Result<rustls::ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = builder.with_root_certificates(match &settings.ca_file {
        Some(file) => roots(file)?,
        None => public_roots(),
    });
    match &settings.client_cert {
        None => Ok(builder.with_no_client_auth()),
        Some(ClientCert {
            cert_file,
            key_file,
        }) => builder
            .with_client_auth_cert(certificates(cert_file)?, private_key(key_file)?)
            .map_err(|e| in_file(cert_file, e)),
    }
}

/// The public CAs, as Mozilla lists them.
fn public_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
    roots
}

fn authorization(credentials: &Credentials) -> Result<HeaderValue, String> {
    let (text, file) = match credentials {
        Credentials::Bearer { token_file } => {
            (format!("Bearer {}", secret(token_file)?), token_file)
        }
        Credentials::Basic {
            username,
            password_file,
        } => {
            let pair = format!("{username}:{}", secret(password_file)?);
            (
                format!("Basic {}", BASE64_STANDARD.encode(pair)),
                password_file,
            )
        }
    };
    let mut value =
        HeaderValue::from_str(&text).map_err(|_| in_file(file, "not usable in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}
