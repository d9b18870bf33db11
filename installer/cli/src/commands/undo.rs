//! `rollback` and `uninstall`.

use super::CommandResult;
use super::install::show_plan;
use crate::args::{Output, Undo};
use crate::confirm::{confirm, need_terminal};
use crate::output::write_stdout;
use crate::reporter::Reporter;
use crate::{load, remote};
use landfall_ansible::Understood;
use landfall_core::explain::{Code, Diagnosis, ExitCode};
use landfall_engine::run::{self, UndoCommand, UndoSummary, Until};

/// Takes back what the newest run changed.
pub fn rollback(args: &Undo) -> CommandResult {
    undo(args, UndoCommand::Rollback)
}

/// Takes back everything.
pub fn uninstall(args: &Undo) -> CommandResult {
    undo(args, UndoCommand::Uninstall)
}

fn undo(args: &Undo, command: UndoCommand) -> CommandResult {
    let Understood {
        desired,
        notices,
        limit,
    } = load::read(&args.common.inventory, args.common.limit.as_deref())?;
    if limit.is_some() {
        let what = format!(
            "{} takes back what was done on every node, and takes no --limit",
            command.as_str()
        );
        let next = "landfall has no command yet that removes one node";
        return Err(vec![Diagnosis::new(Code::Usage, what).next(next)]);
    }
    if !args.yes && !args.dry_run {
        need_terminal().map_err(|d| vec![d])?;
    }
    let reporter = Reporter::new(args.common.output, args.report.as_deref())?;
    reporter.warn(&notices);
    let ctx = remote::run_context(&args.common, reporter.clone(), args.report.clone(), limit).map_err(|d| vec![d])?;
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
            (_, 0) => "there is nothing to take back\n".to_owned(),
            (UndoCommand::Uninstall, _) => "done; nothing of it is left\n".to_owned(),
            (UndoCommand::Rollback, _) => format!("done; {} steps are taken back\n", outcome.changes),
        });
    }
    Ok(exit)
}
