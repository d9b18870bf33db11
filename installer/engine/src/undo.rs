//! Rollback and uninstall: every node takes back what its own journal holds; what lies off the nodes goes first.

use crate::cluster::{Cluster, Formed};
use crate::fleet::{self, Sessions, Voice};
use crate::run::{Back, Outcome, Surroundings};
use crate::session::AgentPlace;
use landfall_core::action::Undo;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::Node;
use landfall_core::journal::Ownership;
use landfall_core::name::{NodeName, RunId};
use landfall_core::spec::Desired;
use landfall_core::wire::{Request, UndoOutcome};
use std::collections::BTreeMap;

/// See [`crate::run::undo`].
pub fn undo(desired: &Desired, back: Back, around: &Surroundings) -> Outcome {
    let voice = Voice::new(around);
    let mut outcome = Outcome::default();
    let members: Vec<&Node> = desired.inventory.members().collect();
    let (sessions, errors) = voice.phase("connect", || {
        fleet::connect(&members, AgentPlace::Member, around, &voice)
    });
    outcome.errors = errors;
    if sessions.is_empty() || (!outcome.errors.is_empty() && back == Back::LastRun) {
        // A rollback on some nodes only would leave a cluster of two minds; uninstall of the reachable rest is wanted.
        fleet::leave_nothing(&sessions);
        fleet::close(&sessions);
        return outcome;
    }
    let command = if back == Back::LastRun { "rollback" } else { "uninstall" };
    match fleet::lease(&sessions, command, &desired.spec.name, None, around) {
        Ok(run) => outcome.run = Some(run),
        Err(errors) => {
            outcome.errors.extend(errors);
            fleet::leave_nothing(&sessions);
            fleet::close(&sessions);
            return outcome;
        }
    }
    match fleet::ask_all::<Ownership>(&sessions, |_| Request::Ownership) {
        Ok(owned) => take_back(&sessions, &owned, back, &voice, &mut outcome),
        Err(errors) => outcome.errors.extend(errors),
    }
    fleet::close(&sessions);
    outcome
}

/// Takes back on leased nodes: everything, or the newest run that changed something. Fills in the outcome.
pub fn take_back(
    sessions: &Sessions,
    owned: &BTreeMap<NodeName, Ownership>,
    back: Back,
    voice: &Voice,
    outcome: &mut Outcome,
) {
    let run = match back {
        Back::Everything => None,
        // Run ids begin with their time, so the greatest is the newest.
        Back::LastRun => match owned.values().filter_map(|own| own.last_run.clone()).max() {
            Some(run) => Some(run),
            None => return fleet::leave_nothing(sessions),
        },
    };
    let in_run = |entry_run: &RunId| run.as_ref().is_none_or(|run| run == entry_run);
    let stays = owned.values().any(|own| {
        own.entries
            .iter()
            .any(|e| !in_run(&e.run) && e.step.as_str().starts_with("init/"))
    });
    if stays && let Err(diagnosis) = undo_in_cluster(sessions, owned, &in_run, voice) {
        outcome.errors.push(diagnosis);
        return;
    }
    let list: Vec<_> = sessions.values().collect();
    let results = voice.phase("undo", || {
        fleet::each(&list, |session| {
            let mut events = |event| voice.say(Some(session.name()), event);
            let undone: UndoOutcome = session.ask_with(&Request::Undo { run: run.clone() }, None, &mut events)?;
            let () = session.ask(&Request::FinishRun {
                outcome: "undone".to_owned(),
            })?;
            let () = session.ask(&Request::Tidy)?;
            Ok(undone)
        })
    });
    for (session, result) in list.iter().zip(results) {
        match result {
            Ok(undone) => {
                outcome.changes += undone.undone;
                outcome
                    .residue
                    .extend(undone.residue.iter().map(|line| format!("{}: {line}", session.name())));
            }
            Err(diagnosis) => outcome.errors.push(diagnosis),
        }
    }
    if !outcome.residue.is_empty() {
        outcome.errors.push(
            Diagnosis::new(
                Code::Residue,
                format!("{} thing(s) could not be undone", outcome.residue.len()),
            )
            .next("remove what is listed by hand, then run the same command again"),
        );
    }
}

/// Takes back what the run made off its nodes, in a cluster that stays.
fn undo_in_cluster(
    sessions: &Sessions,
    owned: &BTreeMap<NodeName, Ownership>,
    in_run: &dyn Fn(&RunId) -> bool,
    voice: &Voice,
) -> Result<(), Diagnosis> {
    let cluster = Cluster::default();
    for (node, own) in owned {
        for entry in own.entries.iter().rev().filter(|e| in_run(&e.run)) {
            match &entry.undo {
                Undo::RestoreObjects { prior, absent } => {
                    if let Some(session) = sessions.get(node) {
                        cluster.restore(session, prior, absent)?;
                    }
                }
                Undo::RemoveClaims { effects, .. } => {
                    cluster.remove_effects(sessions, node, effects, Formed::by(owned.values()), voice)?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}
