//! `rollback` and `uninstall`.

use super::CommandResult;
use crate::args::{Output, Undo};
use crate::confirm::confirm;
use crate::output::write_stdout;
use crate::reporter::Reporter;
use crate::{load, remote};
use landfall_core::explain::ExitCode;
use landfall_engine::run::{self, Back};

/// Takes back what the last run changed.
pub fn rollback(args: &Undo) -> CommandResult {
    undo(args, Back::LastRun, "This takes back what the last run changed.\n")
}

/// Takes back everything.
pub fn uninstall(args: &Undo) -> CommandResult {
    undo(
        args,
        Back::Everything,
        "This removes the WHOLE CLUSTER, with everything stored in it.\n",
    )
}

fn undo(args: &Undo, back: Back, what: &str) -> CommandResult {
    let desired = load::desired(&args.common.inventory)?;
    if !args.yes {
        confirm(&desired.spec.name, what).map_err(|d| vec![d])?;
    }
    let reporter = Reporter::new(args.common.output, args.report.as_deref())?;
    let around = remote::surroundings(&args.common, reporter.clone(), args.report.clone()).map_err(|d| vec![d])?;
    run::undo(&desired, back, &around);
    let problems = reporter.write().err().into_iter().collect();
    let exit = reporter.close(problems);
    if args.common.output == Output::Human && exit == ExitCode::Done {
        write_stdout(&match (back, reporter.report().changes) {
            (_, 0) => "there is nothing to take back\n".to_owned(),
            (Back::Everything, _) => "done; nothing of it is left\n".to_owned(),
            (Back::LastRun, steps) => format!("done; {steps} steps of the last run are taken back\n"),
        });
    }
    Ok(exit)
}
