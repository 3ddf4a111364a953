//! One spec that somebody applies, as the dstack server sends it for review.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::Value;

use super::trace::Trace;

/// The kinds of spec that dstack sends to its plugins, one endpoint each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Run,
    Fleet,
    Volume,
    Gateway,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Run, Kind::Fleet, Kind::Volume, Kind::Gateway];

    /// The name in configuration, labels, records and dstack's paths: `run`, `fleet`, `volume`, `gateway`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Run => "run",
            Kind::Fleet => "fleet",
            Kind::Volume => "volume",
            Kind::Gateway => "gateway",
        }
    }

    /// The name as a Kubernetes kind: `Run`, `Fleet`, `Volume`, `Gateway`.
    pub const fn kubernetes(self) -> &'static str {
        match self {
            Kind::Run => "Run",
            Kind::Fleet => "Fleet",
            Kind::Volume => "Volume",
            Kind::Gateway => "Gateway",
        }
    }

    /// The name as a Kubernetes resource: `runs`, `fleets`, `volumes`, `gateways`.
    pub const fn resource(self) -> &'static str {
        match self {
            Kind::Run => "runs",
            Kind::Fleet => "fleets",
            Kind::Volume => "volumes",
            Kind::Gateway => "gateways",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A spec as it arrived: its very text, and the same text parsed once.
///
/// The spec is opaque to the core but for the few members it protects: unknown members, key
/// order and every digit of every number come through untouched.
#[derive(Clone, Debug)]
pub struct Spec {
    text: Bytes,
    value: Arc<Value>,
}

/// Why a text is no spec.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    #[error("the spec cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("the spec is not a JSON object")]
    NotAnObject,
}

impl Spec {
    /// Parses the JSON text of one spec.
    ///
    /// # Errors
    /// When the text is no JSON, or JSON that cannot be held (half a surrogate pair, `1e400`, more than
    /// 127 levels), or no object.
    pub fn parse(text: Bytes) -> Result<Self, SpecError> {
        let value = serde_json::from_slice(&text)?;
        Self::parsed(text, value)
    }

    /// A spec whose text has been parsed to `value` already.
    ///
    /// # Errors
    /// When it is no object.
    pub fn parsed(text: Bytes, value: Value) -> Result<Self, SpecError> {
        if !value.is_object() {
            return Err(SpecError::NotAnObject);
        }
        Ok(Self {
            text,
            value: Arc::new(value),
        })
    }

    /// The bytes that arrived.
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    pub fn value(&self) -> &Arc<Value> {
        &self.value
    }
}

/// One spec under review, and who asks.
#[derive(Clone, Debug)]
pub struct Review {
    /// The decision's name everywhere: in the answer, the message, the log and the audit record. A ULID.
    pub id: String,
    pub kind: Kind,
    /// dstack's user name, as the server vouches for it.
    pub user: String,
    /// dstack's project name.
    pub project: String,
    /// When the request arrived. Exemptions expire against it.
    pub received: SystemTime,
    /// The request headers that some plugin's `forwardHeaders` lists, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its place in a distributed trace.
    pub trace: Option<Trace>,
    pub spec: Spec,
}

impl Review {
    /// The name the spec gives itself: a run's `run_name`, else `configuration.name`.
    pub fn name(&self) -> Option<&str> {
        let spec = self.spec.value();
        let run_name = spec.get("run_name").and_then(Value::as_str);
        run_name.or_else(|| spec.pointer("/configuration/name").and_then(Value::as_str))
    }
}
