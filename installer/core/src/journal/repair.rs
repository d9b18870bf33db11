//! Repairs a journal with damaged lines: intact lines are kept, and lost records are added where the lines around them imply them. With an
//! intent its undo recipe is lost; [`Undo::Lost`] takes its place, so that the next undo reports it.
//!
//! INVARIANT: of a damaged line only the kind of record is used, when the beginning is legible; the rest is only displayed.

use super::{DONE, INSTALL};
use super::{EntryState, JournalError, Ownership, Record, RunStart, parse_line, render_line};
use crate::action::Undo;
use crate::name::{Digest, RunId, StepId};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Name of the command, as leases show it.
pub const JOURNAL_REPAIR: &str = "journal repair";

/// The beginning of every record.
const BEGIN: &str = "{\"record\":\"";
/// Most characters of a damaged line that are shown: the paths of an undo recipe are at its beginning.
const MAX_SEEN: usize = 400;

/// The content of a journal, as far as its lines are intact.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JournalReading {
    /// What is ours.
    pub own: Ownership,
    /// Lines that are damaged or missing; none in a good journal.
    pub lost: Vec<LostLine>,
    /// The path of the damaged journal after a repair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<PathBuf>,
}

/// A line that is damaged or missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostLine {
    /// One-based line number; for a missing line that of the next one.
    pub line: usize,
    /// What was lost with the line.
    pub unknown: String,
}

/// A repaired journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// Its text: the intact lines, and the records that were added.
    pub text: Vec<u8>,
    /// Its content.
    pub reading: JournalReading,
}

/// Repairs the text of a journal. `runs` are the runs in other journals of the cluster, because all nodes record the start of a run. A journal
/// without damage is returned unchanged, apart from a torn last line. A journal of a newer landfall is an error.
pub fn repair(text: &[u8], runs: &[RunStart]) -> Result<Repair, JournalError> {
    let mut work = Work {
        runs,
        text: Vec::new(),
        own: Ownership::default(),
        damaged: Vec::new(),
        lost: Vec::new(),
    };
    let lines: Vec<&[u8]> = text.split(|b| *b == b'\n').collect();
    let count = lines.len();
    for (index, line) in lines.into_iter().enumerate() {
        if line.is_empty() {
            continue;
        }
        match parse_line(line) {
            Ok(record) => work.take(index + 1, line, record),
            Err(Some(found)) => return Err(JournalError::Version { found }),
            // The text after the last newline is torn. Its step has not acted, because the record was not complete.
            Err(None) if index + 1 == count => {}
            Err(None) => work.miss(index + 1, line),
        }
    }
    Ok(work.finish())
}

/// A damaged line that may have held an intent.
struct Damaged {
    line: usize,
    seen: String,
    /// The newest run before the line.
    run: Option<RunId>,
    /// Whether the line can only have been one record.
    single: bool,
}

/// The kind of a damaged record.
enum Kind {
    Intent,
    Other(&'static str),
}

struct Work<'a> {
    runs: &'a [RunStart],
    text: Vec<u8>,
    own: Ownership,
    damaged: Vec<Damaged>,
    lost: Vec<(LostLine, Option<StepId>)>,
}

impl Work<'_> {
    /// Adds an intact line, after the missing records that it implies.
    fn take(&mut self, line: usize, bytes: &[u8], record: Record) {
        if let Record::Intent { run, .. } | Record::RunFinished { run, .. } = &record
            && self.own.runs.iter().all(|known| &known.start.run != run)
        {
            let start = self.start_of(run);
            self.add(&Record::RunStarted(start));
        }
        if let Record::RunFinished { run, outcome } = &record
            && outcome == DONE
        {
            self.end_steps_of(run);
        }
        if self.own.take(line, &record).is_err() {
            for missing in self.missing_before(line, &record) {
                self.add(&missing);
            }
            if self.own.take(line, &record).is_err() {
                return self.miss(line, bytes);
            }
        }
        self.text.extend_from_slice(bytes);
        self.text.push(b'\n');
    }

    /// Adds a record.
    fn add(&mut self, record: &Record) {
        if self.own.take(0, record).is_ok() {
            self.text.extend(render_line(record).into_bytes());
        }
    }

    /// Records a damaged line.
    fn miss(&mut self, line: usize, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let single = is_one_record(&text);
        let kind = single.then(|| kind_of(&text)).flatten();
        if let Some(Kind::Other(unknown)) = kind {
            let unknown = unknown.to_owned();
            self.lost.push((LostLine { line, unknown }, None));
            return;
        }
        // A text that is no record may come from any file of the disk and is not shown.
        let seen = text.find(BEGIN).map_or_else(String::new, |at| {
            let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
            text[at..].chars().take(MAX_SEEN).map(printable).collect()
        });
        let run = self.own.runs.last().map(|run| run.start.run.clone());
        self.damaged.push(Damaged {
            line,
            seen,
            run,
            single,
        });
    }

    /// Returns the missing records that must precede this one, which is not legal without them.
    fn missing_before(&mut self, line: usize, record: &Record) -> Vec<Record> {
        use EntryState::{Intended, Owned, Residue, Undoing};
        let (Record::Intent { step, .. }
        | Record::Done { step, .. }
        | Record::Failed { step, .. }
        | Record::UndoStarted { step }
        | Record::Undone { step }
        | Record::UndoFailed { step, .. }) = record
        else {
            return vec![];
        };
        let step = step.clone();
        let state = self.own.newest(&step).map(|entry| entry.state);
        let done = || Record::Done {
            step: step.clone(),
            stamp: None,
        };
        let undo_started = || Record::UndoStarted { step: step.clone() };
        let undone = || Record::Undone { step: step.clone() };
        let gone = match state {
            Some(Undoing) => vec![undone()],
            Some(Residue) => vec![undo_started(), undone()],
            Some(Intended | Owned) | None => vec![],
        };
        match (record, state) {
            (Record::Intent { .. }, Some(Intended)) => vec![done()],
            (Record::Intent { .. }, _) => gone,
            (Record::Done { .. } | Record::Failed { .. }, _) => [gone, vec![self.lost_intent(line, &step)]].concat(),
            (Record::UndoStarted { .. }, _) => vec![self.lost_intent(line, &step)],
            (_, None) => vec![self.lost_intent(line, &step), undo_started()],
            (_, Some(_)) => vec![undo_started()],
        }
    }

    /// Makes an intent whose undo is lost, and assigns it to the damaged line that most likely held it.
    fn lost_intent(&mut self, line: usize, step: &StepId) -> Record {
        let at = self.damaged.iter().position(|d| d.single);
        let (line, seen, run) = match at.map(|at| self.damaged.remove(at)) {
            Some(damaged) => (damaged.line, damaged.seen, damaged.run),
            None => (line, String::new(), None),
        };
        let run = run.or_else(|| self.own.runs.last().map(|run| run.start.run.clone()));
        let unknown = format!("how the step {step} is undone");
        self.lost.push((LostLine { line, unknown }, Some(step.clone())));
        intent(run, step.clone(), Undo::Lost { line, seen })
    }

    /// Adds the missing ends of steps of a run that finished successfully: it left no step half done, so their lines were lost.
    fn end_steps_of(&mut self, run: &RunId) {
        let open = self.own.entries.iter();
        let open = open.filter(|e| &e.run == run && e.state == EntryState::Intended);
        let steps: Vec<StepId> = open.map(|e| e.step.clone()).collect();
        for step in steps {
            self.add(&Record::Done { step, stamp: None });
        }
    }

    /// Returns the start of a run whose own line is lost: from another journal, else with what this journal tells about it.
    fn start_of(&self, run: &RunId) -> RunStart {
        if let Some(known) = self.runs.iter().find(|start| &start.run == run) {
            return known.clone();
        }
        let newest = self.own.runs.iter().filter_map(|r| r.start.number).max();
        let recorded = self.own.record().map(|record| record.sequence.run);
        RunStart {
            run: run.clone(),
            number: recorded
                .filter(|n| newest.is_none_or(|newest| *n > newest))
                .or(newest.map(|n| n + 1)),
            command: INSTALL.to_owned(),
            owner: String::new(),
            at_ms: 0,
            cluster: self.cluster(),
            continues: None,
            takes_back: vec![],
            bundle: None,
            findings: vec![],
        }
    }

    /// Returns the name of the cluster, from the lines before or from another journal.
    fn cluster(&self) -> String {
        let other = || self.runs.last().map(|start| start.cluster.as_str());
        let recorded = || self.own.record().map(|record| record.name.as_str());
        let name = self.own.cluster().or_else(recorded).or_else(other);
        name.unwrap_or_default().to_owned()
    }

    /// Adds an entry for each damaged line that may have held an intent and that no other line accounts for.
    fn finish(mut self) -> Repair {
        for damaged in std::mem::take(&mut self.damaged) {
            let Damaged { line, seen, run, .. } = damaged;
            let step: StepId = format!("lost-line/{line}")
                .parse()
                .expect("a word and a number are a valid step id");
            let run = run.or_else(|| self.own.runs.first().map(|run| run.start.run.clone()));
            self.add(&intent(run, step.clone(), Undo::Lost { line, seen }));
            self.add(&Record::Done {
                step: step.clone(),
                stamp: None,
            });
            let unknown = "whether it recorded a step, and how that is undone".to_owned();
            self.lost.push((LostLine { line, unknown }, Some(step)));
        }
        self.lost.sort_by_key(|(lost, _)| lost.line);
        let is_lost = |step: &StepId, line: usize| {
            let of_line = |undo: &Undo| matches!(undo, Undo::Lost { line: at, .. } if *at == line);
            let mut entries = self.own.entries.iter();
            entries.any(|e| &e.step == step && of_line(&e.undo))
        };
        let text = |(mut lost, step): (LostLine, Option<StepId>)| {
            if let Some(step) = step
                && !is_lost(&step, lost.line)
            {
                lost.unknown = format!("how the step {step} was to be undone; it was undone later");
            }
            lost
        };
        let lost = std::mem::take(&mut self.lost).into_iter().map(text).collect();
        Repair {
            text: self.text,
            reading: JournalReading {
                own: self.own,
                lost,
                kept: None,
            },
        }
    }
}

fn intent(run: Option<RunId>, step: StepId, undo: Undo) -> Record {
    Record::Intent {
        run: run.unwrap_or_else(|| "unknown".parse().expect("a word is a valid run id")),
        step,
        action: Digest::of(b""),
        undo,
        wanted: None,
    }
}

/// Says whether a damaged line can only have been one record: from a record's beginning to its end it is one JSON object. Two lines whose line
/// break is damaged are not.
fn is_one_record(text: &str) -> bool {
    let at = text.find(BEGIN);
    at.is_some_and(|at| serde_json::from_str::<serde::de::IgnoredAny>(&text[at..]).is_ok())
}

/// Returns the kind of a damaged line's record, and what its loss means.
fn kind_of(text: &str) -> Option<Kind> {
    let (_, rest) = text.split_once(BEGIN)?;
    let (kind, _) = rest.split_once('"')?;
    Some(match kind {
        "intent" => Kind::Intent,
        "run-started" => Kind::Other("the start of a run"),
        "cluster" => Kind::Other("a record of the cluster; the newest record of any node counts"),
        "done" => Kind::Other("which step was done; a step without another record of its end counts as interrupted"),
        "failed" => Kind::Other("which step failed; it counts as interrupted in any case"),
        "undo-started" | "undone" | "undo-failed" => {
            Kind::Other("which step was undone; a step without another record of that is undone again")
        }
        "run-finished" => Kind::Other("how a run ended; the record in another journal is enough"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
