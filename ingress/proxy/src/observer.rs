//! Where requests are counted and logged.

use landfall_ingress_routing::Route;
use landfall_ingress_telemetry::access_log::{AccessLog, Mode};
use landfall_ingress_telemetry::traffic::{RouteStats, Traffic};
use std::sync::Arc;

/// Records requests. Nothing here waits.
#[derive(Debug)]
pub struct Observer {
    /// Counts.
    pub traffic: Traffic,
    /// Lines.
    pub log: AccessLog,
}

impl Default for Observer {
    fn default() -> Self {
        Self::new(usize::MAX, AccessLog::start(Mode::Off, std::io::sink()))
    }
}

impl Observer {
    /// `exported` routes at most have series of their own.
    pub fn new(exported: usize, log: AccessLog) -> Self {
        Self {
            traffic: Traffic::new(exported),
            log,
        }
    }

    /// Where a route is counted.
    pub fn counts(&self, route: &Route) -> RouteStats {
        Arc::clone(self.traffic.routes.find(&route.traffic, || route.key()))
    }
}
