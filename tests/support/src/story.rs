//! An install of everything that happens on nodes, told as the engine tells it: connect, lease, journals, what is satisfied, the
//! executor, the end of the run. The plan is the real planner's over the real manifests' files; what runs through the Kubernetes API
//! is left out of it, because the machines have none.

use anyhow::{Result, anyhow};
use landfall_bundle::BundleFile;
use landfall_core::action::Action;
use landfall_core::bundle_index::BundleIndex;
use landfall_core::inventory::{Inventory, Node, Role};
use landfall_core::journal::Ownership;
use landfall_core::name::{NodeName, StepId};
use landfall_core::plan::install::{InstallInput, Joins, Member, plan_install};
use landfall_core::plan::{Plan, Step};
use landfall_core::spec::{Desired, parse};
use landfall_core::wire::Request;
use landfall_engine::cluster::Cluster;
use landfall_engine::execute::Executor;
use landfall_engine::fleet::{self, Sessions, Voice};
use landfall_engine::run::{Outcome, Surroundings};
use landfall_engine::session::AgentPlace;
use landfall_manifests::{self as manifests, ClusterLayout, DnsPolicy, MemberLayout};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// Returns a cluster of `control_planes` (1, 3 or 5) and `workers`, read from a cluster.yaml.
pub fn desired(control_planes: u8, workers: u8) -> Result<Desired> {
    let mut text = "name: ship\nnodes:\n".to_owned();
    for n in 1..=control_planes {
        text.push_str(&format!("  - {{name: cp-{n}, role: control-plane, ip: 10.20.0.{n}}}\n"));
    }
    for n in 1..=workers {
        text.push_str(&format!("  - {{name: w-{n}, role: worker, ip: 10.20.1.{n}}}\n"));
    }
    parse::cluster_yaml(&text, "cluster.yaml").map_err(|problems| anyhow!("{problems:?}"))
}

/// Plans everything that happens on nodes.
pub fn plan(desired: &Desired, index: &BundleIndex) -> Result<Plan> {
    let mut plan = plan_install(&InstallInput {
        members: members(desired, index)?,
        index,
        sysctls: manifests::kernel_settings(),
        hosts_lines: manifests::hosts_lines(&desired.spec),
        audit_policy: manifests::audit_policy()?,
        encryption_config: manifests::encryption_config()?,
        named_server: "https://api.landfall.internal:7443".to_owned(),
        groups: vec![],
        left_out: vec![],
    })?;
    plan.steps.retain(|step| !step.action.runs_in_cluster());
    for step in &mut plan.steps {
        // Node objects and etcd members would be looked for through the API.
        if let Action::Run { effects, .. } = &mut step.action {
            effects.clear();
        }
    }
    Ok(plan)
}

fn members(desired: &Desired, index: &BundleIndex) -> Result<Vec<Member>> {
    let spec = &desired.spec;
    let address = |node: &Node| node.ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let layout = ClusterLayout {
        members: desired
            .inventory
            .members()
            .map(|node| MemberLayout {
                name: node.name.clone(),
                control_plane: node.role == Role::ControlPlane,
                schedulable: node.schedulable,
                address: address(node),
                interface: "eth0".to_owned(),
                reaches_services: false,
            })
            .collect(),
        dns: DnsPolicy::Closed,
    };
    let member = |(n, node): (usize, &MemberLayout)| {
        let joins = match (n, node.control_plane) {
            (0, _) => Joins::First(manifests::kubeadm_init(spec, index, &layout, node)?),
            (_, true) => Joins::ControlPlane {
                kubelet: manifests::kubelet_join(spec, node)?,
                control_plane: manifests::control_plane_join(spec, node)?,
            },
            (_, false) => Joins::Worker(manifests::kubelet_join(spec, node)?),
        };
        Ok(Member {
            name: node.name.clone(),
            address: node.address,
            joins,
            containerd_config: manifests::containerd_config(spec, index)?,
            cni_template: manifests::cni_template(),
            resolv_conf: manifests::resolv_conf(&layout),
            units: manifests::units(spec, &layout, node),
        })
    };
    layout.members.iter().enumerate().map(member).collect()
}

/// Installs: runs what is not satisfied of the plan. Blocks until all is done or has failed.
pub fn install(inventory: &Inventory, plan: &Plan, bundle: &BundleFile, around: &Surroundings) -> Outcome {
    let voice = Voice::new(around);
    let mut outcome = Outcome::default();
    let members: Vec<&Node> = inventory.members().collect();
    let (sessions, errors) = fleet::connect(&members, AgentPlace::Member, around, &voice);
    outcome.errors = errors;
    if outcome.errors.is_empty()
        && let Err(errors) = on_sessions(plan, bundle, around, &voice, &sessions, &mut outcome)
    {
        outcome.errors.extend(errors);
    }
    fleet::close(&sessions);
    outcome
}

fn on_sessions(
    plan: &Plan,
    bundle: &BundleFile,
    around: &Surroundings,
    voice: &Voice,
    sessions: &Sessions,
    outcome: &mut Outcome,
) -> Result<(), Vec<landfall_core::explain::Diagnosis>> {
    outcome.run = Some(fleet::lease(sessions, "install", "ship", None, around)?);
    let owned: BTreeMap<NodeName, Ownership> = fleet::ask_all(sessions, |_| Request::Ownership)?;
    let answers: BTreeMap<NodeName, BTreeSet<StepId>> = fleet::ask_all(sessions, |name| Request::Check {
        steps: changing(plan, name),
    })?;
    let executor = Executor {
        sessions,
        owned: &owned,
        bundle,
        cluster: &Cluster::default(),
        cancel: &around.cancel,
        voice,
    };
    let executed = executor.run(plan, &answers.into_values().flatten().collect());
    outcome.changes = executed.changes;
    outcome.bytes_sent = executed.bytes_sent;
    outcome.interrupted = around.cancel.is_cancelled();
    if !executed.errors.is_empty() || outcome.interrupted {
        return Err(executed.errors);
    }
    let finish = Request::FinishRun {
        outcome: "done".to_owned(),
    };
    fleet::ask_all::<()>(sessions, |_| finish.clone())?;
    fleet::ask_all::<()>(sessions, |_| Request::Tidy).map(drop)
}

fn changing(plan: &Plan, name: &NodeName) -> Vec<Step> {
    plan.steps_on(name)
        .filter(|s| s.action.changes_something())
        .cloned()
        .collect()
}
