//! Plain lines for logs and pipes.

use super::line;
use super::transfers::Transfers;
use crate::output::write_stderr;
use landfall_core::event::{Event, EventSink};
use std::sync::{Mutex, PoisonError};

/// Writes one line per event to standard error, and one every few seconds while files are sent.
#[derive(Default)]
pub struct Lines {
    transfers: Mutex<Transfers>,
}

impl EventSink for Lines {
    fn emit(&self, event: Event) {
        let say = |node: &str, text: &str| {
            write_stderr(&format!("[{:7.1}] {node}{text}\n", event.at_ms as f64 / 1000.0));
        };
        let mut transfers = self.transfers.lock().unwrap_or_else(PoisonError::into_inner);
        if transfers.take(&event)
            && let Some(text) = transfers.line(&event)
        {
            say("", &text);
        }
        if let Some(text) = line(&event.kind) {
            let node = event.node.as_ref().map(|n| format!("{n}: ")).unwrap_or_default();
            say(&node, &text);
        }
    }
}
