//! Runs a plan: starts every step whose needs are done and whose blobs have arrived, on all nodes side by side.

use crate::cluster::{Cluster, Formed};
use crate::context::CancelToken;
use crate::distribute::{Arrival, Push, Supply};
use crate::emitter::EventEmitter;
use crate::fleet::Sessions;
use crate::once::OncePerKey;
use crate::session::NodeSession;
use landfall_core::action::{Action, Content};
use landfall_core::event::EventKind;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::journal::{EntryState, Ownership};
use landfall_core::name::{Digest, NodeName, SecretId, StepId};
use landfall_core::plan::key::StepKind;
use landfall_core::plan::{Plan, Step};
use landfall_core::secret::Secret;
use landfall_core::wire::{Request, StepOutcome, UndoOutcome};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// Steps that run at the same time on one node: enough to overlap waiting with work, few enough for a two-core node.
const STEPS_PER_NODE: usize = 4;

/// Everything a plan runs on.
pub struct Executor<'a> {
    /// The nodes.
    pub sessions: &'a Sessions,
    /// What landfall owns on each node, as read before the run.
    pub owned: &'a BTreeMap<NodeName, Ownership>,
    /// The blobs that steps read; an undo needs none.
    pub supply: Option<Supply<'a>>,
    /// Addresses at which nodes take blobs of each other, see [`Push::relay`].
    pub relay: &'a BTreeMap<NodeName, IpAddr>,
    /// Sessions whose journals record the steps of the cluster: all connected control planes.
    pub journals: &'a [Arc<NodeSession>],
    /// Called after each step that is done, before any step that needs it starts.
    pub on_done: &'a (dyn Fn(&Step) -> Result<(), Diagnosis> + Sync),
    /// The connection to the API, opened when it is first needed.
    pub cluster: &'a Cluster,
    /// Set by ^C.
    pub cancel: &'a CancelToken,
    /// Events.
    pub emitter: &'a EventEmitter,
}

/// Result of running a plan.
#[derive(Debug, Default)]
pub struct Executed {
    /// Steps that changed something.
    pub changes: usize,
    /// Errors of failed steps and uploads.
    pub errors: Vec<Diagnosis>,
    /// Bytes sent to each node.
    pub bytes_sent: BTreeMap<NodeName, u64>,
    /// What undo steps could not undo.
    pub residue: Vec<String>,
}

#[derive(Default)]
struct Progress {
    done: BTreeSet<StepId>,
    started: BTreeSet<StepId>,
    running: BTreeMap<NodeName, usize>,
    arrived: BTreeMap<NodeName, BTreeSet<Digest>>,
    changes: usize,
    errors: Vec<Diagnosis>,
    residue: Vec<String>,
}

struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
    secrets: OncePerKey<(NodeName, SecretId)>,
    /// Ends waits for the cluster: set by ^C, and when a step fails whose result they may wait for.
    waits: CancelToken,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
    fn update(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

impl Arrival for Shared {
    fn arrived(&self, node: &NodeName, digest: Digest) {
        self.update(|progress| {
            progress.arrived.entry(node.clone()).or_default().insert(digest);
        });
    }
    fn failed(&self, _node: &NodeName, diagnosis: Diagnosis) {
        self.update(|progress| progress.errors.push(diagnosis));
    }
}

impl Executor<'_> {
    /// Runs `plan`. A `satisfied` step counts as done as soon as its needs are done. After the first failure no new step is started and waits for
    /// the cluster end, unless the plan says to keep going. Blocks until all running steps have ended.
    pub fn run(&self, plan: &Plan, satisfied: &BTreeSet<StepId>) -> Executed {
        let shared = Shared {
            progress: Mutex::new(Progress::default()),
            changed: Condvar::new(),
            secrets: OncePerKey::default(),
            waits: self.cancel.child(),
        };
        mark_satisfied(plan, satisfied, &mut shared.lock().done);
        let todo: Vec<&Step> = plan.steps.iter().filter(|s| !satisfied.contains(&s.id)).collect();
        let mut by_node: BTreeMap<NodeName, Vec<Step>> = BTreeMap::new();
        for step in &todo {
            by_node.entry(step.node.clone()).or_default().push((*step).clone());
        }
        let bytes_sent = thread::scope(|scope| {
            let pusher = scope.spawn(|| match self.supply {
                Some(supply) => self.push(supply, &shared).run(&by_node),
                None => BTreeMap::new(),
            });
            self.start_steps(scope, plan, satisfied, &todo, &shared);
            pusher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let progress = std::mem::take(&mut *shared.lock());
        Executed {
            changes: progress.changes,
            errors: progress.errors,
            residue: progress.residue,
            bytes_sent,
        }
    }

    fn push<'b>(&'b self, supply: Supply<'b>, arrival: &'b Shared) -> Push<'b> {
        Push {
            supply,
            sessions: self.sessions,
            relay: self.relay,
            arrival,
            cancel: self.cancel,
            emitter: self.emitter,
        }
    }

    fn start_steps<'scope, 'env>(
        &'scope self,
        scope: &'scope thread::Scope<'scope, 'env>,
        plan: &'scope Plan,
        satisfied: &'scope BTreeSet<StepId>,
        todo: &[&'scope Step],
        shared: &'scope Shared,
    ) {
        loop {
            let mut progress = shared.lock();
            if !plan.keep_going && (!progress.errors.is_empty() || !progress.residue.is_empty()) {
                shared.waits.cancel();
            }
            let stop = shared.waits.is_cancelled();
            let running: usize = progress.running.values().sum();
            let ready = if stop {
                None
            } else {
                todo.iter().find(|s| self.is_ready(s, &progress)).copied()
            };
            // No step runs and none can begin: all are done, or the rest needs a step that failed.
            let awaits_blobs =
                || !stop && progress.errors.is_empty() && todo.iter().any(|s| !progress.started.contains(&s.id));
            if running == 0 && ready.is_none() && !awaits_blobs() {
                return;
            }
            let Some(step) = ready else {
                // The time-out serves ^C alone, which cannot notify the condition variable.
                drop(self.wait_for_change(&shared.changed, progress));
                continue;
            };
            progress.started.insert(step.id.clone());
            *progress.running.entry(step.node.clone()).or_default() += 1;
            drop(progress);
            scope.spawn(move || {
                // A fault of landfall's own in one step must end the run, not keep it waiting for that step.
                let result = catch_unwind(AssertUnwindSafe(|| self.run_step(plan, step, shared)))
                    .unwrap_or_else(|_| Err(broke_off(step)));
                shared.update(|progress| {
                    *progress.running.entry(step.node.clone()).or_default() -= 1;
                    match result {
                        Ok(outcome) => {
                            progress.done.insert(step.id.clone());
                            mark_satisfied(plan, satisfied, &mut progress.done);
                            progress.changes += usize::from(outcome.changed);
                            let residue = outcome.residue.into_iter();
                            progress
                                .residue
                                .extend(residue.map(|line| format!("{}: {line}", step.node)));
                        }
                        Err(diagnosis) if self.ended_with_another(&diagnosis) => {}
                        Err(diagnosis) => progress.errors.push(diagnosis),
                    }
                });
            });
        }
    }

    /// Says whether a step can begin: its needs are done, its node has room for it, and its blobs are there.
    fn is_ready(&self, step: &Step, progress: &Progress) -> bool {
        if progress.started.contains(&step.id) || !step.needs.iter().all(|n| progress.done.contains(n)) {
            return false;
        }
        if !step.action.runs_in_cluster() && progress.running.get(&step.node).copied().unwrap_or(0) >= STEPS_PER_NODE {
            return false;
        }
        let here = progress.arrived.get(&step.node);
        let mut blobs = self.supply.iter().flat_map(|supply| supply.needs.blobs_of(step));
        blobs.all(|digest| here.is_some_and(|set| set.contains(&digest)))
    }

    fn wait_for_change<'a>(&self, changed: &Condvar, guard: MutexGuard<'a, Progress>) -> MutexGuard<'a, Progress> {
        changed
            .wait_timeout(guard, Duration::from_millis(200))
            .map(|(guard, _)| guard)
            .unwrap_or_else(|poison| poison.into_inner().0)
    }

    fn run_step(&self, plan: &Plan, step: &Step, shared: &Shared) -> Result<StepOutcome, Diagnosis> {
        let start = Instant::now();
        let (id, stage, node) = (step.id.clone(), step.stage, Some(&step.node));
        self.emitter.emit(
            node,
            EventKind::StepStarted {
                step: id.clone(),
                stage,
                text: step.action.text(),
            },
        );
        let result = self
            .run_action(plan, step, shared)
            .and_then(|outcome| (self.on_done)(step).map(|()| outcome))
            .map_err(|d| if d.step.is_none() { d.at(&step.id) } else { d });
        let took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        match &result {
            Ok(outcome) => {
                let changed = outcome.changed;
                self.emitter.emit(
                    node,
                    EventKind::StepFinished {
                        step: id,
                        stage,
                        changed,
                        took_ms,
                    },
                );
            }
            Err(diagnosis) if self.ended_with_another(diagnosis) => {
                let text = "waits no longer, because another step failed".to_owned();
                self.emitter.emit(node, EventKind::StepWaiting { step: id, text });
            }
            Err(diagnosis) => {
                let diagnosis = diagnosis.clone();
                self.emitter.emit(
                    node,
                    EventKind::StepFailed {
                        step: id,
                        stage,
                        diagnosis,
                    },
                );
            }
        }
        result
    }

    /// Says whether a wait ended because another step had failed. That step's error is the one to show.
    fn ended_with_another(&self, diagnosis: &Diagnosis) -> bool {
        diagnosis.code == Code::Interrupted && !self.cancel.is_cancelled()
    }

    fn run_action(&self, plan: &Plan, step: &Step, shared: &Shared) -> Result<StepOutcome, Diagnosis> {
        if let Action::LeaveCluster { effects } = &step.action {
            // The other nodes are asked, because the leaving node may be the broken one.
            let formed = Formed::from_journals(self.owned);
            self.cluster
                .remove_effects(self.sessions, &step.node, effects, formed, self.emitter)?;
            return Ok(unchanged());
        }
        let session = self.sessions.get(&step.node).ok_or_else(|| {
            Diagnosis::new(Code::Internal, "a step names a node that is not connected").on(&step.node)
        })?;
        if let Action::RestoreObjects { prior, absent } = &step.action {
            self.cluster.restore(session, prior, absent, self.emitter)?;
            return Ok(unchanged());
        }
        if step.action.runs_in_cluster() {
            let changed = self
                .cluster
                .run(self.sessions, self.journals, step, &shared.waits, self.emitter)?;
            return Ok(StepOutcome {
                changed,
                residue: vec![],
            });
        }
        if let Action::File {
            content: Content::Secret(id),
            ..
        } = &step.action
        {
            let key = (step.node.clone(), id.clone());
            shared.secrets.run(&key, || self.copy_secret(plan, id, &step.node))?;
        }
        if self.was_interrupted(plan, step) {
            self.undo_interrupted(plan, step, session)?;
        }
        self.run_on_node(step, session)
    }

    fn run_on_node(&self, step: &Step, session: &NodeSession) -> Result<StepOutcome, Diagnosis> {
        session.ask_with(&Request::RunStep { step: step.clone() }, None, &mut |event| {
            self.emitter.emit(Some(&step.node), event);
        })
    }

    /// Copies a secret from the node that has it to the node that needs it, through memory only.
    fn copy_secret(&self, plan: &Plan, id: &SecretId, to: &NodeName) -> Result<(), Diagnosis> {
        let unknown = || Diagnosis::new(Code::Internal, format!("secret {id} has no source"));
        let source = plan.secrets.get(id).ok_or_else(unknown)?;
        let from = self.sessions.get(&source.node).ok_or_else(unknown)?;
        let path = source.path.to_string_lossy().into_owned();
        let secret = Secret::new(from.ask_bytes(&Request::ReadSecret { path })?);
        let session = self.sessions.get(to).ok_or_else(unknown)?;
        let size_bytes = secret.expose().len() as u64;
        let request = Request::PutSecret {
            id: id.clone(),
            size_bytes,
        };
        session.ask_with(&request, Some(&mut secret.expose()), &mut |_| {})
    }

    fn was_interrupted(&self, plan: &Plan, step: &Step) -> bool {
        let undoes =
            |other: &&Step| matches!(&other.action, Action::TakeBack { step: undone, .. } if *undone == step.id);
        // What a step of the plan undoes first is gone by now, although the journal as it was read before the run still has it.
        if step.action.is_undo()
            || plan
                .steps
                .iter()
                .any(|other| undoes(&other) && step.needs.contains(&other.id))
        {
            return false;
        }
        let newest = self.owned.get(&step.node).and_then(|own| own.newest(&step.id));
        newest.is_some_and(|entry| entry.state != EntryState::Owned)
    }

    /// Undoes what an interrupted earlier attempt of the step left, before the step runs again: its etcd member and Node object first, then its changes
    /// on the node. Steps that the interrupted one leaves half done (`step.redo`) are undone with it and run again.
    fn undo_interrupted(&self, plan: &Plan, step: &Step, session: &NodeSession) -> Result<(), Diagnosis> {
        self.remove_effects(step)?;
        if step.redo.is_empty() {
            return Ok(());
        }
        let again = || {
            step.redo
                .iter()
                .filter_map(|id| plan.steps.iter().find(|s| &s.id == id))
        };
        // The journal marks them before anything of theirs is removed, so that a run that is cut off in between can continue from there.
        self.begin_undo(step, again().map(|s| s.id.clone()).collect(), session)?;
        self.undo_step_on_node(step, session)?;
        for earlier in again().rev() {
            self.remove_effects(earlier)?;
            self.undo_step_on_node(earlier, session)?;
        }
        for earlier in again() {
            self.run_on_node(earlier, session)?;
        }
        Ok(())
    }

    /// Journals that these steps of the node of `of` are being undone, and stops their daemons.
    fn begin_undo(&self, of: &Step, steps: Vec<StepId>, session: &NodeSession) -> Result<(), Diagnosis> {
        let (id, action) = (StepKind::BeginUndo.on(&of.node), Action::BeginUndo { steps });
        let begin = Step::new(id, of.stage, of.node.clone(), of.deadline_s, action);
        self.run_on_node(&begin, session).map(drop)
    }

    fn remove_effects(&self, step: &Step) -> Result<(), Diagnosis> {
        match &step.action {
            Action::Run { effects, .. } | Action::Bootstrap { effects, .. } => {
                let formed = Formed::from_journals(self.owned);
                self.cluster
                    .remove_effects(self.sessions, &step.node, effects, formed, self.emitter)
            }
            _ => Ok(()),
        }
    }

    fn undo_step_on_node(&self, step: &Step, session: &NodeSession) -> Result<(), Diagnosis> {
        let request = Request::UndoStep { step: step.id.clone() };
        let undone: UndoOutcome = session.ask_with(&request, None, &mut |event| {
            self.emitter.emit(Some(&step.node), event);
        })?;
        if undone.residue.is_empty() {
            return Ok(());
        }
        let what = "what an interrupted step left cannot be undone";
        let diagnosis = Diagnosis::new(Code::ForeignState, what).on(&step.node).at(&step.id);
        Err(undone.residue.into_iter().fold(diagnosis, Diagnosis::saw))
    }
}

fn broke_off(step: &Step) -> Diagnosis {
    Diagnosis::new(Code::Internal, "a step broke off by a fault of landfall's own")
        .on(&step.node)
        .at(&step.id)
}

/// Returns the outcome of a step that serves an undo and removes no entry of its own.
fn unchanged() -> StepOutcome {
    StepOutcome {
        changed: false,
        residue: vec![],
    }
}

/// Marks satisfied steps as done when their needs are done. A satisfied step whose needs are still pending must not release the steps that
/// need it, because it may be undone before its needs are run again.
fn mark_satisfied(plan: &Plan, satisfied: &BTreeSet<StepId>, done: &mut BTreeSet<StepId>) {
    let mut before = None;
    while before != Some(done.len()) {
        before = Some(done.len());
        for step in plan.steps.iter().filter(|s| satisfied.contains(&s.id)) {
            if step.needs.iter().all(|need| done.contains(need)) {
                done.insert(step.id.clone());
            }
        }
    }
}
