//! `install.json` and `verify.json`, and the events they are made from.

use landfall_core::event::{Event, EventKind, EventSink};
use landfall_core::explain::{Code, Diagnosis, ExitCode};
use landfall_engine::run::Outcome;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Version of the report's form.
const REPORT_VERSION: u32 = 1;

/// Passes events on and keeps what the report needs.
pub struct Recorder {
    next: Arc<dyn EventSink>,
    parts: Mutex<Parts>,
}

#[derive(Default)]
struct Parts {
    phases: Vec<Phase>,
    /// By node and stage.
    stages: BTreeMap<(String, &'static str), Stage>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Phase {
    phase: String,
    start_ms: u64,
    duration_ms: u64,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Stage {
    start_ms: u64,
    duration_ms: u64,
    changes: usize,
    bytes: u64,
}

impl Recorder {
    /// Records what goes to `next`.
    pub fn new(next: Arc<dyn EventSink>) -> Arc<Self> {
        Arc::new(Self {
            next,
            parts: Mutex::default(),
        })
    }

    /// The report of an install.
    pub fn install_report(&self, outcome: &Outcome, bundle: &Value, exit: ExitCode) -> Value {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut nodes: BTreeMap<&str, BTreeMap<&str, &Stage>> = BTreeMap::new();
        for ((node, stage), part) in &parts.stages {
            nodes.entry(node).or_default().insert(stage, part);
        }
        json!({
            "version": REPORT_VERSION,
            "run": outcome.run,
            "bundle": bundle,
            "phases": parts.phases,
            "nodes": nodes,
            "bytesSent": outcome.bytes_sent,
            "changes": outcome.changes,
            "errors": outcome.errors,
            "warnings": outcome.warnings,
            "residue": outcome.residue,
            "rolledBack": outcome.rolled_back,
            "outcome": exit,
            "exitCode": exit.status(),
        })
    }
}

impl EventSink for Recorder {
    fn emit(&self, event: Event) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        match &event.kind {
            EventKind::PhaseFinished { phase, took_ms } => parts.phases.push(Phase {
                phase: phase.clone(),
                start_ms: event.at_ms.saturating_sub(*took_ms),
                duration_ms: *took_ms,
            }),
            EventKind::StepFinished {
                stage,
                changed,
                took_ms,
                ..
            } => {
                let started = event.at_ms.saturating_sub(*took_ms);
                let part = stage_of(&mut parts, &event, stage.as_str(), started);
                part.duration_ms = event.at_ms.saturating_sub(part.start_ms);
                part.changes += usize::from(*changed);
            }
            EventKind::PushProgress { bytes } => {
                let part = stage_of(&mut parts, &event, "push", event.at_ms);
                part.duration_ms = event.at_ms.saturating_sub(part.start_ms);
                part.bytes = *bytes;
            }
            _ => {}
        }
        drop(parts);
        self.next.emit(event);
    }
}

fn stage_of<'a>(parts: &'a mut Parts, event: &Event, stage: &'static str, started: u64) -> &'a mut Stage {
    let node = event.node.as_ref().map(ToString::to_string).unwrap_or_default();
    let part = parts.stages.entry((node, stage)).or_insert(Stage {
        start_ms: started,
        ..Stage::default()
    });
    part.start_ms = part.start_ms.min(started);
    part
}

/// Writes a file by way of a temporary one beside it, so that it is whole or absent.
pub fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Diagnosis> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let write = || -> std::io::Result<()> {
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent)?;
        }
        // A part left by an earlier run may have another mode.
        match std::fs::remove_file(&part) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&part, path)
    };
    write().map_err(|error| {
        Diagnosis::new(Code::FileUnreadable, format!("{} cannot be written", path.display())).because(&error)
    })
}
