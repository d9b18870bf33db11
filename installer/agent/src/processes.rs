//! Finding processes and ending them.

use crate::files;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
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

/// Kills the processes that `find` finds. One that ends meanwhile is not mistaken for another that gets its id: the signal goes to a handle, which is
/// of the process that had the id when it was opened, and only if the id is found once more after that. (Seen in the simulation, 2026-11-30: a
/// child of another agent was killed in the place of an orphan.) Returns what was found first.
pub fn kill(find: impl Fn() -> Vec<i32>) -> BTreeSet<i32> {
    let found: BTreeSet<i32> = find().into_iter().collect();
    if found.is_empty() {
        return found;
    }
    let open = |pid: Pid| (pid, pidfd_open(pid, PidfdFlags::empty()));
    let handles: Vec<_> = found.iter().copied().filter_map(Pid::from_raw).map(open).collect();
    let again = find();
    for (pid, handle) in handles {
        if !again.contains(&pid.as_raw_nonzero().get()) {
            continue;
        }
        // What fails has exited already.
        let _ = match handle {
            Ok(handle) => pidfd_send_signal(handle, Signal::KILL),
            // Linux before 5.3.
            Err(Errno::NOSYS) => kill_process(pid, Signal::KILL),
            Err(errno) => Err(errno),
        };
    }
    found
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
    let find = || -> Vec<i32> {
        let mut pids = find();
        pids.retain(|pid| *pid != me && !is_zombie(*pid));
        pids
    };
    loop {
        let pids = kill(find);
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
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A zombie holds nothing any more; its parent has to collect it.
fn is_zombie(pid: i32) -> bool {
    let stat = files::text(format!("/proc/{pid}/stat"));
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[test]
    fn a_process_that_is_not_found_again_is_left_alone() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id() as i32;
        let looks = Cell::new(0);
        // As if another process had got the id after the first look.
        kill(|| {
            looks.set(looks.get() + 1);
            if looks.get() == 1 { vec![pid] } else { vec![] }
        });
        kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::TERM.as_raw()));
    }
}
