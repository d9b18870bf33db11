//! `rollback` and `uninstall`.

use super::{Done, close, complain};
use crate::args::{Output, Undo};
use crate::{load, remote, render, say};
use landfall_core::explain::{Code, Diagnosis, ExitCode};
use landfall_engine::run::{self, Back};
use std::io::IsTerminal;

/// Takes back what the last run changed.
pub fn rollback(args: &Undo) -> Done {
    undo(args, Back::LastRun, "take back what the last run changed")
}

/// Takes back everything.
pub fn uninstall(args: &Undo) -> Done {
    undo(
        args,
        Back::Everything,
        "take the whole cluster away, with everything stored in it",
    )
}

fn undo(args: &Undo, back: Back, what: &str) -> Done {
    let desired = load::desired(&args.common.inventory)?;
    if !args.yes {
        confirm(&desired.spec.name, what).map_err(|d| vec![d])?;
    }
    let around = remote::surroundings(&args.common, render::sink(args.common.output), None).map_err(|d| vec![d])?;
    let outcome = run::undo(&desired, back, &around);
    drop(around);
    let exit = close(&args.common, &outcome);
    if args.common.output == Output::Human && exit == ExitCode::Done {
        say(&match (back, outcome.changes) {
            (_, 0) => "there is nothing to take back\n".to_owned(),
            (Back::Everything, _) => "done; nothing of it is left\n".to_owned(),
            (Back::LastRun, steps) => format!("done; {steps} steps of the last run are taken back\n"),
        });
    }
    Ok(exit)
}

/// Asks for the cluster's name: the one question nobody answers by habit.
fn confirm(name: &str, what: &str) -> Result<(), Diagnosis> {
    let refuse = |text: &str| Diagnosis::new(Code::Usage, text).next("use --yes in scripts");
    if !std::io::stdin().is_terminal() {
        return Err(refuse("this needs a confirmation, and standard input is no terminal"));
    }
    complain(&format!(
        "This will {what}. Type the cluster's name ({name}) to go on: "
    ));
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    if read.is_ok() && line.trim() == name {
        Ok(())
    } else {
        Err(refuse("not confirmed; nothing was done"))
    }
}
