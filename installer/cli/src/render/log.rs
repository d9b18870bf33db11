//! The operator's log: every event of every run with this report folder, one after the other, with the time of day.

use super::text;
use crate::output::{open_log, printable};
use jiff::Timestamp;
use landfall_core::event::{Event, EventKind};
use landfall_core::explain::Diagnosis;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Name of the log in the report's folder.
const NAME: &str = "landfall.log";

/// A log file, readable by its owner alone.
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens the log in `folder`, and makes both when they are not there.
    pub fn open(folder: &Path) -> Result<Self, Diagnosis> {
        let path = folder.join(NAME);
        let file = open_log(&path)?;
        Ok(Self { path, file })
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds an event. An entry that cannot be written does not fail the run.
    pub fn write(&self, event: &Event) {
        if let Some(entry) = entry(event, Timestamp::now()) {
            // One call for each entry, so that entries of several threads do not mix.
            let _ = (&self.file).write_all(entry.as_bytes());
        }
    }
}

/// The entry of one event: UTC to the millisecond, the node, the text; further lines are indented. Nothing for bytes on their way.
fn entry(event: &Event, now: Timestamp) -> Option<String> {
    if matches!(event.kind, EventKind::PushProgress { .. }) {
        return None;
    }
    let node = event.node.as_ref().map(|n| format!("{n}: ")).unwrap_or_default();
    let text = text(&event.kind);
    let text = printable(text.trim_end()).replace('\n', "\n    ");
    Some(format!("{now:.3} {node}{text}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_of_the_golden_stream_is_logged() {
        let stream = include_str!("../../../../tests/fixtures/formats/events-1.jsonl");
        let began = Timestamp::from_millisecond(1_795_800_000_000).unwrap();
        let entries: String = stream
            .lines()
            .map(|line| serde_json::from_str::<Event>(line).unwrap())
            .filter_map(|event| {
                let now = began + std::time::Duration::from_millis(event.at_ms);
                entry(&event, now)
            })
            .collect();
        insta::assert_snapshot!("log", entries);
    }
}
