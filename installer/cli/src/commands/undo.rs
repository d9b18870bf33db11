//! `rollback` and `uninstall`.

use super::CommandResult;
use super::install::show_plan;
use crate::args::{Output, Undo};
use crate::confirm::{confirm, need_terminal};
use crate::load;
use crate::output::write_stdout;
use crate::start::{Started, start};
use landfall_core::explain::{Code, Diagnosis, ExitCode};
use landfall_engine::run::{self, UndoCommand, UndoSummary, Until};

/// Undoes what the newest run changed.
pub fn rollback(args: &Undo) -> CommandResult {
    undo(args, UndoCommand::Rollback)
}

/// Undoes everything.
pub fn uninstall(args: &Undo) -> CommandResult {
    undo(args, UndoCommand::Uninstall)
}

fn undo(args: &Undo, command: UndoCommand) -> CommandResult {
    let understood = match command {
        UndoCommand::Rollback => load::whole(&args.common, || {
            let what = "rollback undoes what was done on every node, and takes no --limit";
            Diagnosis::new(Code::Usage, what).next("landfall has no command yet that removes one node")
        }),
        UndoCommand::Uninstall => load::read(&args.common.inventory, args.common.limit.as_deref()),
    }?;
    if !args.yes && !args.dry_run {
        need_terminal().map_err(|d| vec![d])?;
    }
    let Started { desired, reporter, ctx } = start(&args.common, understood, args.report.as_deref())?;
    let until = if args.dry_run { Until::Plan } else { Until::Done };
    let yes = |_: &UndoSummary| Ok(());
    let ask: run::Confirm = if args.yes { &yes } else { &confirm };
    let outcome = run::undo(&desired, command, until, ask, &ctx);
    if args.dry_run {
        show_plan(&args.common, &outcome);
        return Ok(reporter.close(vec![]));
    }
    let problems = reporter.write().err().into_iter().collect();
    let exit = reporter.close(problems);
    if args.common.output == Output::Human && exit == ExitCode::Done {
        let steps = outcome.plan.as_ref().map_or(0, |plan| plan.steps.len());
        write_stdout(&match (command, steps) {
            (_, 0) => "there is nothing to undo\n".to_owned(),
            (UndoCommand::Uninstall, _) => "done; nothing is left\n".to_owned(),
            (UndoCommand::Rollback, _) => format!("done; {} steps undone\n", outcome.changes),
        });
    }
    Ok(exit)
}
