//! The report of a command: `install.json` and similar files, and what `--output json` prints at the end. It is a fold over the events of the
//! command, so it contains nothing that the events do not contain.
//!
//! The format has a version. It grows when a field goes or changes its meaning, not when one is added.
//! `tests/fixtures/formats` holds a stream of events and the report of each version.

use crate::event::{BundleSummary, Command, Event, EventKind, Phase, RunCounts};
use crate::explain::{Diagnosis, ExitCode};
use crate::finding::Finding;
use crate::name::{NodeName, RunId};
use crate::verify::VerifyReport;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the report's format.
pub const REPORT_VERSION: u32 = 1;
/// The name of the upload of blobs among the stages of the plan.
const PUSH: &str = "push";

/// The result of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Version of this format.
    pub version: u32,
    /// The command; absent when it was refused before it began.
    pub command: Option<Command>,
    /// Name of the cluster.
    pub cluster: Option<String>,
    /// The run, as the nodes' journals name it; absent when nothing was planned.
    pub run: Option<RunId>,
    /// The bundle, for commands that take one.
    pub bundle: Option<BundleSummary>,
    /// Phases in the order in which they ended.
    pub phases: Vec<PhaseReport>,
    /// By node: its stages, and `push` for the sending of blobs.
    pub nodes: BTreeMap<NodeName, BTreeMap<String, StageReport>>,
    /// Bytes that each node was sent.
    pub bytes_sent: BTreeMap<NodeName, u64>,
    /// Steps that changed something; of a rollback or uninstall, steps that were undone.
    pub changes: usize,
    /// Numbers of steps by result.
    pub counts: RunCounts,
    /// Errors, each once.
    pub errors: Vec<Diagnosis>,
    /// Remarks that did not fail the run.
    pub warnings: Vec<String>,
    /// Nodes that were logged in to, in the order in which they were.
    #[serde(default)]
    pub connected: Vec<NodeName>,
    /// What preflight found, the most severe first. Those that refuse are among the errors too.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// What could not be undone: `node: step: what`.
    pub residue: Vec<String>,
    /// Whether everything the run did was undone again, because a step failed.
    pub rolled_back: bool,
    /// How long the command took, in milliseconds.
    pub duration_ms: u64,
    /// Its outcome; absent when the events end before the command does.
    pub outcome: Option<ExitCode>,
    /// The process's exit status that belongs to it.
    pub exit_code: Option<u8>,
    /// The report of verify, which has a file of its own, `verify.json`.
    #[serde(skip)]
    pub verify: Option<VerifyReport>,
}

/// One phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PhaseReport {
    /// Which.
    pub phase: Phase,
    /// When it began, in milliseconds since the command began.
    pub start_ms: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// One stage on one node, from the begin of its first step to the end of its last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StageReport {
    /// When it began, in milliseconds since the command began.
    pub start_ms: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Steps that changed something.
    pub changes: usize,
    /// Bytes sent, for `push`.
    pub bytes: u64,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            version: REPORT_VERSION,
            command: None,
            cluster: None,
            run: None,
            bundle: None,
            phases: vec![],
            nodes: BTreeMap::new(),
            bytes_sent: BTreeMap::new(),
            changes: 0,
            counts: RunCounts::default(),
            errors: vec![],
            warnings: vec![],
            connected: vec![],
            findings: vec![],
            residue: vec![],
            rolled_back: false,
            duration_ms: 0,
            outcome: None,
            exit_code: None,
            verify: None,
        }
    }
}

impl Report {
    /// Makes the report of a stream of events.
    pub fn fold<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut report = Self::default();
        events.into_iter().for_each(|event| report.add(event));
        report
    }

    /// Takes in the next event.
    pub fn add(&mut self, event: &Event) {
        self.counts.add(&event.kind);
        match &event.kind {
            EventKind::RunStarted {
                command,
                cluster,
                bundle,
                ..
            } => {
                self.command = Some(*command);
                self.cluster = Some(cluster.clone());
                self.bundle.clone_from(bundle);
            }
            EventKind::RunPlanned { run, .. } => self.run = Some(run.clone()),
            EventKind::RunFinished {
                outcome,
                rolled_back,
                duration_ms,
                ..
            } => {
                self.end(*outcome);
                self.rolled_back = *rolled_back;
                self.duration_ms = *duration_ms;
            }
            EventKind::Warning { text } => self.warnings.push(text.clone()),
            // A retried run repeats preflight.
            EventKind::Found { finding } if self.findings.contains(finding) => {}
            EventKind::Found { finding } => self.findings.push(finding.clone()),
            EventKind::Error { diagnosis } => self.add_error(diagnosis.clone()),
            EventKind::StepFailed { diagnosis, .. } => self.add_error(diagnosis.clone()),
            EventKind::Verified { report } => self.verify = Some(report.clone()),
            EventKind::PhaseFinished { phase, took_ms } => self.phases.push(PhaseReport {
                phase: *phase,
                start_ms: event.at_ms.saturating_sub(*took_ms),
                duration_ms: *took_ms,
            }),
            EventKind::PushPlanned { bytes } => self.push(event, 0, *bytes > 0),
            EventKind::PushProgress { bytes, .. } => self.push(event, *bytes, true),
            EventKind::StepFinished {
                stage,
                changed,
                took_ms,
                ..
            } => self.step(event, stage.as_str(), *changed, *took_ms),
            EventKind::Residue { step, text } => {
                let node = event.node.as_ref().map(|node| format!("{node}: ")).unwrap_or_default();
                self.residue.push(format!("{node}{step}: {text}"));
            }
            EventKind::Connected => self.connected.extend(event.node.clone()),
            EventKind::PhaseStarted { .. }
            | EventKind::StepStarted { .. }
            | EventKind::StepWaiting { .. }
            | EventKind::Undone { .. }
            | EventKind::Note { .. } => {}
        }
        self.changes = match self.command {
            Some(Command::Rollback | Command::Uninstall) => self.counts.undone,
            _ => self.counts.changed,
        };
    }

    /// Adds an error, unless the report has it: a failed step is emitted when it fails, and once more at the end of the run.
    pub fn add_error(&mut self, diagnosis: Diagnosis) {
        if !self.errors.contains(&diagnosis) {
            self.errors.push(diagnosis);
        }
    }

    /// Ends the report; of several outcomes the worst stays.
    pub fn end(&mut self, outcome: ExitCode) {
        let worst = self.outcome.map_or(outcome, |known| known.max(outcome));
        self.outcome = Some(worst);
        self.exit_code = Some(worst.status());
    }

    fn step(&mut self, event: &Event, stage: &str, changed: bool, took_ms: u64) {
        if let Some(part) = self.stage(event, stage, event.at_ms.saturating_sub(took_ms)) {
            part.changes += usize::from(changed);
        }
    }

    /// Records the greatest number of bytes: two blobs are sent to a node in parallel, so their events may arrive in another order.
    fn push(&mut self, event: &Event, bytes: u64, has_stage: bool) {
        let Some(node) = &event.node else { return };
        let sent = self.bytes_sent.entry(node.clone()).or_default();
        *sent = bytes.max(*sent);
        let bytes = *sent;
        if has_stage && let Some(part) = self.stage(event, PUSH, event.at_ms) {
            part.bytes = bytes;
        }
    }

    /// The entry of a stage, grown to hold the time from `started` to the event.
    fn stage(&mut self, event: &Event, stage: &str, started: u64) -> Option<&mut StageReport> {
        let stages = self.nodes.entry(event.node.clone()?).or_default();
        let part = stages.entry(stage.to_owned()).or_insert_with(|| StageReport {
            start_ms: started,
            ..StageReport::default()
        });
        let end = event.at_ms.max(part.start_ms + part.duration_ms);
        part.start_ms = part.start_ms.min(started);
        part.duration_ms = end - part.start_ms;
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::Code;
    use crate::plan::Stage;
    use proptest::prelude::*;

    const EVENTS: &str = include_str!("../../../tests/fixtures/formats/events-1.jsonl");
    const REPORT: &str = include_str!("../../../tests/fixtures/formats/report-1.json");

    fn golden_events() -> Vec<Event> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        EVENTS.lines().map(parse).collect()
    }

    fn event(at_ms: u64, node: Option<&str>, kind: EventKind) -> Event {
        Event {
            at_ms,
            node: node.map(|node| node.parse().unwrap()),
            kind,
        }
    }

    #[test]
    fn the_golden_stream_folds_into_the_golden_report() {
        let report = Report::fold(&golden_events());
        assert_eq!(format!("{}\n", serde_json::to_string_pretty(&report).unwrap()), REPORT);
    }

    #[test]
    fn the_golden_report_can_be_read() {
        let read: Report = serde_json::from_str(REPORT).unwrap();
        let folded = Report {
            verify: None,
            ..Report::fold(&golden_events())
        };
        assert_eq!(read, folded);
    }

    /// Written by another version, with a field that this one does not know.
    #[test]
    fn a_report_with_more_fields_can_be_read() {
        let mut newer: serde_json::Value = serde_json::from_str(REPORT).unwrap();
        newer["field of a later version"] = serde_json::json!([1, 2]);
        assert!(serde_json::from_value::<Report>(newer).is_ok());
    }

    #[test]
    fn the_golden_stream_has_every_kind_of_event_and_is_written_as_it_was_read() {
        let events = golden_events();
        for (event, line) in events.iter().zip(EVENTS.lines()) {
            assert_eq!(serde_json::to_string(event).unwrap(), line);
        }
        let mut kinds: Vec<String> = events
            .iter()
            .map(|event| {
                // A new kind does not compile until it is listed here; it then has to be in the golden stream.
                match &event.kind {
                    EventKind::RunStarted { .. }
                    | EventKind::RunPlanned { .. }
                    | EventKind::RunFinished { .. }
                    | EventKind::Warning { .. }
                    | EventKind::Found { .. }
                    | EventKind::Error { .. }
                    | EventKind::Verified { .. }
                    | EventKind::PhaseStarted { .. }
                    | EventKind::PhaseFinished { .. }
                    | EventKind::Connected
                    | EventKind::PushPlanned { .. }
                    | EventKind::PushProgress { .. }
                    | EventKind::StepStarted { .. }
                    | EventKind::StepWaiting { .. }
                    | EventKind::StepFinished { .. }
                    | EventKind::StepFailed { .. }
                    | EventKind::Undone { .. }
                    | EventKind::Residue { .. }
                    | EventKind::Note { .. } => {}
                }
                serde_json::to_value(event).unwrap()["event"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        kinds.sort();
        kinds.dedup();
        assert_eq!(kinds.len(), 19, "{kinds:?}");
    }

    #[test]
    fn a_failed_step_that_is_emitted_twice_is_one_error() {
        let diagnosis = Diagnosis::new(Code::StepFailed, "kubeadm ended with 1");
        let failed = EventKind::StepFailed {
            step: "init/cp-1".parse().unwrap(),
            stage: Stage::FirstControlPlane,
            diagnosis: diagnosis.clone(),
        };
        let told = EventKind::Error {
            diagnosis: diagnosis.clone(),
        };
        let report = Report::fold(&[event(1, Some("cp-1"), failed), event(2, None, told)]);
        assert_eq!(report.errors, [diagnosis]);
        assert_eq!(report.counts.failed, 1);
    }

    #[test]
    fn a_stream_that_breaks_off_has_no_outcome() {
        let mut events = golden_events();
        assert!(matches!(events.pop().unwrap().kind, EventKind::RunFinished { .. }));
        let report = Report::fold(&events);
        assert_eq!((report.outcome, report.exit_code), (None, None));
        assert!(report.changes > 0, "what is known so far is there");
    }

    #[test]
    fn a_rollback_counts_undone_steps() {
        let start = EventKind::RunStarted {
            command: Command::Rollback,
            cluster: "ship".to_owned(),
            bundle: None,
            nodes: vec![],
        };
        let undone = EventKind::Undone {
            step: "init/cp-1".parse().unwrap(),
            took_ms: 3,
        };
        let report = Report::fold(&[event(0, None, start), event(9, Some("cp-1"), undone)]);
        assert_eq!(report.changes, 1);
    }

    proptest! {
        /// Steps of a stage may end in any order: the stage lasts from the first begin to the last end.
        #[test]
        fn a_stage_spans_its_steps(steps in prop::collection::vec((0_u64..10_000, 0_u64..500), 1..20)) {
            let finished = |took_ms| EventKind::StepFinished {
                step: "images/cp-1".parse().unwrap(),
                stage: Stage::Images,
                changed: true,
                took_ms,
            };
            let events: Vec<Event> = steps
                .iter()
                .map(|(start, took)| event(start + took, Some("cp-1"), finished(*took)))
                .collect();
            let report = Report::fold(&events);
            let stage = report.nodes.values().next().unwrap().get("images").unwrap();
            let first = steps.iter().map(|(start, _)| *start).min().unwrap();
            let last = steps.iter().map(|(start, took)| start + took).max().unwrap();
            prop_assert_eq!((stage.start_ms, stage.start_ms + stage.duration_ms), (first, last));
            prop_assert_eq!(stage.changes, steps.len());
        }

        /// The number of bytes never shrinks, in whichever order the events of two senders arrive.
        #[test]
        fn bytes_never_shrink(bytes in prop::collection::vec(0_u64..1_000_000, 1..20)) {
            let events: Vec<Event> = bytes
                .iter()
                .map(|bytes| event(1, Some("w-1"), EventKind::PushProgress { bytes: *bytes, relayed: 0 }))
                .collect();
            let report = Report::fold(&events);
            prop_assert_eq!(report.bytes_sent.values().next(), bytes.iter().max());
        }
    }
}
