//! Finding processes and ending them.

use crate::files;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A killed process is gone within milliseconds, unless a disk or network file system holds it.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Returns the ids of all processes.
pub fn all_pids() -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return vec![];
    };
    entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect()
}

/// Returns the ids of the machine's own processes: those of containers that hold whole machines, with agents of their own, are not among
/// them (seen 2026-11-24: an agent beside such machines ended their agents' children).
pub fn own_pids() -> Vec<i32> {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let ours = namespace("self");
    let mut pids = all_pids();
    pids.retain(|pid| namespace(&pid.to_string()) == ours);
    pids
}

/// Kills a process.
pub fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // Already exited.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Returns the processes that run one of these programs, also when its file was replaced or removed since.
pub fn running(programs: &[PathBuf]) -> Vec<i32> {
    if programs.is_empty() {
        return vec![];
    }
    own_pids()
        .into_iter()
        .filter(|pid| {
            let Ok(program) = std::fs::read_link(format!("/proc/{pid}/exe")) else {
                return false;
            };
            let text = program.to_string_lossy();
            let text = text.strip_suffix(" (deleted)").unwrap_or(&text);
            programs.iter().any(|p| p == Path::new(text))
        })
        .collect()
}

/// Kills what `find` finds, again and again until it finds nothing. Returns a line for each process that does not go.
pub fn end(find: impl Fn() -> Vec<i32>) -> Vec<String> {
    let me = std::process::id() as i32;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let pids: BTreeSet<i32> = find()
            .into_iter()
            .filter(|pid| *pid != me && !is_zombie(*pid))
            .collect();
        if pids.is_empty() {
            return vec![];
        }
        if Instant::now() >= deadline {
            return pids
                .iter()
                .map(|pid| {
                    format!(
                        "the process {pid} ({}) does not end",
                        files::text(format!("/proc/{pid}/comm")).trim()
                    )
                })
                .collect();
        }
        for pid in pids {
            kill(pid);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A zombie holds nothing any more; its parent has to collect it.
fn is_zombie(pid: i32) -> bool {
    let stat = files::text(format!("/proc/{pid}/stat"));
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}
