//! Plain lines for logs and pipes.

use super::line;
use landfall_core::event::{Event, EventSink};
use std::io::Write;

/// Writes one line per event to standard error.
pub struct Lines;

impl EventSink for Lines {
    fn emit(&self, event: Event) {
        if let Some(text) = line(&event) {
            let node = event.node.map(|n| format!("{n}: ")).unwrap_or_default();
            // A closed standard error leaves nobody to tell.
            let _ = writeln!(std::io::stderr(), "[{:7.1}] {node}{text}", event.at_ms as f64 / 1000.0);
        }
    }
}
