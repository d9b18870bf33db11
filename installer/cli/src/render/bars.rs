//! Progress bars on a terminal, one for each node: bytes during the upload, then the name of the step.

use super::line;
use crate::output::printable;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use landfall_core::event::{Event, EventKind, EventSink};
use landfall_core::name::NodeName;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

/// Draws on standard error.
pub struct Bars {
    screen: MultiProgress,
    nodes: Mutex<BTreeMap<NodeName, ProgressBar>>,
}

impl Bars {
    /// Starts with an empty screen.
    pub fn new() -> Self {
        Self {
            screen: MultiProgress::new(),
            nodes: Mutex::default(),
        }
    }

    fn bar(&self, node: &NodeName) -> ProgressBar {
        let mut nodes = self.nodes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let make = || {
            let bar = self.screen.add(ProgressBar::new(0).with_style(step_style()));
            bar.set_prefix(node.to_string());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        };
        nodes.entry(node.clone()).or_insert_with(make).clone()
    }

    fn print(&self, text: &str) {
        // An error means that the terminal is gone, which cannot be reported anywhere.
        let _ = self.screen.println(printable(text));
    }

    /// Removes all bars from the screen, so that results can be printed.
    fn clear(&self) {
        let nodes = std::mem::take(&mut *self.nodes.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        nodes.values().for_each(ProgressBar::finish_and_clear);
        let _ = self.screen.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn step_style() -> ProgressStyle {
    style("  {prefix:16} {spinner} {msg}")
}

fn bytes_style() -> ProgressStyle {
    style("  {prefix:16} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}")
}

impl EventSink for Bars {
    fn emit(&self, event: Event) {
        let message = |text: &str| printable(text).into_owned();
        let Some(node) = &event.node else {
            if matches!(event.kind, EventKind::RunFinished { .. }) {
                self.clear();
            }
            if let Some(text) = line(&event.kind) {
                self.print(&text);
            }
            return;
        };
        let bar = self.bar(node);
        match &event.kind {
            EventKind::PushPlanned { bytes } if *bytes > 0 => {
                bar.set_style(bytes_style());
                bar.set_length(*bytes);
                bar.set_position(0);
            }
            EventKind::PushProgress { bytes } => bar.set_position(*bytes),
            EventKind::StepStarted { text, .. } => {
                bar.set_style(step_style());
                bar.set_message(message(text));
            }
            EventKind::StepWaiting { step, text } => bar.set_message(message(&format!("{step}: {text}"))),
            EventKind::StepFinished { .. } => bar.set_message(""),
            EventKind::StepFailed { .. } | EventKind::Residue { .. } | EventKind::Note { .. } => {
                if let Some(text) = line(&event.kind) {
                    self.print(&format!("{node}: {text}"));
                }
            }
            _ => {
                if let Some(text) = line(&event.kind) {
                    bar.set_message(message(&text));
                }
            }
        }
    }
}
