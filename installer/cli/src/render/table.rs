//! Renders verify's report: a table of sources and kinds of targets, and the failed cells in full.

use landfall_core::verify::{Cell, CellOutcome, VerifyReport};
use std::collections::BTreeMap;

/// Renders the table: one row for each source, one column for each kind of target; `3/3` is passed of probed, `-` is not probed.
pub fn verify(report: &VerifyReport, all: bool) -> String {
    let kind = |cell: &Cell| cell.target.split('/').next().unwrap_or_default().to_owned();
    let mut columns: Vec<String> = Vec::new();
    let mut rows: BTreeMap<&str, BTreeMap<String, Vec<&Cell>>> = BTreeMap::new();
    for cell in &report.cells {
        let kind = kind(cell);
        if !columns.contains(&kind) {
            columns.push(kind.clone());
        }
        rows.entry(&cell.vantage)
            .or_default()
            .entry(kind)
            .or_default()
            .push(cell);
    }
    let first = rows.keys().map(|r| r.len()).max().unwrap_or(0).max(7);
    let mut text = format!("{:first$}", "vantage");
    for column in &columns {
        text.push_str(&format!("  {column:>9}"));
    }
    text.push('\n');
    for (vantage, cells) in &rows {
        text.push_str(&format!("{vantage:first$}"));
        for column in &columns {
            let width = column.len().max(9);
            text.push_str(&format!(
                "  {:>width$}",
                summary(cells.get(column).map_or(&[], Vec::as_slice))
            ));
        }
        text.push('\n');
    }
    for cell in &report.cells {
        if cell.outcome == CellOutcome::Fail || all {
            text.push_str(&detail(cell));
        }
    }
    for line in &report.missing_routes {
        text.push_str(&format!("missing route: {line}\n"));
    }
    let count = |outcome| report.count(outcome);
    text.push_str(&format!(
        "{} passed, {} failed, {} skipped\n",
        count(CellOutcome::Pass),
        count(CellOutcome::Fail),
        count(CellOutcome::Skip)
    ));
    text
}

fn summary(cells: &[&Cell]) -> String {
    let count = |outcome| cells.iter().filter(|c| c.outcome == outcome).count();
    let tried = cells.len() - count(CellOutcome::Skip);
    match (tried, count(CellOutcome::Fail)) {
        (0, _) => "-".to_owned(),
        (tried, 0) => format!("{tried}/{tried} ok"),
        (tried, failed) => format!("{}/{tried} RED", tried - failed),
    }
}

fn detail(cell: &Cell) -> String {
    let word = match cell.outcome {
        CellOutcome::Pass => "pass",
        CellOutcome::Fail => "FAIL",
        CellOutcome::Skip => "skip",
    };
    let mut text = format!("{word} {} -> {}\n", cell.vantage, cell.target);
    text.push_str(&format!("  expected: {}\n  saw:      {}\n", cell.expected, cell.saw));
    if let Some(cause) = &cell.cause {
        text.push_str(&format!("  cause:    {cause}\n"));
    }
    if let Some(next) = &cell.next {
        text.push_str(&format!("  next:     {next}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(vantage: &str, target: &str, outcome: CellOutcome) -> Cell {
        Cell {
            vantage: vantage.into(),
            target: target.into(),
            expected: "200".into(),
            outcome,
            saw: "<refused> & \"so\"".into(),
            cause: None,
            next: None,
        }
    }

    #[test]
    fn failed_cells_are_counted_and_listed() {
        let report = VerifyReport {
            version: 1,
            cells: vec![
                cell("node/a", "pod-ip/10.0.0.1", CellOutcome::Pass),
                cell("node/a", "pod-ip/10.0.0.2", CellOutcome::Fail),
                cell("operator", "pod-ip/10.0.0.1", CellOutcome::Skip),
            ],
            missing_routes: vec!["ip route add x".into()],
        };
        let text = verify(&report, false);
        for wanted in [
            "1/2 RED",
            "FAIL node/a -> pod-ip/10.0.0.2",
            "missing route: ip route add x",
            "1 passed, 1 failed, 1 skipped",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in:\n{text}");
        }
        assert!(!text.contains("pod-ip/10.0.0.1\n"));
    }
}
