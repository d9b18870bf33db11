//! `landfall push`: sends what an install would send, ahead of it. The nodes keep the blobs until an install has used them; their journals
//! hold that, so that an uninstall takes them away too.

use super::InstallRun;
use super::planning::Prepared;
use crate::distribute::{Arrival, Push, blobs_of};
use crate::execute::Executor;
use crate::fleet;
use crate::push::{DEADLINE_S, keep_step};
use landfall_core::event::Phase;
use landfall_core::explain::Diagnosis;
use landfall_core::journal::{DONE, Ownership, PUSH, RunStart};
use landfall_core::name::{Digest, NodeName, StepId};
use landfall_core::plan::key::{StepKind, keeps_blobs};
use landfall_core::plan::pending::undo_step;
use landfall_core::plan::{Plan, Stage, Step};
use landfall_core::wire::Request;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// Collects what could not be sent.
#[derive(Default)]
struct Failures(Mutex<Vec<Diagnosis>>);

impl Arrival for Failures {
    fn arrived(&self, _node: &NodeName, _digest: Digest) {}
    fn failed(&self, _node: &NodeName, diagnosis: Diagnosis) {
        let mut failures = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        failures.push(diagnosis);
    }
}

impl InstallRun<'_> {
    /// begin the run · journal on each node that blobs are kept · send them · end the run. A run that is cut off stays open; the next push
    /// or install goes on with what has come.
    pub(super) fn push_ahead(&mut self, prepared: &Prepared) -> Result<(), Vec<Diagnosis>> {
        let wanted = self.wanted(prepared);
        let missing = self.missing_bytes(prepared)?;
        let unfinished = prepared.present.history.unfinished();
        let lacks = |name: &NodeName| missing.get(name).is_some_and(|bytes| *bytes > 0);
        if !wanted.keys().any(lacks) && unfinished.is_none() {
            return Ok(());
        }
        self.begun = true;
        let start = RunStart {
            continues: unfinished.map(|run| run.number),
            ..self
                .ctx
                .start(prepared.record.sequence.run, PUSH, &self.desired.spec.name)
        };
        let request = Request::StartRun { start, record: None };
        fleet::ask_all::<()>(&self.sessions, |_| request.clone())?;
        let executed = self.emitter.phase(Phase::Execute, || {
            let executor = Executor {
                sessions: &self.sessions,
                owned: &prepared.present.owned,
                supply: None,
                relay: &BTreeMap::new(),
                journals: &[],
                on_done: &|_| Ok(()),
                cluster: &self.cluster,
                cancel: &self.ctx.cancel,
                emitter: &self.emitter,
            };
            let kept = |name: &NodeName| prepared.present.owned.get(name).is_some_and(keeps_blobs);
            let steps = wanted.keys().filter(|name| !kept(name)).map(keep_step);
            let plan = Plan {
                steps: steps.collect(),
                ..Plan::default()
            };
            let mut executed = executor.run(&plan, &BTreeSet::new());
            if executed.errors.is_empty() {
                let failures = Failures::default();
                let push = Push {
                    supply: self.supply(prepared),
                    sessions: &self.sessions,
                    relay: &self.relay_addresses(prepared),
                    arrival: &failures,
                    cancel: &self.ctx.cancel,
                    emitter: &self.emitter,
                };
                executed.bytes_sent = push.run(&wanted);
                executed.errors = failures
                    .0
                    .into_inner()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
            }
            executed
        });
        if self.succeeded(executed) {
            fleet::end_run(&self.sessions, DONE)?;
        }
        Ok(())
    }

    /// The steps of each node that are to be done and read blobs.
    fn wanted(&self, prepared: &Prepared) -> BTreeMap<NodeName, Vec<Step>> {
        let mut wanted: BTreeMap<NodeName, Vec<Step>> = BTreeMap::new();
        for step in prepared.pending().filter(|s| !prepared.needs.blobs_of(s).is_empty()) {
            wanted.entry(step.node.clone()).or_default().push(step.clone());
        }
        wanted
    }

    /// Nodes that keep blobs let them go once every step of theirs that reads some is done.
    pub(super) fn let_blobs_go(&self, plan: &mut Plan, owned: &BTreeMap<NodeName, Ownership>) {
        let keep = |(name, own): (&NodeName, &Ownership)| {
            let step = StepKind::KeepBlobs.on(name);
            (self.ctx.limit.includes(name) && own.newest(&step).is_some()).then(|| (name.clone(), step))
        };
        for (node, step) in owned.iter().filter_map(keep) {
            let users: Vec<StepId> = plan
                .steps_on(&node)
                .filter(|s| !blobs_of(s).is_empty())
                .map(|s| s.id.clone())
                .collect();
            let undo = undo_step(StepKind::Withdraw, Stage::Finish, node, &step, DEADLINE_S);
            plan.steps.push(undo.after(users));
        }
    }
}
