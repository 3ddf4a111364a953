//! Where traces go, as typed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::defaults;
use super::plugin::Basic;
use super::units::Period;
use crate::observe::traces::Sampler;

/// Traces of reviews.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tracing {
    /// A receiver of OTLP over HTTP. Needs a binary that was built with the feature `otlp`.
    pub otlp: Option<Otlp>,
}

/// A receiver of OTLP over HTTP. What is left out, OpenTelemetry's environment variables say.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Otlp {
    /// The address, with its path; without one, `/v1/traces`. `${NAME}` stands for the environment
    /// variable NAME.
    #[schemars(extend("default" = defaults::OTLP_ENDPOINT))]
    pub endpoint: Option<String>,
    /// Headers to send. `${NAME}` stands for the environment variable NAME.
    #[serde(default)]
    #[schemars(extend("examples" = [{"x-scope-orgid": "platform"}]))]
    pub headers: BTreeMap<String, String>,
    /// Headers to send whose values are secrets: the file that holds each.
    #[serde(default)]
    #[schemars(extend("examples" = [{"x-api-key": "/run/secrets/otlp-key"}]))]
    pub header_files: BTreeMap<String, PathBuf>,
    /// The CAs that the receiver's certificate is checked against, instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// The certificate shown to the receiver. Needs `clientKeyFile`.
    pub client_cert_file: Option<PathBuf>,
    /// The private key of `clientCertFile`.
    pub client_key_file: Option<PathBuf>,
    /// A file that holds a bearer token.
    pub bearer_token_file: Option<PathBuf>,
    /// HTTP Basic credentials.
    pub basic: Option<Basic>,
    /// Whether `endpoint` may be plain HTTP beyond loopback.
    #[serde(default)]
    pub allow_plain_http: bool,
    /// How requests are compressed.
    #[schemars(extend("default" = "none"))]
    pub compression: Option<CompressionName>,
    /// How long one request may take, sending it again included.
    #[schemars(extend("default" = defaults::OTLP_TIMEOUT.to_string()))]
    pub timeout: Option<Period>,
    /// Which traces are recorded, with OpenTelemetry's names.
    #[schemars(extend("default" = "parentbased_always_on"))]
    pub sampler: Option<SamplerName>,
    /// The part of traces that the samplers of a ratio record. Alone, it means
    /// `parentbased_traceidratio`.
    #[schemars(range(min = 0.0, max = 1.0), extend("examples" = [0.1]))]
    pub sampler_ratio: Option<f64>,
    /// What this service is called in traces.
    #[schemars(length(min = 1), extend("default" = "dstack-admission"))]
    pub service_name: Option<String>,
    /// What else describes this process in traces.
    #[serde(default)]
    #[schemars(extend("examples" = [{"deployment.environment.name": "prod"}]))]
    pub resource_attributes: BTreeMap<String, String>,
    /// How many spans one request holds.
    #[schemars(range(min = 1, max = 10000), extend("default" = defaults::OTLP_BATCH_MAX_SIZE))]
    pub batch_max_size: Option<u32>,
    /// How long spans are gathered for a request.
    #[schemars(extend("default" = defaults::OTLP_BATCH_MAX_WAIT.to_string()))]
    pub batch_max_wait: Option<Period>,
    /// How many spans wait in memory at most; those beyond are dropped, and counted.
    #[schemars(range(min = 1, max = 1000000), extend("default" = defaults::OTLP_QUEUE_SIZE))]
    pub queue_size: Option<u32>,
}

/// How requests are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CompressionName {
    None,
    Gzip,
}

/// OpenTelemetry's names of samplers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum SamplerName {
    /// All.
    #[serde(rename = "always_on")]
    AlwaysOn,
    /// None. Traces are passed on to plugins all the same.
    #[serde(rename = "always_off")]
    AlwaysOff,
    /// A part of all.
    #[serde(rename = "traceidratio")]
    TraceIdRatio,
    /// As the caller decided; without a caller's trace, all.
    #[serde(rename = "parentbased_always_on")]
    ParentBasedAlwaysOn,
    /// As the caller decided; without a caller's trace, none.
    #[serde(rename = "parentbased_always_off")]
    ParentBasedAlwaysOff,
    /// As the caller decided; without a caller's trace, a part.
    #[serde(rename = "parentbased_traceidratio")]
    ParentBasedTraceIdRatio,
}

impl SamplerName {
    /// Whether it records a part of traces.
    pub(super) const fn takes_ratio(self) -> bool {
        matches!(
            self,
            SamplerName::TraceIdRatio | SamplerName::ParentBasedTraceIdRatio
        )
    }

    /// What it means, with the ratio where it takes one.
    pub(super) const fn with(self, ratio: f64) -> Sampler {
        let (parent_based, ratio) = match self {
            SamplerName::AlwaysOn => (false, 1.0),
            SamplerName::AlwaysOff => (false, 0.0),
            SamplerName::TraceIdRatio => (false, ratio),
            SamplerName::ParentBasedAlwaysOn => (true, 1.0),
            SamplerName::ParentBasedAlwaysOff => (true, 0.0),
            SamplerName::ParentBasedTraceIdRatio => (true, ratio),
        };
        Sampler {
            parent_based,
            ratio,
        }
    }
}
