//! The question before something is taken back. It names the runs and says plainly what goes, so that nobody confirms more than is meant.

use crate::output::write_stderr;
use crate::render::plural;
use jiff::{Timestamp, tz::TimeZone};
use landfall_core::event::Command;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::name::NodeName;
use std::collections::BTreeMap;
use std::io::IsTerminal;

/// A run that would be taken back, as the journals of the nodes tell it.
#[derive(Debug, Clone)]
pub struct RunSummary {
    /// Its number.
    pub number: u64,
    /// The command.
    pub command: Command,
    /// Who started it: `user@host`.
    pub owner: String,
    /// When it began, in milliseconds since 1970 by that operator's clock.
    pub at_ms: u64,
    /// How many of its steps would be taken back on each node.
    pub steps_per_node: BTreeMap<NodeName, usize>,
    /// Whether it founded the cluster, which would go with it.
    pub removes_cluster: bool,
    /// Nodes that joined in it, which would leave the cluster.
    pub removes_nodes: Vec<NodeName>,
}

/// Says what `command` would take back: `runs`, newest first. `now_ms` is the present, in milliseconds since 1970.
#[cfg_attr(not(test), expect(dead_code, reason = "the engine does not give the runs yet"))]
pub fn what_goes(command: Command, runs: &[RunSummary], now_ms: u64) -> String {
    let mut text = format!("`landfall {command}` takes back {}:\n", plural(runs.len(), "run"));
    for run in runs {
        let steps = plural(run.steps_per_node.values().sum(), "step");
        let on: Vec<String> = run
            .steps_per_node
            .iter()
            .map(|(node, n)| format!("{n} on {node}"))
            .collect();
        text.push_str(&format!(
            "  run {}: `landfall {}` by {}, {}; {steps} ({})\n",
            run.number,
            run.command,
            run.owner,
            moment(run.at_ms, now_ms),
            on.join(", ")
        ));
    }
    let mut nodes: Vec<&str> = runs
        .iter()
        .flat_map(|r| &r.removes_nodes)
        .map(NodeName::as_str)
        .collect();
    nodes.sort_unstable();
    nodes.dedup();
    text.push_str(&match nodes.as_slice() {
        _ if runs.iter().any(|r| r.removes_cluster) => {
            "This removes the WHOLE CLUSTER, with everything stored in it.\n".to_owned()
        }
        [] => "The cluster stays, with all its nodes.\n".to_owned(),
        [node] => format!("This removes node {node} from the cluster. The cluster stays.\n"),
        nodes => format!(
            "This removes the nodes {} from the cluster. The cluster stays.\n",
            nodes.join(", ")
        ),
    });
    text
}

/// A time in UTC, and how long ago it was.
fn moment(at_ms: u64, now_ms: u64) -> String {
    let at = i64::try_from(at_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let Some(at) = at else {
        return "at an unknown time".to_owned();
    };
    let date = at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M UTC");
    const MINUTE_MS: u64 = 60_000;
    let Some(minutes) = now_ms.checked_sub(at_ms).map(|ms| ms / MINUTE_MS) else {
        return format!("{date} (ahead of this machine's clock)");
    };
    let ago = match minutes {
        0 => "just now".to_owned(),
        1..120 => format!("{} ago", plural(minutes as usize, "minute")),
        120..2880 => format!("{} ago", plural(minutes as usize / 60, "hour")),
        _ => format!("{} ago", plural(minutes as usize / 1440, "day")),
    };
    format!("{date} ({ago})")
}

/// Requires typing the cluster's name on a terminal, so that it is not confirmed by accident. `what` ends with a line break.
pub fn confirm(cluster: &str, what: &str) -> Result<(), Diagnosis> {
    if !std::io::stdin().is_terminal() {
        return Err(refused("this needs a confirmation, and standard input is no terminal"));
    }
    write_stderr(&format!("{what}Type the cluster's name ({cluster}) to go on: "));
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    if read.is_ok() && line.trim() == cluster {
        Ok(())
    } else {
        Err(refused("not confirmed; nothing was done"))
    }
}

fn refused(why: &str) -> Diagnosis {
    Diagnosis::new(Code::Usage, why).next("use --yes in scripts")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-28 05:00 UTC.
    const NOW: u64 = 1_795_842_000_000;
    const HOUR: u64 = 3_600_000;

    fn run(number: u64, hours_ago: u64, removes_cluster: bool, removes_nodes: &[&str]) -> RunSummary {
        RunSummary {
            number,
            command: Command::Install,
            owner: "ann@desk".to_owned(),
            at_ms: NOW - hours_ago * HOUR,
            steps_per_node: [("cp-1", 20), ("w-1", 1)]
                .map(|(node, n)| (node.parse().unwrap(), n))
                .into(),
            removes_cluster,
            removes_nodes: removes_nodes.iter().map(|n| n.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn every_kind_of_question() {
        let cases = [
            ("a changed setting", Command::Rollback, vec![run(3, 0, false, &[])]),
            ("one node joined", Command::Rollback, vec![run(3, 1, false, &["w-2"])]),
            (
                "a chain of unfinished runs",
                Command::Rollback,
                vec![run(4, 3, false, &["w-3"]), run(3, 50, false, &["w-2", "w-3"])],
            ),
            ("the founding run", Command::Rollback, vec![run(1, 49, true, &["cp-2"])]),
            (
                "everything",
                Command::Uninstall,
                vec![run(2, 5, false, &[]), run(1, 720, true, &[])],
            ),
        ];
        let text: String = cases
            .iter()
            .map(|(name, command, runs)| format!("# {name}\n{}\n", what_goes(*command, runs, NOW)))
            .collect();
        insta::assert_snapshot!("questions", text);
    }

    #[test]
    fn a_run_that_founded_the_cluster_is_never_harmless() {
        for others in 0..3 {
            let mut runs: Vec<_> = (0..others).map(|n| run(9 - n, n, false, &["w-1"])).collect();
            runs.push(run(1, 100, true, &[]));
            assert!(what_goes(Command::Rollback, &runs, NOW).contains("removes the WHOLE CLUSTER"));
        }
    }

    #[test]
    fn times_are_told_with_their_distance() {
        let at = |ago_ms: u64| moment(NOW - ago_ms, NOW);
        assert_eq!(at(0), "2026-11-28 05:00 UTC (just now)");
        assert_eq!(at(90_000), "2026-11-28 04:58 UTC (1 minute ago)");
        assert_eq!(at(HOUR), "2026-11-28 04:00 UTC (60 minutes ago)");
        assert_eq!(at(47 * HOUR), "2026-11-26 06:00 UTC (47 hours ago)");
        assert_eq!(at(48 * HOUR), "2026-11-26 05:00 UTC (2 days ago)");
        assert_eq!(
            moment(NOW + HOUR, NOW),
            "2026-11-28 06:00 UTC (ahead of this machine's clock)"
        );
        assert_eq!(moment(u64::MAX, NOW), "at an unknown time");
    }
}
