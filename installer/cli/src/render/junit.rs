//! verify's result as JUnit XML, one suite per vantage; and preflight's, one suite per machine and one for what is of several.

use landfall_core::explain::{Code, Diagnosis};
use landfall_core::finding::{Check, Finding, Scope};
use landfall_core::report;
use landfall_core::verify::{Cell, CellOutcome, VerifyReport};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use std::collections::BTreeMap;

/// The suite of checks that are of several machines.
const FLEET: &str = "fleet";

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
    write(&xml)
}

fn write(xml: &Report) -> Result<String, Diagnosis> {
    xml.to_string()
        .map_err(|error| Diagnosis::new(Code::Internal, "the JUnit report cannot be rendered").because(&error))
}

/// Renders what preflight found: on each machine every check of one machine. Refusals are failures; warnings and notes pass, with their
/// text as output. Checks that need a bundle are skipped without one.
pub fn preflight_junit(report: &report::Report) -> Result<String, Diagnosis> {
    let mut xml = Report::new("landfall preflight");
    let fleet = Check::ALL.iter().filter(|check| check.scope() == Scope::Fleet);
    let mut suite = TestSuite::new(FLEET);
    suite.add_test_cases(fleet.map(|check| {
        let found = report.findings.iter().filter(|f| f.check == *check);
        check_case(FLEET, *check, &found.collect::<Vec<_>>(), None)
    }));
    xml.add_test_suite(suite);
    for node in &report.connected {
        let mut suite = TestSuite::new(node.as_str());
        let checks = Check::ALL.iter().filter(|check| check.scope() != Scope::Fleet);
        suite.add_test_cases(checks.map(|check| {
            let found = report
                .findings
                .iter()
                .filter(|f| f.check == *check && f.nodes.contains(node));
            let skipped = (check.scope() == Scope::Bundle && report.bundle.is_none()).then_some("no bundle was named");
            check_case(node.as_str(), *check, &found.collect::<Vec<_>>(), skipped)
        }));
        xml.add_test_suite(suite);
    }
    write(&xml)
}

fn check_case(suite: &str, check: Check, found: &[&Finding], skipped: Option<&str>) -> TestCase {
    let texts: Vec<String> = found.iter().map(|f| super::finding::finding(f)).collect();
    let text = texts.join("\n");
    let mut status = match (found.iter().find(|f| f.refuses()), skipped) {
        (Some(refusal), _) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(refusal.what.as_str());
            status
        }
        (None, Some(why)) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(why);
            status
        }
        (None, None) => TestCaseStatus::success(),
    };
    let refused = found.iter().any(|f| f.refuses());
    if refused {
        status.set_description(text.as_str());
    }
    let mut case = TestCase::new(check.id(), status);
    case.set_classname(suite);
    if !refused && !found.is_empty() {
        case.set_system_out(text);
    }
    case
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

    #[test]
    fn preflights_suites_hold_refusals_as_failures_and_warnings_as_output() {
        let names: Vec<landfall_core::name::NodeName> = ["cp-1", "w-1"].iter().map(|n| n.parse().unwrap()).collect();
        let findings = vec![
            Finding::new(Check::Swap, "swap is on", "/dev/<sda2>", "swapoff -a").on([&names[1]]),
            Finding::new(Check::SysctlLater, "kernel.panic is set", "0", "take it out")
                .on(&names)
                .at("/etc/sysctl.d/99-x.conf", 2),
            Finding::new(Check::DuplicateHostname, "twice", "a", "rename one").on(&names),
        ];
        let report = report::Report {
            connected: names,
            findings,
            ..report::Report::default()
        };
        let xml = preflight_junit(&report).unwrap();
        let cases: Vec<&str> = xml.lines().filter(|line| line.contains("<testcase")).collect();
        let node_checks = Check::ALL.iter().filter(|c| c.scope() != Scope::Fleet).count();
        assert_eq!(cases.len(), Check::ALL.len() + node_checks);
        assert_eq!(xml.matches("<failure").count(), 2);
        assert_eq!(
            xml.matches("<skipped").count(),
            2,
            "the bundle's check on both machines"
        );
        assert_eq!(xml.matches("99-x.conf line 2").count(), 2, "{xml}");
        assert!(xml.contains("saw:  /dev/&lt;sda2&gt;"), "{xml}");
    }
}
