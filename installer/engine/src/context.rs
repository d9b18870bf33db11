//! What a run is given: how it goes about its work, and everything that it needs from outside.

use crate::limit::Limit;
use landfall_core::cluster_record::ClusterUid;
use landfall_core::event::EventSink;
use landfall_core::explain::Diagnosis;
use landfall_core::inventory::Node;
use landfall_core::journal;
use landfall_core::journal::repair::LostLine;
use landfall_core::name::{NodeName, RunId};
use landfall_core::plan::file::PlanFile;
use landfall_core::run_history::FleetRun;
use landfall_core::transport::Transport;
use landfall_core::verify::{ProbeResult, ProbeSpec};
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

/// Time for the first contact when none is given: the upload of 25 MB over 10 Mbit/s takes 20 s, a slow login as long.
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
            Self::Rollback => journal::ROLLBACK,
            Self::Uninstall => journal::UNINSTALL,
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

/// What a repair of journals is about to do, for the question before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairSummary {
    /// Name of the cluster.
    pub cluster: String,
    /// Nodes whose journals are damaged, with what is not known any more.
    pub nodes: BTreeMap<NodeName, Vec<LostLine>>,
}

/// Asks whether journals may be repaired.
pub type ConfirmRepair<'a> = &'a dyn Fn(&RepairSummary) -> Result<(), Diagnosis>;

/// Asks whether an undo may begin.
pub type Confirm<'a> = &'a dyn Fn(&UndoSummary) -> Result<(), Diagnosis>;

/// Tries probes on the operator's own machine.
pub type LocalProber = fn(&[ProbeSpec]) -> Vec<ProbeResult>;

/// Everything a run needs from outside.
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
