//! How units are: whether they run, and the last error in the log of those that do not.

use super::unit::{self, UnitState};
use crate::agent::Agent;
use crate::child::Job;
use crate::error::Result;
use crate::redact::Redactor;
use landfall_core::health::UnitHealth;
use std::time::Duration;

/// A unit that systemd has started again counts as failing until it has run so long: the kubelet ends within two seconds of a start in vain.
const SETTLED: Duration = Duration::from_secs(15);
/// Lines of a unit's log that are searched for its last error.
const LINES: &str = "--lines=200";

/// Looks at units. Blocks half a minute at most for each that fails.
pub fn of_units(agent: &Agent, names: &[&str]) -> Result<Vec<UnitHealth>> {
    let states = unit::states(&agent.children, &agent.host, names)?;
    let uptime = uptime(agent);
    let health = |(name, state): (String, UnitState)| {
        let since_start = uptime.saturating_sub(state.active_since);
        let is_failing = state.active != "active" || (state.restarts > 0 && since_start < SETTLED);
        let last_error = if is_failing { last_error(agent, &name) } else { None };
        UnitHealth {
            name,
            state: state.active,
            restarts: state.restarts,
            is_failing,
            last_error,
        }
    };
    Ok(states.into_iter().map(health).collect())
}

/// Time since the boot.
fn uptime(agent: &Agent) -> Duration {
    let text = crate::files::text(agent.host.at("/proc/uptime"));
    let seconds = text.split_whitespace().next().and_then(|word| word.parse().ok());
    Duration::try_from_secs_f64(seconds.unwrap_or(f64::from(u32::MAX))).unwrap_or(Duration::MAX)
}

/// Returns the last error in a unit's log since the boot, without secrets: a line that its program calls an error, else the last one. `None`
/// where systemd's journal cannot be read.
pub fn last_error(agent: &Agent, unit: &str) -> Option<String> {
    let argv = [
        "journalctl",
        "--no-pager",
        "--boot",
        "--output=cat",
        LINES,
        "--unit",
        unit,
    ];
    let text = agent.children.run(&agent.host, Job::quick(&argv, 20)).ok()?.text();
    last_error_of(&Redactor::tail(&text))
}

fn last_error_of(text: &str) -> Option<String> {
    /// Longest line that is shown, in characters.
    const LONGEST: usize = 400;
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty()).rev();
    let line = lines().find(|line| is_error(line)).or_else(|| lines().next())?;
    // klog's head is `E1128 12:00:00.000000    1234 file.go:12] `.
    let message = line.split_once("] ").filter(|(head, _)| is_klog(head));
    let message = message.map_or(line, |(_, message)| message);
    Some(message.chars().take(LONGEST).collect())
}

/// Says whether a line begins as klog's errors do.
fn is_klog(head: &str) -> bool {
    let mut bytes = head.bytes();
    bytes.next().is_some_and(|letter| b"EFWI".contains(&letter))
        && bytes.take(4).filter(u8::is_ascii_digit).count() == 4
}

fn is_error(line: &str) -> bool {
    is_klog(line) && line.starts_with(['E', 'F'])
        || ["level=error", "level=fatal", "Error:", "error:", "panic:"]
            .iter()
            .any(|word| line.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_that_a_program_calls_an_error_is_shown() {
        let cases = [
            (
                "I1128 10:00:00.1 9 server.go:1] \"Started\"\n\
                 E1128 10:00:00.2 9 kubelet.go:1] \"Failed to start ContainerManager\" err=\"invalid kernel flag: vm/overcommit_memory, expected value: 1, actual value: 0\"\n\
                 kubelet.service: Main process exited, code=exited, status=1/FAILURE\n",
                "\"Failed to start ContainerManager\" err=\"invalid kernel flag: vm/overcommit_memory, expected value: 1, actual value: 0\"",
            ),
            (
                "time=\"x\" level=fatal msg=\"cannot listen\"\nStopped containerd.\n",
                "time=\"x\" level=fatal msg=\"cannot listen\"",
            ),
            ("nothing that looks so\n", "nothing that looks so"),
        ];
        for (log, wanted) in cases {
            assert_eq!(last_error_of(log).as_deref(), Some(wanted));
        }
        assert_eq!(last_error_of("\n"), None);
    }
}
