//! The commands as functions: what they take and what comes of them.

use crate::fleet::EventEmitter;
use crate::limit::Limit;
use landfall_bundle::BundleFile;
use landfall_core::cluster_record::{ClusterRecord, ClusterUid};
use landfall_core::event::{BundleSummary, Command, EventKind, EventSink};
use landfall_core::explain::{Code, Diagnosis, ExitCode};
use landfall_core::facts::NodeFacts;
use landfall_core::inventory::Node;
use landfall_core::journal::RunStart;
use landfall_core::name::{NodeName, RunId, StepId};
use landfall_core::plan::Plan;
use landfall_core::plan::file::PlanFile;
use landfall_core::run_history::{self, FleetRun};
use landfall_core::spec::Desired;
use landfall_core::transport::Transport;
use landfall_core::verify::{CellOutcome, ProbeResult, ProbeSpec, VerifyReport};
use landfall_core::wire::CertificateAge;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Makes connections; implemented over SSH by the command line, by fakes in tests.
pub trait Connector: Send + Sync {
    /// Logs in to a machine. Blocks, with a time-out of its own.
    fn connect(&self, node: &Node) -> Result<Box<dyn Transport>, Diagnosis>;

    /// Time for the first contact as a whole: connection, login, the agent's upload and its first line.
    fn contact_limit(&self) -> Duration {
        CONTACT_LIMIT
    }
}

/// Time for the first contact when nobody asks for another: the upload of 25 MB over 10 Mbit/s takes 20 s, a slow login as long.
pub const CONTACT_LIMIT: Duration = Duration::from_secs(120);

/// Set by ^C; every wait in the engine looks at it.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Asks the run to stop handing out steps.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
    /// Says whether that was asked.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// What to do when a step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Leave everything; running again continues.
    Keep,
    /// Take back what this run changed.
    Rollback,
}

/// How far a command goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Stop after the plan (`--dry-run`, `landfall plan`).
    Plan,
    /// Do it.
    Done,
}

/// How `install` goes about it.
#[derive(Debug, Clone)]
pub struct InstallOptions {
    /// How far it goes.
    pub until: Until,
    /// What happens when a step fails.
    pub on_failure: OnFailure,
    /// A plan made earlier, which is to be run as it is.
    pub plan_file: Option<PlanFile>,
}

impl InstallOptions {
    /// Returns the options of an install without a plan file.
    pub fn new(until: Until, on_failure: OnFailure) -> Self {
        Self {
            until,
            on_failure,
            plan_file: None,
        }
    }
}

/// What `undo` takes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UndoCommand {
    /// The newest run, with the unfinished runs that it went on with.
    Rollback,
    /// Everything.
    Uninstall,
}

impl UndoCommand {
    /// Returns the command's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rollback => run_history::ROLLBACK,
            Self::Uninstall => run_history::UNINSTALL,
        }
    }
}

/// What an undo is about to do, for the question before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndoSummary {
    /// The command.
    pub command: UndoCommand,
    /// Name of the cluster.
    pub cluster: String,
    /// Runs whose entries go, newest first.
    pub runs: Vec<FleetRun>,
    /// Whether the cluster itself goes, with everything stored in it.
    pub removes_cluster: bool,
    /// Nodes that leave the cluster.
    pub removes_nodes: Vec<NodeName>,
    /// Nodes that are absent: what lies there stays until the command is run again.
    pub absent: Vec<NodeName>,
}

/// Asks whether an undo may begin.
pub type Confirm<'a> = &'a dyn Fn(&UndoSummary) -> Result<(), Diagnosis>;

/// Tries probes on the operator's own machine.
pub type LocalProber = fn(&[ProbeSpec]) -> Vec<ProbeResult>;

/// Everything a run needs from its surroundings.
pub struct RunContext {
    /// Makes connections.
    pub connector: Arc<dyn Connector>,
    /// Takes events.
    pub sink: Arc<dyn EventSink>,
    /// Set by ^C.
    pub cancel: CancelToken,
    /// The program put on nodes as agent: the running executable.
    pub agent_program: PathBuf,
    /// Probes from here.
    pub local_prober: LocalProber,
    /// Who runs this: `user@host`, shown when a lease is refused.
    pub owner: String,
    /// Fresh id for this run.
    pub run: RunId,
    /// Identity for a cluster that this run founds; fresh and random.
    pub new_uid: ClusterUid,
    /// This machine's clock when the run began, milliseconds since the epoch. For people alone: it orders nothing.
    pub at_ms: u64,
    /// Where logs of failed nodes go (made when needed).
    pub report_dir: Option<PathBuf>,
    /// Which machines `install`, `plan`, `verify`, `status` and `kubeconfig` act on.
    pub limit: Limit,
}

/// What came of a command.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Errors, each ready for a person. Empty means it worked.
    pub errors: Vec<Diagnosis>,
    /// Remarks that do not fail the run.
    pub warnings: Vec<String>,
    /// What was planned: only steps that change something.
    pub plan: Option<Plan>,
    /// Why steps of the plan are to be done, where what was seen says so.
    pub reasons: BTreeMap<StepId, String>,
    /// The plan as a file holds it.
    pub plan_file: Option<PlanFile>,
    /// How many steps changed something.
    pub changes: usize,
    /// What verify saw.
    pub verify: Option<VerifyReport>,
    /// What could not be undone.
    pub residue: Vec<String>,
    /// Whether everything this run did was taken back.
    pub rolled_back: bool,
    /// The id of this run, once it held the nodes' leases.
    pub run: Option<RunId>,
    /// Members that were not here, each with the reason; what concerns them is still to be done.
    pub absent: Vec<Diagnosis>,
    /// The cluster, as its members' journals record it.
    pub record: Option<ClusterRecord>,
    /// Runs of the cluster, oldest first.
    pub runs: Vec<FleetRun>,
    /// State of each node, for `status`.
    pub nodes: BTreeMap<NodeName, NodeStatus>,
    /// Text result of `kubeconfig` (holds keys; only ever written to a 0600 file or standard output on request).
    pub kubeconfig: Option<landfall_core::secret::Secret>,
    /// Whether ^C ended it.
    pub interrupted: bool,
    /// Bytes sent to each node.
    pub bytes_sent: BTreeMap<NodeName, u64>,
    /// Bytes that each node lacks, when only a plan was asked for.
    pub bytes_to_send: BTreeMap<NodeName, u64>,
}

/// What `status` shows of a node.
#[derive(Debug, Default, Clone)]
pub struct NodeStatus {
    /// Facts, when the node was reached.
    pub facts: Option<NodeFacts>,
    /// How many things are ours there.
    pub owned: usize,
    /// Version and digest of the bundle that was installed.
    pub bundle: Option<String>,
    /// A run that was interrupted.
    pub open_run: Option<RunStart>,
    /// Whether the Node is Ready, with kubelet's version, if the API answered.
    pub ready: Option<(bool, String)>,
    /// Health of the etcd member, on control planes.
    pub etcd: Option<String>,
    /// Certificates of a control plane, with the days they last.
    pub certificates: Vec<CertificateAge>,
    /// Why the node could not be looked at.
    pub error: Option<Diagnosis>,
}

impl Outcome {
    /// Returns how the process ends: the worst of all that happened.
    pub fn exit_code(&self) -> ExitCode {
        let mut worst = self
            .errors
            .iter()
            .chain(&self.absent)
            .map(|e| e.code.exit_code())
            .max()
            .unwrap_or(ExitCode::Done);
        if self.rolled_back && worst == ExitCode::FailedKept {
            worst = ExitCode::FailedRolledBack;
        }
        if self.interrupted {
            worst = worst.max(ExitCode::Interrupted);
        }
        if self.verify.as_ref().is_some_and(|v| v.count(CellOutcome::Fail) > 0) {
            worst = worst.max(ExitCode::VerifyFaults);
        }
        if !self.residue.is_empty() {
            worst = worst.max(ExitCode::Residue);
        }
        worst
    }

    /// Returns the errors that no part of a run reports, because they follow from the outcome as a whole: that the user interrupted it,
    /// and that verify found faults.
    pub fn implied_errors(&self) -> Vec<Diagnosis> {
        let mut errors = Vec::new();
        if self.interrupted && self.errors.iter().all(|e| e.code != Code::Interrupted) {
            errors.push(Diagnosis::new(Code::Interrupted, "the run was interrupted"));
        }
        let verify = self.verify.as_ref();
        let failed = verify.map_or(0, |v| v.count(CellOutcome::Fail));
        if let (Some(verify), 1..) = (verify, failed) {
            let what = format!(
                "{failed} of {} paths into the cluster are not as expected",
                verify.cells.len()
            );
            errors.push(Diagnosis::new(Code::VerifyFault, what));
        }
        errors
    }
}

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
