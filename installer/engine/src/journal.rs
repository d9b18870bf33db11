//! The nodes' journals for people: what they hold, and the repair of damaged ones.

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
    present::tell(owned.collect(), &mut outcome);
    fleet::leave_nothing(&sessions);
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
    let cluster = &desired.spec.name;
    if !sessions.is_empty()
        && let Err(errors) = repair_on(&sessions, cluster, until, confirm, ctx, emitter, &mut outcome)
    {
        outcome.errors.extend(errors);
    }
    fleet::leave_nothing(&sessions);
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

/// Says that a journal is damaged.
fn damage(reading: &JournalReading) -> Option<Diagnosis> {
    let line = reading.lost.first()?.line;
    Some(Diagnosis::from(&JournalError::Damaged { line }))
}

/// lease · read · read damaged ones again with what the others know · ask · repair
fn repair_on(
    sessions: &Sessions,
    cluster: &str,
    until: Until,
    confirm: ConfirmRepair,
    ctx: &RunContext,
    emitter: &EventEmitter,
    outcome: &mut Outcome,
) -> Result<(), Vec<Diagnosis>> {
    fleet::lease(sessions, JOURNAL_REPAIR, cluster, ctx)?;
    let read: BTreeMap<NodeName, JournalReading> = fleet::ask_all(sessions, |_| Request::ReadJournal { runs: vec![] })?;
    let (good, damaged): (Vec<_>, Vec<_>) = read.into_iter().partition(|(_, reading)| reading.lost.is_empty());
    let damaged: Sessions = damaged
        .into_iter()
        .filter_map(|(name, _)| Some((name.clone(), Arc::clone(sessions.get(&name)?))))
        .collect();
    let runs: Vec<RunStart> = good
        .into_iter()
        .flat_map(|(_, reading)| reading.own.runs)
        .map(|run| run.start)
        .collect();
    outcome.journals = fleet::ask_all(&damaged, |_| Request::ReadJournal { runs: runs.clone() })?;
    if until == Until::Plan || damaged.is_empty() {
        return Ok(());
    }
    let nodes = outcome.journals.iter();
    confirm(&RepairSummary {
        cluster: cluster.to_owned(),
        nodes: nodes
            .map(|(name, reading)| (name.clone(), reading.lost.clone()))
            .collect(),
    })
    .map_err(|refusal| vec![refusal])?;
    outcome.journals = fleet::ask_all(&damaged, |_| Request::RepairJournal { runs: runs.clone() })?;
    for (name, reading) in &outcome.journals {
        outcome.changes += 1;
        let kept = reading.kept.as_deref().map(|path| path.display().to_string());
        let text = format!(
            "the journal was made of its whole lines; the damaged one is {}",
            kept.unwrap_or_default()
        );
        emitter.emit(Some(name), EventKind::Note { text });
    }
    Ok(())
}
