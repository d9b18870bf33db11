//! Names of steps as a type: the planner names its edges by kind, part and node, and cannot misspell them.

use crate::inventory::Role;
use crate::journal::{EntryState, Ownership};
use crate::name::{NodeName, StepId};

/// What a step is about. The text of each kind is the first part of the step's id, and part of the interface: journals hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepKind {
    /// Claims of what daemons will make.
    Claim,
    /// Kernel features.
    KernelFeatures,
    /// File that loads modules at boot.
    ModulesFile,
    /// File with kernel settings for the boot.
    SysctlFile,
    /// Kernel settings.
    Sysctls,
    /// Lines of /etc/hosts.
    Hosts,
    /// Accept rules in packet filters.
    Firewall,
    /// A directory; the part says which.
    Directory(DirectoryKind),
    /// containerd's configuration.
    ContainerdConfig,
    /// CNI template.
    CniTemplate,
    /// Resolver file of pods.
    ResolvConf,
    /// kubeadm's configuration of the node.
    KubeadmConfig,
    /// kubeadm's configuration by which a control plane's kubelet joins.
    KubeletJoinConfig,
    /// What `kubeadm kubeconfig user` reads.
    ClusterConfig,
    /// kubeadm has checked its configuration of the node.
    KubeadmConfigValid,
    /// kubeadm has checked the configuration by which the kubelet joins.
    KubeletJoinConfigValid,
    /// A unit file; the part is the unit.
    UnitFile,
    /// A unit; the part is its name.
    Unit,
    /// A unit of an earlier version that is no longer wanted; the part is its name.
    StopUnit,
    /// A program; the part is its name.
    Binary,
    /// Images; the part is their repository.
    Images,
    /// The cluster's authorities.
    Certificates,
    /// The credential by which nodes join.
    JoinCredential,
    /// Audit policy.
    AuditPolicy,
    /// Encryption configuration.
    EncryptionConfig,
    /// The list of members with which etcd is bootstrapped, as a patch that kubeadm applies.
    EtcdPatch,
    /// `kubeadm init`, on each founder.
    Init,
    /// The credential on a node that joins.
    JoinKubeconfig,
    /// A shared key or certificate; the part is its name.
    Pki,
    /// A worker's kubelet joins.
    JoinWorker,
    /// A control plane's kubelet joins.
    JoinKubelet,
    /// A control plane's etcd member and API server join.
    JoinControlPlane,
    /// A control plane is marked as one.
    FinishControlPlane,
    /// A kubeconfig names the node's own balancer; the part is the file.
    Server,
    /// Objects that a group leaves out are removed; the part is the group.
    Remove,
    /// Nodes are awaited.
    NodesReady,
    /// A node is awaited whose daemons were restarted.
    NodeReadyAgain,
    /// Objects are applied; the part is the group.
    Apply,
    /// A workload is awaited; the part is its name.
    RolledOut,
    /// A step of an earlier run, or one that serves this run alone, is undone; the part is that step.
    TakeBack,
    /// A step that serves this run alone is undone at its end; the part is that step.
    Withdraw,
    /// Entries are marked whose share of a cluster that stays is undone.
    MarkUndo,
    /// The entries of an undo are marked and their daemons are stopped.
    BeginUndo,
    /// An undo on a node ends.
    FinishUndo,
    /// Blobs are kept on the node until an install has used them.
    KeepBlobs,
    /// Members and Nodes leave a cluster that stays; the part is the step that made them.
    LeaveCluster,
    /// Objects of a cluster that stays are restored; the part is the step that applied them.
    RestoreObjects,
}

/// Directories that are steps of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DirectoryKind {
    /// landfall's configuration.
    Config,
    /// Generated CNI configuration.
    CniConf,
    /// CNI plugins.
    CniBin,
    /// Programs, where they are not on the administrators' path.
    Bin,
    /// kubeadm's directory.
    Kubernetes,
    /// /lib/modules, which pods mount.
    Modules,
    /// /etc/ssl/certs, which pods mount.
    Certificates,
    /// What the API server mounts.
    ApiServer,
    /// Patches that kubeadm applies.
    KubeadmPatches,
    /// Static pods.
    Manifests,
    /// Shared keys.
    Pki,
}

impl StepKind {
    /// Returns the text with which ids of the kind begin.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::KernelFeatures => "kernel-features",
            Self::ModulesFile => "modules-file",
            Self::SysctlFile => "sysctl-file",
            Self::Sysctls => "sysctls",
            Self::Hosts => "hosts",
            Self::Firewall => "firewall",
            Self::Directory(kind) => match kind {
                DirectoryKind::Config => "dir-config",
                DirectoryKind::CniConf => "dir-cni-conf",
                DirectoryKind::CniBin => "dir-cni-bin",
                DirectoryKind::Bin => "dir-bin",
                DirectoryKind::Kubernetes => "dir-kubernetes",
                DirectoryKind::Modules => "dir-modules",
                DirectoryKind::Certificates => "dir-certificates",
                DirectoryKind::ApiServer => "dir-api-server",
                DirectoryKind::KubeadmPatches => "dir-kubeadm-patches",
                DirectoryKind::Manifests => "dir-manifests",
                DirectoryKind::Pki => "dir-pki",
            },
            Self::ContainerdConfig => "containerd-config",
            Self::CniTemplate => "cni-template",
            Self::ResolvConf => "resolv-conf",
            Self::KubeadmConfig => "kubeadm-config",
            Self::KubeletJoinConfig => "kubelet-join-config",
            Self::ClusterConfig => "cluster-config",
            Self::KubeadmConfigValid => "kubeadm-config-valid",
            Self::KubeletJoinConfigValid => "kubelet-join-config-valid",
            Self::UnitFile => "unit-file",
            Self::Unit => "unit",
            Self::StopUnit => "stop-unit",
            Self::Binary => "binary",
            Self::Images => "images",
            Self::Certificates => "certificates",
            Self::JoinCredential => "join-credential",
            Self::AuditPolicy => "audit-policy",
            Self::EncryptionConfig => "encryption-config",
            Self::EtcdPatch => "etcd-patch",
            Self::Init => "init",
            Self::JoinKubeconfig => "join-kubeconfig",
            Self::Pki => "pki",
            Self::JoinWorker => "join-worker",
            Self::JoinKubelet => "join-kubelet",
            Self::JoinControlPlane => "join-control-plane",
            Self::FinishControlPlane => "finish-control-plane",
            Self::Server => "server",
            Self::Remove => "remove",
            Self::NodesReady => "nodes-ready",
            Self::NodeReadyAgain => "node-ready-again",
            Self::Apply => "apply",
            Self::RolledOut => "rolled-out",
            Self::TakeBack => "take-back",
            Self::Withdraw => "withdraw",
            Self::MarkUndo => "mark-undo",
            Self::BeginUndo => "begin-undo",
            Self::FinishUndo => "finish-undo",
            Self::KeepBlobs => "keep-blobs",
            Self::LeaveCluster => "leave-cluster",
            Self::RestoreObjects => "restore-objects",
        }
    }

    /// Returns the kind of step by which a kubelet of that role joins.
    pub fn kubelet_join(role: Role) -> Self {
        match role {
            Role::ControlPlane => Self::JoinKubelet,
            Role::Worker | Role::Outside => Self::JoinWorker,
        }
    }

    /// Returns the id of the cluster's only step of this kind.
    pub fn of_cluster(self) -> StepId {
        id(self.as_str())
    }

    /// Returns the id of the cluster's step of this kind and part. Parts of groups are joined by a hyphen.
    pub fn part_of_cluster(self, part: &str) -> StepId {
        let separator = if matches!(self, Self::Apply | Self::Remove) {
            '-'
        } else {
            '/'
        };
        id(&format!("{}{separator}{part}", self.as_str()))
    }

    /// Returns the id of a node's step of this kind.
    pub fn on(self, node: &NodeName) -> StepId {
        id(&format!("{}/{node}", self.as_str()))
    }

    /// Returns the id of a node's step of this kind and part, for instance a program.
    pub fn part_on(self, part: &str, node: &NodeName) -> StepId {
        id(&format!("{}/{}/{node}", self.as_str(), part.to_ascii_lowercase()))
    }

    /// Says whether a step is of this kind, on whatever node.
    pub fn is_kind_of(self, step: &StepId) -> bool {
        let rest = step.as_str().strip_prefix(self.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Says whether a step makes its node a member: from then on the node's kubelet belongs to the cluster.
pub fn is_membership(step: &StepId) -> bool {
    let kinds = [StepKind::Init, StepKind::JoinWorker, StepKind::JoinKubelet];
    kinds.iter().any(|kind| kind.is_kind_of(step))
}

/// Says whether a journal holds a membership that is whole.
pub fn has_joined(own: &Ownership) -> bool {
    let mut owned = own.entries.iter().filter(|e| e.state == EntryState::Owned);
    owned.any(|entry| is_membership(&entry.step))
}

/// Says whether a journal holds an etcd member that is whole: one that was founded or has joined.
pub fn has_etcd_member(own: &Ownership) -> bool {
    let kinds = [StepKind::Init, StepKind::JoinControlPlane];
    let is_member = |step: &StepId| kinds.iter().any(|kind| kind.is_kind_of(step));
    let mut owned = own.entries.iter().filter(|e| e.state == EntryState::Owned);
    owned.any(|entry| is_member(&entry.step))
}

/// Says whether landfall owns nothing but blobs that were pushed ahead: nothing is installed then.
pub fn is_bare(own: &Ownership) -> bool {
    own.entries.iter().all(|e| StepKind::KeepBlobs.is_kind_of(&e.step))
}

/// Says whether blobs are kept until an install has used them.
pub fn keeps_blobs(own: &Ownership) -> bool {
    own.entries.iter().any(|e| StepKind::KeepBlobs.is_kind_of(&e.step))
}

fn id(text: &str) -> StepId {
    text.parse()
        .expect("ids are made of fixed words, names of the index and node names, which were all checked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_that_journals_hold() {
        let node: NodeName = "cp-1".parse().unwrap();
        let ids = [
            StepKind::Init.on(&node),
            StepKind::Unit.part_on("kubelet", &node),
            StepKind::Binary.part_on("containerd-shim-runc-v2", &node),
            StepKind::Pki.part_on("etcd/ca.crt", &node),
            StepKind::Apply.part_of_cluster("flannel"),
            StepKind::NodesReady.of_cluster(),
        ];
        let texts: Vec<&str> = ids.iter().map(StepId::as_str).collect();
        assert_eq!(
            texts,
            [
                "init/cp-1",
                "unit/kubelet/cp-1",
                "binary/containerd-shim-runc-v2/cp-1",
                "pki/etcd/ca.crt/cp-1",
                "apply-flannel",
                "nodes-ready",
            ]
        );
        assert!(StepKind::Init.is_kind_of(&ids[0]) && !StepKind::Unit.is_kind_of(&"unit-file/x/cp-1".parse().unwrap()));
    }
}
