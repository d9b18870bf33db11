//! One file per command.

mod bundle;
mod init;
mod install;
mod inventory;
mod inventory_forms;
mod kubeconfig;
mod status;
mod undo;
mod verify;

use crate::args::{Command, Common, Output};
use crate::render;
use landfall_core::explain::{Diagnosis, ExitCode};
use landfall_engine::run::Outcome;

/// Runs a command; what it has to say is said.
pub fn run(command: Command) -> ExitCode {
    let result = match command {
        Command::Install(args) => install::install(&args),
        Command::Plan(args) => install::plan(&args),
        Command::Verify(args) => verify::verify(&args),
        Command::Status(common) => status::status(&common),
        Command::Rollback(args) => undo::rollback(&args),
        Command::Uninstall(args) => undo::uninstall(&args),
        Command::Kubeconfig(args) => kubeconfig::kubeconfig(&args),
        Command::Inventory(args) => inventory::inventory(&args),
        Command::Init(args) => init::init(&args),
        Command::Bundle(args) => bundle::run(args),
        // main has taken it already.
        Command::Agent(_) => Ok(ExitCode::Usage),
    };
    result.unwrap_or_else(|errors| {
        complain(&render::errors(&errors));
        errors
            .iter()
            .map(|e| e.code.exit_code())
            .max()
            .unwrap_or(ExitCode::Internal)
    })
}

/// Result of a command that may be refused before the engine starts.
type Done = Result<ExitCode, Vec<Diagnosis>>;

/// Writes to standard error; when that is closed nobody is left to tell.
fn complain(text: &str) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Shows warnings, errors and residue of an engine run; returns how it ends.
fn close(common: &Common, outcome: &Outcome) -> ExitCode {
    let exit = outcome.exit_code();
    if common.output == Output::Json {
        crate::say(&render::result_line(outcome, exit));
        return exit;
    }
    for warning in &outcome.warnings {
        complain(&format!("warning: {warning}\n"));
    }
    complain(&render::errors(&outcome.errors));
    for line in &outcome.residue {
        complain(&format!("left behind: {line}\n"));
    }
    exit
}
