//! Taking back entries of the journal. Every entry's undo is journalled and may run any number of times; what cannot be taken back is
//! named and the rest goes on. The order is the plan's (`landfall_core::plan::undo`).

use crate::actions::{images, kubeconfig, system, unit};
use crate::agent::{Agent, Emit};
use crate::blobs;
use crate::child::Job;
use crate::claims::{self, Left, Removal};
use crate::error::{AgentError, Result, io_at};
use crate::journal_store::Durability;
use crate::{files, firewall};
use landfall_core::action::{Claims, Undo};
use landfall_core::event::EventKind;
use landfall_core::journal::{Entry, EntryState, Record};
use landfall_core::layout;
use landfall_core::name::{Digest, StepId};
use landfall_core::wire::UndoOutcome;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Makes room on the disk for an undo, before its first record: drops all blobs, which no step that is taken back needs, and gives the
/// journal's reserve back.
pub fn make_room(agent: &Agent) -> Result<()> {
    agent.holder()?;
    // A blob that cannot be removed is reported when the state directory is removed.
    let _ = blobs::drop_all(agent);
    agent.journal(|journal| journal.release_reserve())
}

/// Takes back the newest entry of one step alone, with everything that belongs to it.
pub fn undo_newest(agent: &Agent, step: &StepId, emit: Emit) -> Result<UndoOutcome> {
    let entry = agent.journal(|journal| Ok(journal.own().newest(step).cloned()))?;
    let Some(entry) = entry else {
        return Ok(UndoOutcome {
            undone: 0,
            residue: vec![],
        });
    };
    let residue = take_back_entry(agent, &entry, emit)?;
    if let Undo::RestorePath { path, .. } = &entry.undo
        && path.starts_with(layout::UNIT_DIR)
        && let Some(unit) = path.file_name().and_then(|name| name.to_str())
    {
        forget_units(agent, &[unit])?;
    }
    Ok(UndoOutcome {
        undone: usize::from(residue.is_empty()),
        residue,
    })
}

/// Marks the newest entries of these steps as going and stops the daemons that they claim: a daemon that keeps running would make again what an
/// earlier entry's undo removes. What does not stop shows as residue of the entry that claims it.
pub fn begin(agent: &Agent, steps: &[StepId]) -> Result<()> {
    let entries = mark(agent, steps)?;
    let all: Vec<&Claims> = entries.iter().filter_map(|e| claims_of(&e.undo)).collect();
    if !all.is_empty() {
        claims::quiesce(agent, &all);
    }
    Ok(())
}

/// Marks the newest entries of these steps as going, with one write to disk, and returns them.
pub fn mark(agent: &Agent, steps: &[StepId]) -> Result<Vec<Entry>> {
    agent.holder()?;
    agent.journal(|journal| journal.release_reserve())?;
    let own = agent.ownership()?;
    let mut seen = BTreeSet::new();
    let entries: Vec<Entry> = steps
        .iter()
        .filter(|step| seen.insert(*step))
        .filter_map(|step| own.newest(step))
        // What an earlier undo has named stays so until its turn comes.
        .filter(|entry| !entry.undo.is_lost())
        .cloned()
        .collect();
    let records: Vec<Record> = entries
        .iter()
        .map(|e| Record::UndoStarted { step: e.step.clone() })
        .collect();
    if !records.is_empty() {
        agent.journal(|journal| journal.append(&records, Durability::OnDisk))?;
    }
    Ok(entries)
}

/// Takes back the newest entry of a step. A superseded one only leaves the journal: an older entry puts the same thing back. Returns a
/// line for each thing that stays.
pub fn take_back(agent: &Agent, step: &StepId, superseded: bool, emit: Emit) -> Result<Vec<String>> {
    let entry = agent.journal(|journal| Ok(journal.own().newest(step).cloned()))?;
    let Some(mut entry) = entry else { return Ok(vec![]) };
    if superseded {
        entry.undo = Undo::Nothing;
    }
    take_back_entry(agent, &entry, emit)
}

fn take_back_entry(agent: &Agent, entry: &Entry, emit: Emit) -> Result<Vec<String>> {
    agent.holder()?;
    if agent.children.is_stopping() {
        return Err(AgentError::Stopped);
    }
    let step = entry.step.clone();
    if entry.undo.is_lost() && entry.state == EntryState::Residue {
        return forget_lost(agent, step, emit);
    }
    if entry.state != EntryState::Undoing {
        agent.record(Record::UndoStarted { step: step.clone() }, Durability::OnDisk)?;
    }
    let began = Instant::now();
    let residue = match act(agent, &entry.undo, emit) {
        Err(AgentError::Stopped) => return Err(AgentError::Stopped),
        Err(error) => vec![error.line()],
        // The undo was interrupted by the end of the session: that is no residue.
        Ok(residue) if !residue.is_empty() && agent.children.is_stopping() => return Err(AgentError::Stopped),
        Ok(residue) => residue,
    };
    if residue.is_empty() {
        agent.record(Record::Undone { step: step.clone() }, Durability::Buffered)?;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        emit(EventKind::Undone { step, took_ms });
        return Ok(vec![]);
    }
    let why = residue.join("; ");
    let failed = Record::UndoFailed {
        step: step.clone(),
        why: why.clone(),
    };
    agent.record(failed, Durability::Buffered)?;
    emit(EventKind::Residue {
        step: step.clone(),
        text: why,
    });
    Ok(residue.iter().map(|line| format!("{step}: {line}")).collect())
}

/// Drops an entry whose undo is lost and that an earlier undo has named: the user was asked to look at what is left of it.
fn forget_lost(agent: &Agent, step: StepId, emit: Emit) -> Result<Vec<String>> {
    let records = [
        Record::UndoStarted { step: step.clone() },
        Record::Undone { step: step.clone() },
    ];
    agent.journal(|journal| journal.append(&records, Durability::OnDisk))?;
    emit(EventKind::Undone { step, took_ms: 0 });
    Ok(vec![])
}

/// What a user is told of an entry whose undo is lost.
fn lost_text(line: usize, seen: &str) -> String {
    let read = if seen.is_empty() {
        String::new()
    } else {
        format!("; of the line can be read: {seen}")
    };
    format!(
        "line {line} of the journal was damaged, and with it how this is taken back: look what is left of it, the next undo counts it as gone{read}"
    )
}

fn claims_of(undo: &Undo) -> Option<&Claims> {
    match undo {
        Undo::RemoveClaims { claims, .. } => Some(claims),
        _ => None,
    }
}

/// Says whether containerd's own state is being removed, with all images in it.
fn containerd_goes(agent: &Agent) -> Result<bool> {
    let claims_state = |claims: &Claims| claims.paths.iter().any(|p| p.starts_with(layout::CONTAINERD_DIR));
    let goes = |e: &Entry| e.state == EntryState::Undoing && claims_of(&e.undo).is_some_and(claims_state);
    agent.journal(|journal| Ok(journal.own().entries.iter().any(goes)))
}

/// Makes systemd forget units whose files were removed.
fn forget_units(agent: &Agent, names: &[&str]) -> Result<()> {
    agent
        .children
        .run(&agent.host, Job::quick(&["systemctl", "daemon-reload"], 60))?;
    let argv = [&["systemctl", "reset-failed", "--"], names].concat();
    // systemd reports an error for units that it no longer knows; those need no reset.
    agent.children.run_any(&agent.host, Job::quick(&argv, 10)).map(|_| ())
}

fn act(agent: &Agent, undo: &Undo, emit: Emit) -> Result<Vec<String>> {
    let host = &agent.host;
    let left = match undo {
        // Objects and effects are off the node: the engine takes them back.
        Undo::Nothing | Undo::RestoreObjects { .. } => Left::default(),
        Undo::Lost { line, seen } => return Ok(vec![lost_text(*line, seen)]),
        Undo::RestorePath { path, prior } => {
            files::restore(&host.at(path), prior, &host.state("prior"))?;
            Left::default()
        }
        Undo::RemoveDirectory { paths } => {
            remove_directories(agent, paths, emit)?;
            Left::default()
        }
        Undo::RemoveHostsLines { lines } => {
            system::remove_hosts_lines(host, lines)?;
            Left::default()
        }
        Undo::RestoreSysctls { settings, set } => {
            claims::restore_settings(agent, settings, set, &claims::of_journal(agent)?)
        }
        Undo::KubeconfigServer {
            path,
            ours,
            prior,
            restart,
        } => {
            kubeconfig::replace_server(agent, path, ours, prior, restart.as_deref())?;
            Left::default()
        }
        Undo::UnloadModules { modules } => {
            // Mounts and links of older entries may hold them yet: what stays is looked at again, and named, when all has gone.
            claims::unload_modules(host, modules);
            Left::default()
        }
        Undo::Firewall { prior } if prior.accept.is_empty() => firewall::remove(agent, prior)?,
        Undo::Firewall { prior } => {
            firewall::set(agent, prior)?;
            Left::default()
        }
        Undo::RestoreUnit {
            name,
            was_enabled,
            was_active,
        } => {
            if *was_active {
                unit::restore_running(agent, name, *was_enabled)?;
            } else {
                unit::restore_stopped(agent, name, *was_enabled)?;
            }
            Left::default()
        }
        Undo::RemoveImages { references } => {
            if !containerd_goes(agent)? {
                images::remove(agent, references)?;
            }
            Left::default()
        }
        Undo::RemoveClaims {
            claims,
            sysctls,
            set,
            absent_bases,
            absent_parents,
            ..
        } => {
            let removal = Removal {
                claims,
                sysctls,
                set,
                absent_bases,
            };
            let left = claims::remove(agent, removal)?;
            for parent in absent_parents {
                // Not empty: it holds what others put there, or what an older entry made.
                let _ = std::fs::remove_dir(host.at(parent));
            }
            left
        }
    };
    for text in left.notes {
        emit(EventKind::Note { text });
    }
    Ok(left.residue)
}

/// Ends an undo on this node: systemd forgets unit files that went, and modules go that nobody uses any more. What stays is a note.
pub fn finish(agent: &Agent, units: &[String], modules: &[String], emit: Emit) -> Result<()> {
    agent.holder()?;
    for text in claims::unload_modules(&agent.host, modules) {
        emit(EventKind::Note { text });
    }
    let units: Vec<&str> = units.iter().map(String::as_str).collect();
    if units.is_empty() {
        Ok(())
    } else {
        forget_units(agent, &units)
    }
}

/// Removes directories that are empty. One that is not empty holds files that landfall did not make, and stays.
fn remove_directories(agent: &Agent, paths: &[PathBuf], emit: Emit) -> Result<()> {
    for path in paths {
        let real: &Path = &agent.host.at(path);
        match rustix::fs::rmdir(real) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                let text = format!(
                    "the directory {} stays: it holds what landfall did not make",
                    path.display()
                );
                emit(EventKind::Note { text });
                return Ok(());
            }
            Err(errno) => return Err(io_at("removing", real)(errno.into())),
        }
    }
    Ok(())
}

/// Joins the recipe of an apply that was interrupted with that of its repetition: what was there before the first attempt counts.
pub fn merge_objects(older: &Undo, newer: &Undo) -> Undo {
    let (
        Undo::RestoreObjects { prior, absent },
        Undo::RestoreObjects {
            prior: new_prior,
            absent: new_absent,
        },
    ) = (older, newer)
    else {
        return newer.clone();
    };
    let place = |object: &serde_json::Value| {
        let metadata = &object["metadata"];
        [
            &object["apiVersion"],
            &object["kind"],
            &metadata["namespace"],
            &metadata["name"],
        ]
        .map(|v| v.as_str().map(str::to_owned))
    };
    let known: Vec<_> = prior.iter().chain(absent).map(place).collect();
    let add = |list: &[serde_json::Value], new: &[serde_json::Value]| {
        list.iter()
            .chain(new.iter().filter(|o| !known.contains(&place(o))))
            .cloned()
            .collect()
    };
    Undo::RestoreObjects {
        prior: add(prior, new_prior),
        absent: add(absent, new_absent),
    }
}

/// Journals the intent of a step that the operator carries out.
pub fn record_cluster_intent(agent: &Agent, step: &StepId, action: Digest, undo: Undo) -> Result<()> {
    let entry = agent.journal(|journal| Ok(journal.own().newest(step).cloned()))?;
    let mut records = Vec::new();
    let undo = match entry {
        Some(entry) if entry.state != EntryState::Owned => {
            if entry.state == EntryState::Intended && entry.action == action {
                return Ok(());
            }
            // Nothing is taken back here: the new intent inherits what the old one would restore, and is written with its end.
            let step = step.clone();
            records.extend([Record::UndoStarted { step: step.clone() }, Record::Undone { step }]);
            merge_objects(&entry.undo, &undo)
        }
        _ => undo,
    };
    agent.record_intent(records, |run| Record::Intent {
        run,
        step: step.clone(),
        action,
        undo,
        wanted: None,
    })
}
