//! Events as JSON lines for machines.

use landfall_core::event::{Event, EventSink};
use landfall_core::explain::ExitCode;
use landfall_engine::run::Outcome;
use serde_json::json;

/// Writes one JSON object per event to standard output.
pub struct JsonLines;

impl EventSink for JsonLines {
    fn emit(&self, event: Event) {
        if let Ok(text) = serde_json::to_string(&event) {
            crate::say(&format!("{text}\n"));
        }
    }
}

/// The closing line: how it came out.
pub fn result_line(outcome: &Outcome, exit: ExitCode) -> String {
    let result = json!({
        "event": "result",
        "exitCode": exit.status(),
        "run": outcome.run,
        "changes": outcome.changes,
        "errors": outcome.errors,
        "warnings": outcome.warnings,
        "residue": outcome.residue,
        "verify": outcome.verify,
    });
    format!("{result}\n")
}
