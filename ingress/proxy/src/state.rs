//! What all tasks of the data plane share: the table in force, counters, readiness.

use crate::observer::Observer;
use landfall_ingress_listen::Lifecycle;
use landfall_ingress_routing::{CurrentTable, RouteTable};
use landfall_ingress_telemetry::metrics::Counters;
use std::sync::Arc;

/// Shared state.
#[derive(Debug, Default)]
pub struct State {
    /// The table in force.
    pub table: Arc<CurrentTable>,
    /// Whether connections are taken, and by whom.
    pub lifecycle: Arc<Lifecycle>,
    /// Counters for /metrics.
    pub counters: Arc<Counters>,
    /// Where requests are recorded.
    pub observer: Arc<Observer>,
}

impl State {
    /// Returns the newest table; a request keeps the one it began with.
    pub fn routes(&self) -> Arc<RouteTable> {
        self.table.load()
    }
}
