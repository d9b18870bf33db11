//! What a user sees: events as lines, bars or JSON, and as a log; errors, plans, verify's table.

mod bars;
mod cluster;
mod error;
mod finding;
mod journal;
mod json;
mod junit;
mod lines;
mod log;
mod plan;
mod table;
mod transfers;

pub use cluster::{cluster, cluster_json};
pub use error::errors;
pub use finding::preflight_summary;
pub use journal::{journals, journals_json, lost_lines, repair_json};
pub use json::result_line;
pub use junit::{junit, preflight_junit};
pub use log::Log;
pub use plan::{bytes, plan};
pub use table::verify;

use crate::args::Output;
use jiff::{Timestamp, tz::TimeZone};
use landfall_core::event::{EventKind, EventSink};
use std::io::IsTerminal;

/// Chooses how progress is shown: bars on a terminal, lines elsewhere, JSON when asked.
pub fn screen(output: Output) -> Box<dyn EventSink> {
    match output {
        Output::Json => Box::new(json::JsonLines),
        Output::Human if std::io::stderr().is_terminal() => Box::new(bars::Bars::new()),
        Output::Human => Box::new(lines::Lines::default()),
    }
}

/// What an event means, for terminals: `None` for events that only move bars, that nothing came of, or that are shown at the end.
fn line(kind: &EventKind) -> Option<String> {
    match kind {
        EventKind::PushProgress { .. }
        | EventKind::StepStarted { .. }
        | EventKind::StepFinished { changed: false, .. }
        | EventKind::Verified { .. }
        | EventKind::Error { .. } => None,
        EventKind::StepFailed { step, diagnosis, .. } => Some(format!("FAILED {step}: {diagnosis}")),
        // It is shown as an error at the end.
        EventKind::Found { finding } if finding.refuses() => None,
        kind => Some(text(kind)),
    }
}

/// What an event means, in full.
fn text(kind: &EventKind) -> String {
    match kind {
        EventKind::RunStarted {
            command,
            cluster,
            bundle,
            nodes,
        } => {
            let with = bundle
                .as_ref()
                .map(|b| format!(", Kubernetes {} from {}", b.kubernetes, b.path))
                .unwrap_or_default();
            let version = env!("CARGO_PKG_VERSION");
            let machines = plural(nodes.len(), "machine");
            format!("== landfall {version} {command}: cluster {cluster}, {machines}{with}")
        }
        EventKind::RunPlanned { run, steps } => format!("run {run}: {}", plural(*steps, "step")),
        EventKind::RunFinished {
            outcome,
            counts,
            duration_ms,
            ..
        } => format!(
            "== ended with {} after {}: {} changed, {} failed, {} undone",
            outcome.status(),
            seconds(*duration_ms),
            counts.changed,
            counts.failed,
            counts.undone
        ),
        EventKind::Warning { text } => format!("warning: {text}"),
        EventKind::Found { finding } => finding::finding(finding),
        EventKind::Error { diagnosis } => errors(std::slice::from_ref(diagnosis)),
        EventKind::Verified { report } => verify(report, false),
        EventKind::PhaseStarted { phase } => format!("== {phase}"),
        EventKind::PhaseFinished { phase, took_ms } => format!("== {phase}: {}", seconds(*took_ms)),
        EventKind::Connected => "connected".to_owned(),
        EventKind::PushPlanned { bytes: 0 } => "has all files already".to_owned(),
        EventKind::PushPlanned { bytes: n } => format!("needs {}", bytes(*n)),
        EventKind::PushProgress { bytes: n, .. } => format!("{} came", bytes(*n)),
        EventKind::StepStarted { step, text, .. } => format!("{step} begins: {text}"),
        EventKind::StepWaiting { step, text } => format!("… {step}: {text}"),
        EventKind::StepFinished {
            step,
            changed: false,
            took_ms,
            ..
        } => format!("{step}: nothing to change, {}", seconds(*took_ms)),
        EventKind::StepFinished { step, took_ms, .. } => format!("{step}: {}", seconds(*took_ms)),
        EventKind::StepFailed { step, diagnosis, .. } => {
            format!("FAILED {step}: {}", errors(std::slice::from_ref(diagnosis)))
        }
        EventKind::Undone { step, took_ms } => format!("undone {step}: {}", seconds(*took_ms)),
        EventKind::Residue { step, text } => format!("LEFT BEHIND {step}: {text}"),
        EventKind::Note { text } => text.clone(),
    }
}

/// A time of a machine's clock as a date in UTC; `None` when it is none that a clock shows.
pub fn date(at_ms: u64) -> Option<String> {
    let at = i64::try_from(at_ms).ok().filter(|ms| *ms > 0);
    let at = Timestamp::from_millisecond(at?).ok()?;
    Some(at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M UTC").to_string())
}

fn seconds(ms: u64) -> String {
    format!("{:.1} s", ms as f64 / 1000.0)
}

/// A number with its noun.
pub fn plural(n: usize, noun: &str) -> String {
    if n == 1 {
        format!("1 {noun}")
    } else {
        format!("{n} {noun}s")
    }
}
