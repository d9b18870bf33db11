//! The actions on a node or on the cluster, and their undo recipes. Both enums are closed. The agent runs the actions of nodes, `engine::cluster`
//! those of the cluster.

mod text;
mod undo;
mod wanted;

pub use undo::{Claims, ClusterEffect, Prior, Undo};
pub use wanted::Wanted;

use crate::bundle_index::Image;
use crate::name::{Digest, NodeName, SecretId, StepId};
use crate::packet_filter::openings::Openings;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Permission bits of programs.
pub const PROGRAM_MODE: u32 = 0o755;

/// One change (or wait), fully described.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Action {
    /// Declares what the opaque daemons (kubelet, containerd, kube-proxy, flannel, CNI plugins) will make on this node. Applying
    /// changes nothing; its undo removes every claim that was absent before.
    Claim {
        /// What they are known to make.
        claims: Claims,
    },
    /// A directory.
    Directory {
        /// Absolute path.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// A file with known content; parent directories must exist or be of an earlier step.
    File {
        /// Absolute path.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
        /// What is in it.
        content: Content,
    },
    /// A program from the bundle.
    Binary {
        /// Absolute path.
        path: PathBuf,
        /// The zstd-compressed blob in the node's blob store.
        blob: Digest,
        /// Digest of the program itself.
        digest: Digest,
        /// Size of the program itself, in bytes.
        size_bytes: u64,
    },
    /// Lines that `/etc/hosts` must contain; all other lines are kept.
    HostsLines {
        /// Whole lines without newline.
        lines: Vec<String>,
    },
    /// Kernel settings.
    Sysctls {
        /// Name in dotted form and wanted value.
        settings: Vec<(String, String)>,
    },
    /// Kernel features: a module is loaded only when its feature is absent, by the feature's evidence (a path under /proc or /sys, or a
    /// line of /proc/filesystems).
    KernelFeatures {
        /// Feature list.
        features: Vec<KernelFeature>,
    },
    /// Accept rules among those of the packet filters that are there. Where nothing is dropped none are written, and what is wanted is recorded all
    /// the same: the node's settings service keeps it.
    Firewall {
        /// What is let through; nothing: rules of an earlier setting go.
        openings: Openings,
    },
    /// Enables a systemd unit whose file exists, and starts or restarts it.
    Unit {
        /// Unit name with suffix.
        name: String,
        /// Whether it is started now, or only enabled.
        start: bool,
        /// Digest of everything whose change requires a restart (unit file, configuration, program).
        restart_on: Digest,
    },
    /// Stops and disables a systemd unit that an earlier version installed. Its file is removed when its own step is undone.
    StopUnit {
        /// Unit name with suffix.
        name: String,
    },
    /// Container images imported into containerd's `k8s.io` namespace and pinned. A plan has a step for each repository, so that an image is imported
    /// while the blobs of later ones still come; journals of earlier versions have one step for all.
    Images {
        /// The images of a repository; their blobs are in the node's blob store.
        images: Vec<Image>,
    },
    /// An opaque program that may run any number of times. Satisfied when an earlier run of the step with the same fields is recorded as
    /// done and everything in `creates` exists.
    Run {
        /// Program and arguments; never a secret.
        argv: Vec<String>,
        /// Environment, in addition to PATH and HOME.
        env: Vec<(String, String)>,
        /// Paths that it makes.
        creates: Vec<PathBuf>,
        /// What it and the daemons it starts make, to be removed when it is undone.
        claims: Claims,
        /// Things it makes off the node.
        effects: Vec<ClusterEffect>,
        /// Where its standard output goes as a secret file (mode 0600), if it is wanted.
        stdout: Option<PathBuf>,
    },
    /// A one-shot phase by which a node becomes part of the cluster. Satisfied when the step is recorded as done and everything in
    /// `creates` exists, even when another version of landfall would run other commands.
    Bootstrap {
        /// What the node is afterwards.
        goal: BootstrapGoal,
        /// Program and arguments; never a secret.
        argv: Vec<String>,
        /// Paths that it makes.
        creates: Vec<PathBuf>,
        /// What it and the daemons it starts make, to be removed when it is undone.
        claims: Claims,
        /// Things it makes off the node.
        effects: Vec<ClusterEffect>,
    },
    /// Marks the newest entries of steps as being undone, before their share of a cluster that stays is undone. Only the marks are recorded; daemons run on.
    MarkUndo {
        /// The steps, newest first.
        steps: Vec<StepId>,
    },
    /// Begins to undo steps: marks their newest entries and stops the daemons that they claim, before anything is removed. Only the marks
    /// are recorded.
    BeginUndo {
        /// The steps, newest first.
        steps: Vec<StepId>,
    },
    /// Undoes the newest entry of a step. Recorded as its undo.
    TakeBack {
        /// The step.
        step: StepId,
        /// Whether an older entry that is also undone restores the same thing, so that this one is only removed from the journal.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        superseded: bool,
    },
    /// Ends an undo on a node: systemd reloads its units, and unused modules are unloaded. Not recorded.
    FinishUndo {
        /// Names of units whose files were removed or restored.
        units: Vec<String>,
        /// Names of modules.
        modules: Vec<String>,
    },
    /// Removes etcd members and Nodes from a cluster that stays. Runs on the operator, through another node; not recorded, because the steps
    /// that made them are undone afterwards.
    LeaveCluster {
        /// What an earlier step made in the cluster.
        effects: Vec<ClusterEffect>,
    },
    /// Restores objects of a cluster that stays. Runs on the operator; not recorded.
    RestoreObjects {
        /// Prior bodies of objects that existed.
        prior: Vec<serde_json::Value>,
        /// Objects that were absent (apiVersion, kind, namespace, name only).
        absent: Vec<serde_json::Value>,
    },
    /// Kubernetes objects by server-side apply. Runs on the operator, journalled on the first control plane.
    Apply {
        /// Whole objects, in order.
        objects: Vec<serde_json::Value>,
    },
    /// Deletes Kubernetes objects that landfall made and that are no longer wanted. Runs and is journalled like [`Action::Apply`].
    Delete {
        /// Their apiVersion, kind, namespace and name, in the order in which they were applied; the last one is deleted first.
        objects: Vec<serde_json::Value>,
    },
    /// Replaces the API server in a kubeconfig. Satisfied when the file does not exist, or names another one than `from`.
    KubeconfigServer {
        /// The kubeconfig.
        path: PathBuf,
        /// The URL that is replaced, for instance `https://api.landfall.internal:7443`.
        from: String,
        /// The URL that replaces it.
        to: String,
        /// The unit that reads the file; restarted when it is active.
        restart: Option<String>,
    },
    /// Waits for a state of the cluster. Changes nothing and is not journalled.
    Await {
        /// The state to wait for.
        condition: ClusterCondition,
    },
}

/// What a node is after a one-shot phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootstrapGoal {
    /// It holds the cluster's authorities: CA, front-proxy CA, etcd CA, service-account keys.
    Authorities,
    /// It has founded the cluster, alone or together with others: a member of the first etcd, an API server, a Node.
    Founder,
    /// Its kubelet has joined: a Node of this cluster.
    Node,
    /// It runs an etcd member and an API server of this cluster.
    ControlPlane,
    /// Its control plane is announced: roles, labels, taints.
    AnnouncedControlPlane,
}

impl BootstrapGoal {
    /// Returns the goal as a clause about the node.
    pub fn text(self) -> &'static str {
        match self {
            Self::Authorities => "holds the cluster's authorities",
            Self::Founder => "founds the cluster",
            Self::Node => "joins as a Node",
            Self::ControlPlane => "joins etcd and runs an API server",
            Self::AnnouncedControlPlane => "is marked as a control plane",
        }
    }
}

/// What a file contains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// Plain text, no secret in it.
    Text(String),
    /// Text in which the agent replaces `${random:BYTES}` by that many random bytes in base64; a file that this step made
    /// before is kept as it is.
    Generated(String),
    /// The value of a secret, which travels beside the plan.
    Secret(SecretId),
}

/// A kernel feature and the module that may carry it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelFeature {
    /// Module name for modprobe, for instance `br_netfilter`.
    pub module: String,
    /// What shows that the feature is there.
    pub evidence: FeatureEvidence,
}

/// What shows that a kernel feature is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeatureEvidence {
    /// A path exists.
    Path(PathBuf),
    /// A filesystem type is listed in /proc/filesystems.
    Filesystem(String),
    /// The kernel answers questions about nftables.
    Nftables,
}

/// A state of the cluster that a step waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterCondition {
    /// These Nodes exist and are Ready.
    NodesReady(Vec<NodeName>),
    /// A Deployment or DaemonSet has all its pods updated and ready.
    RolledOut {
        /// `Deployment` or `DaemonSet`.
        kind: String,
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
}

impl Action {
    /// Says whether the action changes something. Waits do not; they are neither journalled nor counted as changes.
    pub fn changes_something(&self) -> bool {
        !matches!(self, Self::Await { .. })
    }

    /// Says whether the step is part of undoing: its records are those of an undo.
    pub fn is_undo(&self) -> bool {
        matches!(
            self,
            Self::MarkUndo { .. }
                | Self::BeginUndo { .. }
                | Self::TakeBack { .. }
                | Self::FinishUndo { .. }
                | Self::LeaveCluster { .. }
                | Self::RestoreObjects { .. }
        )
    }

    /// Says whether the operator runs the action through the cluster's API.
    pub fn runs_in_cluster(&self) -> bool {
        matches!(
            self,
            Self::Apply { .. }
                | Self::Delete { .. }
                | Self::Await { .. }
                | Self::LeaveCluster { .. }
                | Self::RestoreObjects { .. }
        )
    }

    /// Returns the digest that identifies this action. It is recorded, and compared by the next run. For a one-shot phase it covers the goal alone,
    /// because a node that has reached the goal is not changed by another recipe.
    pub fn identity(&self) -> Digest {
        let serialised = match self {
            Self::Bootstrap { goal, .. } => serde_json::to_vec(goal),
            other => serde_json::to_vec(other),
        };
        Digest::of(&serialised.expect("actions have string keys only, so they always serialise"))
    }
}
