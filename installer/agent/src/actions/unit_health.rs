//! How units are: whether they run, and the last error in the log of those that do not.

use super::unit::{self, UnitState};
use crate::agent::Agent;
use crate::child::Job;
use crate::error::Result;
use crate::redact::Redactor;
use landfall_core::drop_in;
use landfall_core::health::{UnitDropIn, UnitHealth};
use std::path::Path;
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

/// Returns the drop-ins that systemd reads for these units. landfall makes none. Of those for all services only such count as take something
/// from daemons.
pub fn drop_ins(agent: &Agent, names: &[&str]) -> Result<Vec<UnitDropIn>> {
    if names.is_empty() {
        return Ok(vec![]);
    }
    let argv = [&["systemctl", "show", "--property=Id,DropInPaths", "--"][..], names].concat();
    let text = agent.children.run(&agent.host, Job::quick(&argv, 30))?.text();
    let mut found = drop_ins_in(&text);
    found.retain(|drop_in| {
        let folder = Path::new(&drop_in.file).parent().and_then(Path::file_name);
        let is_for_all = folder.is_some_and(|folder| folder == drop_in::ALL_SERVICES);
        !is_for_all || drop_in::harmful_line(&crate::files::text(agent.host.at(&drop_in.file))).is_some()
    });
    Ok(found)
}

/// Reads systemd's answer: one block of lines for each unit.
fn drop_ins_in(text: &str) -> Vec<UnitDropIn> {
    let blocks = text.split("\n\n").map(|block| {
        let value = |key: &str| {
            block
                .lines()
                .find_map(|line| line.strip_prefix(key))
                .unwrap_or_default()
        };
        (value("Id="), value("DropInPaths="))
    });
    let of_unit = |(unit, paths): (&str, &str)| -> Vec<UnitDropIn> {
        let files = paths.split_whitespace().map(str::to_owned);
        let unit = unit.to_owned();
        files
            .map(|file| UnitDropIn {
                unit: unit.clone(),
                file,
            })
            .collect()
    };
    blocks.flat_map(of_unit).collect()
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
    fn drop_ins_of_others_are_told_by_unit() {
        let root = tempfile::tempdir().unwrap();
        let host = crate::host::Host::under(root.path());
        let write = |path: &str, text: &str| {
            std::fs::create_dir_all(host.at(path).parent().unwrap()).unwrap();
            std::fs::write(host.at(path), text).unwrap();
        };
        write(
            "/usr/lib/systemd/system/service.d/10-timeout-abort.conf",
            "[Service]\nTimeoutStopFailureMode=abort\n",
        );
        write(
            "/etc/systemd/system/service.d/50-harden.conf",
            "[Service]\nProtectSystem=full\n",
        );
        let all =
            "/usr/lib/systemd/system/service.d/10-timeout-abort.conf /etc/systemd/system/service.d/50-harden.conf";
        let own = "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf";
        write(
            "/usr/local/bin/systemctl",
            &format!(
                "#!/bin/sh\nprintf '%s\\n' Id=kubelet.service 'DropInPaths={all} {own}' '' Id=containerd.service DropInPaths=\n"
            ),
        );
        let program = host.at("/usr/local/bin/systemctl");
        std::fs::set_permissions(program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let found = drop_ins(&Agent::new(host.clone()), &["kubelet.service", "containerd.service"]).unwrap();
        let told: Vec<String> = found.iter().map(UnitDropIn::text).collect();
        assert_eq!(
            told,
            [
                "kubelet.service is changed by /etc/systemd/system/service.d/50-harden.conf, which is not landfall's",
                "kubelet.service is changed by /etc/systemd/system/kubelet.service.d/10-kubeadm.conf, which is not landfall's",
            ]
        );
        assert_eq!(drop_ins(&Agent::new(host), &[]).unwrap(), vec![]);
    }

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
