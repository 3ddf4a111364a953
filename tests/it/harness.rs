//! What a test holds: a running sidecar, a client that speaks to it, and plugin servers to put
//! behind it.

pub mod certificates;
pub mod client;
pub mod environment;
pub mod events;
pub mod fake;
pub mod sidecar;

use std::time::Duration;

use serde_json::Value;

pub use client::{Connection, Protocol};
pub use fake::{Fake, Gate, Reply, Seen, tags};
pub use sidecar::{Home, Sidecar};

/// How long anything that must happen may take. Only a failing test waits this long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until a state is reached, or fails saying which was not.
pub async fn eventually(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !reached().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        panic!("not within {PATIENCE:?}: {what}");
    }
}

/// The end of something that must end.
pub async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// Keys of a configuration, such as a plugin, with more keys: maps are merged.
pub fn with(mut keys: Value, more: Value) -> Value {
    match (&mut keys, more) {
        (Value::Object(keys), Value::Object(more)) => {
            for (key, value) in more {
                let entry = keys.entry(key).or_insert(Value::Null);
                *entry = with(entry.take(), value);
            }
        }
        (keys, more) => *keys = more,
    }
    keys
}

pub fn parsed(spec: &str) -> Value {
    serde_json::from_str(spec).unwrap()
}
