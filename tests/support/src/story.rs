//! An install of everything that happens on nodes, told as the engine tells it: connect, lease, journals, what is satisfied, the
//! executor, the end of the run. The plan is the real planner's over the real manifests' files; what runs through the Kubernetes API
//! is left out of it, because the machines have none.

use anyhow::{Result, anyhow};
use landfall_bundle::BundleFile;
use landfall_core::action::Action;
use landfall_core::bundle_index::BundleIndex;
use landfall_core::cluster_record::{ClusterRecord, ClusterUid, FixedSettings, KeptSettings, MemberRecord, Sequence};
use landfall_core::inventory::{Node, Role};
use landfall_core::journal::{Ownership, RunStart};
use landfall_core::name::NodeName;
use landfall_core::observe::{Observations, judge};
use landfall_core::plan::install::{InstallInput, Joins, Member, plan_install};
use landfall_core::plan::pending::settle;
use landfall_core::plan::{Plan, Step};
use landfall_core::run_history::{INSTALL, RunHistory};
use landfall_core::spec::{Desired, parse};
use landfall_core::wire::Request;
use landfall_engine::cluster::Cluster;
use landfall_engine::execute::Executor;
use landfall_engine::fleet::{self, Sessions, Voice};
use landfall_engine::run::{Outcome, Surroundings};
use landfall_engine::session::AgentPlace;
use landfall_manifests::{self as manifests, ClusterLayout, DnsPolicy, MemberLayout};
use std::collections::BTreeMap;
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
    let (record, owned) = (record(desired, index), BTreeMap::new());
    let mut plan = plan_install(&InstallInput {
        members: members(desired, index)?,
        record: &record,
        owned: &owned,
        run: 1,
        cluster_config: manifests::cluster_config(&desired.spec, index, &layout(desired))?,
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
        if let Action::Run { effects, .. } | Action::Bootstrap { effects, .. } = &mut step.action {
            effects.clear();
        }
    }
    Ok(plan)
}

/// The cluster as a first run records it.
fn record(desired: &Desired, index: &BundleIndex) -> ClusterRecord {
    let founder = desired.inventory.control_planes().next().map(|node| node.name.clone());
    let member = |node: &Node| {
        let member = MemberRecord {
            uid: node.name.to_string(),
            role: node.role,
            address: node.ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            founder: founder.as_ref() == Some(&node.name),
            etcd_id: None,
        };
        (node.name.clone(), member)
    };
    ClusterRecord {
        uid: ClusterUid::from_random([7; 16]),
        name: desired.spec.name.clone(),
        sequence: Sequence { run: 1, revision: 0 },
        formed: false,
        ca: None,
        kubernetes_version: index.kubernetes_version.clone(),
        bundle: None,
        fixed: FixedSettings::of(&desired.spec),
        kept: KeptSettings {
            proxy_mode: desired.spec.proxy_mode,
            upstream_dns: Some(vec![]),
            upstream_dns_named: false,
        },
        members: desired.inventory.members().map(member).collect(),
    }
}

fn layout(desired: &Desired) -> ClusterLayout {
    let member = |node: &Node| MemberLayout {
        name: node.name.clone(),
        control_plane: node.role == Role::ControlPlane,
        schedulable: node.schedulable,
        address: node.ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        interface: "eth0".to_owned(),
        reaches_services: false,
    };
    ClusterLayout {
        members: desired.inventory.members().map(member).collect(),
        dns: DnsPolicy::Closed,
    }
}

fn members(desired: &Desired, index: &BundleIndex) -> Result<Vec<Member>> {
    let spec = &desired.spec;
    let layout = layout(desired);
    let member = |(n, node): (usize, &MemberLayout)| {
        let joins = match (n, node.control_plane) {
            (0, _) => Joins::Init(manifests::kubeadm_init(spec, index, &layout, node)?),
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
pub fn install(desired: &Desired, plan: &Plan, bundle: &BundleFile, around: &Surroundings) -> Outcome {
    let voice = Voice::new(around);
    let mut outcome = Outcome::default();
    let members: Vec<&Node> = desired.inventory.members().collect();
    let (sessions, errors) = fleet::connect(&members, AgentPlace::Member, around, &voice);
    outcome.errors = errors;
    if outcome.errors.is_empty()
        && let Err(errors) = on_sessions(desired, plan, bundle, around, &voice, &sessions, &mut outcome)
    {
        outcome.errors.extend(errors);
    }
    fleet::close(&sessions);
    outcome
}

fn on_sessions(
    desired: &Desired,
    plan: &Plan,
    bundle: &BundleFile,
    around: &Surroundings,
    voice: &Voice,
    sessions: &Sessions,
    outcome: &mut Outcome,
) -> Result<(), Vec<landfall_core::explain::Diagnosis>> {
    fleet::lease(sessions, INSTALL, "ship", around)?;
    outcome.run = Some(around.run.clone());
    let owned: BTreeMap<NodeName, Ownership> = fleet::ask_all(sessions, |_| Request::Ownership)?;
    let history = RunHistory::of(&owned).expect("the runs of a simulation have an order");
    let seen: BTreeMap<NodeName, Observations> = fleet::ask_all(sessions, |name| Request::Observe {
        steps: plan.steps_on(name).filter(|s| !s.ephemeral).cloned().collect(),
    })?;
    let is_satisfied = |step: &&Step| {
        let entry = owned.get(&step.node).and_then(|own| own.newest(&step.id));
        let seen = seen.get(&step.node).and_then(|seen| seen.get(&step.id));
        seen.is_some_and(|seen| judge(&step.action, entry, seen).is_satisfied())
    };
    let mut satisfied = plan.steps.iter().filter(is_satisfied).map(|s| s.id.clone()).collect();
    let mut plan = plan.clone();
    let mut record = record(desired, bundle.index());
    record.sequence.run = history.next_number();
    settle(&mut plan, &mut satisfied, &record, &owned).expect("the cluster of a simulation may be founded");
    if plan.steps.iter().all(|s| satisfied.contains(&s.id)) {
        return Ok(());
    }
    let start = RunStart {
        run: around.run.clone(),
        number: Some(record.sequence.run),
        command: INSTALL.to_owned(),
        owner: around.owner.clone(),
        at_ms: around.at_ms,
        cluster: "ship".to_owned(),
        continues: history.unfinished().map(|run| run.number),
        takes_back: vec![],
        bundle: None,
    };
    let request = Request::StartRun {
        start,
        record: Some(Box::new(record)),
    };
    fleet::ask_all::<()>(sessions, |_| request.clone())?;
    let executor = Executor {
        sessions,
        owned: &owned,
        bundle: Some(bundle),
        journals: &[],
        on_done: &|_| Ok(()),
        cluster: &Cluster::default(),
        cancel: &around.cancel,
        voice,
    };
    let executed = executor.run(&plan, &satisfied);
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
