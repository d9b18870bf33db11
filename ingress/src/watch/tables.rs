//! Builds tables, on a thread of their own, and waits for the Secrets that a new one names.

use crate::limits::{SECRETS_SETTLE, SECRETS_SETTLE_FIRST};
use crate::route::{Builder, Objects, Snapshot};
use crate::secrets::{Name, Scope, Secrets};
use crate::state::State;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::Instant;

/// What is read for TLS beside Ingresses.
pub struct Tls {
    /// How Secrets are followed.
    pub secrets: Scope,
    /// The operator's certificate for hosts without.
    pub default_certificate: Option<Name>,
}

/// What tables are made with.
pub(super) struct Tables {
    builder: Mutex<Builder>,
    tls: Tls,
    secrets: Arc<Secrets>,
    state: Arc<State>,
    /// There was a table before.
    built: AtomicBool,
}

impl Tables {
    pub(super) fn new(builder: Builder, tls: Tls, secrets: Arc<Secrets>, state: Arc<State>) -> Self {
        Self {
            builder: Mutex::new(builder),
            tls,
            secrets,
            state,
            built: AtomicBool::new(false),
        }
    }

    /// Builds a table and puts it in place. Returns how long the building took.
    pub(super) async fn build(self: Arc<Self>, objects: Objects) -> Result<Duration, JoinError> {
        let objects = Arc::new(objects);
        let (mut snapshot, mut took) = self.once(&objects).await?;
        // A host whose certificate, or protection, is still on its way would be served wrongly for a moment.
        let default = self.tls.default_certificate.as_ref();
        if self.secrets.want(&snapshot.wanted_secrets(default)) {
            let longest = match self.built.load(Ordering::Relaxed) {
                true => SECRETS_SETTLE,
                false => SECRETS_SETTLE_FIRST,
            };
            self.secrets.settled(longest).await;
            (snapshot, took) = self.once(&objects).await?;
            // What the Secrets brought may name others; those come with the next table.
            let _ = self.secrets.want(&snapshot.wanted_secrets(default));
        }
        self.built.store(true, Ordering::Relaxed);
        self.state.replace(snapshot);
        let builder = self.builder.lock().unwrap_or_else(PoisonError::into_inner);
        self.state.keep_last_good(builder.last_good());
        // What only the table before had is given up.
        objects.services.sweep();
        Ok(took)
    }

    /// With 10,000 Ingresses a table takes tens of milliseconds, in which no other task would run here.
    async fn once(self: &Arc<Self>, objects: &Arc<Objects>) -> Result<(Snapshot, Duration), JoinError> {
        let (this, objects) = (Arc::clone(self), Arc::clone(objects));
        spawn_blocking(move || {
            let start = Instant::now();
            let view = this.secrets.view();
            // Only one table is built at a time.
            let mut builder = this.builder.lock().unwrap_or_else(PoisonError::into_inner);
            let snapshot = builder.build(&objects, &view);
            let snapshot = snapshot.with_certificates(&view, this.tls.default_certificate.as_ref());
            (snapshot, start.elapsed())
        })
        .await
    }
}
