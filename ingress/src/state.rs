//! What all tasks share: the newest snapshot, counters, readiness.

use crate::observer::Observer;
use crate::secret_watch::Secrets;
use arc_swap::ArcSwap;
use landfall_ingress_listen::Lifecycle;
use landfall_ingress_routing::RouteTable;
use landfall_ingress_telemetry::metrics::Counters;
use landfall_ingress_translate::route::{LastGood, Snapshot};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::sync::watch::Sender;

/// Shared state; every method is short and never waits for I/O.
#[derive(Debug)]
pub struct State {
    snapshot: ArcSwap<Snapshot>,
    /// The newest snapshot's table.
    routes: ArcSwap<RouteTable>,
    built: Sender<bool>,
    last_good: Mutex<LastGood>,
    leading: AtomicBool,
    started: Instant,
    /// Whether connections are taken, and by whom.
    pub lifecycle: Arc<Lifecycle>,
    /// Wakes whoever builds tables; for what the table depends on beside the objects that `watch` follows (Secrets).
    pub rebuild: Arc<Notify>,
    /// What was read of Secrets, once they are followed.
    pub secrets: OnceLock<Arc<Secrets>>,
    /// Counters for /metrics.
    pub counters: Counters,
    /// Where requests are recorded.
    pub observer: Arc<Observer>,
    /// Node that this proxy runs on.
    pub node: String,
    /// Host of the status page.
    pub dashboard_host: String,
}

impl State {
    /// Starts with an empty snapshot, not ready.
    pub fn new(node: &str, dashboard_host: &str) -> Self {
        Self {
            snapshot: ArcSwap::default(),
            routes: ArcSwap::default(),
            built: Sender::new(false),
            last_good: Mutex::default(),
            lifecycle: Arc::default(),
            leading: AtomicBool::new(false),
            started: Instant::now(),
            rebuild: Arc::default(),
            secrets: OnceLock::new(),
            counters: Counters::default(),
            observer: Arc::default(),
            node: node.to_owned(),
            dashboard_host: dashboard_host.to_owned(),
        }
    }

    /// Records requests there.
    pub fn observed(mut self, observer: Observer) -> Self {
        self.observer = Arc::new(observer);
        self
    }

    /// Returns the newest table; a request keeps the one it began with.
    pub fn routes(&self) -> Arc<RouteTable> {
        self.routes.load_full()
    }

    /// Returns the newest table with what is known of its objects.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Puts a new snapshot in place, whole. Returns the one before: of a large one the end takes milliseconds.
    pub fn replace(&self, snapshot: Snapshot) -> Arc<Snapshot> {
        self.routes.store(Arc::clone(&snapshot.table));
        let before = self.snapshot.swap(Arc::new(snapshot));
        self.counters.snapshots.fetch_add(1, Ordering::Relaxed);
        self.built.send_replace(true);
        before
    }

    /// Waits until there is a snapshot.
    pub async fn built(&self) {
        // The sender lives as long as this state.
        let _ = self.built.subscribe().wait_for(|built| *built).await;
    }

    /// Keeps what the next process needs to serve what can no longer be read from the API.
    pub fn keep_last_good(&self, last: LastGood) {
        *self.last_good.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }

    /// Returns it in the form in which it travels.
    pub fn last_good(&self) -> Vec<u8> {
        let last = self.last_good.lock().unwrap_or_else(PoisonError::into_inner);
        serde_json::to_vec(&*last).expect("Ingresses came as JSON")
    }

    /// Says whether this proxy writes status.
    pub fn set_leading(&self, leading: bool) {
        self.leading.store(leading, Ordering::SeqCst);
    }

    /// This proxy writes status.
    pub fn leading(&self) -> bool {
        self.leading.load(Ordering::SeqCst)
    }

    /// Time since the start.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}
