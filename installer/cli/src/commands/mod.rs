//! One file per command.

mod ansible;
mod bundle;
mod bundle_files;
mod bundle_upstream;
mod dashboard;
mod ingress;
mod init;
mod install;
mod inventory;
mod inventory_forms;
mod journal;
mod kubeconfig;
mod preflight;
mod push;
mod status;
mod undo;
mod verify;

use crate::args::{Command, Ingress, Journal};
use crate::reporter;
use landfall_core::explain::{Diagnosis, ExitCode};

/// Runs a command and shows its result.
pub fn run(command: Command) -> ExitCode {
    let output = command.output();
    let result = match command {
        Command::Install(args) => install::install(&args),
        Command::Plan(args) => install::plan(&args),
        Command::Preflight(args) => preflight::preflight(&args),
        Command::Push(args) => push::push(&args),
        Command::Verify(args) => verify::verify(&args),
        Command::Status(common) => status::status(&common),
        Command::Journal(Journal::Show(common)) => journal::show(&common),
        Command::Journal(Journal::Repair(args)) => journal::repair(&args),
        Command::Rollback(args) => undo::rollback(&args),
        Command::Uninstall(args) => undo::uninstall(&args),
        Command::Kubeconfig(args) => kubeconfig::kubeconfig(&args),
        Command::Ingress(Ingress::Allow(args)) => ingress::allow(&args),
        Command::Dashboard(common) => dashboard::dashboard(&common),
        Command::Inventory(args) => inventory::inventory(&args),
        Command::Init(args) => init::init(&args),
        Command::Bundle(args) => bundle::run(args),
        Command::Ansible(args) => ansible::run(args),
    };
    result.unwrap_or_else(|errors| reporter::refuse(output, errors))
}

/// Result of a command: the exit code, or why the command was refused before the engine started.
type CommandResult = Result<ExitCode, Vec<Diagnosis>>;
