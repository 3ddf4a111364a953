//! The configuration file as typed: one struct for each map, one field for each key.
//!
//! What a value means beyond its form (does the file exist, does the expression compile, do two
//! keys go together) is not decided here. The doc comments are what editors show, by way of the
//! JSON Schema that is made from these types.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};

use super::Document;
use super::defaults;
use super::plugin::{Basic, Match, PluginEntry};
use super::recording::Audit;
use super::tracing::Tracing;
use super::units::{ByteCount, Expiry, Period};

/// The configuration of dstack-admission.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdmissionConfiguration {
    /// The version of this format.
    pub api_version: ApiVersion,
    /// The kind of this file.
    pub kind: ConfigurationKind,
    /// The address on which the dstack server's reviews are answered, `HOST:PORT`.
    #[schemars(extend("default" = defaults::LISTEN))]
    pub listen: Option<String>,
    /// The path before `/apply_policies/…`, where `DSTACK_PLUGIN_SERVICE_URI` has one.
    #[schemars(extend("examples" = ["/admission"]))]
    pub path_prefix: Option<String>,
    /// DNS names and IP addresses, besides those of `listen`, that the made certificate holds for.
    #[serde(default)]
    #[schemars(extend("examples" = [["dstack-admission.example.com"]]))]
    pub server_names: Vec<String>,
    /// The address of `/metrics`, `/livez`, `/readyz`, `/configz` and `/decisions`, over plain HTTP.
    #[schemars(extend("default" = defaults::ADMIN))]
    pub admin: Option<String>,
    /// The page of the latest decisions, `/decisions` on the admin address. Without it: where that
    /// is loopback.
    pub decisions_page: Option<bool>,
    /// The directory for made certificates, environments of Python plugins and spools.
    #[schemars(length(min = 1), extend("default" = defaults::STATE_DIR))]
    pub state_dir: Option<PathBuf>,
    /// The server's certificate, or `off` for plain HTTP on loopback. Without it, a CA and a
    /// certificate are made under `stateDir`.
    pub tls: Option<Tls>,
    /// Who may ask for reviews. Without it, only loopback and clients with a certificate may.
    pub auth: Option<Auth>,
    /// How long the whole chain may take.
    #[schemars(extend("default" = defaults::DEADLINE.to_string()))]
    pub deadline: Option<Period>,
    /// What the server takes on at most.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub limits: Limits,
    /// The log on standard error.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub log: Log,
    /// The record of each decision.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub audit: Audit,
    /// What is counted besides what always is.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub metrics: Metrics,
    /// Traces of reviews, for distributed tracing.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub tracing: Tracing,
    /// The chain. Mutating plugins are called in this order.
    #[serde(default)]
    pub plugins: Vec<PluginEntry>,
    /// Who is exempt from which plugins, why and until when.
    #[serde(default)]
    pub exemptions: Vec<Exemption>,
}

impl Document for AdmissionConfiguration {
    const KIND: &str = "AdmissionConfiguration";
    const NOUN: &str = "a configuration";
}

/// The version of this format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ApiVersion {
    #[serde(rename = "dstack-admission/v1")]
    V1,
}

/// The kind of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ConfigurationKind {
    AdmissionConfiguration,
}

/// The server's side of TLS: `off`, or files.
#[derive(Clone, Debug)]
pub enum Tls {
    /// Plain HTTP. Some YAML tools write `off` as `false`, so that is read too.
    Off,
    Files(TlsFiles),
}

/// The server's certificate in PEM files, read again whenever they change.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate chain, leaf first. Needs `keyFile`.
    pub cert_file: Option<PathBuf>,
    /// The private key of `certFile`.
    pub key_file: Option<PathBuf>,
    /// The CAs whose clients may connect. With it, every client needs a certificate.
    #[serde(rename = "clientCAFile")]
    pub client_ca_file: Option<PathBuf>,
}

/// Credentials that the dstack server sends. One of the two.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Auth {
    /// HTTP Basic: what the dstack server takes from its netrc file.
    pub basic: Option<Basic>,
    /// A file that holds a bearer token.
    pub bearer_token_file: Option<PathBuf>,
}

/// What the server takes on at most.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// The size of a request's body.
    #[schemars(extend("default" = defaults::BODY_BYTES.to_string()))]
    pub body_bytes: Option<ByteCount>,
    /// Reviews at the same time.
    #[schemars(range(min = 1), extend("default" = defaults::IN_FLIGHT))]
    pub in_flight: Option<u32>,
    /// How long a review waits for its turn before it is denied.
    #[schemars(extend("default" = defaults::IN_FLIGHT_WAIT.to_string()))]
    pub in_flight_wait: Option<Period>,
    /// Connections at the same time.
    #[schemars(range(min = 1), extend("default" = defaults::CONNECTIONS))]
    pub connections: Option<u32>,
    /// How long a TLS handshake may take.
    #[schemars(extend("default" = defaults::HANDSHAKE_TIMEOUT.to_string()))]
    pub handshake_timeout: Option<Period>,
    /// How long a client may take to send a request's headers.
    #[schemars(extend("default" = defaults::HEADER_TIMEOUT.to_string()))]
    pub header_timeout: Option<Period>,
    /// How long a client may take to send a request's body.
    #[schemars(extend("default" = defaults::BODY_TIMEOUT.to_string()))]
    pub body_timeout: Option<Period>,
    /// How long reviews may go on after the signal to stop.
    #[schemars(extend("default" = defaults::GRACE_PERIOD.to_string()))]
    pub grace_period: Option<Period>,
}

/// The log on standard error.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Log {
    /// How a line is written.
    #[schemars(extend("default" = "text"))]
    pub format: Option<LogFormat>,
    /// The least severe lines that are written.
    #[schemars(extend("default" = "info"))]
    pub level: Option<LogLevel>,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// How severe a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// What is counted besides what always is.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metrics {
    /// Decisions are counted by project, for so many projects at most; those beyond are counted
    /// together. Without it, none are.
    #[schemars(extend("examples" = [100]))]
    pub projects: Option<u16>,
}

/// Who is exempt from which plugins, why and until when.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exemption {
    /// The names of the plugins that are not called.
    #[schemars(length(min = 1))]
    pub plugins: Vec<String>,
    /// The reviews that are exempt.
    pub r#match: Match,
    /// Why, for the audit record.
    pub reason: String,
    /// The last day of the exemption (UTC), or the moment it ends.
    pub expires: Expiry,
}

impl JsonSchema for Tls {
    fn schema_name() -> Cow<'static, str> {
        "Tls".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let files = generator.subschema_for::<TlsFiles>();
        json_schema!({
            "description": "The server's side of TLS: `off`, or files.",
            "oneOf": [files, {"const": "off"}, {"const": false}],
        })
    }
}

impl<'de> Deserialize<'de> for Tls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OffOrFiles;
        impl<'de> Visitor<'de> for OffOrFiles {
            type Value = Tls;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`off` or a map of files")
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Tls, E> {
                if on {
                    return Err(E::invalid_value(de::Unexpected::Bool(on), &self));
                }
                Ok(Tls::Off)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Tls, E> {
                if text != "off" {
                    return Err(E::invalid_value(de::Unexpected::Str(text), &self));
                }
                Ok(Tls::Off)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Tls, A::Error> {
                TlsFiles::deserialize(MapAccessDeserializer::new(map)).map(Tls::Files)
            }
        }
        deserializer.deserialize_any(OffOrFiles)
    }
}
