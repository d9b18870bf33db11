//! Plain lines for logs and pipes.

use super::line;
use crate::output::write_stderr;
use landfall_core::event::{Event, EventSink};

/// Writes one line per event to standard error.
pub struct Lines;

impl EventSink for Lines {
    fn emit(&self, event: Event) {
        if let Some(text) = line(&event.kind) {
            let node = event.node.map(|n| format!("{n}: ")).unwrap_or_default();
            write_stderr(&format!("[{:7.1}] {node}{text}\n", event.at_ms as f64 / 1000.0));
        }
    }
}
