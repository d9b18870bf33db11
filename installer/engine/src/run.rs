//! The commands as functions, with their arguments and results.

pub use crate::context::{
    CONTACT_LIMIT, CancelToken, Confirm, ConfirmRepair, Connector, InstallOptions, LocalProber, OnFailure,
    RepairSummary, RunContext, UndoCommand, UndoSummary, Until,
};
pub use crate::outcome::{NodeStatus, Outcome};

use crate::emitter::EventEmitter;
use landfall_bundle::BundleFile;
use landfall_core::event::{BundleSummary, Command, EventKind};
use landfall_core::spec::Desired;

/// Installs, or only plans. `bundle` was opened by the caller. Blocks until all is verified, or has failed.
pub fn install(desired: &Desired, bundle: &BundleFile, options: &InstallOptions, ctx: &RunContext) -> Outcome {
    let command = match options.until {
        Until::Plan => Command::Plan,
        Until::Done => Command::Install,
    };
    run(command, desired, Some(bundle), ctx, |emitter| {
        crate::install::install(desired, bundle, options, ctx, emitter)
    })
}

/// Verifies every path into the cluster. Blocks; every probe has a time-out of its own.
pub fn verify(desired: &Desired, ctx: &RunContext) -> Outcome {
    run(Command::Verify, desired, None, ctx, |emitter| {
        crate::inspect::verify(desired, ctx, emitter)
    })
}

/// Rolls back or uninstalls, from the nodes' journals alone. Refuses nodes whose journal names another cluster. `confirm` is asked once it
/// is known what would go, and may refuse.
pub fn undo(desired: &Desired, command: UndoCommand, until: Until, confirm: Confirm, ctx: &RunContext) -> Outcome {
    let name = match command {
        UndoCommand::Rollback => Command::Rollback,
        UndoCommand::Uninstall => Command::Uninstall,
    };
    run(name, desired, None, ctx, |emitter| {
        crate::undo::undo(desired, command, until, confirm, ctx, emitter)
    })
}

/// Looks at what is installed; changes nothing.
pub fn status(desired: &Desired, ctx: &RunContext) -> Outcome {
    run(Command::Status, desired, None, ctx, |emitter| {
        crate::inspect::status(desired, ctx, emitter)
    })
}

/// Shows the journals: the cluster's record, the runs, and what is landfall's on each node. Changes nothing. A damaged journal is shown as
/// far as its lines are whole, and is an error.
pub fn journal(desired: &Desired, ctx: &RunContext) -> Outcome {
    run(Command::Journal, desired, None, ctx, |emitter| {
        crate::journal::show(desired, ctx, emitter)
    })
}

/// Makes damaged journals of their whole lines, under the nodes' leases. `confirm` is asked once it is known what is lost, and may refuse.
pub fn repair_journals(desired: &Desired, until: Until, confirm: ConfirmRepair, ctx: &RunContext) -> Outcome {
    run(Command::JournalRepair, desired, None, ctx, |emitter| {
        crate::journal::repair(desired, until, confirm, ctx, emitter)
    })
}

/// Fetches an admin kubeconfig that works from here, when a control plane's API port can be reached from here.
pub fn kubeconfig(desired: &Desired, ctx: &RunContext) -> Outcome {
    run(Command::Kubeconfig, desired, None, ctx, |emitter| {
        crate::inspect::kubeconfig(desired, ctx, emitter)
    })
}

/// Does a command's `work` between the events that begin and end it.
fn run(
    command: Command,
    desired: &Desired,
    bundle: Option<&BundleFile>,
    ctx: &RunContext,
    work: impl FnOnce(&EventEmitter) -> Outcome,
) -> Outcome {
    let emitter = EventEmitter::new(ctx);
    let summary = |bundle: &BundleFile| {
        let path = bundle.path().display().to_string();
        BundleSummary::new(path, bundle.index_digest(), bundle.index())
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
    if bundle.is_some() {
        let text = "the bundle is not signed; its digests protect against damage, not against forgery".to_owned();
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
