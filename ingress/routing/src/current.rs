//! The table in force.

use crate::RouteTable;
use arc_swap::ArcSwap;
use std::sync::Arc;

/// Holds the table in force: one writes, all others read. Nothing waits.
#[derive(Debug, Default)]
pub struct CurrentTable(ArcSwap<RouteTable>);

impl CurrentTable {
    /// Returns the newest table; a request keeps the one it began with.
    pub fn load(&self) -> Arc<RouteTable> {
        self.0.load_full()
    }

    /// Puts a new table in force, whole.
    pub fn store(&self, table: Arc<RouteTable>) {
        self.0.store(table);
    }
}
