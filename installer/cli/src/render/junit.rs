//! verify's result as JUnit XML: one suite per vantage.

use landfall_core::explain::{Code, Diagnosis};
use landfall_core::verify::{Cell, CellOutcome, VerifyReport};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use std::collections::BTreeMap;

/// Renders the report. Characters that XML forbids are left out.
pub fn junit(report: &VerifyReport) -> Result<String, Diagnosis> {
    let mut suites: BTreeMap<&str, TestSuite> = BTreeMap::new();
    for cell in &report.cells {
        let suite = suites.entry(&cell.vantage);
        let suite = suite.or_insert_with(|| TestSuite::new(cell.vantage.as_str()));
        suite.add_test_case(test_case(cell));
    }
    let mut xml = Report::new("landfall verify");
    xml.add_test_suites(suites.into_values());
    xml.to_string()
        .map_err(|error| Diagnosis::new(Code::Internal, "the JUnit report cannot be rendered").because(&error))
}

fn test_case(cell: &Cell) -> TestCase {
    let mut status = match cell.outcome {
        CellOutcome::Pass => TestCaseStatus::success(),
        CellOutcome::Fail => TestCaseStatus::non_success(NonSuccessKind::Failure),
        CellOutcome::Skip => TestCaseStatus::skipped(),
    };
    if cell.outcome != CellOutcome::Pass {
        status.set_message(cell.saw.as_str());
    }
    if cell.outcome == CellOutcome::Fail {
        let mut text = format!("expected: {}\n", cell.expected);
        for (label, line) in [("cause", &cell.cause), ("next", &cell.next)] {
            text.extend(line.as_ref().map(|line| format!("{label}: {line}\n")));
        }
        status.set_description(text);
    }
    let mut case = TestCase::new(cell.target.as_str(), status);
    case.set_classname(cell.vantage.as_str());
    case
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(target: &str, outcome: CellOutcome, saw: &str) -> Cell {
        Cell {
            vantage: "node/a".into(),
            target: target.into(),
            expected: "200".into(),
            outcome,
            saw: saw.into(),
            cause: (outcome == CellOutcome::Fail).then(|| "the pod network is down".into()),
            next: (outcome == CellOutcome::Fail).then(|| "landfall status".into()),
        }
    }

    #[test]
    fn suites_hold_what_passed_failed_and_was_skipped() {
        let report = VerifyReport {
            version: 1,
            cells: vec![
                cell("pod-ip/10.0.0.1", CellOutcome::Pass, "200"),
                cell("pod-ip/10.0.0.2", CellOutcome::Fail, "<refused> & \"so\" \x1b[31m\x07"),
                Cell {
                    vantage: "operator".into(),
                    ..cell("pod-ip/10.0.0.1", CellOutcome::Skip, "no route")
                },
            ],
            missing_routes: vec![],
        };
        insta::assert_snapshot!("junit", junit(&report).unwrap());
    }
}
