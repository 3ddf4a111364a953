//! The spec at one point of its way through a chain, and what it asks for there.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::effective::{Tree, effective_tree};
use super::review::Kind;

/// A spec between two changes. Reads as the JSON value it is.
pub struct Revision {
    kind: Kind,
    /// The spec as it came.
    original: Arc<Value>,
    value: Arc<Value>,
    effective: OnceLock<Value>,
    tree: OnceLock<Tree>,
}

impl Revision {
    /// A spec that became `value` from what it was as it came.
    pub fn new(kind: Kind, original: Arc<Value>, value: Arc<Value>) -> Self {
        Self {
            kind,
            original,
            value,
            effective: OnceLock::new(),
            tree: OnceLock::new(),
        }
    }

    pub fn value(&self) -> &Arc<Value> {
        &self.value
    }

    /// What the spec really asks for as JSON, made when first asked for.
    pub fn effective(&self) -> &Value {
        self.effective
            .get_or_init(|| serde_json::to_value(self.effective_tree()).unwrap_or_default())
    }

    /// What the spec really asks for, computed when first asked for and at most once.
    pub fn effective_tree(&self) -> &Tree {
        self.tree
            .get_or_init(|| effective_tree(self.kind, &self.original, &self.value))
    }

    /// The spec after a change.
    #[must_use]
    pub fn changed(&self, value: impl Into<Arc<Value>>) -> Self {
        Self::new(self.kind, Arc::clone(&self.original), value.into())
    }
}

impl Deref for Revision {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.value
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}
