//! What can be done to a node or the cluster, and how each thing is undone. Closed enums without behaviour: the agent
//! (or `engine::cluster` for [`Action::Apply`] and [`Action::Await`]) interprets them.

use crate::bundle_index::Image;
use crate::journal::Wanted;
use crate::name::{Digest, NodeName, SecretId, StepId};
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
    /// Lines that must stand in `/etc/hosts`; all other lines stay.
    HostsLines {
        /// Whole lines without newline.
        lines: Vec<String>,
    },
    /// Kernel settings.
    Sysctls {
        /// Name in dotted form and wanted value.
        settings: Vec<(String, String)>,
    },
    /// Kernel features: each is looked up by what it is (`probe` path under /proc or /sys exists, or a line of
    /// /proc/filesystems) and its module is loaded only when it is absent.
    KernelFeatures {
        /// Feature list.
        features: Vec<KernelFeature>,
    },
    /// A systemd unit whose file is there already: enabled, and started or restarted.
    Unit {
        /// Unit name with suffix.
        name: String,
        /// Whether it is started now, or only enabled.
        start: bool,
        /// Digest of everything that asks for a restart when it changes (unit file, configuration, program).
        restart_on: Digest,
    },
    /// Container images imported into containerd's `k8s.io` namespace and pinned.
    Images {
        /// The images; their blobs are in the node's blob store.
        images: Vec<Image>,
    },
    /// An opaque program that may run any number of times. Satisfied when an earlier run of the step with the same fields is recorded as
    /// done and everything in `creates` is there.
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
    /// `creates` is there: the recipe may change from version to version, and the node is a member all the same.
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
    /// Begins to take back steps: their newest entries are marked, and the daemons that they claim are stopped, before anything is
    /// removed. Recorded by the marks alone.
    BeginUndo {
        /// The steps, newest first.
        steps: Vec<StepId>,
    },
    /// Takes back the newest entry of a step. Recorded as its undo.
    TakeBack {
        /// The step.
        step: StepId,
        /// Whether an older entry that goes too puts the same thing back: then this one only leaves the journal.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        superseded: bool,
    },
    /// Ends an undo on a node: systemd forgets unit files that are gone, and modules go that nobody uses any more. Not recorded.
    FinishUndo {
        /// Names of units whose files went, or came back.
        units: Vec<String>,
        /// Names of modules.
        modules: Vec<String>,
    },
    /// Takes members and Nodes out of a cluster that stays. Runs on the operator, over another node; not recorded: what made them is
    /// taken back afterwards.
    LeaveCluster {
        /// What an earlier step made off its node.
        effects: Vec<ClusterEffect>,
    },
    /// Puts objects of a cluster that stays back to what they were. Runs on the operator; not recorded.
    RestoreObjects {
        /// Bodies of objects that were there.
        prior: Vec<serde_json::Value>,
        /// Objects that were absent (apiVersion, kind, namespace, name only).
        absent: Vec<serde_json::Value>,
    },
    /// Kubernetes objects by server-side apply. Runs on the operator, journalled on the first control plane.
    Apply {
        /// Whole objects, in order.
        objects: Vec<serde_json::Value>,
    },
    /// Removes Kubernetes objects that landfall made and that are wanted no more. Runs and is journalled as [`Action::Apply`].
    Delete {
        /// What names them (apiVersion, kind, namespace, name), in the order in which they were applied; the last goes first.
        objects: Vec<serde_json::Value>,
    },
    /// The API server that a kubeconfig names. Satisfied when the file is not there, or names another one than `from`.
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
        /// What is awaited.
        condition: ClusterCondition,
    },
}

/// What a node is after a one-shot phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootstrapGoal {
    /// It holds the cluster's authorities: CA, front-proxy CA, etcd CA, service-account keys.
    Authorities,
    /// It has founded the cluster: first etcd member, first API server, first Node.
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

/// Something awaited from the cluster.
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

/// What an opaque tool makes on the host. At undo the daemons named in `units` are stopped first, then claims are removed and
/// nothing else, never across a mount. The agent drops from the recorded claims whatever was there before.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Claims {
    /// Units that must be stopped before anything is removed.
    pub units: Vec<String>,
    /// Directories of containers' cgroups, relative to each hierarchy's root, for instance `kubepods`; their processes are killed.
    pub cgroups: Vec<String>,
    /// Programs (absolute paths) whose remaining processes are killed, for instance the containerd shim.
    pub programs: Vec<PathBuf>,
    /// Files and directory trees.
    pub paths: Vec<PathBuf>,
    /// Directories under which mounts are taken away.
    pub mounts_under: Vec<PathBuf>,
    /// Network links by name.
    pub links: Vec<String>,
    /// nftables tables, `family name`, for instance `ip kube-proxy`.
    pub nft_tables: Vec<String>,
    /// Prefixes of iptables chains in any table, for instance `KUBE-`; jumps to them go too, and base tables that were absent
    /// before and end empty.
    pub iptables_chains: Vec<String>,
    /// Kernel settings that they write; the recorded undo holds the prior values.
    pub sysctls: Vec<String>,
    /// Modules that they load; the recorded undo holds those that were absent, and what these need.
    pub modules: Vec<String>,
    /// AppArmor profiles that they load into the kernel.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub apparmor_profiles: Vec<String>,
}

/// Something a step makes off the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterEffect {
    /// A member of the etcd cluster.
    EtcdMember {
        /// Member name, the node's.
        name: String,
        /// Its peer URL.
        peer_url: String,
    },
    /// A Node object.
    Node {
        /// Its name.
        name: NodeName,
    },
}

impl ClusterEffect {
    /// Returns what it is, for people.
    pub fn text(&self) -> String {
        match self {
            Self::EtcdMember { name, .. } => format!("etcd member {name}"),
            Self::Node { name } => format!("Node {name}"),
        }
    }
}

/// How one step is taken back. Recorded before the step acts; idempotent, and right after a partial step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "undo", rename_all = "kebab-case")]
pub enum Undo {
    /// Nothing to undo on the node.
    Nothing,
    /// Puts a path back to what it was.
    RestorePath {
        /// The path.
        path: PathBuf,
        /// What was there.
        prior: Prior,
    },
    /// Removes a directory that was absent, if it is empty.
    RemoveDirectory {
        /// The directory and the parents that were absent too, deepest first.
        paths: Vec<PathBuf>,
    },
    /// Removes lines of ours from /etc/hosts.
    RemoveHostsLines {
        /// The lines that were absent.
        lines: Vec<String>,
    },
    /// Puts the prior server back into a kubeconfig, if it still names the one that replaced it.
    KubeconfigServer {
        /// The kubeconfig.
        path: PathBuf,
        /// The URL that landfall wrote.
        ours: String,
        /// The URL that was there.
        prior: String,
        /// The unit that reads the file; restarted when it is active.
        restart: Option<String>,
    },
    /// Puts kernel settings back, those that still have the value that was set.
    RestoreSysctls {
        /// Name and prior value.
        settings: Vec<(String, String)>,
        /// Name and value that the step sets; empty in journals that are older than this field.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        set: Vec<(String, String)>,
    },
    /// Unloads modules that were absent.
    UnloadModules {
        /// Module names.
        modules: Vec<String>,
    },
    /// Puts a unit back: disabled and stopped when it was so.
    RestoreUnit {
        /// Unit name.
        name: String,
        /// Was it enabled?
        was_enabled: bool,
        /// Was it active?
        was_active: bool,
    },
    /// Removes images that were absent from containerd (skipped when containerd itself goes).
    RemoveImages {
        /// References.
        references: Vec<String>,
    },
    /// Stops daemons and removes claims.
    RemoveClaims {
        /// Only what was absent before.
        claims: Claims,
        /// Kernel settings and their prior values.
        sysctls: Vec<(String, String)>,
        /// Kernel settings and the values that the daemons (and, with them, the kernel) give them; see `RestoreSysctls`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        set: Vec<(String, String)>,
        /// Tables of iptables in nftables that were absent before, `family name`, and base chains of those that were there,
        /// `family table chain`.
        absent_bases: Vec<String>,
        /// Directories above claimed paths that were absent before, deepest first; removed when they end empty.
        #[serde(default)]
        absent_parents: Vec<PathBuf>,
        /// Things off the node; the engine asks the cluster what became of them.
        effects: Vec<ClusterEffect>,
    },
    /// Restores Kubernetes objects; the engine does it, and skips it when the cluster goes.
    RestoreObjects {
        /// Prior bodies of objects that were there.
        prior: Vec<serde_json::Value>,
        /// Objects that were absent (apiVersion, kind, namespace, name only).
        absent: Vec<serde_json::Value>,
    },
    /// Nobody knows: its line of the journal was damaged. The first undo names it as residue, the next one counts it as gone.
    Lost {
        /// One-based number of the line in the damaged journal.
        line: usize,
        /// What of the line could still be read; empty when it was no record.
        seen: String,
    },
}

impl Undo {
    /// Says whether nobody knows it.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }

    /// Returns one line for people.
    pub fn text(&self) -> String {
        let paths = |paths: &[PathBuf]| {
            paths
                .iter()
                .map(|p| p.display().to_string())
                .collect::<Vec<_>>()
                .join(", ")
        };
        match self {
            Self::Nothing => "nothing to take back on the node".to_owned(),
            Self::RestorePath { path, prior } => match prior {
                Prior::Absent => format!("remove {}", path.display()),
                Prior::File { mode, .. } => format!("put the earlier file {} back ({mode:04o})", path.display()),
                Prior::Link { target } => format!("link {} to {} again", path.display(), target.display()),
            },
            Self::RemoveDirectory { paths: list } => format!("remove {}, when empty", paths(list)),
            Self::RemoveHostsLines { lines } => format!("remove {} line(s) from /etc/hosts", lines.len()),
            Self::KubeconfigServer { path, prior, .. } => format!("server {prior} in {}", path.display()),
            Self::RestoreSysctls { settings, .. } => {
                let values: Vec<_> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!("put kernel settings back: {}", values.join(" "))
            }
            Self::UnloadModules { modules } if modules.is_empty() => "no module was loaded".to_owned(),
            Self::UnloadModules { modules } => format!("unload {}", modules.join(", ")),
            Self::RestoreUnit {
                name,
                was_enabled,
                was_active,
            } => {
                let word = |is: &bool, yes: &'static str, no: &'static str| if *is { yes } else { no };
                format!(
                    "{name} {} and {}",
                    word(was_enabled, "enabled", "disabled"),
                    word(was_active, "running", "stopped")
                )
            }
            Self::RemoveImages { references } => format!("remove {} images", references.len()),
            Self::RemoveClaims { claims, effects, .. } => {
                let (first, rest) = claims.paths.split_at(claims.paths.len().min(3));
                let more = match rest.len() {
                    0 => String::new(),
                    n => format!(" and {n} more paths"),
                };
                let mut parts = vec![format!(
                    "stop the daemons, remove what they made: {}{more}",
                    paths(first)
                )];
                parts.extend(effects.iter().map(|effect| format!("the {}", effect.text())));
                parts.join(", ")
            }
            Self::RestoreObjects { prior, absent } => {
                format!("restore {} objects, delete {}", prior.len(), absent.len())
            }
            Self::Lost { line, .. } => format!("not known: line {line} of the journal was damaged"),
        }
    }
}

/// What was at a path before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prior {
    /// Nothing.
    Absent,
    /// A file; its content is in the agent's store of prior contents by digest.
    File {
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Digest of its content.
        content: Digest,
    },
    /// A symbolic link.
    Link {
        /// Its target.
        target: PathBuf,
    },
}

impl Action {
    /// Says whether the step leaves anything behind: waits do not, and are neither journalled nor counted as changes.
    pub fn changes_something(&self) -> bool {
        !matches!(self, Self::Await { .. })
    }

    /// Says whether the step is part of taking back: its records are those of an undo.
    pub fn is_undo(&self) -> bool {
        matches!(
            self,
            Self::BeginUndo { .. }
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

    /// Returns the digest that identifies this action; recorded, and compared by the next run. Of a one-shot step the goal alone counts:
    /// a node that reached it has reached it, whatever the recipe is today.
    pub fn identity(&self) -> Digest {
        let serialised = match self {
            Self::Bootstrap { goal, .. } => serde_json::to_vec(goal),
            other => serde_json::to_vec(other),
        };
        Digest::of(&serialised.expect("actions have string keys only, so they always serialise"))
    }

    /// Returns what holds once the action is done, where that can be looked at again later.
    pub fn wanted(&self) -> Option<Wanted> {
        match self {
            Self::Directory { path, mode } => Some(Wanted::Directory {
                path: path.clone(),
                mode: *mode,
            }),
            Self::File { path, mode, content } => Some(Wanted::File {
                path: path.clone(),
                mode: *mode,
                content: match content {
                    Content::Text(text) => Some(Digest::of(text.as_bytes())),
                    Content::Generated(_) | Content::Secret(_) => None,
                },
            }),
            Self::Binary { path, digest, .. } => Some(Wanted::File {
                path: path.clone(),
                mode: PROGRAM_MODE,
                content: Some(*digest),
            }),
            Self::HostsLines { lines } => Some(Wanted::HostsLines(lines.clone())),
            Self::Sysctls { settings } => Some(Wanted::Sysctls(settings.clone())),
            Self::KernelFeatures { features } => {
                Some(Wanted::Modules(features.iter().map(|f| f.module.clone()).collect()))
            }
            Self::Unit { name, start, .. } => Some(Wanted::Unit {
                name: name.clone(),
                running: *start,
            }),
            Self::Images { images } => Some(Wanted::Images(images.iter().map(|i| i.reference.to_string()).collect())),
            Self::Claim { .. }
            | Self::Run { .. }
            | Self::Bootstrap { .. }
            | Self::BeginUndo { .. }
            | Self::TakeBack { .. }
            | Self::FinishUndo { .. }
            | Self::LeaveCluster { .. }
            | Self::RestoreObjects { .. }
            | Self::KubeconfigServer { .. }
            | Self::Apply { .. }
            | Self::Delete { .. }
            | Self::Await { .. } => None,
        }
    }

    /// Returns one line for people: how the change will be taken back. The recipe itself is made when the node's state is known.
    pub fn undo_text(&self) -> &'static str {
        match self {
            Self::Claim { .. } => {
                "stop the daemons; remove what they made and was not there, the audit log in /var/log/kubernetes included"
            }
            Self::Directory { .. } => "remove it when it was not there and is empty",
            Self::File { .. } | Self::Binary { .. } => "remove it, or put the earlier file back",
            Self::HostsLines { .. } => "remove these lines",
            Self::Sysctls { .. } => {
                "set what other sysctl files say, or the earlier values, where nobody else has set another"
            }
            Self::KernelFeatures { .. } => "unload what was loaded for it and serves nobody else",
            Self::Unit { .. } => "stop and disable it, or as it was",
            Self::Images { .. } => "remove the images that were not there",
            Self::Run { .. } | Self::Bootstrap { .. } => "remove what it made here, and its members of the cluster",
            Self::BeginUndo { .. }
            | Self::TakeBack { .. }
            | Self::FinishUndo { .. }
            | Self::LeaveCluster { .. }
            | Self::RestoreObjects { .. } => "install again",
            Self::Apply { .. } => "delete the objects, or restore the earlier ones",
            Self::Delete { .. } => "apply them again as they were",
            Self::KubeconfigServer { .. } => "write the earlier server back",
            Self::Await { .. } => "nothing to undo",
        }
    }

    /// Returns one line for people.
    pub fn text(&self) -> String {
        match self {
            Self::Claim { .. } => "record what the daemons will make".to_owned(),
            Self::Directory { path, mode } => format!("directory {} ({mode:04o})", path.display()),
            Self::File { path, mode, .. } => format!("file {} ({mode:04o})", path.display()),
            Self::Binary { path, size_bytes, .. } => format!("program {} ({size_bytes} bytes)", path.display()),
            Self::HostsLines { lines } => format!("{} line(s) in /etc/hosts", lines.len()),
            Self::Sysctls { settings } => {
                let names: Vec<_> = settings.iter().map(|(n, v)| format!("{n}={v}")).collect();
                format!("kernel settings {}", names.join(" "))
            }
            Self::KernelFeatures { features } => {
                let names: Vec<_> = features.iter().map(|f| f.module.as_str()).collect();
                format!("kernel features {}", names.join(" "))
            }
            Self::Unit { name, start: true, .. } => format!("enable and start {name}"),
            Self::Unit { name, start: false, .. } => format!("enable {name}"),
            Self::Images { images } => format!("import and pin {} images", images.len()),
            Self::Run { argv, .. } => format!("run {}", argv.join(" ")),
            Self::Bootstrap { goal, argv, .. } => format!("the node {}: run {}", goal.text(), argv.join(" ")),
            Self::BeginUndo { steps } => format!("stop the daemons of {} steps that go", steps.len()),
            Self::TakeBack { step, .. } => format!("take back {step}"),
            Self::FinishUndo { units, modules } => format!(
                "make systemd read its units again ({}), and unload what nobody uses of {} modules",
                units.join(", "),
                modules.len()
            ),
            Self::LeaveCluster { effects } => {
                let names: Vec<_> = effects.iter().map(ClusterEffect::text).collect();
                format!("remove from the cluster: {}", names.join(", "))
            }
            Self::RestoreObjects { prior, absent } => {
                format!("restore {} objects, delete {}", prior.len(), absent.len())
            }
            Self::Apply { objects } => format!("apply {} objects", objects.len()),
            Self::Delete { objects } => format!("delete {} objects", objects.len()),
            Self::KubeconfigServer { path, to, .. } => format!("server {to} in {}", path.display()),
            Self::Await { condition } => match condition {
                ClusterCondition::NodesReady(nodes) => format!("wait for {} nodes to be Ready", nodes.len()),
                ClusterCondition::RolledOut { kind, name, .. } => format!("wait for {kind} {name}"),
            },
        }
    }
}
