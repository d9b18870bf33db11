//! The journal of a node: its record format, and [`replay`], the checked state machine that turns records into ownership.
//!
//! ```text
//!            Intent            Done
//!  (nothing) ──────► intended ──────► owned
//!                      │  │ Failed       │ UndoStarted
//!                      │  └──► intended  ▼
//!                      └─ UndoStarted ► undoing ──Undone──► (gone)
//!                                          └──UndoFailed──► residue ──UndoStarted──► undoing
//! ```
//! INVARIANT: an intent is on disk before its step acts, so anything on the node that the journal does not name was not made by landfall.

pub mod repair;

use crate::action::{Undo, Wanted};
use crate::cluster_record::ClusterRecord;
use crate::explain::{Code, Diagnosis};
use crate::finding::{Check, Finding, Severity};
use crate::name::{Digest, NodeName, RunId, StepId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Command of a run that installs a cluster or changes it to what the spec wants.
pub const INSTALL: &str = "install";
/// Command of a run that undoes other runs.
pub const ROLLBACK: &str = "rollback";
/// Command of a run that undoes everything.
pub const UNINSTALL: &str = "uninstall";
/// Command of runs that let the ingress proxy read Secrets.
pub const INGRESS_ALLOW: &str = "ingress allow";
/// Command of runs that bring blobs to nodes ahead of an install, or take them away again.
pub const PUSH: &str = "push";

/// Outcome of a run that completed its plan.
pub const DONE: &str = "done";
/// Outcome of a run that undid other runs.
pub const UNDONE: &str = "undone";
/// Outcome of a run that failed and was rolled back.
pub const ROLLED_BACK: &str = "rolled-back";

/// Version of the journal's lines; a reader refuses a larger one. Version 1 has neither numbers of runs nor cluster records.
pub const JOURNAL_VERSION: u32 = 2;

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// A run that changes something begins. It is written before the run's first intent; a run without changes writes none.
    RunStarted(RunStart),
    /// The record of the cluster. A newer record replaces older ones.
    Cluster(Box<ClusterRecord>),
    /// A step is about to act.
    Intent {
        /// The run.
        run: RunId,
        /// The step.
        step: StepId,
        /// Digest of its action.
        action: Digest,
        /// How it is undone.
        undo: Undo,
        /// The state that the step establishes, if it can be checked later.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wanted: Option<Wanted>,
    },
    /// The step acted and was checked again.
    Done {
        /// The step.
        step: StepId,
        /// State of the file for quick checks later.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stamp: Option<FileStamp>,
    },
    /// The step failed; its intent stands.
    Failed {
        /// The step.
        step: StepId,
        /// One line, redacted.
        why: String,
    },
    /// The undo of the newest entry of this step begins.
    UndoStarted {
        /// The step.
        step: StepId,
    },
    /// It is gone.
    Undone {
        /// The step.
        step: StepId,
    },
    /// It could not be undone.
    UndoFailed {
        /// The step.
        step: StepId,
        /// What is left.
        why: String,
    },
    /// The run ended.
    RunFinished {
        /// The run.
        run: RunId,
        /// `done`, `failed`, `rolled-back`, …
        outcome: String,
    },
}

/// Beginning of a run, as every member's journal holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStart {
    /// The run.
    pub run: RunId,
    /// Place in the order of the cluster's runs, from 1. Journals of version 1 have none: there the order of lines counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// `install`, `rollback` or `uninstall`.
    pub command: String,
    /// Who runs it: `user@host`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// The operator's clock, in milliseconds since the epoch. It is only displayed: runs are ordered by their numbers.
    pub at_ms: u64,
    /// Name of the cluster.
    pub cluster: String,
    /// Number of the unfinished run that this one continues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continues: Option<u64>,
    /// Numbers of the runs whose entries a rollback undoes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub takes_back: Vec<u64>,
    /// The bundle of an install: its version and the digest of its index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// What preflight found and the run went on with: warnings, and refusals that the spec accepts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<KeptFinding>,
}

/// A finding of preflight, as the run that went on with it keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFinding {
    /// Id of the check. It is text, so that the checks of another landfall are read as well.
    pub id: String,
    /// The nodes concerned.
    pub nodes: Vec<NodeName>,
    /// What is wrong.
    pub what: String,
    /// What was seen.
    pub saw: String,
    /// Whether it would have refused the run if the spec did not accept it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accepted: bool,
}

impl KeptFinding {
    /// Returns those of settled findings that are kept: warnings, among them refusals that `accept` made into one.
    pub fn of(settled: &[Finding], accept: &BTreeSet<Check>) -> Vec<Self> {
        let warnings = settled.iter().filter(|finding| finding.severity == Severity::Warn);
        let kept = warnings.map(|finding| Self {
            id: finding.check.id().to_owned(),
            nodes: finding.nodes.clone(),
            what: finding.what.clone(),
            saw: finding.saw.clone(),
            accepted: accept.contains(&finding.check),
        });
        kept.collect()
    }
}

impl fmt::Display for KeptFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<&str> = self.nodes.iter().map(NodeName::as_str).collect();
        let accepted = if self.accepted { ", accepted" } else { "" };
        let Self { id, what, saw, .. } = self;
        write!(f, "{id}{accepted}, {}: {what}: {saw}", nodes.join(", "))
    }
}

impl RunStart {
    /// Returns the start of a run without an owner and a bundle that continues no other and undoes none.
    pub fn new(run: RunId, number: u64, command: &str, cluster: &str) -> Self {
        Self {
            run,
            number: Some(number),
            command: command.to_owned(),
            owner: String::new(),
            at_ms: 0,
            cluster: cluster.to_owned(),
            continues: None,
            takes_back: vec![],
            bundle: None,
            findings: vec![],
        }
    }

    /// Says whether the run undoes others.
    pub fn is_undo(&self) -> bool {
        matches!(self.command.as_str(), ROLLBACK | UNINSTALL)
    }
}

/// Identity of a file's state, so that a later check need not hash it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStamp {
    /// Inode number.
    pub inode: u64,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Change time in nanoseconds since the epoch; cannot be set by programs. (64 bits: serde cannot read wider numbers back from a
    /// tagged record; they last until 2262.)
    pub ctime_ns: i64,
}

/// State of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryState {
    /// The intent is recorded and the end is not: the step may have acted partly.
    Intended,
    /// Done.
    Owned,
    /// Undo began and did not end.
    Undoing,
    /// Undo failed.
    Residue,
}

/// One step whose changes landfall owns on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The run that made it.
    pub run: RunId,
    /// The step.
    pub step: StepId,
    /// Digest of the action.
    pub action: Digest,
    /// How it is undone.
    pub undo: Undo,
    /// Its state.
    pub state: EntryState,
    /// State of its file, for quick checks.
    pub stamp: Option<FileStamp>,
    /// The state that the step establishes; journals of version 1 do not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Wanted>,
}

/// One run in a node's journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalRun {
    /// How it began.
    pub start: RunStart,
    /// How it ended: `done`, `undone`, …; `None` when it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}

/// What landfall owns on a node, oldest first. An undo starts at the end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ownership {
    /// Entries. A step has several when a later run replaced what an earlier one made.
    pub entries: Vec<Entry>,
    /// Runs in the order of the journal's lines.
    #[serde(default)]
    pub runs: Vec<JournalRun>,
    /// The newest record of each run that wrote one, oldest first.
    #[serde(default)]
    pub records: Vec<ClusterRecord>,
}

impl Ownership {
    /// Returns the newest entry of a step.
    pub fn newest(&self, step: &StepId) -> Option<&Entry> {
        self.entries.iter().rev().find(|e| &e.step == step)
    }
    /// Says whether landfall owns nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    /// Returns the newest run when it has not finished.
    pub fn open_run(&self) -> Option<&RunStart> {
        let newest = self.runs.last()?;
        newest.outcome.is_none().then_some(&newest.start)
    }
    /// Returns the cluster's name, from the newest run.
    pub fn cluster(&self) -> Option<&str> {
        Some(self.runs.last()?.start.cluster.as_str())
    }
    /// Returns version and digest of the bundle that the newest install used.
    pub fn bundle(&self) -> Option<&str> {
        self.runs.iter().rev().find_map(|r| r.start.bundle.as_deref())
    }
    /// Returns the newest record of the cluster.
    pub fn record(&self) -> Option<&ClusterRecord> {
        self.records.iter().max_by_key(|r| r.sequence)
    }
    /// Returns the newest record of a run before that number.
    pub fn record_before(&self, run: u64) -> Option<&ClusterRecord> {
        let earlier = self.records.iter().filter(|r| r.sequence.run < run);
        earlier.max_by_key(|r| r.sequence)
    }
}

/// Returns the newest record in each journal of a member, with its node. A machine on which landfall owns nothing is no member, even when a run that failed
/// early wrote into its journal.
pub fn member_records(owned: &BTreeMap<NodeName, Ownership>) -> impl Iterator<Item = (&NodeName, &ClusterRecord)> {
    let members = owned.iter().filter(|(_, own)| !own.is_empty());
    members.filter_map(|(name, own)| Some((name, own.record()?)))
}

/// Why a journal cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// A record about a step that has no entry in a state that allows it.
    #[error("record {index} says {what} of step {step}, which was not in a state for it")]
    Illegal {
        /// Zero-based record number.
        index: usize,
        /// Kind of record.
        what: &'static str,
        /// The step.
        step: StepId,
    },
    /// A line does not have its checksum, and it is not the last one.
    #[error("line {line} of the journal is damaged")]
    Damaged {
        /// One-based line number.
        line: usize,
    },
    /// A newer landfall wrote the journal.
    #[error("the journal has version {found}, this landfall reads up to {JOURNAL_VERSION}")]
    Version {
        /// Version found.
        found: u32,
    },
}

impl From<&JournalError> for Diagnosis {
    fn from(error: &JournalError) -> Self {
        let diagnosis = Self::new(Code::Journal, "the journal of this node cannot be used").because(error);
        match error {
            JournalError::Illegal { .. } | JournalError::Damaged { .. } => diagnosis
                .next("landfall journal show: it lists what the intact lines hold")
                .next("landfall journal repair: it keeps the intact lines and names what is lost"),
            JournalError::Version { .. } => diagnosis.next("use the landfall that wrote it, or a newer one"),
        }
    }
}

/// Turns records into ownership; an illegal transition is an error.
pub fn replay(records: &[Record]) -> Result<Ownership, JournalError> {
    let mut own = Ownership::default();
    for (index, record) in records.iter().enumerate() {
        own.take(index, record)?;
    }
    Ok(own)
}

impl Ownership {
    /// Applies one more record, with its zero-based `index` in the journal. An illegal one is an error and changes nothing.
    pub fn take(&mut self, index: usize, record: &Record) -> Result<(), JournalError> {
        use EntryState::*;
        let illegal = |what, step: &StepId| JournalError::Illegal {
            index,
            what,
            step: step.clone(),
        };
        match record {
            Record::RunStarted(start) => {
                // A continued run of version 1 wrote its start again, with the same id.
                if self
                    .runs
                    .last()
                    .is_none_or(|r| r.start.run != start.run || r.outcome.is_some())
                {
                    let start = start.clone();
                    self.runs.push(JournalRun { start, outcome: None });
                }
            }
            Record::Cluster(record) => {
                self.records
                    .retain(|r| r.sequence.run != record.sequence.run || r.uid != record.uid);
                self.records.push((**record).clone());
            }
            Record::RunFinished { run, outcome } => {
                if let Some(found) = self.runs.iter_mut().rev().find(|r| &r.start.run == run) {
                    found.outcome = Some(outcome.clone());
                }
            }
            Record::Intent {
                run,
                step,
                action,
                undo,
                wanted,
            } => {
                if self.newest(step).is_some_and(|e| e.state != Owned) {
                    return Err(illegal("intent", step));
                }
                self.entries.push(Entry {
                    run: run.clone(),
                    step: step.clone(),
                    action: *action,
                    undo: undo.clone(),
                    state: Intended,
                    stamp: None,
                    wanted: wanted.clone(),
                });
            }
            Record::Done { step, stamp } => {
                let entry = newest(&mut self.entries, step, &[Intended]).ok_or_else(|| illegal("done", step))?;
                entry.state = Owned;
                entry.stamp = stamp.clone();
            }
            Record::Failed { step, .. } => {
                newest(&mut self.entries, step, &[Intended]).ok_or_else(|| illegal("failed", step))?;
            }
            Record::UndoStarted { step } => {
                let entry = newest(&mut self.entries, step, &[Intended, Owned, Undoing, Residue])
                    .ok_or_else(|| illegal("undo started", step))?;
                entry.state = Undoing;
            }
            Record::UndoFailed { step, .. } => {
                let entry = newest(&mut self.entries, step, &[Undoing]).ok_or_else(|| illegal("undo failed", step))?;
                entry.state = Residue;
            }
            Record::Undone { step } => {
                newest(&mut self.entries, step, &[Undoing]).ok_or_else(|| illegal("undone", step))?;
                let at = self
                    .entries
                    .iter()
                    .rposition(|e| &e.step == step)
                    .ok_or_else(|| illegal("undone", step))?;
                self.entries.remove(at);
            }
        }
        Ok(())
    }
}

fn newest<'a>(entries: &'a mut [Entry], step: &StepId, allowed: &[EntryState]) -> Option<&'a mut Entry> {
    entries
        .iter_mut()
        .rev()
        .find(|e| &e.step == step)
        .filter(|e| allowed.contains(&e.state))
}

/// Renders a record as one journal line: checksum, space, JSON, newline.
pub fn render_line(record: &Record) -> String {
    let json = serde_json::to_string(record).expect("records have string keys only, so they always serialise");
    format!(
        "{} {JOURNAL_VERSION} {json}\n",
        &Digest::of(json.as_bytes()).hex()[..16]
    )
}

/// Parses a whole journal. A torn last line (a crash while writing) is dropped; any other damage is an error.
pub fn parse_journal(text: &[u8]) -> Result<Vec<Record>, JournalError> {
    let mut records = Vec::new();
    let lines: Vec<&[u8]> = text.split(|b| *b == b'\n').collect();
    let count = lines.len();
    for (index, line) in lines.into_iter().enumerate() {
        if line.is_empty() {
            continue;
        }
        match parse_line(line) {
            Ok(record) => records.push(record),
            // Only the text after the last newline can be torn, because every complete line ends with one.
            Err(None) if index + 1 == count => {}
            Err(None) => return Err(JournalError::Damaged { line: index + 1 }),
            Err(Some(found)) => return Err(JournalError::Version { found }),
        }
    }
    Ok(records)
}

fn parse_line(line: &[u8]) -> Result<Record, Option<u32>> {
    let text = std::str::from_utf8(line).map_err(|_| None)?;
    let mut parts = text.splitn(3, ' ');
    let (sum, version, json) = match (parts.next(), parts.next(), parts.next()) {
        (Some(sum), Some(version), Some(json)) => (sum, version, json),
        _ => return Err(None),
    };
    if Digest::of(json.as_bytes()).hex()[..16] != *sum {
        return Err(None);
    }
    let version: u32 = version.parse().map_err(|_| None)?;
    if version > JOURNAL_VERSION {
        return Err(Some(version));
    }
    serde_json::from_str(json).map_err(|_| None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(n: u8) -> StepId {
        format!("step-{n}").parse().unwrap()
    }
    fn intent(n: u8) -> Record {
        Record::Intent {
            run: "r1".parse().unwrap(),
            step: id(n),
            action: Digest::of(&[n]),
            undo: Undo::Nothing,
            wanted: None,
        }
    }

    #[test]
    fn an_intent_without_done_stays_intended() {
        let own = replay(&[
            intent(1),
            Record::Done {
                step: id(1),
                stamp: None,
            },
            intent(2),
        ])
        .unwrap();
        assert_eq!(own.newest(&id(1)).unwrap().state, EntryState::Owned);
        assert_eq!(own.newest(&id(2)).unwrap().state, EntryState::Intended);
    }

    #[test]
    fn done_without_intent_is_illegal() {
        assert!(
            replay(&[Record::Done {
                step: id(1),
                stamp: None
            }])
            .is_err()
        );
        assert!(replay(&[intent(1), intent(1)]).is_err());
    }

    #[test]
    fn undoing_an_entry_makes_the_earlier_one_the_newest() {
        let done = |n| Record::Done {
            step: id(n),
            stamp: None,
        };
        let mut history = vec![intent(1), done(1), intent(1), done(1)];
        history.extend([Record::UndoStarted { step: id(1) }, Record::Undone { step: id(1) }]);
        let own = replay(&history).unwrap();
        assert_eq!(own.entries.len(), 1);
        assert_eq!(own.entries[0].state, EntryState::Owned);
    }

    #[test]
    fn a_torn_last_line_is_dropped_and_other_damage_is_an_error() {
        let mut text = render_line(&intent(1)).into_bytes();
        text.extend(render_line(&intent(2)).into_bytes());
        let whole = parse_journal(&text).unwrap();
        assert_eq!(whole.len(), 2);
        for cut in render_line(&intent(1)).len()..text.len() - 1 {
            assert_eq!(parse_journal(&text[..cut]).unwrap().len(), 1, "cut at {cut}");
        }
        text[20] ^= 1;
        assert_eq!(parse_journal(&text), Err(JournalError::Damaged { line: 1 }));
    }

    proptest! {
        #[test]
        fn any_prefix_of_a_legal_history_is_legal(ops in proptest::collection::vec((0u8..4, 0u8..6), 0..60)) {
            let mut history: Vec<Record> = Vec::new();
            for (n, op) in ops {
                let record = match op {
                    0 => intent(n),
                    1 => {
                        let stamp = FileStamp { inode: u64::MAX, size_bytes: 1, ctime_ns: i64::MAX };
                        Record::Done { step: id(n), stamp: Some(stamp) }
                    }
                    2 => Record::Failed { step: id(n), why: "x".into() },
                    3 => Record::UndoStarted { step: id(n) },
                    4 => Record::Undone { step: id(n) },
                    _ => Record::UndoFailed { step: id(n), why: "x".into() },
                };
                history.push(record);
                if replay(&history).is_err() {
                    history.pop();
                }
            }
            for cut in 0..=history.len() {
                prop_assert!(replay(&history[..cut]).is_ok());
                let text: String = history[..cut].iter().map(render_line).collect();
                prop_assert_eq!(parse_journal(text.as_bytes()).unwrap(), history[..cut].to_vec());
            }
        }

        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_journal(&bytes);
        }
    }
}
