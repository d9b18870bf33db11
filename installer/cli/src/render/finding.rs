//! What preflight found, for people: how much it matters, what, where, what was seen, why, what to do next.

use super::plural;
use landfall_core::finding::{Finding, Severity};
use landfall_core::name::NodeName;
use landfall_core::report::Report;

/// Renders a finding, as errors are.
pub fn finding(finding: &Finding) -> String {
    let mut text = format!("{}[{}]: {}\n", finding.severity.as_str(), finding.check, finding.what);
    let nodes: Vec<&str> = finding.nodes.iter().map(NodeName::as_str).collect();
    let place = finding.place.as_ref().map(ToString::to_string);
    let parts = [
        ("on:  ", Some(nodes.join(", ")).filter(|nodes| !nodes.is_empty())),
        ("at:  ", place),
        ("saw: ", Some(finding.saw.clone())),
        ("why: ", Some(finding.why.clone())),
        ("next:", Some(finding.next.clone())),
    ];
    for (label, line) in parts {
        let line = line.map(|line| line.replace('\n', "\n        "));
        text.extend(line.map(|line| format!("  {label} {line}\n")));
    }
    text.trim_end().to_owned()
}

/// Says in one line what came of it.
pub fn preflight_summary(report: &Report) -> String {
    let count = |severity| report.findings.iter().filter(|f| f.severity == severity).count();
    let (refused, warnings, notes) = (count(Severity::Refuse), count(Severity::Warn), count(Severity::Note));
    let machines = plural(report.connected.len(), "machine");
    let refused = if refused == 0 {
        "nothing refused".to_owned()
    } else {
        format!("{refused} refused")
    };
    format!(
        "{machines} checked: {refused}, {}, {}\n",
        plural(warnings, "warning"),
        plural(notes, "note")
    )
}
