//! One file per command.

mod ansible;
mod bundle;
mod init;
mod install;
mod inventory;
mod inventory_forms;
mod journal;
mod kubeconfig;
mod status;
mod undo;
mod verify;

use crate::args::{Command, Journal};
use crate::reporter;
use landfall_core::explain::{Diagnosis, ExitCode};

/// Runs a command and shows its result.
pub fn run(command: Command) -> ExitCode {
    let output = command.output();
    let result = match command {
        Command::Install(args) => install::install(&args),
        Command::Plan(args) => install::plan(&args),
        Command::Verify(args) => verify::verify(&args),
        Command::Status(common) => status::status(&common),
        Command::Journal(Journal::Show(common)) => journal::show(&common),
        Command::Journal(Journal::Repair(args)) => journal::repair(&args),
        Command::Rollback(args) => undo::rollback(&args),
        Command::Uninstall(args) => undo::uninstall(&args),
        Command::Kubeconfig(args) => kubeconfig::kubeconfig(&args),
        Command::Inventory(args) => inventory::inventory(&args),
        Command::Init(args) => init::init(&args),
        Command::Bundle(args) => bundle::run(args),
        Command::Ansible(args) => ansible::run(args),
        // main has taken it already.
        Command::Agent(_) => Ok(ExitCode::Usage),
    };
    result.unwrap_or_else(|errors| reporter::refuse(output, errors))
}

/// Result of a command: how the process ends, or why the command was refused before the engine started.
type CommandResult = Result<ExitCode, Vec<Diagnosis>>;
