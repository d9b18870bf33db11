//! What the proxy counts and writes of itself: counters and their Prometheus text, traffic by entry point and route, the access log, the
//! lines of its own log, why it answers by itself, and how often open files ran out.
//!
//! It promises that counting and logging never wait: counters are atomic, lines wait in a bounded queue or are dropped and counted. It is
//! told of requests and routes in numbers and texts, and must not depend on their types.

#![forbid(unsafe_code)]

pub mod access_log;
pub mod files;
pub mod metrics;
pub mod reason;
pub mod traffic;

use access_log::{AccessLog, Mode};
use metrics::Counters;
use traffic::Traffic;

/// Everything that is counted, and where requests are logged.
#[derive(Debug)]
pub struct Telemetry {
    /// Counters of the whole proxy.
    pub counters: Counters,
    /// Counts by entry point and route.
    pub traffic: Traffic,
    /// Lines of requests.
    pub log: AccessLog,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new(usize::MAX, AccessLog::start(Mode::Off, std::io::sink()))
    }
}

impl Telemetry {
    /// Starts at nothing. `exported` routes at most have series of their own.
    pub fn new(exported: usize, log: AccessLog) -> Self {
        Self {
            counters: Counters::default(),
            traffic: Traffic::new(exported),
            log,
        }
    }
}

/// Writes one line of the program's own log to standard error.
pub fn log(text: &str) {
    use std::io::Write;
    // A closed log has no reader to tell.
    let _ = writeln!(std::io::stderr(), "landfall-ingress: {text}");
}
