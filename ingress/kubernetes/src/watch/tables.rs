//! Builds tables, on a thread of their own, and waits for the Secrets that a new one names.

use crate::limits::{SECRETS_SETTLE, SECRETS_SETTLE_FIRST, SWEEP_EVERY};
use crate::secret_watch::Secrets;
use crate::state::State;
use landfall_ingress_telemetry::metrics::Rebuild;
use landfall_ingress_translate::route::{Builder, Built, Changes};
use landfall_ingress_translate::services::Services;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::Instant;

/// What tables are made with.
pub(super) struct Tables {
    builder: Mutex<Builder>,
    services: Arc<Services>,
    secrets: Arc<Secrets>,
    state: Arc<State>,
    /// Tables that were put in place.
    built: AtomicU32,
}

impl Tables {
    pub(super) fn new(builder: Builder, services: Arc<Services>, secrets: Arc<Secrets>, state: Arc<State>) -> Self {
        Self {
            builder: Mutex::new(builder),
            services,
            secrets,
            state,
            built: AtomicU32::new(0),
        }
    }

    /// Builds the table that follows and puts it in place. Returns how long the building took.
    pub(super) async fn build(self: Arc<Self>, changes: Changes) -> Result<Duration, JoinError> {
        let (mut built, mut took) = self.once(changes).await?;
        let mut whole = built.whole;
        // A host whose certificate, or protection, is still on its way would be served wrongly for a moment.
        if self.secrets.want(&built.snapshot.wanted) {
            let longest = match self.built.load(Ordering::Relaxed) {
                0 => SECRETS_SETTLE_FIRST,
                _ => SECRETS_SETTLE,
            };
            self.secrets.settled(longest).await;
            (built, took) = self.once(Changes::default()).await?;
            whole |= built.whole;
            // What the Secrets brought may name others; those come with the next table.
            let _ = self.secrets.want(&built.snapshot.wanted);
        }
        let before = self.state.replace(built.snapshot);
        if whole {
            // Requests need not wait for the end of all routes; nobody does.
            drop(spawn_blocking(move || drop(before)));
        }
        let builder = self.builder.lock().unwrap_or_else(PoisonError::into_inner);
        self.state.keep_last_good(builder.last_good());
        drop(builder);
        let count = self.built.fetch_add(1, Ordering::Relaxed);
        if whole || count.is_multiple_of(SWEEP_EVERY) {
            // What only tables before had is given up.
            self.services.sweep();
        }
        Ok(took)
    }

    /// With 10,000 Ingresses a whole table takes tens of milliseconds, in which no other task would run here.
    async fn once(self: &Arc<Self>, mut changes: Changes) -> Result<(Built, Duration), JoinError> {
        let this = Arc::clone(self);
        spawn_blocking(move || {
            let start = Instant::now();
            let (view, different) = this.secrets.view();
            changes.secrets = different;
            // Only one table is built at a time.
            let mut builder = this.builder.lock().unwrap_or_else(PoisonError::into_inner);
            let built = builder.update(changes, &this.services, &view);
            let took = start.elapsed();
            let kind = if built.whole { Rebuild::Whole } else { Rebuild::Part };
            this.state.counters.rebuilt(kind, took);
            (built, took)
        })
        .await
    }
}
