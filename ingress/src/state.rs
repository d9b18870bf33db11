//! What all tasks share: the newest snapshot, counters, readiness.

use crate::route::Snapshot;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

/// Shared state; every method is short and never waits for I/O.
pub struct State {
    snapshot: RwLock<Arc<Snapshot>>,
    synced: AtomicBool,
    stopping: AtomicBool,
    /// Counters for /metrics.
    pub counters: Counters,
    /// Node that this proxy runs on.
    pub node: String,
    /// Host of the status page.
    pub dashboard_host: String,
    /// When this proxy started.
    pub started: Instant,
}

/// What /metrics counts.
#[derive(Default)]
pub struct Counters {
    /// Answers by hundreds of their status: index 2 counts 200 to 299.
    pub answers: [AtomicU64; 6],
    /// Connections to endpoints that failed and were tried elsewhere.
    pub failovers: AtomicU64,
    /// Requests being served now.
    pub in_flight: AtomicU64,
    /// Snapshots taken over.
    pub snapshots: AtomicU64,
}

impl State {
    /// Starts with an empty snapshot, not ready.
    pub fn new(node: &str, dashboard_host: &str) -> Self {
        Self {
            snapshot: RwLock::default(),
            synced: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            counters: Counters::default(),
            node: node.to_owned(),
            dashboard_host: dashboard_host.to_owned(),
            started: Instant::now(),
        }
    }

    /// Returns the newest snapshot; a request keeps the one it began with.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a new snapshot in place, whole. From the first on the proxy is ready.
    pub fn replace(&self, snapshot: Snapshot) {
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
        self.counters.snapshots.fetch_add(1, Ordering::Relaxed);
        self.synced.store(true, Ordering::SeqCst);
    }

    /// Says that the proxy ends soon.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// Ready: all lists were read once, and the end is not near.
    pub fn ready(&self) -> bool {
        self.synced.load(Ordering::SeqCst) && !self.stopping.load(Ordering::SeqCst)
    }
}
