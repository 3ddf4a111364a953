//! One item of `plugins:` as typed: the keys that all plugins share, and those of each kind.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::defaults;

use super::units::{ByteCount, Period};
use crate::admission::review::Kind;
use crate::plugins::cel::source::{Condition, Source};

/// A plugin, or a group of plugins that are called at once. Exactly one of `use`, `cel`, `python`,
/// `webhook`, `rest` and `fanOut`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PluginEntry {
    /// What the plugin is called in messages, metrics and records. Each name stands for one plugin.
    pub name: Option<String>,
    /// The reviews that the plugin sees. Without it, all.
    pub r#match: Option<Match>,
    /// Whether what the plugin says counts, or is only recorded.
    #[schemars(extend("default" = "enforce"))]
    pub mode: Option<Mode>,
    /// The part of the chain in which the plugin is called.
    #[schemars(extend("default" = "mutating"))]
    pub phase: Option<Phase>,
    /// What happens when the plugin fails.
    #[schemars(extend("default" = "Fail"))]
    pub failure_policy: Option<FailurePolicy>,
    /// How long one call may take. It is cut to what is left of `deadline`.
    #[schemars(extend("default" = defaults::TIMEOUT.to_string()))]
    pub timeout: Option<Period>,
    /// Whether the plugin is called once more when another changed the spec after it, or beside it in
    /// a `fanOut`.
    #[schemars(extend("default" = "Never"))]
    pub reinvocation: Option<Reinvocation>,
    /// JSON Pointers of protected fields that this plugin may change.
    #[serde(default)]
    #[schemars(extend("examples" = [["/configuration/name"]]))]
    pub may_patch: Vec<String>,

    /// A built-in policy, by its name.
    #[schemars(extend("examples" = ["forbid-privileged"]))]
    pub r#use: Option<String>,
    /// The parameters of the built-in policy.
    pub with: Option<Map<String, Value>>,
    /// Rules in CEL.
    pub cel: Option<Source>,
    /// A dstack plugin in Python, in worker processes.
    pub python: Option<Python>,
    /// An admission webhook, which answers an `AdmissionReview` of `admission.k8s.io/v1`.
    pub webhook: Option<Remote>,
    /// A dstack REST plugin server.
    pub rest: Option<Remote>,

    /// Plugins that are called at once on the same spec, and whose patches are merged.
    #[schemars(length(min = 1))]
    pub fan_out: Option<Vec<PluginEntry>>,
    /// What happens when two plugins of `fanOut` write the same field differently.
    #[schemars(extend("default" = "deny"))]
    pub on_conflict: Option<OnConflict>,
}

impl PluginEntry {
    /// Whether it is called over HTTP.
    pub fn is_remote(&self) -> bool {
        self.webhook.is_some() || self.rest.is_some()
    }

    /// The keys that say what the entry is and are given, of which there should be one.
    pub fn given(&self) -> Vec<&'static str> {
        let keys = [
            ("use", self.r#use.is_some()),
            ("cel", self.cel.is_some()),
            ("python", self.python.is_some()),
            ("webhook", self.webhook.is_some()),
            ("rest", self.rest.is_some()),
            ("fanOut", self.fan_out.is_some()),
        ];
        let given = keys.into_iter().filter(|(_, given)| *given);
        given.map(|(key, _)| key).collect()
    }
}

/// Which reviews. All that is given must hold.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Match {
    /// The kinds of spec. Without it, all.
    #[schemars(length(min = 1))]
    pub kinds: Option<Vec<KindName>>,
    /// Projects, as globs; `!` excludes. Without it, all.
    #[schemars(length(min = 1), extend("examples" = [["*", "!research"]]))]
    pub projects: Option<Vec<String>>,
    /// Users, as globs; `!` excludes. Without it, all.
    #[schemars(length(min = 1), extend("examples" = [["*", "!admin"]]))]
    pub users: Option<Vec<String>>,
    /// CEL expressions, as `matchConditions` in Kubernetes: any that is false skips the plugin.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// A kind of spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KindName {
    Run,
    Fleet,
    Volume,
    Gateway,
}

impl From<KindName> for Kind {
    fn from(name: KindName) -> Self {
        match name {
            KindName::Run => Kind::Run,
            KindName::Fleet => Kind::Fleet,
            KindName::Volume => Kind::Volume,
            KindName::Gateway => Kind::Gateway,
        }
    }
}

/// Whether what a plugin says counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It counts.
    Enforce,
    /// It runs after the answer, and what it would have done is recorded.
    Monitor,
}

/// The part of the chain in which a plugin is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// In the order of the list; may change the spec.
    Mutating,
    /// With all other validating plugins at once, on the final spec, which it may not change.
    Validating,
}

/// What happens when a plugin fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum FailurePolicy {
    /// The spec is denied.
    Fail,
    /// The plugin is skipped, which is counted and recorded.
    Ignore,
}

/// Whether a plugin is called once more when a later one changed the spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Reinvocation {
    /// It is called once.
    Never,
    /// It is called once more.
    IfNeeded,
}

/// What happens when two plugins write the same field differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnConflict {
    /// The spec is denied, naming both and the field.
    Deny,
    /// The one that stands later in the list wins.
    LastWins,
}

/// A plugin that is called over HTTP.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Remote {
    /// The address. `${NAME}` stands for the environment variable NAME.
    #[schemars(extend("examples" = ["https://policy.example.com/validate"]))]
    pub url: String,
    /// The CAs that the plugin's certificate is checked against, instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// The certificate shown to the plugin. Needs `clientKeyFile`.
    pub client_cert_file: Option<PathBuf>,
    /// The private key of `clientCertFile`.
    pub client_key_file: Option<PathBuf>,
    /// A file that holds a bearer token.
    pub bearer_token_file: Option<PathBuf>,
    /// HTTP Basic credentials.
    pub basic: Option<Basic>,
    /// Headers of the dstack server's request that are passed on.
    #[serde(default)]
    #[schemars(extend("examples" = [["traceparent"]]))]
    pub forward_headers: Vec<String>,
    /// Whether `url` may be plain HTTP beyond loopback.
    #[serde(default)]
    pub allow_plain_http: bool,
    /// The size of an answer.
    #[schemars(extend("default" = defaults::MAX_RESPONSE_BYTES.to_string()))]
    pub max_response_bytes: Option<ByteCount>,
    /// When the plugin is no longer asked for a while.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub breaker: Breaker,
}

/// A user name, and a file that holds the password.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Basic {
    /// The user name.
    #[schemars(length(min = 1), extend("examples" = ["dstack"]))]
    pub username: String,
    /// A file that holds the password. A line break at its end does not count.
    #[schemars(extend("examples" = ["/etc/dstack-admission/password"]))]
    pub password_file: PathBuf,
}

/// When a plugin that fails is no longer asked for a while.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Breaker {
    /// How many calls in a row have to fail.
    #[schemars(range(min = 1), extend("default" = defaults::BREAKER_FAILURES))]
    pub failures: Option<u32>,
    /// How long the plugin is not asked then.
    #[schemars(extend("default" = defaults::BREAKER_OPEN_FOR.to_string()))]
    pub open_for: Option<Period>,
}

/// A dstack plugin in Python, in worker processes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Python {
    /// The entry point in the group `dstack.plugins`.
    #[schemars(extend("examples" = ["my_dstack_plugin"]))]
    pub plugin: String,
    /// How many worker processes, each of which answers one review at a time.
    #[schemars(range(min = 1, max = 256), extend("default" = defaults::WORKERS))]
    pub workers: Option<u32>,
    /// The Python interpreter of the environment in which the plugin and dstack are installed.
    #[schemars(extend("default" = "python3"))]
    pub interpreter: Option<PathBuf>,
    /// The environment variables that workers inherit, by name. Without any, none.
    #[serde(default)]
    #[schemars(extend("examples" = [["HTTPS_PROXY"]]))]
    pub env: Vec<String>,
    /// After how many reviews a worker is replaced.
    #[schemars(range(min = 1))]
    pub recycle_after: Option<u32>,
    /// How much memory a worker may use before it is replaced.
    #[schemars(extend("examples" = ["512MiB"]))]
    pub memory_limit: Option<ByteCount>,
    /// Packages that are installed into an environment under `stateDir`, as pip takes them.
    #[serde(default)]
    pub install: Vec<String>,
    /// What the workers hold every final spec against that any plugin of the chain changed.
    pub spec_check: Option<SpecCheck>,
}

/// Models that a final spec is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SpecCheck {
    /// Those of the dstack that is installed beside the plugin.
    Dstack,
}
