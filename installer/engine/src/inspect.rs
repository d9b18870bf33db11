//! The commands that only read: verify, status, dashboard.

use crate::cluster::{Cluster, api_error, is_node_ready};
use crate::context::RunContext;
use crate::emitter::EventEmitter;
use crate::fleet::{self, Sessions};
use crate::kubeconfig::url_host;
use crate::outcome::{DashboardAccess, NodeStatus, Outcome};
use crate::present::{self, Present};
use crate::session::AgentPlace;
use k8s_openapi::api::core::v1::Node as KubeNode;
use kube::api::{Api, ListParams};
use landfall_core::cluster_record::ClusterRecord;
use landfall_core::event::{EventKind, Phase};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::facts::{FactsQuery, NodeFacts};
use landfall_core::health::NodeHealth;
use landfall_core::inventory::Node;
use landfall_core::journal::Ownership;
use landfall_core::name::NodeName;
use landfall_core::preflight::unlisted_members;
use landfall_core::spec::Desired;
use landfall_core::verify::VerifyReport;
use landfall_core::wire::{CertificateAge, CommandOutput, Request};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Pause between two rounds of a verify that waits.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// See [`crate::run::verify`].
pub fn verify(desired: &Desired, wait: Duration, ctx: &RunContext, emitter: &EventEmitter) -> Outcome {
    let began = Instant::now();
    let mut reported = String::new();
    loop {
        let (outcome, lasting) = verify_once(desired, ctx, emitter);
        let left = wait.saturating_sub(began.elapsed());
        let missing = outcome.verify.as_ref().and_then(VerifyReport::missing);
        let Some(missing) = missing.filter(|_| !lasting && !left.is_zero() && !ctx.cancel.is_cancelled()) else {
            return outcome;
        };
        if missing != reported {
            let text = format!("{missing} ({} s left)", left.as_secs());
            emitter.emit(None, EventKind::Note { text });
            reported = missing;
        }
        ctx.cancel.sleep(left.min(RETRY_PAUSE));
    }
}

/// Says whether an error of a login stays when it is tried again. A refused login is not retried, because that may lock the account.
fn is_lasting(error: &Diagnosis) -> bool {
    use Code::{HostKeyMismatch, HostKeyUnknown, LoginRefused, SudoRefused};
    matches!(
        error.code,
        HostKeyUnknown | HostKeyMismatch | LoginRefused | SudoRefused
    )
}

/// Verifies once, also when no machine can be connected to: what can be probed from here is probed, and the rest is red. Returns whether waiting
/// cannot help.
fn verify_once(desired: &Desired, ctx: &RunContext, emitter: &EventEmitter) -> (Outcome, bool) {
    let mut outcome = Outcome::default();
    let (sessions, errors) = connect_members(desired, ctx, emitter);
    let machines = desired.inventory.outside();
    let machines: Vec<&Node> = machines.filter(|n| ctx.limit.includes(&n.name)).collect();
    let (outside, outside_errors) = fleet::connect(&machines, AgentPlace::External, ctx, emitter);
    let lasting = errors.iter().chain(&outside_errors).any(is_lasting);
    let named = |prefix: &'static str| {
        move |d: Diagnosis| {
            let node = d.node.as_ref().map_or("unknown", NodeName::as_str);
            (format!("{prefix}/{node}"), d)
        }
    };
    let mut unreachable: Vec<_> = errors.into_iter().map(named("node")).collect();
    unreachable.extend(outside_errors.into_iter().map(named("outside")));
    verify_sessions(desired, &sessions, &outside, &unreachable, ctx, emitter, &mut outcome);
    if let Ok(present) = Present::read(&sessions) {
        outcome.warnings.extend(unlisted(present.record.as_ref(), desired));
    }
    fleet::close(&outside);
    fleet::remove_unused_state(&sessions);
    fleet::close(&sessions);
    (outcome, lasting)
}

/// Verifies over open sessions. Each of the `unreachable` machines becomes a failed cell. Blocks for one round of probes.
pub fn verify_sessions(
    desired: &Desired,
    sessions: &Sessions,
    outside: &Sessions,
    unreachable: &[(String, Diagnosis)],
    ctx: &RunContext,
    emitter: &EventEmitter,
    outcome: &mut Outcome,
) {
    let report = crate::verify::verify(desired, sessions, outside, unreachable, ctx, emitter);
    outcome.verify = Some(report);
}

/// See [`crate::run::status`].
pub fn status(desired: &Desired, ctx: &RunContext, emitter: &EventEmitter) -> Outcome {
    let mut outcome = Outcome::default();
    let (sessions, errors) = connect_members(desired, ctx, emitter);
    for error in errors {
        if let Some(name) = error.node.clone() {
            outcome.nodes.insert(
                name,
                NodeStatus {
                    error: Some(error.clone()),
                    ..NodeStatus::default()
                },
            );
        }
        outcome.errors.push(error);
    }
    let list: Vec<_> = sessions.values().collect();
    let looked = fleet::each(
        &list,
        |session| -> Result<(NodeFacts, NodeHealth, Ownership), Diagnosis> {
            let own = session.ask(&Request::Ownership)?;
            let health = session.ask(&Request::NodeHealth)?;
            Ok((session.ask(&Request::Facts(FactsQuery::default()))?, health, own))
        },
    );
    let mut owned = BTreeMap::new();
    for (session, looked) in list.iter().zip(looked) {
        let status = match looked {
            Ok((facts, health, own)) => {
                let status = NodeStatus {
                    facts: Some(facts),
                    health: Some(health),
                    owned: own.entries.len(),
                    bundle: own.bundle().map(str::to_owned),
                    open_run: own.open_run().cloned(),
                    ..NodeStatus::default()
                };
                owned.insert(session.name().clone(), own);
                status
            }
            Err(error) => {
                outcome.errors.push(error.clone());
                NodeStatus {
                    error: Some(error),
                    ..NodeStatus::default()
                }
            }
        };
        outcome.nodes.insert(session.name().clone(), status);
    }
    present::fill(owned, &mut outcome);
    outcome.warnings.extend(unlisted(outcome.record.as_ref(), desired));
    if outcome.nodes.values().any(|n| n.owned > 0) {
        add_cluster_health(desired, &sessions, &mut outcome);
    }
    outcome.nodes.retain(|name, _| ctx.limit.includes(name));
    fleet::remove_unused_state(&sessions);
    fleet::close(&sessions);
    outcome
}

/// Names the members that the inventory lacks: nobody logs in to them, so nothing is known of them but what the API says.
fn unlisted(record: Option<&ClusterRecord>, desired: &Desired) -> Vec<String> {
    let unlisted = record
        .map(|record| unlisted_members(record, &desired.inventory))
        .unwrap_or_default();
    let text = |(name, address)| {
        format!(
            "{name} at {address} is a member of the cluster and not in the inventory, so it is not looked at; put it into the inventory again"
        )
    };
    unlisted.into_iter().map(text).collect()
}

/// Connects to the members that the command acts on, and to control planes. A control plane that is only needed for its record or API may
/// be missing without an error.
fn connect_members(desired: &Desired, ctx: &RunContext, emitter: &EventEmitter) -> (Sessions, Vec<Diagnosis>) {
    let members: Vec<&Node> = desired.inventory.members().filter(|n| ctx.limit.contacts(n)).collect();
    let (sessions, mut errors) = emitter.phase(Phase::Connect, || {
        fleet::connect(&members, AgentPlace::Member, ctx, emitter)
    });
    if !sessions.is_empty() {
        errors.retain(|d| d.node.as_ref().is_none_or(|name| ctx.limit.includes(name)));
    }
    (sessions, errors)
}

fn add_cluster_health(desired: &Desired, sessions: &Sessions, outcome: &mut Outcome) {
    for node in desired.inventory.control_planes() {
        let Some(session) = sessions.get(&node.name) else {
            continue;
        };
        let args = ["endpoint", "health"].map(str::to_owned).to_vec();
        let etcd = match session.ask::<CommandOutput>(&Request::Etcdctl {
            node: node.name.clone(),
            args,
        }) {
            Ok(output) if output.status == Some(0) => "healthy".to_owned(),
            Ok(output) => output.stderr.lines().last().unwrap_or("no answer").to_owned(),
            Err(error) => error.what,
        };
        let certificates = session.ask::<Vec<CertificateAge>>(&Request::Certificates);
        let Some(status) = outcome.nodes.get_mut(&node.name) else {
            continue;
        };
        status.etcd = Some(etcd);
        match certificates {
            Ok(ages) => status.certificates = ages,
            Err(error) => outcome.errors.push(error),
        }
    }
    match kube_nodes(desired, sessions) {
        Ok(ready) => {
            for (name, state) in ready {
                if let Some(status) = outcome.nodes.get_mut(&name) {
                    status.ready = Some(state);
                }
            }
        }
        Err(error) => outcome.errors.push(error),
    }
}

fn kube_nodes(desired: &Desired, sessions: &Sessions) -> Result<BTreeMap<NodeName, (bool, String)>, Diagnosis> {
    let cluster = Cluster::default();
    let mut last = Diagnosis::new(Code::ClusterApi, "no control plane node is connected");
    for node in desired.inventory.control_planes() {
        let Some(session) = sessions.get(&node.name) else {
            continue;
        };
        let listed = cluster.with_client(session, |client| async move {
            let nodes = Api::<KubeNode>::all(client).list(&ListParams::default()).await;
            nodes.map_err(|e| api_error("the API does not answer", &e))
        });
        match listed {
            Ok(nodes) => {
                let state = |n: &KubeNode| {
                    let version = n.status.as_ref()?.node_info.as_ref()?.kubelet_version.clone();
                    Some((n.metadata.name.as_ref()?.parse().ok()?, (is_node_ready(n), version)))
                };
                return Ok(nodes.items.iter().filter_map(state).collect());
            }
            Err(error) => last = error.on(&node.name),
        }
    }
    Err(last)
}

/// See [`crate::run::dashboard`].
pub fn dashboard(desired: &Desired, ctx: &RunContext, emitter: &EventEmitter) -> Outcome {
    let mut outcome = Outcome::default();
    let ingress = &desired.spec.ingress;
    if !ingress.enabled || !ingress.dashboard {
        let what = "cluster.yaml leaves the dashboard out";
        let next = "set ingress.enabled and ingress.dashboard to true, then landfall install";
        outcome.errors.push(Diagnosis::new(Code::Usage, what).next(next));
        return outcome;
    }
    let control_planes: Vec<&Node> = desired.inventory.control_planes().collect();
    let (sessions, errors) = emitter.phase(Phase::Connect, || {
        fleet::connect(&control_planes, AgentPlace::Member, ctx, emitter)
    });
    match crate::dashboard::login(desired, &Cluster::default(), &sessions) {
        Ok(login) => {
            let members: Vec<&Node> = desired.inventory.members().collect();
            let hosts = fleet::each(&members, |node| url_host(&reached_at(node, ctx)));
            let port = ingress.dashboard_port;
            outcome.dashboard = Some(DashboardAccess {
                addresses: hosts.iter().map(|host| format!("http://{host}:{port}/")).collect(),
                host: ingress.dashboard_host.clone(),
                login,
            });
        }
        Err(diagnosis) => {
            outcome.errors.extend(errors);
            outcome.errors.push(diagnosis);
        }
    }
    fleet::remove_unused_state(&sessions);
    fleet::close(&sessions);
    outcome
}

/// Returns the host or address by which this machine, and others outside, reach the node: its address in the cluster, unless the login goes to
/// another one.
fn reached_at(node: &Node, ctx: &RunContext) -> String {
    let own = node.access_ip.or(node.ip);
    let way = ctx.connector.way_to(node);
    match (way.other_host(own), own) {
        (Some((host, _)), _) => host.to_owned(),
        (None, Some(address)) => address.to_string(),
        (None, None) => node.connect.host.clone(),
    }
}
