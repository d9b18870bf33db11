//! The commands as functions, with their arguments and results.

pub use crate::context::{
    AllowOptions, CONTACT_LIMIT, CancelToken, Confirm, ConfirmRepair, Connector, InstallOptions, LocalProber,
    OnFailure, Removes, RepairSummary, RunContext, UndoCommand, UndoSummary, Until, Way,
};
pub use crate::outcome::{DashboardAccess, NodeStatus, Outcome};

use crate::emitter::EventEmitter;
use landfall_bundle::{Bundle, Verified};
use landfall_core::event::{BundleSummary, Command, EventKind};
use landfall_core::finding::Strictness;
use landfall_core::spec::Desired;
use std::time::Duration;

/// Installs, or only plans, or only sends what an install would. `bundle` was opened by the caller. Blocks until all is verified, or has failed.
pub fn install(desired: &Desired, bundle: &Bundle<Verified>, options: &InstallOptions, ctx: &RunContext) -> Outcome {
    let command = match options.until {
        Until::Plan => Command::Plan,
        Until::Pushed => Command::Push,
        Until::Done => Command::Install,
    };
    run(command, desired, Some(bundle), ctx, |emitter| {
        crate::install::install(desired, bundle, options, ctx, emitter)
    })
}

/// Checks the machines, with the bundle when one is named; changes nothing. Every finding is an event; those that refuse are errors too. Blocks
/// until all nodes have answered.
pub fn preflight(
    desired: &Desired,
    bundle: Option<&Bundle<Verified>>,
    strictness: Strictness,
    ctx: &RunContext,
) -> Outcome {
    run(Command::Preflight, desired, bundle, ctx, |emitter| {
        crate::preflight::preflight(desired, bundle, strictness, ctx, emitter)
    })
}

/// Removes blobs that were pushed ahead from the nodes. Blocks until they are gone.
pub fn push_remove(desired: &Desired, ctx: &RunContext) -> Outcome {
    run(Command::Push, desired, None, ctx, |emitter| {
        crate::push::remove(desired, ctx, emitter)
    })
}

/// Verifies every path into the cluster, repeatedly until all is as expected, for `wait` at most. Blocks; every probe has a time-out of its
/// own.
pub fn verify(desired: &Desired, wait: Duration, ctx: &RunContext) -> Outcome {
    run(Command::Verify, desired, None, ctx, |emitter| {
        crate::inspect::verify(desired, wait, ctx, emitter)
    })
}

/// Rolls back or uninstalls, from the nodes' journals alone. Nodes whose journal names another cluster are an error. `confirm` is called when
/// the runs to undo are known, and may refuse. Blocks until all is undone.
pub fn undo(desired: &Desired, command: UndoCommand, until: Until, confirm: Confirm, ctx: &RunContext) -> Outcome {
    let name = match command {
        UndoCommand::Rollback => Command::Rollback,
        UndoCommand::Uninstall => Command::Uninstall,
    };
    run(name, desired, None, ctx, |emitter| {
        crate::undo::undo(desired, command, until, confirm, ctx, emitter)
    })
}

/// Reads the state of what is installed; changes nothing. Blocks until all nodes have answered.
pub fn status(desired: &Desired, ctx: &RunContext) -> Outcome {
    run(Command::Status, desired, None, ctx, |emitter| {
        crate::inspect::status(desired, ctx, emitter)
    })
}

/// Reads the journals: the cluster's record, the runs, and what landfall owns on each node. Changes nothing. Of a damaged journal the intact
/// lines are shown, and it is an error.
pub fn journal(desired: &Desired, ctx: &RunContext) -> Outcome {
    run(Command::Journal, desired, None, ctx, |emitter| {
        crate::journal::show(desired, ctx, emitter)
    })
}

/// Repairs damaged journals under the nodes' leases, keeping their intact lines. `confirm` is called when the losses are known, and may refuse.
pub fn repair_journals(desired: &Desired, until: Until, confirm: ConfirmRepair, ctx: &RunContext) -> Outcome {
    run(Command::JournalRepair, desired, None, ctx, |emitter| {
        crate::journal::repair(desired, until, confirm, ctx, emitter)
    })
}

/// Reads an admin kubeconfig and points it at a control plane: at the address or host where its API answers from this machine. Where none does,
/// a warning says how to reach it.
pub fn kubeconfig(desired: &Desired, ctx: &RunContext) -> Outcome {
    run(Command::Kubeconfig, desired, None, ctx, |emitter| {
        crate::kubeconfig::kubeconfig(desired, ctx, emitter)
    })
}

/// Returns the addresses of the ingress proxy's dashboard, and reads its login.
pub fn dashboard(desired: &Desired, ctx: &RunContext) -> Outcome {
    run(Command::Dashboard, desired, None, ctx, |emitter| {
        crate::inspect::dashboard(desired, ctx, emitter)
    })
}

/// Lets the ingress proxy read Secrets, with immediate effect. Blocks until the rights exist.
pub fn allow_secrets(desired: &Desired, options: &AllowOptions, ctx: &RunContext) -> Outcome {
    run(Command::IngressAllow, desired, None, ctx, |emitter| {
        crate::allow::allow(desired, options, ctx, emitter)
    })
}

/// Runs a command's `work` between the events that begin and end it.
fn run(
    command: Command,
    desired: &Desired,
    bundle: Option<&Bundle<Verified>>,
    ctx: &RunContext,
    work: impl FnOnce(&EventEmitter) -> Outcome,
) -> Outcome {
    let emitter = EventEmitter::new(ctx);
    let summary = |bundle: &Bundle<Verified>| {
        let path = bundle.path().display().to_string();
        BundleSummary::new(path, bundle.index_digest(), bundle.index(), bundle.signer())
    };
    emitter.emit(
        None,
        EventKind::RunStarted {
            command,
            cluster: desired.spec.name.clone(),
            bundle: bundle.map(summary),
            nodes: desired.inventory.members().map(|node| node.name.clone()).collect(),
        },
    );
    if bundle.is_some_and(|bundle| bundle.signer().is_none()) {
        let text = "--allow-unsigned: no trusted key has signed the bundle; its digests protect against damage, not against forgery";
        let text = text.to_owned();
        emitter.emit(None, EventKind::Warning { text });
    }
    let outcome = work(&emitter);
    for text in outcome.warnings.iter().cloned() {
        emitter.emit(None, EventKind::Warning { text });
    }
    if let Some(report) = outcome.verify.clone() {
        emitter.emit(None, EventKind::Verified { report });
    }
    let implied = outcome.implied_errors();
    for diagnosis in outcome.errors.iter().chain(&outcome.absent).chain(&implied).cloned() {
        emitter.emit(None, EventKind::Error { diagnosis });
    }
    emitter.finished(outcome.exit_code(), outcome.rolled_back);
    outcome
}
