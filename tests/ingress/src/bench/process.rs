//! CPU time and memory of a process and its children, as `/proc` has them.

use std::fs;

/// A process and those below it.
#[derive(Debug, Clone)]
pub(super) struct Tree(Vec<u32>);

impl Tree {
    pub(super) fn of(root: u32) -> Self {
        let mut all = vec![root];
        let mut next = 0;
        while let Some(parent) = all.get(next).copied() {
            let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            next += 1;
        }
        Self(all)
    }

    /// User and system time of all in microseconds; the kernel counts in hundredths of a second here.
    pub(super) fn cpu_us(&self) -> f64 {
        let ticks = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // The name in parentheses may have spaces; user and system time are fields 14 and 15.
            let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
            after
                .split_whitespace()
                .skip(11)
                .take(2)
                .filter_map(|n| n.parse::<f64>().ok())
                .sum::<f64>()
        };
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        self.0.iter().map(ticks).sum::<f64>() / per_second * 1e6
    }

    /// Resident memory of all in MiB: now, and at its highest.
    pub(super) fn memory_mib(&self) -> (f64, f64) {
        let read = |name: &str| {
            let of = |pid: &u32| {
                let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
                let line = status
                    .lines()
                    .find_map(|line| line.strip_prefix(name))
                    .unwrap_or_default();
                line.split_whitespace()
                    .next()
                    .and_then(|kib| kib.parse::<f64>().ok())
                    .unwrap_or_default()
            };
            self.0.iter().map(of).sum::<f64>() / 1024.0
        };
        (read("VmRSS:"), read("VmHWM:"))
    }
}
