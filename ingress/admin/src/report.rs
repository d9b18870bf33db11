//! What the status page shows, as JSON for programs.

use super::Site;
use landfall_ingress_balance::Backend;
use serde_json::{Value, json};

/// Version of the report's form; it goes up when a field changes its meaning or goes away.
const VERSION: u32 = 1;

impl Site {
    /// Renders the newest snapshot whole.
    pub(super) fn report(&self) -> String {
        let state = &self.state;
        let snapshot = self.known.snapshot();
        let routes: Vec<Value> = snapshot
            .table
            .routes()
            .map(|route| {
                let host = if route.host.name.is_empty() {
                    "*"
                } else {
                    &*route.host.name
                };
                json!({ "host": host, "path": &*route.path, "exact": route.exact, "ingress": &*route.ingress,
                "service": route.backend.name, "endpoints": route.backend.endpoints().addresses() })
            })
            .collect();
        let default = |b: &Backend| json!({ "service": b.name, "endpoints": b.endpoints().addresses() });
        let report = json!({
            "version": VERSION,
            "node": self.node,
            "ready": state.lifecycle.ready(),
            "leader": self.known.leading(),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "requests_in_flight": state.counters.requests.value(),
            "connections": state.counters.connections.value(),
            "routes": routes,
            "default_backend": snapshot.table.default_route().map(|route| default(&route.backend)),
            "remarks": snapshot.remarks(),
        });
        format!("{report}\n")
    }
}
