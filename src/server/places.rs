//! The places for connections: how many there are, and who makes room when all are taken. Nothing
//! here reads or writes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;

/// How many connections fit: at most `limit`, and half of the files that this process may open,
/// since plugins' connections are files too. Lets the process open all that the system grants.
pub(super) fn that_fit(limit: usize) -> usize {
    let given = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: given.maximum,
        maximum: given.maximum,
    };
    let files = match setrlimit(Resource::Nofile, all) {
        Ok(()) => all.current,
        Err(_) => given.current,
    };
    let half = files.map_or(usize::MAX, |files| {
        usize::try_from(files / 2).unwrap_or(usize::MAX)
    });
    if half < limit {
        tracing::warn!(
            limit,
            fitting = half,
            "the limit of open files leaves room for fewer connections than `limits.connections`"
        );
    }
    limit.min(half)
}

/// How many connections of probes and scrapers fit: an eighth of the files, and no more than `limit`.
pub(super) fn beside(limit: usize) -> usize {
    let files = getrlimit(Resource::Nofile).current.map(|files| files / 8);
    let files = files.and_then(|files| usize::try_from(files).ok());
    limit.min(files.unwrap_or(limit)).max(1)
}

/// The places for connections. When all are taken, the oldest connection that has no request in
/// hand makes room, so that a flood of idle ones keeps nobody out.
pub(super) struct Places {
    limit: usize,
    next: AtomicU64,
    taken: Mutex<BTreeMap<u64, Arc<Occupant>>>,
}

#[derive(Default)]
struct Occupant {
    requests: AtomicUsize,
    /// Cancelled at the first request.
    asked: CancellationToken,
    evicted: CancellationToken,
}

pub(super) struct Place {
    id: u64,
    occupant: Arc<Occupant>,
    places: Arc<Places>,
}

/// A request in hand.
pub(super) struct Busy(Arc<Occupant>);

impl Places {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            next: AtomicU64::new(0),
            taken: Mutex::default(),
        }
    }

    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        let mut taken = self.taken();
        if taken.len() >= self.limit {
            let idle = taken
                .iter()
                .find(|(_, occupant)| occupant.requests.load(Ordering::Acquire) == 0);
            let id = idle.map(|(id, _)| *id)?;
            if let Some(occupant) = taken.remove(&id) {
                occupant.evicted.cancel();
            }
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let occupant = Arc::new(Occupant::default());
        taken.insert(id, Arc::clone(&occupant));
        Some(Place {
            id,
            occupant,
            places: Arc::clone(self),
        })
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Occupant>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    pub(super) fn busy(&self) -> Busy {
        self.occupant.requests.fetch_add(1, Ordering::AcqRel);
        self.occupant.asked.cancel();
        Busy(Arc::clone(&self.occupant))
    }

    pub(super) fn is_busy(&self) -> bool {
        self.occupant.requests.load(Ordering::Acquire) > 0
    }

    pub(super) async fn asked(&self) {
        self.occupant.asked.cancelled().await;
    }

    /// Ends when nothing was asked for so long, else never.
    pub(super) async fn unasked_for(&self, period: Duration) {
        if tokio::time::timeout(period, self.asked()).await.is_ok() {
            std::future::pending().await
        }
    }

    pub(super) fn was_asked(&self) -> bool {
        self.occupant.asked.is_cancelled()
    }

    pub(super) async fn evicted(&self) {
        self.occupant.evicted.cancelled().await;
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.occupant.evicted.is_cancelled()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().remove(&self.id);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_idle_connection_makes_room() {
        let places = Arc::new(Places::new(2));
        let first = places.take().unwrap();
        let second = places.take().unwrap();
        let in_hand = first.busy();
        let third = places.take().unwrap();
        assert!(second.occupant.evicted.is_cancelled());
        assert!(!first.occupant.evicted.is_cancelled());

        let also_in_hand = third.busy();
        assert!(places.take().is_none(), "all are busy");
        drop((in_hand, also_in_hand));
        assert!(places.take().is_some());
    }
}
