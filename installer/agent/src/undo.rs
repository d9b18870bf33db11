//! Taking back, newest first. Every entry's undo is journalled and may run any number of times; what cannot be taken back is named and
//! the rest goes on.

use crate::agent::{Agent, Say};
use crate::child::Job;
use crate::claims;
use crate::error::{AgentError, Result, io_at};
use crate::files;
use crate::interpret::{images, kubeconfig, system, unit};
use crate::journal_store::Durability;
use landfall_core::action::{Claims, Undo};
use landfall_core::event::EventKind;
use landfall_core::journal::{Entry, EntryState, Record};
use landfall_core::layout;
use landfall_core::name::{RunId, StepId};
use landfall_core::wire::UndoOutcome;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Takes back the newest entry of one step.
pub fn undo_newest(agent: &Agent, step: &StepId, say: Say) -> Result<UndoOutcome> {
    let entry = agent.journal(|journal| Ok(journal.own().newest(step).cloned()))?;
    undo_entries(agent, entry.into_iter().collect(), say)
}

/// Takes back all entries, or those of one run.
pub fn undo_run(agent: &Agent, run: Option<&RunId>, say: Say) -> Result<UndoOutcome> {
    let own = agent.ownership()?;
    let entries = own
        .entries
        .into_iter()
        .rev()
        .filter(|e| run.is_none_or(|run| &e.run == run))
        .collect();
    undo_entries(agent, entries, say)
}

/// Takes back entries in the order given, which is newest first.
fn undo_entries(agent: &Agent, entries: Vec<Entry>, say: Say) -> Result<UndoOutcome> {
    agent.holder()?;
    start(agent, &entries)?;
    // All daemons stop before anything is removed: one that runs on would make again what an earlier entry's undo took away.
    // What does not stop shows as residue of the entry that claims it.
    let all: Vec<&Claims> = entries.iter().filter_map(|e| claims_of(&e.undo)).collect();
    if all.len() > 1 {
        claims::quiesce(agent, &all);
    }
    let mut way = WayBack {
        agent,
        say,
        containerd_goes: all
            .iter()
            .any(|c| c.paths.iter().any(|p| p.starts_with("/var/lib/containerd"))),
        passed_over: BTreeSet::new(),
        failed: BTreeSet::new(),
        outcome: UndoOutcome {
            undone: 0,
            residue: vec![],
        },
    };
    let mut later = Vec::new();
    for entry in &entries {
        if way.one(entry, Turn::First)? == Taken::Later {
            later.push(entry);
        }
    }
    // Directories that held what an older entry has taken away meanwhile.
    way.passed_over.clear();
    for entry in later {
        way.one(entry, Turn::Last)?;
    }
    agent.journal(|journal| journal.append(&[], Durability::OnDisk))?;
    let unit_files: Vec<&str> = entries.iter().filter_map(|e| unit_file(&e.undo)).collect();
    if !unit_files.is_empty() {
        forget_units(agent, &unit_files)?;
    }
    Ok(way.outcome)
}

/// Whether an entry may still be put off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    First,
    Last,
}

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Taken {
    /// It is gone.
    Gone,
    /// Something else has to go first.
    Later,
    /// This stays.
    Stays(Vec<String>),
}

/// One undo of several entries.
struct WayBack<'a> {
    agent: &'a Agent,
    say: Say<'a>,
    containerd_goes: bool,
    /// Steps whose newer entry is still there, so that the older ones have to wait.
    passed_over: BTreeSet<StepId>,
    /// Steps of which something stays.
    failed: BTreeSet<StepId>,
    outcome: UndoOutcome,
}

impl WayBack<'_> {
    fn one(&mut self, entry: &Entry, turn: Turn) -> Result<Taken> {
        let (agent, step) = (self.agent, entry.step.clone());
        if agent.children.is_stopping() {
            return Err(AgentError::Stopped);
        }
        if self.failed.contains(&step) || self.passed_over.contains(&step) {
            return Ok(Taken::Later);
        }
        // The older of two entries of one step: its turn has come.
        let newest = agent.journal(|journal| Ok(journal.own().newest(&step).map(|e| e.state)))?;
        if newest != Some(EntryState::Undoing) {
            agent.record(Record::UndoStarted { step: step.clone() }, Durability::OnDisk)?;
        }
        let began = Instant::now();
        let taken = match take_back(agent, &entry.undo, self.containerd_goes, turn, self.say) {
            Err(AgentError::Stopped) => return Err(AgentError::Stopped),
            Err(error) => Taken::Stays(vec![error.line()]),
            // Half of it was left undone because the session ends: that is no residue.
            Ok(Taken::Stays(_)) if agent.children.is_stopping() => return Err(AgentError::Stopped),
            Ok(taken) => taken,
        };
        match &taken {
            Taken::Gone => {
                agent.record(Record::Undone { step: step.clone() }, Durability::Buffered)?;
                self.outcome.undone += 1;
                let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                (self.say)(EventKind::Undone { step, took_ms });
            }
            Taken::Later => {
                self.passed_over.insert(step);
            }
            Taken::Stays(residue) => {
                let why = residue.join("; ");
                agent.record(
                    Record::UndoFailed {
                        step: step.clone(),
                        why: why.clone(),
                    },
                    Durability::Buffered,
                )?;
                (self.say)(EventKind::Residue {
                    step: step.clone(),
                    text: why,
                });
                self.outcome
                    .residue
                    .extend(residue.iter().map(|line| format!("{step}: {line}")));
                self.failed.insert(step);
            }
        }
        Ok(taken)
    }
}

/// Journals the start of all undos with one write to disk. Losing the end of one later only repeats it.
fn start(agent: &Agent, entries: &[Entry]) -> Result<()> {
    let mut seen = BTreeSet::new();
    let records: Vec<Record> = entries
        .iter()
        .filter(|e| seen.insert(&e.step))
        .map(|e| Record::UndoStarted { step: e.step.clone() })
        .collect();
    if records.is_empty() {
        Ok(())
    } else {
        agent.journal(|journal| journal.append(&records, Durability::OnDisk))
    }
}

fn claims_of(undo: &Undo) -> Option<&Claims> {
    match undo {
        Undo::RemoveClaims { claims, .. } => Some(claims),
        _ => None,
    }
}

fn unit_file(undo: &Undo) -> Option<&str> {
    match undo {
        Undo::RestorePath { path, .. } if path.starts_with(layout::UNIT_DIR) => path.file_name()?.to_str(),
        _ => None,
    }
}

/// systemd remembers units whose files went.
fn forget_units(agent: &Agent, names: &[&str]) -> Result<()> {
    agent
        .children
        .run(&agent.host, Job::quick(&["systemctl", "daemon-reload"], 60))?;
    let argv = [&["systemctl", "reset-failed", "--"], names].concat();
    // Names that systemd has forgotten already make it complain, which is what is wanted.
    agent.children.run_any(&agent.host, Job::quick(&argv, 10)).map(|_| ())
}

fn take_back(agent: &Agent, undo: &Undo, containerd_goes: bool, turn: Turn, say: Say) -> Result<Taken> {
    let host = &agent.host;
    let residue = match undo {
        // Objects and effects are off the node: the engine takes them back.
        Undo::Nothing | Undo::RestoreObjects { .. } => vec![],
        Undo::RestorePath { path, prior } => {
            files::restore(&host.at(path), prior, |digest| host.prior(digest))?;
            vec![]
        }
        Undo::RemoveDirectory { paths } => return remove_directories(agent, paths, turn, say),
        Undo::RemoveHostsLines { lines } => {
            system::remove_hosts_lines(host, lines)?;
            vec![]
        }
        Undo::KubeconfigServer {
            path,
            ours,
            prior,
            restart,
        } => {
            kubeconfig::replace_server(agent, path, ours, prior, restart.as_deref())?;
            vec![]
        }
        Undo::RestoreSysctls { settings } => system::restore_sysctls(host, settings),
        Undo::UnloadModules { modules } => {
            system::unload_modules(host, modules);
            vec![]
        }
        Undo::RestoreUnit {
            name,
            was_enabled,
            was_active,
        } => {
            unit::restore(agent, name, *was_enabled, *was_active)?;
            vec![]
        }
        Undo::RemoveImages { references } => {
            if !containerd_goes {
                images::remove(agent, references)?;
            }
            vec![]
        }
        Undo::RemoveClaims {
            claims,
            sysctls,
            absent_bases,
            absent_parents,
            ..
        } => {
            let residue = claims::remove(agent, claims, sysctls, absent_bases);
            for parent in absent_parents {
                // Not empty: it holds what others put there, or what an older entry made.
                let _ = std::fs::remove_dir(host.at(parent));
            }
            residue
        }
    };
    Ok(if residue.is_empty() {
        Taken::Gone
    } else {
        Taken::Stays(residue)
    })
}

/// Removes directories that are empty. One that holds something when its last turn has come holds what landfall did not make, and stays
/// with it.
fn remove_directories(agent: &Agent, paths: &[PathBuf], turn: Turn, say: Say) -> Result<Taken> {
    for path in paths {
        let real: &Path = &agent.host.at(path);
        match rustix::fs::rmdir(real) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) if turn == Turn::First => return Ok(Taken::Later),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                let text = format!(
                    "the directory {} stays: it holds what landfall did not make",
                    path.display()
                );
                say(EventKind::Note { text });
                return Ok(Taken::Gone);
            }
            Err(errno) => return Err(io_at("removing", real)(errno.into())),
        }
    }
    Ok(Taken::Gone)
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
pub fn record_cluster_intent(
    agent: &Agent,
    step: &StepId,
    action: landfall_core::name::Digest,
    undo: Undo,
) -> Result<()> {
    let entry = agent.journal(|journal| Ok(journal.own().newest(step).cloned()))?;
    let undo = match entry {
        Some(entry) if entry.state != EntryState::Owned => {
            if entry.state == EntryState::Intended && entry.action == action {
                return Ok(());
            }
            // Nothing is taken back here: the new intent inherits what the old one would restore.
            let step = step.clone();
            let records = [Record::UndoStarted { step: step.clone() }, Record::Undone { step }];
            agent.journal(|journal| journal.append(&records, Durability::Buffered))?;
            merge_objects(&entry.undo, &undo)
        }
        _ => undo,
    };
    agent.record_intent(|run| Record::Intent {
        run,
        step: step.clone(),
        action,
        undo,
    })
}
