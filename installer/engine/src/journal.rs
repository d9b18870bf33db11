//! The `journal` commands: shows the nodes' journals and repairs damaged ones.

use crate::context::{ConfirmRepair, RepairSummary, RunContext, Until};
use crate::emitter::EventEmitter;
use crate::fleet::{self, Sessions};
use crate::outcome::Outcome;
use crate::present;
use crate::session::AgentPlace;
use landfall_core::event::{EventKind, Phase};
use landfall_core::explain::Diagnosis;
use landfall_core::inventory::Node;
use landfall_core::journal::repair::{JOURNAL_REPAIR, JournalReading};
use landfall_core::journal::{JournalError, RunStart};
use landfall_core::name::NodeName;
use landfall_core::spec::Desired;
use landfall_core::wire::Request;
use std::collections::BTreeMap;
use std::sync::Arc;

/// See [`crate::run::journal`].
pub fn show(desired: &Desired, ctx: &RunContext, emitter: &EventEmitter) -> Outcome {
    let (sessions, mut outcome) = connect(desired, ctx, emitter);
    let list: Vec<_> = sessions.values().collect();
    let read = fleet::each(&list, |session| {
        session.ask::<JournalReading>(&Request::ReadJournal { runs: vec![] })
    });
    for (session, reading) in list.iter().zip(read) {
        match reading {
            Ok(reading) => {
                outcome
                    .errors
                    .extend(damage(&reading).map(|error| error.on(session.name())));
                outcome.journals.insert(session.name().clone(), reading);
            }
            Err(error) => outcome.errors.push(error),
        }
    }
    let owned = outcome.journals.iter();
    let owned = owned.map(|(name, reading)| (name.clone(), reading.own.clone()));
    present::fill(owned.collect(), &mut outcome);
    fleet::remove_unused_state(&sessions);
    fleet::close(&sessions);
    outcome
}

/// See [`crate::run::repair_journals`].
pub fn repair(
    desired: &Desired,
    until: Until,
    confirm: ConfirmRepair,
    ctx: &RunContext,
    emitter: &EventEmitter,
) -> Outcome {
    let (sessions, mut outcome) = connect(desired, ctx, emitter);
    let run = RepairRun {
        cluster: &desired.spec.name,
        ctx,
        emitter,
        sessions: &sessions,
    };
    if !sessions.is_empty()
        && let Err(errors) = run.phases(until, confirm, &mut outcome)
    {
        outcome.errors.extend(errors);
    }
    fleet::remove_unused_state(&sessions);
    fleet::close(&sessions);
    outcome
}

fn connect(desired: &Desired, ctx: &RunContext, emitter: &EventEmitter) -> (Sessions, Outcome) {
    let members: Vec<&Node> = desired.inventory.members().collect();
    let (sessions, absent) = emitter.phase(Phase::Connect, || {
        fleet::connect(&members, AgentPlace::Member, ctx, emitter)
    });
    let outcome = Outcome {
        absent,
        ..Outcome::default()
    };
    (sessions, outcome)
}

/// Returns the error of a damaged journal.
fn damage(reading: &JournalReading) -> Option<Diagnosis> {
    let line = reading.lost.first()?.line;
    Some(Diagnosis::from(&JournalError::Damaged { line }))
}

/// One repair of journals.
struct RepairRun<'a> {
    cluster: &'a str,
    ctx: &'a RunContext,
    emitter: &'a EventEmitter,
    sessions: &'a Sessions,
}

impl RepairRun<'_> {
    /// lease · read · read damaged ones again with what the others know · ask · repair
    fn phases(&self, until: Until, confirm: ConfirmRepair, outcome: &mut Outcome) -> Result<(), Vec<Diagnosis>> {
        fleet::lease(self.sessions, JOURNAL_REPAIR, self.cluster, self.ctx, self.emitter)?;
        let (damaged, runs) = self.find_damaged()?;
        outcome.journals = fleet::ask_all(&damaged, |_| Request::ReadJournal { runs: runs.clone() })?;
        if until == Until::Plan || damaged.is_empty() {
            return Ok(());
        }
        let lost = |(name, reading): (&NodeName, &JournalReading)| (name.clone(), reading.lost.clone());
        confirm(&RepairSummary {
            cluster: self.cluster.to_owned(),
            nodes: outcome.journals.iter().map(lost).collect(),
        })
        .map_err(|refusal| vec![refusal])?;
        outcome.journals = fleet::ask_all(&damaged, |_| Request::RepairJournal { runs: runs.clone() })?;
        outcome.changes = outcome.journals.len();
        for (name, reading) in &outcome.journals {
            let kept = reading.kept.as_deref().map(|path| path.display().to_string());
            let text = format!(
                "the journal now holds the lines that were intact; the damaged file is {}",
                kept.unwrap_or_default()
            );
            self.emitter.emit(Some(name), EventKind::Note { text });
        }
        Ok(())
    }

    /// Returns the nodes whose journals are damaged, and the runs that the other journals hold.
    fn find_damaged(&self) -> Result<(Sessions, Vec<RunStart>), Vec<Diagnosis>> {
        let read: BTreeMap<NodeName, JournalReading> =
            fleet::ask_all(self.sessions, |_| Request::ReadJournal { runs: vec![] })?;
        let is_damaged = |name: &NodeName| read.get(name).is_some_and(|reading| !reading.lost.is_empty());
        let damaged = self.sessions.iter().filter(|(name, _)| is_damaged(name));
        let damaged = damaged
            .map(|(name, session)| (name.clone(), Arc::clone(session)))
            .collect();
        let good = read.into_values().filter(|reading| reading.lost.is_empty());
        let runs = good.flat_map(|reading| reading.own.runs).map(|run| run.start);
        Ok((damaged, runs.collect()))
    }
}
