//! Renders the plan as text.

use landfall_core::name::{NodeName, StepId};
use landfall_core::plan::Plan;
use std::collections::BTreeMap;

/// Renders a number of bytes with a unit.
pub fn bytes(n: u64) -> String {
    let n = n as f64;
    match n {
        n if n >= 1e9 => format!("{:.2} GB", n / 1e9),
        n if n >= 1e6 => format!("{:.1} MB", n / 1e6),
        n if n >= 1e3 => format!("{:.1} kB", n / 1e3),
        n => format!("{n} B"),
    }
}

/// Lists the pending steps by node, in order, with how each is undone.
pub fn plan(plan: &Plan, reasons: &BTreeMap<StepId, String>, missing: &BTreeMap<NodeName, u64>) -> String {
    let mut nodes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for step in &plan.steps {
        let (stage, action) = (step.stage.as_str(), &step.action);
        let why = reasons
            .get(&step.id)
            .map(|why| format!("\n        why: {why}"))
            .unwrap_or_default();
        let line = format!(
            "    [{stage}] {}: {}{why}\n        undo: {}",
            step.id,
            action.text(),
            action.undo_text()
        );
        nodes.entry(step.node.to_string()).or_default().push(line);
    }
    let mut text = String::new();
    for (node, lines) in &nodes {
        let bytes = missing.iter().find(|(n, _)| n.as_str() == node).map(|(_, b)| *b);
        let bytes = bytes
            .map(|b| format!(", {} to send", self::bytes(b)))
            .unwrap_or_default();
        text.push_str(&format!("{node}: {} steps{bytes}\n", lines.len()));
        text.push_str(&lines.join("\n"));
        text.push('\n');
    }
    text.push_str(&format!("{} changes planned\n", plan.steps.len()));
    text
}
