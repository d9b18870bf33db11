//! The one interpreter of actions: look, record how to take it back, act, look again, record that it is done.
//!
//! ```text
//! entry intended, undoing or residue? ── undo it first
//! recorded as ours with this very action, and as wanted? ── nothing to do, no record
//! wanted state is there though not ours? ── nothing to do, no record (it is not ours to remove later)
//! else ── Intent (fsync) ── act ── look again ── on disk ── Done        a failure adds Failed; an interruption adds nothing
//! ```

pub mod observe;

use crate::actions::{Work, file, images, kubeconfig, on_disk, run, system, unit};
use crate::agent::{Agent, Emit};
use crate::claims;
use crate::error::{AgentError, Result};
use crate::journal_store::Durability;
use crate::{firewall, undo};
use landfall_core::action::{Action, BootstrapGoal, Undo};
use landfall_core::explain::Diagnosis;
use landfall_core::journal::{Entry, EntryState, FileStamp, Record};
use landfall_core::observe::{Verdict, judge};
use landfall_core::plan::Step;
use landfall_core::wire::StepOutcome;
use std::time::{Duration, Instant};

/// Judges a step by the journal and by what is there. Reads only.
pub fn check(agent: &Agent, step: &Step) -> Result<Verdict> {
    let entry = newest(agent, step)?;
    let seen = observe::observe(agent, &step.action, entry.as_ref())?;
    Ok(judge(&step.action, entry.as_ref(), &seen))
}

/// Runs one step. Blocks until its deadline at most, and after that until what programs wrote is on disk.
pub fn run_step(agent: &Agent, step: &Step, emit: Emit) -> std::result::Result<StepOutcome, Diagnosis> {
    let outcome = if step.action.is_undo() {
        take_back(agent, step, emit)
    } else {
        perform(agent, step, emit).map(|changed| StepOutcome {
            changed,
            residue: vec![],
        })
    };
    outcome.map_err(|error| error.diagnosis().at(&step.id))
}

/// Runs a step of an undo: its records are those of the undo itself.
fn take_back(agent: &Agent, step: &Step, emit: Emit) -> Result<StepOutcome> {
    let residue = match &step.action {
        Action::MarkUndo { steps } => undo::mark(agent, steps).map(|_| vec![])?,
        Action::BeginUndo { steps } => undo::begin(agent, steps).map(|()| vec![])?,
        Action::TakeBack { step, superseded } => undo::take_back(agent, step, *superseded, emit)?,
        Action::FinishUndo { units, modules } => undo::finish(agent, units, modules, emit).map(|()| vec![])?,
        _ => return Err(not_of_a_node()),
    };
    let changed = residue.is_empty() && matches!(step.action, Action::TakeBack { .. });
    Ok(StepOutcome { changed, residue })
}

fn not_of_a_node() -> AgentError {
    AgentError::Refused("this step is not one that a node carries out".to_owned())
}

fn perform(agent: &Agent, step: &Step, emit: Emit) -> Result<bool> {
    agent.holder()?;
    let deadline = Instant::now() + Duration::from_secs(step.deadline_s);
    let mut entry = newest(agent, step)?;
    if entry.as_ref().is_some_and(|e| e.state != EntryState::Owned) {
        let undone = undo::undo_newest(agent, &step.id, emit)?;
        if !undone.residue.is_empty() {
            return Err(AgentError::Residue(undone.residue));
        }
        entry = newest(agent, step)?;
    }
    let seen = observe::observe(agent, &step.action, entry.as_ref())?;
    let work = Work {
        agent,
        step,
        owned: entry.as_ref(),
        seen: &seen,
        deadline,
        emit,
    };
    if judge(&step.action, entry.as_ref(), &seen).is_satisfied() {
        consume_blobs(agent, &step.action);
        return Ok(false);
    }
    let undo = undo_for(&work)?;
    let action = step.action.identity();
    let wanted = step.action.wanted();
    agent.record_intent(vec![], |run| Record::Intent {
        run,
        step: step.id.clone(),
        action,
        undo,
        wanted,
    })?;
    let acted = apply(&work).and_then(|()| match holds_after(&work)? {
        true => on_disk::put(&agent.host, &step.action),
        false => Err(AgentError::NotSatisfied(format!(
            "the step ran, but its result is not there: {}",
            step.action.text()
        ))),
    });
    match acted {
        Ok(()) => {
            let record = Record::Done {
                step: step.id.clone(),
                stamp: stamp(&work),
            };
            agent.record(record, durability_of_done(&step.action))?;
            consume_blobs(agent, &step.action);
            Ok(true)
        }
        // The intent stands alone: that says that the step was interrupted.
        Err(AgentError::Stopped) => Err(AgentError::Stopped),
        Err(error) => {
            let why = crate::redact::Redactor::text(&error.to_string());
            agent.record(
                Record::Failed {
                    step: step.id.clone(),
                    why,
                },
                Durability::Buffered,
            )?;
            Err(error)
        }
    }
}

fn newest(agent: &Agent, step: &Step) -> Result<Option<Entry>> {
    agent.journal(|journal| Ok(journal.own().newest(&step.id).cloned()))
}

/// Losing the record of a quick step costs repeating it; of a slow one, minutes.
fn durability_of_done(action: &Action) -> Durability {
    match action {
        Action::Run { .. }
        | Action::Bootstrap { .. }
        | Action::Images { .. }
        | Action::Unit { .. }
        | Action::StopUnit { .. }
        | Action::Claim { .. } => Durability::OnDisk,
        _ => Durability::Buffered,
    }
}

fn consume_blobs(agent: &Agent, action: &Action) {
    match action {
        Action::Binary { blob, .. } => agent.consume([*blob]),
        Action::Images { images } => agent.consume(images.iter().flat_map(|i| i.blobs.iter().copied())),
        _ => {}
    }
}

fn undo_for(work: &Work) -> Result<Undo> {
    let (agent, host) = (work.agent, &work.agent.host);
    Ok(match &work.step.action {
        Action::Claim { claims } => claims::undo_for(agent, claims, &[])?,
        Action::Run { claims, effects, .. } | Action::Bootstrap { claims, effects, .. } => {
            claims::undo_for(agent, claims, effects)?
        }
        Action::Directory { path, .. } => Undo::RemoveDirectory {
            paths: file::absent_directories(host, path)?,
        },
        Action::File { path, .. } | Action::Binary { path, .. } => file::restore_of(host, path)?,
        Action::HostsLines { lines } => system::undo_for_hosts(host, lines)?,
        Action::Sysctls { settings } => claims::undo_for_settings(host, settings),
        Action::KernelFeatures { features } => Undo::UnloadModules {
            modules: system::absent_modules(host, features),
        },
        Action::Firewall { openings } => firewall::undo_for(work, openings),
        Action::Unit { name, .. } | Action::StopUnit { name } => unit::undo_for(agent, name)?,
        Action::Images { .. } => Undo::RemoveImages {
            references: images::seen_missing(work).to_vec(),
        },
        Action::KubeconfigServer {
            path,
            from,
            to,
            restart,
        } => Undo::KubeconfigServer {
            path: path.clone(),
            ours: to.clone(),
            prior: from.clone(),
            restart: restart.clone(),
        },
        Action::Apply { .. }
        | Action::Delete { .. }
        | Action::Await { .. }
        | Action::MarkUndo { .. }
        | Action::BeginUndo { .. }
        | Action::TakeBack { .. }
        | Action::FinishUndo { .. }
        | Action::LeaveCluster { .. }
        | Action::RestoreObjects { .. } => Undo::Nothing,
    })
}

fn apply(work: &Work) -> Result<()> {
    let host = &work.agent.host;
    match &work.step.action {
        Action::Claim { .. } => Ok(()),
        Action::Directory { path, mode } => file::make_directory(host, path, *mode),
        Action::File { path, mode, content } => file::write_content(work, path, *mode, content),
        Action::Binary {
            path,
            blob,
            digest,
            size_bytes,
        } => file::install(host, path, blob, digest, *size_bytes),
        Action::HostsLines { lines } => system::add_hosts_lines(host, lines),
        Action::Sysctls { settings } => claims::write_settings(host, settings),
        Action::KernelFeatures { features } => system::load_features(work.agent, features),
        Action::Firewall { openings } if openings.accept.is_empty() => {
            no_residue(firewall::remove(work.agent, openings)?)
        }
        Action::Firewall { openings } => firewall::set(work.agent, openings),
        Action::Unit { name, start, .. } => unit::bring_up(work, name, *start),
        Action::StopUnit { name } => unit::restore_stopped(work.agent, name, false),
        Action::Images { images } => images::import(work, images),
        Action::Run { argv, env, stdout, .. } => run::run(work, argv, env, stdout.as_deref()),
        Action::Bootstrap {
            goal: BootstrapGoal::ControlPlane,
            argv,
            ..
        } => run::join_etcd(work, argv),
        Action::Bootstrap { argv, .. } => run::run(work, argv, &[], None),
        Action::KubeconfigServer {
            path,
            from,
            to,
            restart,
        } => kubeconfig::replace_server(work.agent, path, from, to, restart.as_deref()),
        Action::Apply { .. }
        | Action::Delete { .. }
        | Action::Await { .. }
        | Action::MarkUndo { .. }
        | Action::BeginUndo { .. }
        | Action::TakeBack { .. }
        | Action::FinishUndo { .. }
        | Action::LeaveCluster { .. }
        | Action::RestoreObjects { .. } => Err(not_of_a_node()),
    }
}

/// What stays although it is to go is an error of a step that is no undo.
fn no_residue(left: claims::Left) -> Result<()> {
    match left.residue.is_empty() {
        true => Ok(()),
        false => Err(AgentError::Residue(left.residue)),
    }
}

/// The second look. For what is judged by its record, the record is only written after this: there the result itself is looked at.
fn holds_after(work: &Work) -> Result<bool> {
    let host = &work.agent.host;
    match &work.step.action {
        Action::Claim { .. } => Ok(true),
        Action::Run { creates, .. } | Action::Bootstrap { creates, .. } => {
            Ok(creates.iter().all(|p| host.at(p).exists()))
        }
        Action::Unit { name, start, .. } => unit::is_up(work.agent, name, *start),
        // The digest was compared while it was written; what remains to be seen is that it is there.
        Action::Binary { path, size_bytes, .. } => {
            Ok(crate::files::stamp(&host.at(path)).is_some_and(|s| s.size_bytes == *size_bytes))
        }
        Action::File { path, mode, .. } => Ok(crate::files::has_mode(&host.at(path), *mode)),
        action => {
            // As it will be recorded when this look is good.
            let done = newest(work.agent, work.step)?.map(|entry| Entry {
                state: EntryState::Owned,
                ..entry
            });
            let seen = observe::observe(work.agent, action, done.as_ref())?;
            Ok(judge(action, done.as_ref(), &seen).is_satisfied())
        }
    }
}

fn stamp(work: &Work) -> Option<FileStamp> {
    match &work.step.action {
        Action::File { path, .. } | Action::Binary { path, .. } => crate::files::stamp(&work.agent.host.at(path)),
        _ => None,
    }
}
