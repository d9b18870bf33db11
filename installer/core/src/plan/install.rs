//! Plans an install: the steps that bring each node, and then the cluster, to the wanted state.
//!
//! The cluster's record names the founder; the order of an inventory has no effect. Absent members get no steps. Steps that need an absent
//! member are left out, and a later run plans them.
//!
//! Steps only wait for what they need: certificates and the join credential are made before any image is imported, and all kubelets join as
//! soon as the API servers of the founders answer. The control planes of a new cluster found it together; those that come later join
//! etcd one by one.

mod join;
mod objects;
mod prepare;

pub use prepare::kernel_features;

use super::key::StepKind;
use super::objects::{LeftOut, ObjectGroup};
use super::{Plan, PlanError, Stage, Step};
use crate::action::{Action, Content};
use crate::bundle_index::{BundleIndex, BundleRole};
use crate::cluster_record::ClusterRecord;
use crate::inventory::Role;
use crate::journal::Ownership;
use crate::layout;
use crate::name::{NodeName, SecretId, StepId};
use crate::packet_filter::openings::Openings;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Everything the planner needs, already rendered and chosen.
#[derive(Debug, Clone)]
pub struct InstallInput<'a> {
    /// Connected members, control planes first, each group by name.
    pub members: Vec<Member>,
    /// The record of the cluster, with all its members, also absent ones.
    pub record: &'a ClusterRecord,
    /// What landfall owns on each connected node.
    pub owned: &'a BTreeMap<NodeName, Ownership>,
    /// Number of the run, for what serves this run alone.
    pub run: u64,
    /// What the bundle holds.
    pub index: &'a BundleIndex,
    /// Kernel settings every node needs.
    pub sysctls: Vec<(String, String)>,
    /// Lines for every node's hosts file.
    pub hosts_lines: Vec<String>,
    /// Audit policy for API servers.
    pub audit_policy: String,
    /// Encryption configuration with a `${random:32}` key.
    pub encryption_config: String,
    /// The API server's URL that kubeconfigs of earlier versions name, by a name in the hosts file; replaced by the balancer's.
    pub named_server: String,
    /// Kubernetes objects in groups.
    pub groups: Vec<ObjectGroup>,
    /// Objects of ours that are no longer wanted.
    pub left_out: Vec<LeftOut>,
}

/// One member of the cluster with its rendered files.
#[derive(Debug, Clone)]
pub struct Member {
    /// Name.
    pub name: NodeName,
    /// Address that peers use.
    pub address: IpAddr,
    /// How it becomes a member.
    pub joins: Joins,
    /// containerd's configuration.
    pub containerd_config: String,
    /// CNI template.
    pub cni_template: String,
    /// Resolver file.
    pub resolv_conf: String,
    /// What `kubeadm kubeconfig user` reads when it makes a credential, on control planes.
    pub credential_config: Option<String>,
    /// What its packet filters must let through; `None` when they stay as they are.
    pub openings: Option<Openings>,
    /// The patch by which etcd gets the list of all founders, on founders of a cluster that has several.
    pub etcd_patch: Option<String>,
    /// Units by name, with text; all are enabled, and started unless they are the kubelet.
    pub units: Vec<(String, String)>,
}

/// How a node becomes a member, with kubeadm's configuration for it.
#[derive(Debug, Clone)]
pub enum Joins {
    /// The founder: `kubeadm init`.
    Init(String),
    /// A control plane that is founded together with the founder: `kubeadm init` with the founder's authorities, without what is
    /// uploaded once.
    Cofounder(String),
    /// A further control plane: its kubelet joins first, in parallel with all others; then etcd and the API server, one node after the other.
    ControlPlane {
        /// For the kubelet.
        kubelet: String,
        /// For the rest.
        control_plane: String,
    },
    /// A worker.
    Worker(String),
}

impl Member {
    fn role(&self) -> Role {
        match self.joins {
            Joins::Init(_) | Joins::Cofounder(_) | Joins::ControlPlane { .. } => Role::ControlPlane,
            Joins::Worker(_) => Role::Worker,
        }
    }

    /// Says whether this member founds, or founded, the cluster, alone or together with others.
    fn founds(&self) -> bool {
        matches!(self.joins, Joins::Init(_) | Joins::Cofounder(_))
    }
}

/// Certificates and keys of the authorities that every control plane shares (kubeadm's names).
const SHARED_PKI: [&str; 8] = [
    "ca.crt",
    "ca.key",
    "sa.key",
    "sa.pub",
    "front-proxy-ca.crt",
    "front-proxy-ca.key",
    "etcd/ca.crt",
    "etcd/ca.key",
];

/// Seconds for a step that writes a file or asks systemd for something quick.
const QUICK_S: u64 = 60;
/// Seconds for a step that moves hundreds of megabytes; a slow disk writes 10 MB/s.
const BULK_S: u64 = 900;
/// Seconds for kubeadm's phases: its own waits end after 4 minutes, several follow each other.
const KUBEADM_S: u64 = 600;

/// The moves of an install.
pub(super) struct InstallMoves<'a> {
    input: &'a InstallInput<'a>,
    /// The control plane whose API is used and whose keys are shared: the founder, when it is connected.
    lead: &'a Member,
    founder: Option<&'a Member>,
    /// The steps that open packet filters. Nodes found and join behind all of them.
    opened: Vec<StepId>,
    /// The step after which the next node's daemons may be restarted.
    last_restart: Option<StepId>,
    plan: &'a mut Plan,
}

impl<'a> InstallMoves<'a> {
    /// Chooses the founder and the lead. Fails when the cluster is not formed and a founder is absent, or when no control plane is here.
    pub(super) fn of(input: &'a InstallInput<'a>, plan: &'a mut Plan) -> Result<Self, PlanError> {
        let founder = input.members.iter().find(|m| matches!(m.joins, Joins::Init(_)));
        let lead = founder.or(input.members.iter().find(|m| m.role() == Role::ControlPlane));
        let lead = lead.ok_or(PlanError::NoControlPlane)?;
        let is_absent = |name: &&NodeName| !input.members.iter().any(|m| &m.name == *name);
        let absent = input.record.founders().find(is_absent);
        if !input.record.formed && (founder.is_none() || absent.is_some()) {
            return Err(PlanError::FounderAbsent(absent.cloned()));
        }
        Ok(Self {
            input,
            lead,
            founder,
            opened: vec![],
            last_restart: None,
            plan,
        })
    }

    /// Plans every step. Satisfied steps are removed later, by the agents' observations.
    pub(super) fn add_all(mut self) -> Result<(), PlanError> {
        for member in &self.input.members {
            self.firewall(member);
        }
        for member in &self.input.members {
            self.prepare(member)?;
        }
        self.join_credential();
        self.found();
        self.join_all();
        for member in &self.input.members {
            self.kubeconfigs(member);
        }
        self.objects();
        Ok(())
    }
}

fn secret_id(text: &str) -> SecretId {
    text.to_ascii_lowercase().parse().expect("secret names are fixed words")
}

impl InstallMoves<'_> {
    fn add(
        &mut self,
        id: StepId,
        node: &NodeName,
        stage: Stage,
        needs: &[StepId],
        deadline_s: u64,
        action: Action,
    ) -> StepId {
        let step = Step::new(id, stage, node.clone(), deadline_s, action);
        self.plan.add(step.after(needs.to_vec()))
    }

    fn prepare_step(&mut self, kind: StepKind, member: &Member, needs: &[StepId], action: Action) -> StepId {
        self.add(
            kind.on(&member.name),
            &member.name,
            Stage::Prepare,
            needs,
            QUICK_S,
            action,
        )
    }

    /// Returns a step of the founder, when the founder is connected. Otherwise the founder has done the step in an earlier run.
    fn founded_by(&self, kind: StepKind) -> Option<StepId> {
        self.founder.map(|founder| kind.on(&founder.name))
    }

    /// Returns the members that found, or founded, the cluster, as far as they are connected.
    fn founders(&self) -> impl Iterator<Item = &Member> {
        self.input.members.iter().filter(|m| m.founds())
    }

    /// Returns the steps after which the cluster stands: the founding of each founder that is connected.
    fn founded(&self) -> Vec<StepId> {
        self.founders().map(|m| StepKind::Init.on(&m.name)).collect()
    }

    fn file(
        &mut self,
        id: StepId,
        member: &Member,
        path: impl Into<PathBuf>,
        content: Content,
        needs: &[StepId],
    ) -> StepId {
        let mode = if matches!(content, Content::Text(_)) {
            0o644
        } else {
            0o600
        };
        let action = Action::File {
            path: path.into(),
            mode,
            content,
        };
        self.add(id, &member.name, Stage::Prepare, needs, QUICK_S, action)
    }
}

fn kubeadm(args: &[&str]) -> Vec<String> {
    std::iter::once("kubeadm")
        .chain(args.iter().copied())
        .map(str::to_owned)
        .collect()
}

fn kubernetes(name: &str) -> PathBuf {
    Path::new(layout::KUBERNETES_DIR).join(name)
}

fn unit_word(name: &str) -> &str {
    name.trim_end_matches(".service")
}

fn bundle_role(role: Role) -> BundleRole {
    match role {
        Role::ControlPlane => BundleRole::ControlPlane,
        Role::Worker | Role::Outside => BundleRole::Worker,
    }
}
