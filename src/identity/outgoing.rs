//! The client's side of connections over HTTP: whom it trusts and how it shows who it is. It sends
//! nothing and knows no protocol.

mod lookup;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::Uri;
use http::header::HeaderValue;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;

use lookup::Resolver;
pub use lookup::UnknownHost;

use super::{certificates, in_file, private_key, roots, secret};

/// A client with a pool of connections.
pub type HttpsClient = legacy::Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>;

/// What this client calls itself.
pub const USER_AGENT: &str = concat!("dstack-admission/", env!("CARGO_PKG_VERSION"));

/// A PEM certificate chain and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCert {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    Bearer {
        token_file: PathBuf,
    },
    Basic {
        username: String,
        password_file: PathBuf,
    },
}

/// A client that trusts the certificates of `ca_file` instead of the public ones, and shows
/// `client_cert`. Opens no connection yet.
///
/// # Errors
/// In words, naming the file.
pub fn client(
    ca_file: Option<&Path>,
    client_cert: Option<&ClientCert>,
) -> Result<HttpsClient, String> {
    let mut connector = HttpConnector::new_with_resolver(Resolver::new());
    connector.enforce_http(false);
    connector.set_nodelay(true);
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls_config(ca_file, client_cert)?)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(connector);
    Ok(legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .build(https))
}

/// The header `authorization`, marked as a secret.
///
/// # Errors
/// In words, naming the file.
pub fn authorization(credentials: &Credentials) -> Result<HeaderValue, String> {
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

/// An address as the log may show it: a query may hold a secret.
pub fn address(url: &Uri) -> String {
    let (scheme, host) = (
        url.scheme_str().unwrap_or_default(),
        url.authority().map_or("", |a| a.as_str()),
    );
    format!("{scheme}://{host}{}", url.path())
}

fn tls_config(
    ca_file: Option<&Path>,
    client_cert: Option<&ClientCert>,
) -> Result<rustls::ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = builder.with_root_certificates(match ca_file {
        Some(file) => roots(file)?,
        None => public_roots(),
    });
    match client_cert {
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

/// Why a request failed, with what caused it, in one line.
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}
