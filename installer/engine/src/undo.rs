//! Rollback and uninstall: makes a plan from the nodes' journals alone and runs it with the executor that installs use. Objects and members of
//! the cluster are removed before the changes on nodes.

mod uninstall;

use crate::adopt::unlisted_control_planes;
use crate::cluster::Cluster;
use crate::context::{CancelToken, Confirm, Removes, RunContext, UndoCommand, UndoSummary, Until};
use crate::emitter::EventEmitter;
use crate::execute::Executor;
use crate::fleet::{self, Sessions};
use crate::outcome::Outcome;
use crate::plan_error::plan_error;
use crate::present::{self, Present, history_unclear};
use crate::session::AgentPlace;
use landfall_core::cluster_record::Sequence;
use landfall_core::event::{EventKind, Phase};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::Node;
use landfall_core::journal::{Ownership, RunStart};
use landfall_core::journal::{ROLLED_BACK, UNDONE};
use landfall_core::name::{NodeName, RunId};
use landfall_core::plan::key::has_etcd_member;
use landfall_core::plan::undo::UndoScope;
use landfall_core::plan::{Goal, Plan, plan};
use landfall_core::preflight::too_few_control_planes;
use landfall_core::run_history::{FleetRun, RollbackTarget};
use landfall_core::spec::Desired;
use landfall_core::uninstall::Refusal;
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
    let run = UndoRun {
        desired,
        command,
        ctx,
        emitter,
        sessions: sessions.clone(),
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
    sessions: Sessions,
}

impl UndoRun<'_> {
    /// lease · read the journals · choose the machines and the runs · plan · confirm · begin the run · undo · end the run
    fn phases(mut self, until: Until, confirm: Confirm, outcome: &mut Outcome) -> Result<(), Vec<Diagnosis>> {
        let command = self.command.as_str();
        let (sessions, absent) = (&mut self.sessions, &mut outcome.absent);
        fleet::lease_present(
            sessions,
            absent,
            command,
            &self.desired.spec.name,
            self.ctx,
            self.emitter,
        )?;
        outcome.run = Some(self.ctx.run.clone());
        let owned = fleet::journals_present(sessions, absent)?;
        let present = match self.command {
            UndoCommand::Rollback => Present::of(owned)?,
            UndoCommand::Uninstall => {
                uninstall::refuse_part(&owned, self.desired, &self.ctx.limit).map_err(|refusal| vec![refusal])?;
                // The others were asked only what they are.
                self.sessions.retain(|name, _| self.ctx.limit.includes(name));
                outcome
                    .absent
                    .retain(|d| d.node.as_ref().is_none_or(|name| self.ctx.limit.includes(name)));
                uninstall::present(owned, &self.ctx.limit)
            }
        };
        // Members that do not answer may hold entries of the undone runs. Workers that the user took out of the inventory do not keep the run open.
        let mut stays_open = !outcome.absent.is_empty();
        if let (UndoCommand::Rollback, Some(record)) = (self.command, &present.record) {
            let unlisted = present::unlisted(record, &self.desired.inventory);
            let is_control_plane = |d: &Diagnosis| record.control_planes().any(|name| d.node.as_ref() == Some(name));
            stays_open |= unlisted.iter().any(is_control_plane);
            outcome.absent.extend(unlisted);
        }
        self.refuse_unlisted_control_planes(&present)?;
        let Some((scope, runs)) = self.choose(&present, &outcome.absent)? else {
            return Ok(());
        };
        let owned = &present.owned;
        let plan = plan(&Goal::Undone { owned, scope: &scope }).map_err(plan_error)?;
        self.emitter.planned(outcome.run.as_ref(), plan.steps.len());
        outcome.plan = Some(plan.clone());
        outcome.record.clone_from(&present.record);
        // An undo that was cut off after its last step, or stayed open for a node on which nothing was to be done, must still be ended.
        let continues = present.history.unfinished().is_some_and(|run| run.start.is_undo());
        if until == Until::Plan || plan.steps.is_empty() && !continues {
            return Ok(());
        }
        let cluster_stays = scope.cluster_stays(&present.owned);
        confirm(&UndoSummary {
            command: self.command,
            cluster: self.desired.spec.name.clone(),
            removes: self.removes(&present, &scope),
            absent: outcome.absent.iter().filter_map(|d| d.node.clone()).collect(),
            runs: runs.clone(),
        })
        .map_err(|refusal| vec![refusal])?;
        let number = present.history.next_number();
        self.begin(&present, number, &runs)?;
        outcome.runs = runs;
        run_undo(&self.sessions, &present.owned, &plan, self.emitter, outcome);
        // A run with residue stays unfinished: the same command continues it.
        if outcome.errors.is_empty() && !stays_open {
            self.end(&present, &scope, number, cluster_stays)?;
        }
        Ok(())
    }

    /// Journals of version 1 do not say who the members are: the cluster does, while it answers. Control planes that the inventory lacks would be left
    /// without quorum.
    fn refuse_unlisted_control_planes(&self, present: &Present) -> Result<(), Vec<Diagnosis>> {
        if present.record.is_some() || self.ctx.limit.is_set() {
            return Ok(());
        }
        let is_control_plane = |name: &&NodeName| present.owned.get(*name).is_some_and(has_etcd_member);
        let Some(session) = self
            .sessions
            .keys()
            .find(is_control_plane)
            .and_then(|name| self.sessions.get(name))
        else {
            return Ok(());
        };
        match unlisted_control_planes(self.desired, &Cluster::default(), session) {
            Ok(unlisted) if unlisted.is_empty() => Ok(()),
            Ok(unlisted) => Err(vec![uninstall::refused(Refusal::Unlisted(unlisted))]),
            // A cluster that does not answer is taken away all the same.
            Err(error) => {
                let text =
                    format!("whether the cluster has control planes that the inventory lacks is not known: {error}");
                self.emitter.emit(Some(session.name()), EventKind::Note { text });
                Ok(())
            }
        }
    }

    /// Says what goes, for the user's confirmation.
    fn removes(&self, present: &Present, scope: &UndoScope) -> Removes {
        let is_here = |name: &NodeName| self.sessions.contains_key(name);
        let left = present.record.as_ref().filter(|record| !record.is_whole(is_here));
        if self.ctx.limit.is_set() && left.is_some() {
            Removes::LeftOver(self.sessions.keys().cloned().collect())
        } else if scope.cluster_stays(&present.owned) {
            Removes::Nodes(scope.leaving_nodes(&present.owned))
        } else {
            Removes::Cluster
        }
    }

    /// Chooses the runs to undo; `None` when there are none.
    fn choose(
        &self,
        present: &Present,
        absent: &[Diagnosis],
    ) -> Result<Option<(UndoScope, Vec<FleetRun>)>, Vec<Diagnosis>> {
        if self.command == UndoCommand::Uninstall {
            let runs = present.history.runs().iter().rev().filter(|r| r.step_count() > 0);
            return Ok(Some((UndoScope::Everything, runs.cloned().collect())));
        }
        let target = present.history.rollback_target();
        match target.map_err(|error| vec![history_unclear(&error)])? {
            RollbackTarget::Nothing => Ok(None),
            RollbackTarget::Runs(runs) => {
                let scope = UndoScope::Runs(runs.iter().map(|r| r.start.run.clone()).collect());
                self.refuse_without(present, absent, &scope, &runs)?;
                Ok(Some((scope, runs)))
            }
            RollbackTarget::Uninstalling(run) => Err(vec![
                Diagnosis::new(Code::Preflight, "an uninstall of this cluster was interrupted")
                    .saw(format!("run {} of {}", run.number, run.start.owner))
                    .next("landfall uninstall: it finishes what was begun"),
            ]),
        }
    }

    /// Refuses a rollback that needs members which are absent.
    fn refuse_without(
        &self,
        present: &Present,
        absent: &[Diagnosis],
        scope: &UndoScope,
        runs: &[FleetRun],
    ) -> Result<(), Vec<Diagnosis>> {
        let (owned, record) = (&present.owned, present.record.as_ref());
        let stays = scope.cluster_stays(owned);
        let needs_absent = if stays {
            // Members leave the cluster, and objects are restored, through one that stays.
            scope.staying_control_plane(owned).is_none()
        } else {
            // Without a record nobody knows whether the absent node founded the cluster. If it founded it in an earlier run, control planes that
            // go would take the quorum of the cluster that stays with them.
            let follows_others = runs.iter().all(|run| run.number > 1);
            record.is_none_or(|record| follows_others && scope.founder_may_stay(owned, record))
        };
        if !absent.is_empty() && needs_absent {
            return Err(absent.to_vec());
        }
        let here: Vec<&NodeName> = self.sessions.keys().collect();
        // A run writes its number to a majority first, so a minority does not know which run is the newest: what looks like the founding may be an old
        // run of a cluster that lives on. Control planes that the undone runs were to add need not be here.
        let before = scope.record_before(owned).or(record);
        let formed = before.filter(|record| record.formed);
        match formed.and_then(|record| too_few_control_planes(record, &here)) {
            Some(finding) => Err(finding.into_diagnoses()),
            None => Ok(()),
        }
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
        let holders = holders(&self.sessions, &present.owned);
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
        if cluster_stays {
            let sequence = Sequence {
                run: number,
                revision: 0,
            };
            put_record_back(&self.sessions, present, scope, sequence)?;
        }
        fleet::end_run(&self.sessions, UNDONE)
    }
}

fn holders(sessions: &Sessions, owned: &BTreeMap<NodeName, Ownership>) -> Sessions {
    let holds = |name: &NodeName| owned.get(name).is_some_and(|own| !own.is_empty());
    let list = sessions.iter().filter(|(name, _)| holds(name));
    list.map(|(name, session)| (name.clone(), std::sync::Arc::clone(session)))
        .collect()
}

/// Writes the record from before the undone runs, without the members that left, into every journal that still has entries. What the undone runs said
/// about keys stays.
fn put_record_back(
    sessions: &Sessions,
    before: &Present,
    scope: &UndoScope,
    sequence: Sequence,
) -> Result<(), Vec<Diagnosis>> {
    let earlier = scope.record_before(&before.owned).or(before.record.as_ref());
    let Some(mut record) = earlier.cloned() else {
        return Ok(());
    };
    for name in scope.leaving_nodes(&before.owned) {
        record.members.remove(&name);
    }
    let trust = before.record.as_ref().and_then(|record| record.trust.as_ref());
    record.trust = trust
        .map(|trust| trust.after_undo_to(record.trust.as_ref()))
        .or(record.trust);
    record.sequence = sequence;
    let owned = fleet::ask_all(sessions, |_| Request::Ownership)?;
    let request = Request::WriteRecord {
        record: Box::new(record),
    };
    fleet::ask_all::<()>(&holders(sessions, &owned), |_| request.clone()).map(drop)
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
        supply: None,
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
    let present = match Present::read(sessions) {
        Ok(present) => present,
        Err(errors) => return outcome.errors.extend(errors),
    };
    let scope = UndoScope::Runs(runs.iter().cloned().collect());
    let (changes, errors_before) = (outcome.changes, outcome.errors.len());
    let goal = Goal::Undone {
        owned: &present.owned,
        scope: &scope,
    };
    let plan = match plan(&goal) {
        Ok(plan) => plan,
        Err(error) => return outcome.errors.extend(plan_error(error)),
    };
    run_undo(sessions, &present.owned, &plan, emitter, outcome);
    outcome.changes = changes;
    if !outcome.residue.is_empty() || outcome.errors.len() > errors_before {
        return;
    }
    let stays = present.record.as_ref().filter(|_| scope.cluster_stays(&present.owned));
    let record = stays.map_or(Ok(()), |record| {
        let sequence = Sequence {
            revision: record.sequence.revision + 1,
            ..record.sequence
        };
        put_record_back(sessions, &present, &scope, sequence)
    });
    let ended = record.and_then(|()| fleet::finish_run(sessions, ROLLED_BACK));
    outcome.rolled_back = ended.is_ok();
    outcome.errors.extend(ended.err().unwrap_or_default());
}
