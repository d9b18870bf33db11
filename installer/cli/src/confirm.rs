//! Asks for confirmation before an undo or a repair of journals. The question names what will be removed, so that users know what they
//! confirm.

use crate::output::write_stderr;
use crate::render::{date, lost_lines, plural};
use jiff::Timestamp;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::name::NodeName;
use landfall_engine::run::{Removes, RepairSummary, UndoSummary};
use std::io::IsTerminal;

/// Returns the text that says what would be undone. `now_ms` is the present time, in milliseconds since 1970.
fn undo_text(undo: &UndoSummary, now_ms: u64) -> String {
    let mut text = format!(
        "`landfall {}` undoes {}:\n",
        undo.command.as_str(),
        plural(undo.runs.len(), "run")
    );
    for run in &undo.runs {
        let on: Vec<String> = run.steps.iter().map(|(node, n)| format!("{n} on {node}")).collect();
        text.push_str(&format!(
            "  run {}: `landfall {}` by {}, {}; {} ({})\n",
            run.number,
            run.start.command,
            if run.start.owner.is_empty() {
                "an unknown user"
            } else {
                &run.start.owner
            },
            moment(run.start.at_ms, now_ms),
            plural(run.step_count(), "step"),
            on.join(", ")
        ));
    }
    let list = |nodes: &[NodeName]| nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ");
    text.push_str(&match &undo.removes {
        Removes::Cluster => {
            "This removes the WHOLE CLUSTER, with everything stored in it, and its audit log.\n".to_owned()
        }
        Removes::LeftOver(nodes) => format!(
            "This removes what an earlier cluster left on {}. No other machine belongs to that cluster.\n",
            list(nodes)
        ),
        Removes::Nodes(nodes) => match nodes.as_slice() {
            [] => "The cluster stays, with all its nodes.\n".to_owned(),
            [node] => format!("This removes node {node} from the cluster. The cluster stays.\n"),
            nodes => format!(
                "This removes the nodes {} from the cluster. The cluster stays.\n",
                list(nodes)
            ),
        },
    });
    let absent = undo.absent.iter();
    text.extend(
        absent.map(|node| format!("{node} does not answer: its state stays until this command is run again.\n")),
    );
    text
}

/// Returns a time in UTC, and how long ago it was.
fn moment(at_ms: u64, now_ms: u64) -> String {
    let Some(date) = date(at_ms) else {
        return "at an unknown time".to_owned();
    };
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

/// Returns an error when there is no terminal to ask on. Called before any machine is contacted.
pub fn need_terminal() -> Result<(), Diagnosis> {
    if std::io::stdin().is_terminal() {
        return Ok(());
    }
    Err(refused("this needs a confirmation, and standard input is no terminal"))
}

/// Asks before an undo.
pub fn confirm(undo: &UndoSummary) -> Result<(), Diagnosis> {
    let now_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
    ask_for_name(&undo_text(undo, now_ms), &undo.cluster)
}

/// Returns the text that says what a repair of journals does and what is lost.
fn repair_text(repair: &RepairSummary) -> String {
    let mut text = format!(
        "`landfall journal repair` keeps the intact lines of the journal of {}:\n",
        plural(repair.nodes.len(), "node")
    );
    for (node, lost) in &repair.nodes {
        text.push_str(&lost_lines(node, lost));
    }
    text + "The damaged journals are kept. The next rollback or uninstall names each step whose undo is lost.\n"
}

/// Asks before journals are repaired.
pub fn confirm_repair(repair: &RepairSummary) -> Result<(), Diagnosis> {
    ask_for_name(&repair_text(repair), &repair.cluster)
}

/// Requires typing the cluster's name, so that it is not confirmed by accident.
fn ask_for_name(what: &str, cluster: &str) -> Result<(), Diagnosis> {
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
    use landfall_core::journal::RunStart;
    use landfall_core::journal::repair::LostLine;
    use landfall_core::run_history::FleetRun;
    use landfall_engine::run::UndoCommand;

    /// 2026-11-28 05:00 UTC.
    const NOW: u64 = 1_795_842_000_000;
    const HOUR: u64 = 3_600_000;

    fn run(number: u64, hours_ago: u64) -> FleetRun {
        FleetRun {
            start: RunStart {
                owner: "ann@desk".to_owned(),
                at_ms: NOW - hours_ago * HOUR,
                ..RunStart::new(format!("id-{number}").parse().unwrap(), number, "install", "ship")
            },
            number,
            outcome: None,
            steps: [("cp-1", 20), ("w-1", 1)]
                .map(|(node, n)| (node.parse().unwrap(), n))
                .into(),
        }
    }

    fn undo(command: UndoCommand, runs: Vec<FleetRun>, removes: Removes) -> UndoSummary {
        UndoSummary {
            command,
            cluster: "ship".to_owned(),
            runs,
            removes,
            absent: vec![],
        }
    }

    fn nodes(names: &[&str]) -> Vec<NodeName> {
        names.iter().map(|n| n.parse().unwrap()).collect()
    }

    #[test]
    fn every_kind_of_question() {
        let lost = UndoSummary {
            absent: vec!["w-2".parse().unwrap()],
            ..undo(UndoCommand::Uninstall, vec![run(2, 5), run(1, 720)], Removes::Cluster)
        };
        let cases = [
            (
                "a changed setting",
                undo(UndoCommand::Rollback, vec![run(3, 0)], Removes::Nodes(vec![])),
            ),
            (
                "one node joined",
                undo(UndoCommand::Rollback, vec![run(3, 1)], Removes::Nodes(nodes(&["w-2"]))),
            ),
            (
                "a chain of unfinished runs",
                undo(
                    UndoCommand::Rollback,
                    vec![run(4, 3), run(3, 50)],
                    Removes::Nodes(nodes(&["w-2", "w-3"])),
                ),
            ),
            (
                "the founding run",
                undo(UndoCommand::Rollback, vec![run(1, 49)], Removes::Cluster),
            ),
            ("everything, with an absent node", lost),
            (
                "what an earlier cluster left",
                undo(
                    UndoCommand::Uninstall,
                    vec![run(1, 720)],
                    Removes::LeftOver(nodes(&["w-1"])),
                ),
            ),
        ];
        let text: String = cases
            .iter()
            .map(|(name, undo)| format!("# {name}\n{}\n", undo_text(undo, NOW)))
            .collect();
        insta::assert_snapshot!("questions", text);
    }

    #[test]
    fn a_repair_names_the_nodes_and_what_is_lost() {
        let lost = |line, unknown: &str| LostLine {
            line,
            unknown: unknown.to_owned(),
        };
        let repair = RepairSummary {
            cluster: "ship".to_owned(),
            nodes: [
                ("cp-1", vec![lost(17, "how the step unit/kubelet/cp-1 is undone")]),
                ("w-1", vec![lost(3, "the start of a run"), lost(9, "how a run ended")]),
            ]
            .map(|(node, lost)| (node.parse().unwrap(), lost))
            .into(),
        };
        insta::assert_snapshot!("repair", repair_text(&repair));
    }

    #[test]
    fn times_are_shown_with_their_age() {
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
