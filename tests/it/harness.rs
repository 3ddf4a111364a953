//! What a test holds: a running sidecar, a client that speaks to it, and plugin servers to put
//! behind it.

pub mod certificates;
pub mod client;
pub mod fake;
pub mod sidecar;

use std::time::Duration;

pub use client::{Connection, Protocol};
pub use fake::{Fake, Gate, Reply, Seen};
pub use sidecar::{Home, Sidecar};

/// How long anything that must happen may take. Only a failing test waits this long.
pub const PATIENCE: Duration = Duration::from_secs(10);

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
