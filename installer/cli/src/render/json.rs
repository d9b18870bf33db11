//! Events as JSON lines for machines.

use crate::output::write_stdout;
use landfall_core::event::{Event, EventSink};
use landfall_core::report::Report;
use serde_json::json;

/// Writes one JSON object per event to standard output.
pub struct JsonLines;

impl EventSink for JsonLines {
    fn emit(&self, event: Event) {
        if let Ok(text) = serde_json::to_string(&event) {
            write_stdout(&format!("{text}\n"));
        }
    }
}

/// The closing line: how it came out.
pub fn result_line(report: &Report) -> String {
    let result = json!({
        "event": "result",
        "exitCode": report.exit_code,
        "run": report.run,
        "changes": report.changes,
        "errors": report.errors,
        "warnings": report.warnings,
        "findings": report.findings,
        "residue": report.residue,
        "verify": report.verify,
    });
    format!("{result}\n")
}
