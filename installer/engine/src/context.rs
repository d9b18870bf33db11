//! What a run is given: its options, and everything that it needs from outside.

use crate::limit::Limit;
use landfall_bundle::own_parts::AgentProgram;
use landfall_core::cluster_record::ClusterUid;
use landfall_core::event::EventSink;
use landfall_core::explain::Diagnosis;
use landfall_core::finding::Strictness;
use landfall_core::inventory::Node;
use landfall_core::journal::repair::LostLine;
use landfall_core::journal::{self, RunStart};
use landfall_core::name::{NodeName, RunId};
use landfall_core::plan::file::PlanFile;
use landfall_core::run_history::FleetRun;
use landfall_core::transport::Transport;
use landfall_core::verify::{ProbeResult, ProbeSpec};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Makes connections. The command line implements it over SSH, the tests with fakes.
pub trait Connector: Send + Sync {
    /// Logs in to a machine. Blocks, with a time-out of its own.
    fn connect(&self, node: &Node) -> Result<Box<dyn Transport>, Diagnosis>;

    /// Says how this machine reaches a node beyond the login. Blocks as long as the system looks up a name.
    fn way_to(&self, node: &Node) -> Way {
        Way::to_host(&node.connect.host, |host| host.parse().into_iter().collect())
    }

    /// Time limit of each step of the first contact: the login, the command that starts the agent, the agent's upload.
    fn contact_limit(&self) -> Duration {
        CONTACT_LIMIT
    }
}

/// How this machine reaches a node beyond the login: what verify probes from here, and where a kubeconfig leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// The login goes to this host.
    Host {
        /// Its name or address, after `ssh_config`.
        name: String,
        /// Its addresses; none when the name has none here, or when it is this machine.
        addresses: Vec<IpAddr>,
    },
    /// The login goes through jump hosts, a proxy command or the user's own ssh: whether any address of the node can be reached without them is
    /// not known.
    Proxy,
}

impl Way {
    /// Returns the way to a host whose addresses `resolve` knows. Loopback addresses are left out: behind one is a forwarded port, and no
    /// other port of the node.
    pub fn to_host(name: &str, resolve: impl FnOnce(&str) -> Vec<IpAddr>) -> Self {
        let mut addresses = resolve(name);
        addresses.retain(|address| !address.is_loopback());
        Self::Host {
            name: name.to_owned(),
            addresses,
        }
    }

    /// Returns the host and its addresses when none of them is `own`, the node's address in the cluster: the node has another address for
    /// those outside.
    pub fn other_host(&self, own: Option<IpAddr>) -> Option<(&str, &[IpAddr])> {
        match self {
            Self::Host { name, addresses }
                if !addresses.is_empty() && !own.is_some_and(|own| addresses.contains(&own)) =>
            {
                Some((name, addresses))
            }
            Self::Host { .. } | Self::Proxy => None,
        }
    }
}

/// Default time limit of each step of the first contact: a slow login takes a minute, a slow login shell and a slow sudo together as long.
pub const CONTACT_LIMIT: Duration = Duration::from_secs(120);

/// Says whether the user has cancelled the run by ^C. Every wait in the engine checks it.
#[derive(Debug, Clone, Default)]
pub struct CancelToken {
    own: Arc<AtomicBool>,
    parent: Option<Arc<AtomicBool>>,
}

impl CancelToken {
    /// Returns a token that is cancelled with this one, or alone.
    pub fn child(&self) -> Self {
        Self {
            own: Arc::default(),
            parent: Some(Arc::clone(&self.own)),
        }
    }
    /// Asks the run to start no further step.
    pub fn cancel(&self) {
        self.own.store(true, Ordering::SeqCst);
    }
    /// Blocks for `pause`, or until the run is cancelled.
    pub fn sleep(&self, pause: Duration) {
        let end = Instant::now() + pause;
        while !self.is_cancelled() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(100).min(pause));
        }
    }
    /// Says whether the run was cancelled.
    pub fn is_cancelled(&self) -> bool {
        let is_set = |flag: &AtomicBool| flag.load(Ordering::SeqCst);
        is_set(&self.own) || self.parent.as_deref().is_some_and(is_set)
    }
}

/// What to do when a step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Leave everything as it is; running the command again continues.
    Keep,
    /// Undo what this run changed.
    Rollback,
}

/// How far a command goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Stop after the plan (`--dry-run`, `landfall plan`).
    Plan,
    /// Send what the plan needs, and stop (`landfall push`).
    Pushed,
    /// Run the plan.
    Done,
}

/// Options of `install`.
#[derive(Debug, Clone)]
pub struct InstallOptions {
    /// Whether the plan is run or only made.
    pub until: Until,
    /// What happens when a step fails.
    pub on_failure: OnFailure,
    /// A plan that was made earlier and is to be run unchanged.
    pub plan_file: Option<PlanFile>,
    /// Whether nodes take blobs of each other, or this machine sends every node everything.
    pub relay: bool,
    /// How long lost connections are retried without any progress of the run; zero ends the run at the first loss.
    pub reconnect: Duration,
    /// Whether warnings of preflight are refusals too.
    pub strictness: Strictness,
}

impl InstallOptions {
    /// Returns the options of an install without a plan file that retries no lost connection.
    pub fn new(until: Until, on_failure: OnFailure) -> Self {
        Self {
            until,
            on_failure,
            plan_file: None,
            relay: true,
            reconnect: Duration::ZERO,
            strictness: Strictness::default(),
        }
    }
}

/// Which runs `undo` undoes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UndoCommand {
    /// The newest run, with the unfinished runs that it continued.
    Rollback,
    /// All runs.
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

/// Which Secrets the ingress proxy may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowOptions {
    /// Those of this namespace; those of all namespaces when it is `None`.
    pub namespace: Option<String>,
    /// Only those that Ingresses name at present.
    pub named: bool,
}

/// What an undo is about to do, for the user to confirm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndoSummary {
    /// The command.
    pub command: UndoCommand,
    /// Name of the cluster.
    pub cluster: String,
    /// Runs that are undone, newest first.
    pub runs: Vec<FleetRun>,
    /// What goes with them.
    pub removes: Removes,
    /// Nodes that are not connected: their state stays until the command is run again.
    pub absent: Vec<NodeName>,
}

/// What an undo removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removes {
    /// The cluster itself, with everything stored in it.
    Cluster,
    /// Nodes of a cluster that stays; none when only settings are undone.
    Nodes(Vec<NodeName>),
    /// What an earlier cluster left on machines, when no other machine belongs to it.
    LeftOver(Vec<NodeName>),
}

/// What a repair of journals is about to do, for the user to confirm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairSummary {
    /// Name of the cluster.
    pub cluster: String,
    /// Nodes whose journals are damaged, with what was lost.
    pub nodes: BTreeMap<NodeName, Vec<LostLine>>,
}

/// Asks the user whether journals may be repaired; an error refuses.
pub type ConfirmRepair<'a> = &'a dyn Fn(&RepairSummary) -> Result<(), Diagnosis>;

/// Asks the user whether an undo may begin; an error refuses.
pub type Confirm<'a> = &'a dyn Fn(&UndoSummary) -> Result<(), Diagnosis>;

/// Runs probes on the operator's machine.
pub type LocalProber = fn(&[ProbeSpec]) -> Vec<ProbeResult>;

/// Everything a run needs from outside.
#[derive(Clone)]
pub struct RunContext {
    /// Makes connections.
    pub connector: Arc<dyn Connector>,
    /// Takes events.
    pub sink: Arc<dyn EventSink>,
    /// Set by ^C.
    pub cancel: CancelToken,
    /// The agent that nodes get.
    pub agent_program: Arc<AgentProgram>,
    /// Runs probes on this machine.
    pub local_prober: LocalProber,
    /// Who runs this: `user@host`, shown when a lease is refused.
    pub owner: String,
    /// Fresh id for this run.
    pub run: RunId,
    /// Random identity of the cluster that this run may found.
    pub new_uid: ClusterUid,
    /// This machine's clock when the run began, in milliseconds since the epoch. It is only displayed: runs are ordered by their numbers.
    pub at_ms: u64,
    /// Reads this machine's clock, milliseconds since the epoch, for comparison with the nodes' clocks.
    pub clock: fn() -> u64,
    /// Directory for the logs of failed nodes; it is made when needed.
    pub report_dir: Option<PathBuf>,
    /// Machines that `install`, `plan`, `preflight`, `verify`, `status` and `kubeconfig` act on.
    pub limit: Limit,
}

impl RunContext {
    /// Returns the start record of a run that continues no other, undoes none and has no bundle.
    pub fn start(&self, number: u64, command: &str, cluster: &str) -> RunStart {
        RunStart {
            owner: self.owner.clone(),
            at_ms: self.at_ms,
            ..RunStart::new(self.run.clone(), number, command, cluster)
        }
    }
}
