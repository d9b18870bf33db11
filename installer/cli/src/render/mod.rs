//! What a user sees: events as lines, bars or JSON; errors, plans, verify's table.

mod bars;
mod error;
mod json;
mod lines;
mod plan;
mod table;

pub use error::errors;
pub use json::result_line;
pub use plan::{bytes, plan};
pub use table::{junit, verify};

use crate::args::Output;
use landfall_core::event::{Event, EventKind, EventSink};
use std::io::IsTerminal;
use std::sync::Arc;

/// Chooses how progress is shown: bars on a terminal, lines elsewhere, JSON when asked.
pub fn sink(output: Output) -> Arc<dyn EventSink> {
    match output {
        Output::Json => Arc::new(json::JsonLines),
        Output::Human if std::io::stderr().is_terminal() => Arc::new(bars::Bars::new()),
        Output::Human => Arc::new(lines::Lines),
    }
}

/// A remark of the command line itself.
pub fn note(text: &str) -> Event {
    Event {
        at_ms: 0,
        node: None,
        kind: EventKind::Note { text: text.to_owned() },
    }
}

/// Says what an event means in one line; `None` for events that only move bars.
fn line(event: &Event) -> Option<String> {
    let seconds = |ms: u64| format!("{:.1} s", ms as f64 / 1000.0);
    Some(match &event.kind {
        EventKind::PhaseStarted { phase } => format!("== {phase}"),
        EventKind::PhaseFinished { phase, took_ms } => format!("== {phase}: {}", seconds(*took_ms)),
        EventKind::Connected => "connected".to_owned(),
        EventKind::PushPlanned { bytes: 0 } => "has all files already".to_owned(),
        EventKind::PushPlanned { bytes: n } => format!("needs {}", bytes(*n)),
        EventKind::PushProgress { .. } | EventKind::StepStarted { .. } => return None,
        EventKind::StepWaiting { step, text } => format!("… {step}: {text}"),
        EventKind::StepFinished { changed: false, .. } => return None,
        EventKind::StepFinished { step, took_ms, .. } => format!("{step}: {}", seconds(*took_ms)),
        EventKind::StepFailed { step, diagnosis, .. } => format!("FAILED {step}: {diagnosis}"),
        EventKind::Undone { step, took_ms } => format!("taken back {step}: {}", seconds(*took_ms)),
        EventKind::Residue { step, text } => format!("LEFT BEHIND {step}: {text}"),
        EventKind::Note { text } => text.clone(),
    })
}
