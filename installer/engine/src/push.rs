//! Blobs that are kept on nodes ahead of an install: how journals hold that, and `landfall push --remove`.

use crate::cluster::Cluster;
use crate::context::RunContext;
use crate::emitter::EventEmitter;
use crate::execute::Executor;
use crate::fleet::{self, Sessions};
use crate::outcome::Outcome;
use crate::preflight::unfinished_command;
use crate::present::Present;
use crate::session::AgentPlace;
use landfall_core::action::{Action, Claims};
use landfall_core::event::Phase;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::Node;
use landfall_core::journal::{DONE, INSTALL, PUSH, RunStart};
use landfall_core::layout;
use landfall_core::name::NodeName;
use landfall_core::plan::key::{StepKind, keeps_blobs};
use landfall_core::plan::pending::undo_step;
use landfall_core::plan::{Plan, Stage, Step};
use landfall_core::preflight;
use landfall_core::spec::Desired;
use landfall_core::wire::Request;
use std::collections::{BTreeMap, BTreeSet};

/// Seconds for a record in the journal, or for removing some hundred megabytes.
pub const DEADLINE_S: u64 = 120;

/// Makes the step that journals, before the first blob comes, that a node keeps blobs.
pub fn keep_step(node: &NodeName) -> Step {
    let claims = Claims {
        paths: vec![layout::BLOBS_DIR.into()],
        ..Claims::default()
    };
    let id = StepKind::KeepBlobs.on(node);
    Step::new(id, Stage::Prepare, node.clone(), DEADLINE_S, Action::Claim { claims })
}

/// See [`crate::run::push_remove`].
pub fn remove(desired: &Desired, ctx: &RunContext, emitter: &EventEmitter) -> Outcome {
    let mut outcome = Outcome::default();
    let members: Vec<&Node> = desired.inventory.members().collect();
    let (sessions, absent) = emitter.phase(Phase::Connect, || {
        fleet::connect(&members, AgentPlace::Member, ctx, emitter)
    });
    outcome.absent = absent;
    if !sessions.is_empty()
        && let Err(errors) = remove_from(desired, &sessions, ctx, emitter, &mut outcome)
    {
        outcome.errors.extend(errors);
    }
    fleet::remove_unused_state(&sessions);
    fleet::close(&sessions);
    outcome
}

/// lease · read the journals · begin the run · undo · end the run
fn remove_from(
    desired: &Desired,
    sessions: &Sessions,
    ctx: &RunContext,
    emitter: &EventEmitter,
    outcome: &mut Outcome,
) -> Result<(), Vec<Diagnosis>> {
    fleet::lease(sessions, PUSH, &desired.spec.name, ctx, emitter)?;
    outcome.run = Some(ctx.run.clone());
    let present = Present::read(sessions)?;
    outcome.record.clone_from(&present.record);
    refuse_collision(&present, sessions, outcome)?;
    let keepers = present.owned.iter().filter(|(_, own)| keeps_blobs(own));
    let plan = Plan {
        steps: keepers.map(|(name, _)| remove_step(name)).collect(),
        ..Plan::default()
    };
    emitter.planned(outcome.run.as_ref(), plan.steps.len());
    outcome.plan = Some(plan.clone());
    if plan.steps.is_empty() {
        return Ok(());
    }
    let start = RunStart {
        continues: present.history.unfinished().map(|run| run.number),
        ..ctx.start(present.history.next_number(), PUSH, &desired.spec.name)
    };
    let request = Request::StartRun { start, record: None };
    fleet::ask_all::<()>(sessions, |_| request.clone())?;
    let executor = Executor {
        sessions,
        owned: &present.owned,
        supply: None,
        relay: &BTreeMap::new(),
        journals: &[],
        on_done: &|_| Ok(()),
        cluster: &Cluster::default(),
        cancel: &ctx.cancel,
        emitter,
    };
    let executed = emitter.phase(Phase::Undo, || executor.run(&plan, &BTreeSet::new()));
    outcome.changes = executed.changes;
    outcome.interrupted = ctx.cancel.is_cancelled();
    outcome.errors.extend(executed.errors);
    outcome.residue.extend(executed.residue);
    if outcome.errors.is_empty() && outcome.residue.is_empty() && !outcome.interrupted {
        fleet::end_run(sessions, DONE)?;
    }
    Ok(())
}

/// A run that has begun is finished by its own command. Two runs may never have one number: enough members must be here.
fn refuse_collision(present: &Present, sessions: &Sessions, outcome: &Outcome) -> Result<(), Vec<Diagnosis>> {
    if let Some(diagnosis) = unfinished_command(present) {
        return Err(vec![diagnosis]);
    }
    if present
        .history
        .unfinished()
        .is_some_and(|run| run.start.command == INSTALL)
    {
        let what = "an install has not finished, and it uses the blobs";
        return Err(vec![Diagnosis::new(Code::Preflight, what).next("landfall install")]);
    }
    let here: Vec<&NodeName> = sessions.keys().collect();
    match &present.record {
        Some(record) => match preflight::too_few_control_planes(record, &here) {
            Some(finding) => Err(vec![finding.into()]),
            None => Ok(()),
        },
        None if outcome.absent.is_empty() => Ok(()),
        None => {
            let what = "not all machines are here, and without a cluster each of them counts";
            Err(vec![Diagnosis::new(Code::MemberAbsent, what)])
        }
    }
}

fn remove_step(node: &NodeName) -> Step {
    let step = StepKind::KeepBlobs.on(node);
    undo_step(StepKind::TakeBack, Stage::Undo, node.clone(), &step, DEADLINE_S)
}
