//! What the tasks of the API's side share: the newest snapshot, and whether this proxy writes status.

use crate::secret_watch::Secrets;
use arc_swap::ArcSwap;
use landfall_ingress_routing::CurrentTable;
use landfall_ingress_telemetry::metrics::Counters;
use landfall_ingress_translate::route::{LastGood, Snapshot};
use landfall_ingress_translate::secrets::View;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::sync::Notify;
use tokio::sync::watch::Sender;

/// Shared state; every method but [`State::built`] is short and never waits.
#[derive(Debug, Default)]
pub struct State {
    snapshot: ArcSwap<Snapshot>,
    /// Where requests find the newest snapshot's table.
    table: Arc<CurrentTable>,
    built: Sender<bool>,
    last_good: Mutex<LastGood>,
    leading: AtomicBool,
    /// Wakes whoever builds tables; for what the table depends on beside the objects that `watch` follows (Secrets).
    pub(crate) rebuild: Arc<Notify>,
    /// What was read of Secrets, once they are followed.
    pub(crate) secrets: OnceLock<Arc<Secrets>>,
    pub(crate) counters: Arc<Counters>,
}

impl State {
    /// Starts with an empty snapshot. The table of each newer one is put into `table`; tables and failed watches are counted.
    pub fn new(table: Arc<CurrentTable>, counters: Arc<Counters>) -> Self {
        Self {
            table,
            counters,
            ..Self::default()
        }
    }

    /// Returns the newest table with what is known of its objects.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Puts a new snapshot in place, whole. Returns the one before: of a large one the end takes milliseconds.
    pub(crate) fn replace(&self, snapshot: Snapshot) -> Arc<Snapshot> {
        self.table.store(Arc::clone(&snapshot.table));
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

    /// Returns what is known of the Secrets that are followed; nothing before they are.
    pub fn secrets(&self) -> View {
        self.secrets.get().map(|secrets| secrets.found()).unwrap_or_default()
    }

    /// Keeps what the next process needs to serve what can no longer be read from the API.
    pub(crate) fn keep_last_good(&self, last: LastGood) {
        *self.last_good.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }

    /// Returns it in the form in which it travels.
    pub fn last_good(&self) -> Vec<u8> {
        let last = self.last_good.lock().unwrap_or_else(PoisonError::into_inner);
        serde_json::to_vec(&*last).expect("Ingresses came as JSON")
    }

    /// Says whether this proxy writes status.
    pub(crate) fn set_leading(&self, leading: bool) {
        self.leading.store(leading, Ordering::SeqCst);
    }

    /// This proxy writes status.
    pub fn leading(&self) -> bool {
        self.leading.load(Ordering::SeqCst)
    }
}
