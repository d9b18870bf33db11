//! Progress bars on a terminal: one for each node, over the bytes that it needs while some are outstanding, with the name of the step; and one for
//! all transfers together.

use super::line;
use super::transfers::Transfers;
use crate::output::printable;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use landfall_core::event::{Event, EventKind, EventSink};
use landfall_core::name::NodeName;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What the bar of all transfers is called.
const ALL: &str = "all nodes";

/// Draws on standard error.
pub struct Bars {
    screen: MultiProgress,
    shown: Mutex<Shown>,
}

/// What is on the screen.
#[derive(Default)]
struct Shown {
    nodes: BTreeMap<NodeName, NodeBar>,
    total: Option<ProgressBar>,
    transfers: Transfers,
}

struct NodeBar {
    bar: ProgressBar,
    /// What the node does, beside taking files.
    step: String,
}

impl Bars {
    /// Starts with an empty screen.
    pub fn new() -> Self {
        Self {
            screen: MultiProgress::new(),
            shown: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn print(&self, text: &str) {
        // An error means that the terminal is gone, which cannot be reported anywhere.
        let _ = self.screen.println(printable(text));
    }

    /// Removes all bars from the screen, so that results can be printed.
    fn clear(&self) {
        let shown = std::mem::take(&mut *self.lock());
        let bars = shown.nodes.values().map(|node| &node.bar).chain(&shown.total);
        bars.for_each(ProgressBar::finish_and_clear);
        let _ = self.screen.clear();
    }

    /// Shows what a node does, and how far its files are.
    fn show_node(&self, shown: &mut Shown, node: &NodeName, step: Option<String>) {
        let Shown {
            nodes,
            transfers,
            total,
        } = shown;
        let make = || {
            let bar = ProgressBar::new(0).with_style(step_style());
            // The bar of all is the last one.
            let bar = self.screen.insert_from_back(usize::from(total.is_some()), bar);
            bar.set_prefix(node.to_string());
            bar.enable_steady_tick(Duration::from_millis(200));
            let step = String::new();
            NodeBar { bar, step }
        };
        let of_node = nodes.entry(node.clone()).or_insert_with(make);
        if let Some(step) = step {
            of_node.step = step;
        }
        match transfers.of_node(node) {
            Some((needed, came)) => {
                of_node.bar.set_style(bytes_style());
                of_node.bar.set_length(needed);
                of_node.bar.set_position(came);
            }
            None => of_node.bar.set_style(step_style()),
        }
        let message = node_message(transfers.node_text(node), &of_node.step);
        of_node.bar.set_message(printable(&message).into_owned());
    }

    /// Shows how far all transfers are; the bar goes when nothing is outstanding.
    fn show_total(&self, shown: &mut Shown) {
        let (Some((needed, came)), Some(text)) = (shown.transfers.of_all(), shown.transfers.total_text()) else {
            if let Some(bar) = shown.total.take() {
                bar.finish_and_clear();
            }
            return;
        };
        let make = || {
            let bar = self.screen.add(ProgressBar::new(0).with_style(bytes_style()));
            bar.set_prefix(ALL);
            bar
        };
        let bar = shown.total.get_or_insert_with(make);
        bar.set_length(needed);
        bar.set_position(came);
        bar.set_message(text);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn step_style() -> ProgressStyle {
    style("  {prefix:16} {spinner} {msg}")
}

fn bytes_style() -> ProgressStyle {
    style("  {prefix:16} [{bar:20}] {msg}")
}

/// What stands beside a node's bar: how far its files are, then what it does.
fn node_message(files: Option<String>, step: &str) -> String {
    match files {
        Some(files) if step.is_empty() => files,
        Some(files) => format!("{files}; {step}"),
        None => step.to_owned(),
    }
}

impl EventSink for Bars {
    fn emit(&self, event: Event) {
        let Some(node) = &event.node else {
            if matches!(event.kind, EventKind::RunFinished { .. }) {
                self.clear();
            }
            if let Some(text) = line(&event.kind) {
                self.print(&text);
            }
            return;
        };
        let mut shown = self.lock();
        if shown.transfers.take(&event) {
            self.show_node(&mut shown, node, None);
            self.show_total(&mut shown);
            return;
        }
        let step = match &event.kind {
            EventKind::StepStarted { text, .. } => Some(text.clone()),
            EventKind::StepWaiting { step, text } => Some(format!("{step}: {text}")),
            EventKind::StepFinished { .. } => Some(String::new()),
            EventKind::StepFailed { .. } | EventKind::Residue { .. } | EventKind::Note { .. } => {
                if let Some(text) = line(&event.kind) {
                    self.print(&format!("{node}: {text}"));
                }
                None
            }
            kind => line(kind),
        };
        self.show_node(&mut shown, node, step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_a_bar_stand_its_files_and_its_step() {
        let files = || Some("1.0 MB of 2.0 MB".to_owned());
        assert_eq!(node_message(files(), ""), "1.0 MB of 2.0 MB");
        assert_eq!(
            node_message(files(), "start containerd"),
            "1.0 MB of 2.0 MB; start containerd"
        );
        assert_eq!(node_message(None, "start containerd"), "start containerd");
    }

    /// The templates are read when they are drawn: a mistake in one shows another bar.
    #[test]
    fn the_templates_can_be_read() {
        for template in ["  {prefix:16} {spinner} {msg}", "  {prefix:16} [{bar:20}] {msg}"] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn a_bar_stays_while_bytes_are_outstanding_and_goes_with_them() {
        let bars = Bars {
            screen: MultiProgress::with_draw_target(indicatif::ProgressDrawTarget::hidden()),
            shown: Mutex::default(),
        };
        let node: NodeName = "cp-1".parse().unwrap();
        let emit = |kind| {
            bars.emit(Event {
                at_ms: 1,
                node: Some(node.clone()),
                kind,
            });
        };
        let message = || bars.lock().nodes[&node].bar.message();
        emit(EventKind::PushPlanned { bytes: 2_000_000 });
        emit(EventKind::StepStarted {
            step: "unit".parse().unwrap(),
            stage: landfall_core::plan::Stage::Prepare,
            text: "start containerd".to_owned(),
        });
        assert_eq!(message(), "0 B of 2.0 MB; start containerd");
        emit(EventKind::StepFinished {
            step: "unit".parse().unwrap(),
            stage: landfall_core::plan::Stage::Prepare,
            changed: true,
            took_ms: 1,
        });
        assert_eq!(message(), "0 B of 2.0 MB", "it still gets files");
        assert!(bars.lock().total.is_some());
        emit(EventKind::PushProgress {
            bytes: 2_000_000,
            relayed: 0,
        });
        assert_eq!(message(), "");
        assert!(bars.lock().total.is_none());
    }
}
