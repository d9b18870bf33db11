//! `rollback` and `uninstall`.

use super::{Done, close, complain};
use crate::args::{Output, Undo};
use crate::{load, remote, render, say};
use landfall_core::explain::{Code, Diagnosis, ExitCode};
use landfall_core::run_history::FleetRun;
use landfall_engine::run::{self, UndoCommand, UndoSummary, Until};
use serde_json::json;
use std::io::IsTerminal;

/// Takes back what the newest run changed.
pub fn rollback(args: &Undo) -> Done {
    undo(args, UndoCommand::Rollback)
}

/// Takes back everything.
pub fn uninstall(args: &Undo) -> Done {
    undo(args, UndoCommand::Uninstall)
}

fn undo(args: &Undo, command: UndoCommand) -> Done {
    let desired = load::desired(&args.common)?;
    let until = if args.dry_run { Until::Plan } else { Until::Done };
    let around = remote::surroundings(&args.common, render::sink(args.common.output), None).map_err(|d| vec![d])?;
    let yes = |_: &UndoSummary| Ok(());
    let outcome = run::undo(
        &desired,
        command,
        until,
        if args.yes { &yes } else { &confirm },
        &around,
    );
    drop(around);
    let steps = outcome.plan.as_ref().map_or(0, |plan| plan.steps.len());
    if args.dry_run
        && let Some(plan) = &outcome.plan
    {
        if args.common.output == Output::Json {
            say(&format!("{}\n", json!({ "event": "plan", "plan": plan })));
        } else {
            say(&render::plan(plan, &outcome.reasons, &outcome.bytes_to_send));
        }
    }
    let exit = close(&args.common, &outcome);
    if args.common.output == Output::Human && exit == ExitCode::Done && !args.dry_run {
        say(&match (command, steps) {
            (_, 0) => "there is nothing to take back\n".to_owned(),
            (UndoCommand::Uninstall, _) => "done; nothing of it is left\n".to_owned(),
            (UndoCommand::Rollback, _) => format!("done; {} steps are taken back\n", outcome.changes),
        });
    }
    Ok(exit)
}

/// Requires typing the cluster's name, so that it is not confirmed by accident.
fn confirm(summary: &UndoSummary) -> Result<(), Diagnosis> {
    let refuse = |text: &str| Diagnosis::new(Code::Usage, text).next("use --yes in scripts");
    if !std::io::stdin().is_terminal() {
        return Err(refuse("this needs a confirmation, and standard input is no terminal"));
    }
    let name = &summary.cluster;
    complain(&format!(
        "{}Type the cluster's name ({name}) to go on: ",
        question(summary)
    ));
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    if read.is_ok() && line.trim() == name {
        Ok(())
    } else {
        Err(refuse("not confirmed; nothing was done"))
    }
}

/// Says which runs are taken back, and plainly what goes with them.
fn question(summary: &UndoSummary) -> String {
    let run = |run: &FleetRun| {
        let seconds = run.start.at_ms / 1000;
        format!(
            "  run {}: {} by {}, {} steps ({seconds} s since 1970 by that operator's clock)\n",
            run.number,
            run.start.command,
            run.start.owner,
            run.step_count()
        )
    };
    let mut text = format!("{} takes back:\n", summary.command.as_str());
    text.extend(summary.runs.iter().map(run));
    if summary.removes_cluster {
        text.push_str("This removes the whole cluster, with everything stored in it.\n");
    } else {
        let removed = summary.removes_nodes.iter();
        text.extend(removed.map(|node| format!("This removes the node {node} from the cluster.\n")));
    }
    let absent = summary.absent.iter();
    text.extend(absent.map(|node| format!("{node} does not answer: what lies there stays until this is run again.\n")));
    text
}
