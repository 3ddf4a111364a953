//! The sinks of audit records as typed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::defaults;
use super::plugin::Basic;
use super::units::{ByteCount, Period};

/// Where records go. Exactly one of the keys.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sink {
    /// A file, one JSON line a record.
    pub file: Option<FileSink>,
    /// Standard output, one JSON line a record.
    pub stdout: Option<StdoutSink>,
    /// A receiver over HTTP, such as Loki.
    pub http: Option<HttpSink>,
}

impl Sink {
    /// The names of the sinks that are given, of which there should be one.
    pub fn given(&self) -> Vec<&'static str> {
        let keys = [
            ("file", self.file.is_some()),
            ("stdout", self.stdout.is_some()),
            ("http", self.http.is_some()),
        ];
        let given = keys.into_iter().filter(|(_, given)| *given);
        given.map(|(key, _)| key).collect()
    }
}

/// A file of records.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileSink {
    /// The file. Its directory must be there.
    #[schemars(length(min = 1), extend("examples" = ["/var/log/dstack-admission/audit.jsonl"]))]
    pub path: PathBuf,
    /// When an answer may leave: Kubernetes' modes of audit backends.
    #[schemars(extend("default" = "blocking"))]
    pub mode: Option<SinkMode>,
    /// The size at which a new file is begun. 0 is no limit.
    #[schemars(extend("default" = "100MB"))]
    pub max_size: Option<ByteCount>,
    /// The age at which a new file is begun. Without it, size alone counts.
    #[schemars(extend("examples" = ["1d"]))]
    pub rotate_every: Option<Period>,
    /// How long old files are kept. Without it, their number alone counts.
    #[schemars(extend("examples" = ["30d"]))]
    pub max_age: Option<Period>,
    /// How many old files are kept. 0 is no limit.
    #[schemars(extend("default" = defaults::AUDIT_MAX_BACKUPS))]
    pub max_backups: Option<u32>,
    /// Whether old files are compressed with gzip.
    #[schemars(extend("default" = true))]
    pub compress: Option<bool>,
}

/// When an answer may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SinkMode {
    /// At once; records are written in batches.
    Batch,
    /// After its record is handed to the operating system.
    Blocking,
    /// After its record is on disk; a record that cannot be written denies.
    BlockingStrict,
}

/// Standard output has no settings: `stdout: {}`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StdoutSink {}

/// A receiver of records over HTTP. Records wait for it on disk, under `stateDir`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpSink {
    /// What the sink is called in metrics and under `stateDir`. Without it, the host of `url`.
    #[schemars(length(min = 1, max = 64), extend("examples" = ["loki"]))]
    pub name: Option<String>,
    /// The address. `${NAME}` stands for the environment variable NAME.
    #[schemars(extend("examples" = ["https://loki.example.com/loki/api/v1/push"]))]
    pub url: String,
    /// How records are sent.
    #[schemars(extend("default" = "ndjson"))]
    pub format: Option<HttpFormat>,
    /// The labels of Loki's stream. Without any, `job: dstack-admission`.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 15, "examples" = [{"job": "dstack-admission", "cluster": "prod"}]))]
    pub labels: BTreeMap<String, String>,
    /// When an answer may leave. What it waits for is its record in the spool.
    #[schemars(extend("default" = "batch"))]
    pub mode: Option<SinkMode>,
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
    /// Whether `url` may be plain HTTP beyond loopback.
    #[serde(default)]
    pub allow_plain_http: bool,
    /// How many records one request holds.
    #[schemars(range(min = 1, max = 10000), extend("default" = defaults::AUDIT_BATCH_MAX_SIZE))]
    pub batch_max_size: Option<u32>,
    /// How long records are gathered for a request.
    #[schemars(extend("default" = defaults::AUDIT_BATCH_MAX_WAIT.to_string()))]
    pub batch_max_wait: Option<Period>,
    /// Where records wait for the receiver.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub spool: Spool,
}

/// How records are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HttpFormat {
    /// One JSON line a record.
    Ndjson,
    /// Loki's push protocol, `/loki/api/v1/push`.
    Loki,
}

/// Where records wait for the receiver.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spool {
    /// How large it may become. When it is full the oldest records are dropped, and counted.
    #[schemars(extend("default" = defaults::AUDIT_SPOOL.to_string()))]
    pub max_size: Option<ByteCount>,
}
