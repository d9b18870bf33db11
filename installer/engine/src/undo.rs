//! Rollback and uninstall: makes a plan from the nodes' journals alone and runs it with the executor that installs use. Objects and members of
//! the cluster are removed before the changes on nodes.

use crate::cluster::Cluster;
use crate::context::{CancelToken, Confirm, RunContext, UndoCommand, UndoSummary, Until};
use crate::emitter::EventEmitter;
use crate::execute::Executor;
use crate::fleet::{self, Sessions};
use crate::outcome::Outcome;
use crate::present::{Present, history_unclear};
use crate::session::AgentPlace;
use landfall_core::cluster_record::{ClusterRecord, Sequence};
use landfall_core::event::Phase;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::Node;
use landfall_core::journal::{Ownership, RunStart};
use landfall_core::journal::{ROLLED_BACK, UNDONE};
use landfall_core::name::{NodeName, RunId};
use landfall_core::plan::Plan;
use landfall_core::plan::undo::{UndoScope, plan_undo};
use landfall_core::preflight::unlisted_members;
use landfall_core::run_history::{FleetRun, RollbackTarget, RunHistory};
use landfall_core::spec::Desired;
use landfall_core::wire::Request;
use std::collections::{BTreeMap, BTreeSet};

/// See [`crate::run::undo`].
pub fn undo(
    desired: &Desired,
    command: UndoCommand,
    until: Until,
    confirm: Confirm,
    ctx: &RunContext,
    emitter: &EventEmitter,
) -> Outcome {
    let mut outcome = Outcome::default();
    let members: Vec<&Node> = desired.inventory.members().collect();
    let (sessions, absent) = emitter.phase(Phase::Connect, || {
        fleet::connect(&members, AgentPlace::Member, ctx, emitter)
    });
    outcome.absent = absent;
    let mut run = UndoRun {
        desired,
        command,
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

/// One rollback or uninstall.
struct UndoRun<'a> {
    desired: &'a Desired,
    command: UndoCommand,
    ctx: &'a RunContext,
    emitter: &'a EventEmitter,
    sessions: &'a Sessions,
}

impl UndoRun<'_> {
    /// lease · read the journals · choose the runs · plan · confirm · begin the run · undo · end the run
    fn phases(&mut self, until: Until, confirm: Confirm, outcome: &mut Outcome) -> Result<(), Vec<Diagnosis>> {
        let command = self.command.as_str();
        fleet::lease(self.sessions, command, &self.desired.spec.name, self.ctx, self.emitter)?;
        outcome.run = Some(self.ctx.run.clone());
        let present = Present::read_for(self.sessions, self.command)?;
        let Some((scope, runs)) = self.choose(&present, &outcome.absent)? else {
            return Ok(());
        };
        let plan = plan_undo(&present.owned, &scope);
        self.emitter.planned(outcome.run.as_ref(), plan.steps.len());
        outcome.plan = Some(plan.clone());
        outcome.record.clone_from(&present.record);
        if until == Until::Plan || plan.steps.is_empty() {
            return Ok(());
        }
        let cluster_stays = scope.cluster_stays(&present.owned);
        confirm(&UndoSummary {
            command: self.command,
            cluster: self.desired.spec.name.clone(),
            removes_cluster: !cluster_stays,
            removes_nodes: scope.leaving_nodes(&present.owned),
            absent: outcome.absent.iter().filter_map(|d| d.node.clone()).collect(),
            runs: runs.clone(),
        })
        .map_err(|refusal| vec![refusal])?;
        let number = present.history.next_number();
        self.begin(&present, number, &runs)?;
        outcome.runs = runs;
        run_undo(self.sessions, &present.owned, &plan, self.emitter, outcome);
        // A run with residue stays unfinished: the same command continues it.
        if outcome.errors.is_empty() && outcome.absent.is_empty() {
            self.end(&present, &scope, number, cluster_stays)?;
        }
        Ok(())
    }

    /// Chooses the runs to undo; `None` when there are none.
    fn choose(
        &self,
        present: &Present,
        absent: &[Diagnosis],
    ) -> Result<Option<(UndoScope, Vec<FleetRun>)>, Vec<Diagnosis>> {
        if self.command == UndoCommand::Uninstall {
            self.refuse_partial(present)?;
            let runs = present.history.runs().iter().rev().filter(|r| r.step_count() > 0);
            return Ok(Some((UndoScope::Everything, runs.cloned().collect())));
        }
        let target = present.history.rollback_target();
        match target.map_err(|error| vec![history_unclear(&error)])? {
            RollbackTarget::Nothing => Ok(None),
            RollbackTarget::Runs(runs) => {
                let ids: BTreeSet<_> = runs.iter().map(|r| r.start.run.clone()).collect();
                let scope = UndoScope::Runs(ids);
                // Without a record nobody knows whether the absent node founded the cluster. If it founded it in an earlier run, control planes that
                // go would take the quorum of the cluster that stays with them.
                let follows_others = runs.iter().all(|run| run.number > 1);
                let is_unclear = present
                    .record
                    .as_ref()
                    .is_none_or(|record| follows_others && scope.founder_may_stay(&present.owned, record));
                if !absent.is_empty() && !scope.cluster_stays(&present.owned) && is_unclear {
                    return Err(absent.to_vec());
                }
                Ok(Some((scope, runs)))
            }
            RollbackTarget::Uninstalling(run) => Err(vec![
                Diagnosis::new(Code::Preflight, "an uninstall of this cluster was interrupted")
                    .saw(format!("run {} of {}", run.number, run.start.owner))
                    .next("landfall uninstall: it finishes what was begun"),
            ]),
        }
    }

    /// Refuses an uninstall of some members: the others would be left without quorum, or with dead members.
    fn refuse_partial(&self, present: &Present) -> Result<(), Vec<Diagnosis>> {
        let Some(record) = &present.record else { return Ok(()) };
        let unlisted = unlisted_members(record, &self.desired.inventory);
        if unlisted.is_empty() || !record.formed {
            return Ok(());
        }
        let diagnosis = Diagnosis::new(
            Code::Preflight,
            "the inventory lacks members of the cluster, and an uninstall removes the whole cluster",
        );
        let named = unlisted.into_iter().fold(diagnosis, |d, (name, address)| {
            d.saw(format!("{name} at {address} is a member"))
        });
        Err(vec![named.next(
            "put them into the inventory, also when they are lost: unreachable nodes are reported and left out",
        )])
    }

    /// Writes the run's start into every journal that has entries.
    fn begin(&self, present: &Present, number: u64, runs: &[FleetRun]) -> Result<(), Vec<Diagnosis>> {
        let start = RunStart {
            takes_back: match self.command {
                UndoCommand::Rollback => runs.iter().map(|r| r.number).collect(),
                UndoCommand::Uninstall => vec![],
            },
            ..self.ctx.start(number, self.command.as_str(), &self.desired.spec.name)
        };
        let holders = holders(self.sessions, &present.owned);
        let request = Request::StartRun { start, record: None };
        fleet::ask_all::<()>(&holders, |_| request.clone()).map(drop)
    }

    /// Ends the run on every node that still has entries. A cluster that stays gets the record from before the undone runs.
    fn end(
        &self,
        present: &Present,
        scope: &UndoScope,
        number: u64,
        cluster_stays: bool,
    ) -> Result<(), Vec<Diagnosis>> {
        let owned: BTreeMap<NodeName, Ownership> = fleet::ask_all(self.sessions, |_| Request::Ownership)?;
        let holders = holders(self.sessions, &owned);
        if let Some(record) = record_after(present, scope, number).filter(|_| cluster_stays) {
            let request = Request::WriteRecord {
                record: Box::new(record),
            };
            fleet::ask_all::<()>(&holders, |_| request.clone())?;
        }
        fleet::end_run(self.sessions, UNDONE)
    }
}

impl Present {
    /// Reads what an undo needs. An uninstall needs neither an order of the runs nor a common record.
    fn read_for(sessions: &Sessions, command: UndoCommand) -> Result<Self, Vec<Diagnosis>> {
        match (Self::read(sessions), command) {
            (Err(_), UndoCommand::Uninstall) => {
                let owned = fleet::ask_all(sessions, |_| Request::Ownership)?;
                Ok(Self {
                    history: RunHistory::without_order(&owned),
                    owned,
                    record: None,
                })
            }
            (present, _) => present,
        }
    }
}

fn holders(sessions: &Sessions, owned: &BTreeMap<NodeName, Ownership>) -> Sessions {
    let holds = |name: &NodeName| owned.get(name).is_some_and(|own| !own.is_empty());
    let list = sessions.iter().filter(|(name, _)| holds(name));
    list.map(|(name, session)| (name.clone(), std::sync::Arc::clone(session)))
        .collect()
}

/// Returns the cluster's record after some runs were undone: as it was before them, without the members that left.
fn record_after(present: &Present, scope: &UndoScope, number: u64) -> Option<ClusterRecord> {
    let UndoScope::Runs(ids) = scope else { return None };
    let taken = present.history.runs().iter().filter(|r| ids.contains(&r.start.run));
    let oldest = taken.map(|r| r.number).min()?;
    let earlier = present
        .owned
        .values()
        .filter_map(|own| own.record_before(oldest))
        .max_by_key(|r| r.sequence);
    let mut record = earlier.or(present.record.as_ref())?.clone();
    for name in scope.leaving_nodes(&present.owned) {
        record.members.remove(&name);
    }
    record.sequence = Sequence {
        run: number,
        revision: 0,
    };
    Some(record)
}

/// Runs the plan of an undo over leased nodes whose journals hold the run's start, and fills in the outcome. Blocks until it is done; ^C does not
/// end it.
pub fn run_undo(
    sessions: &Sessions,
    owned: &BTreeMap<NodeName, Ownership>,
    plan: &Plan,
    emitter: &EventEmitter,
    outcome: &mut Outcome,
) {
    let cluster = Cluster::default();
    // ^C of the failed run does not end its rollback: a partial rollback is worse than keeping all or rolling back all.
    let cancel = CancelToken::default();
    let executor = Executor {
        sessions,
        owned,
        bundle: None,
        relay: &BTreeMap::new(),
        journals: &[],
        on_done: &|_| Ok(()),
        cluster: &cluster,
        cancel: &cancel,
        emitter,
    };
    let executed = emitter.phase(Phase::Undo, || executor.run(plan, &BTreeSet::new()));
    outcome.changes += executed.changes;
    outcome.errors.extend(executed.errors);
    outcome.residue.extend(executed.residue);
    outcome.residue.sort();
    outcome.residue.dedup();
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

/// Rolls back a run that failed: its own entries, and nothing of an earlier run.
pub fn roll_back_failed(sessions: &Sessions, runs: &[RunId], emitter: &EventEmitter, outcome: &mut Outcome) {
    let owned = match fleet::ask_all::<Ownership>(sessions, |_| Request::Ownership) {
        Ok(owned) => owned,
        Err(errors) => return outcome.errors.extend(errors),
    };
    let scope = UndoScope::Runs(runs.iter().cloned().collect());
    let (changes, errors_before) = (outcome.changes, outcome.errors.len());
    run_undo(sessions, &owned, &plan_undo(&owned, &scope), emitter, outcome);
    outcome.changes = changes;
    outcome.rolled_back = outcome.residue.is_empty() && outcome.errors.len() == errors_before;
    if outcome.rolled_back {
        let finished = fleet::finish_run(sessions, ROLLED_BACK);
        outcome.errors.extend(finished.err().unwrap_or_default());
    }
}
