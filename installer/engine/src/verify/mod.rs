//! Checks the paths into the cluster: every source (in the report: `vantage`) probes every target, and each result is one cell of the report.
//!
//! [`targets`] reads the targets from the API, [`judge`] turns a probe's result into a cell, [`nodes`] asks the members for their state. When the
//! API does not answer, the targets that are known without it are still probed, and each other one is a failed cell with the reason.

mod dashboard;
mod judge;
mod nodes;
mod targets;

use crate::cluster::Cluster;
use crate::context::{RunContext, Way};
use crate::emitter::EventEmitter;
use crate::fleet::{self, Sessions};
use crate::session::NodeSession;
use judge::{absent_sample, judge, unconnected, unknown_target, unprobed};
use landfall_core::event::Phase;
use landfall_core::explain::Diagnosis;
use landfall_core::inventory::Node;
use landfall_core::name::NodeName;
use landfall_core::spec::Desired;
use landfall_core::verify::{Cell, ProbeResult, ProbeSpec, VerifyReport};
use landfall_core::wire::Request;
use nodes::{Members, in_a_line};
use std::collections::BTreeMap;
use std::sync::Arc;
use targets::{Sample, Targets, look_up};

/// Version of the report's format.
const REPORT_VERSION: u32 = 1;

/// Where a probe runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VantageKind {
    /// Inside a pod of the probe DaemonSet.
    Pod,
    /// On a member, host network.
    Node,
    /// Where landfall runs.
    Operator,
    /// A machine that is no member.
    Outside,
}

/// What kind of path a target is. It decides which result is expected from which source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetKind {
    /// A pod's own address.
    PodIp,
    /// The Service's address.
    ClusterIp,
    /// The Service's port on a node.
    NodePort,
    /// A host of the ingress proxy on a node.
    Ingress,
    /// An Ingress's host over TLS, at a node.
    IngressTls,
    /// A name of the cluster's DNS.
    Dns,
}

/// The result that a probe must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expectation {
    /// This status, and this text in the body.
    Http { status: u16, contains: String },
    /// This address among the answers.
    Resolves(String),
    /// An answer within so many milliseconds that the name does not exist.
    NoSuchName { within_ms: u64 },
}

/// One path to probe.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub kind: TargetKind,
    pub name: String,
    /// The probes, one for each address that is tried. The last one goes to the node's address in the cluster, or to the only address there is.
    pub probes: Vec<ProbeSpec>,
    pub expect: Expectation,
    /// Why the source need not reach the target: without any answer the cell is skipped.
    pub unrouted: Option<String>,
    /// The packet filter that keeps the source away, as its node told: without any answer the cell is skipped, whatever the refusal looks like.
    pub filtered: Option<String>,
}

/// Probes every target from every source. `unreachable` members and outside machines become failed cells. Blocks until the slowest source is
/// done; every probe has a time-out.
pub fn verify(
    desired: &Desired,
    members: &Sessions,
    outside: &Sessions,
    unreachable: &[(String, Diagnosis)],
    ctx: &RunContext,
    emitter: &EventEmitter,
) -> VerifyReport {
    emitter.phase(Phase::Verify, || {
        let cluster = Cluster::default();
        let asked = look_up(desired, &cluster, members);
        let ways = ways(desired, ctx);
        let states = Members::ask(members);
        // The cells that tell most about the cause come first.
        let mut cells = vec![states.api(&asked, desired)];
        let api_error = asked.as_ref().err().cloned();
        let mut found = asked.unwrap_or_else(|_| Targets::without_api(desired, states.record(), &ways));
        found.closed_node_ports = states.closed_node_ports();
        cells.extend(states.cells(&found));
        let sources = probe_sources(members, outside, &found);
        let probed = fleet::each(&sources, |source| run_probes(source, &found, desired, &ways, ctx));
        cells.extend(probed.into_iter().flatten());
        cells.extend(dashboard::probe(desired, &cluster, members, api_error.as_ref()));
        let why = match &api_error {
            Some(error) => format!("only the API knows which pod probes on this node: {}", in_a_line(error)),
            None => "no probe pod is running on this node".to_owned(),
        };
        for name in found.members_without_probe(desired) {
            cells.push(unprobed(&format!("pod/{name}"), &why));
        }
        for (vantage, diagnosis) in unreachable {
            cells.push(unconnected(vantage, diagnosis));
        }
        if found.sample == Sample::Absent {
            cells.push(absent_sample());
        }
        let missing_routes = missing_routes(&cells, desired, &found);
        VerifyReport {
            version: REPORT_VERSION,
            cells,
            missing_routes,
        }
    })
}

/// How this machine reaches each member.
type Ways = BTreeMap<NodeName, Way>;

/// Finds out how this machine reaches the members. Blocks for the slowest look-up of a name.
fn ways(desired: &Desired, ctx: &RunContext) -> Ways {
    let members: Vec<&Node> = desired.inventory.members().collect();
    let found = fleet::each(&members, |node| ctx.connector.way_to(node));
    members.iter().map(|node| node.name.clone()).zip(found).collect()
}

struct ProbeSource {
    kind: VantageKind,
    name: String,
    /// The member on which it runs.
    member: Option<NodeName>,
    prober: Prober,
}

enum Prober {
    Local,
    Agent(Arc<NodeSession>),
    Container(Arc<NodeSession>, String),
}

fn probe_sources(members: &Sessions, outside: &Sessions, found: &Targets) -> Vec<ProbeSource> {
    let mut sources = Vec::new();
    for (node, container) in &found.probe_containers {
        if let Some(session) = members.get(node) {
            let prober = Prober::Container(Arc::clone(session), container.clone());
            sources.push(ProbeSource {
                kind: VantageKind::Pod,
                name: format!("pod/{node}"),
                member: Some(node.clone()),
                prober,
            });
        }
    }
    for (node, session) in members {
        sources.push(ProbeSource {
            kind: VantageKind::Node,
            name: format!("node/{node}"),
            member: Some((*node).clone()),
            prober: Prober::Agent(Arc::clone(session)),
        });
    }
    sources.push(ProbeSource {
        kind: VantageKind::Operator,
        name: "operator".to_owned(),
        member: None,
        prober: Prober::Local,
    });
    for (node, session) in outside {
        let prober = Prober::Agent(Arc::clone(session));
        sources.push(ProbeSource {
            kind: VantageKind::Outside,
            name: format!("outside/{node}"),
            member: None,
            prober,
        });
    }
    sources
}

fn run_probes(source: &ProbeSource, found: &Targets, desired: &Desired, ways: &Ways, ctx: &RunContext) -> Vec<Cell> {
    let targets = found.seen_from(source.kind, source.member.as_ref(), desired, ways);
    let probes: Vec<ProbeSpec> = targets.iter().flat_map(|t| t.probes.clone()).collect();
    let results: Result<Vec<ProbeResult>, Diagnosis> = match &source.prober {
        Prober::Local => Ok((ctx.local_prober)(&probes)),
        Prober::Agent(session) => session.ask(&Request::Probe { probes }),
        Prober::Container(session, container) => session.ask(&Request::ProbeInContainer {
            container: container.clone(),
            probes,
        }),
    };
    match results {
        Ok(results) => {
            let mut results = results.into_iter();
            let judged = targets.iter().filter_map(|target| {
                let own: Vec<ProbeResult> = results.by_ref().take(target.probes.len()).collect();
                (!own.is_empty()).then(|| judge(source.kind, &source.name, target, &own))
            });
            let mut cells: Vec<Cell> = judged.collect();
            let unknown = found.unknown(source.kind).iter();
            cells.extend(unknown.map(|target| unknown_target(&source.name, target)));
            cells
        }
        Err(diagnosis) => {
            let why = diagnosis
                .saw
                .first()
                .map_or(diagnosis.what.clone(), |saw| format!("{}: {saw}", diagnosis.what));
            vec![unprobed(&source.name, &why)]
        }
    }
}

/// Returns the route commands for outside machines that do not reach pods or Services.
fn missing_routes(cells: &[Cell], desired: &Desired, found: &Targets) -> Vec<String> {
    let failed = |vantage: &str, prefix: &str| {
        cells.iter().any(|c| {
            c.vantage == vantage
                && c.target.starts_with(prefix)
                && c.outcome == landfall_core::verify::CellOutcome::Fail
        })
    };
    let mut by_machine: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let Some(gateway) = found.gateway() else { return vec![] };
    for cell in cells.iter().filter(|c| c.vantage.starts_with("outside/")) {
        by_machine.entry(cell.vantage.as_str()).or_default();
    }
    for (vantage, lines) in &mut by_machine {
        let machine = vantage.trim_start_matches("outside/");
        for (prefix, cidr) in [
            ("pod-ip/", desired.spec.pod_network_cidr),
            ("cluster-ip", desired.spec.service_cidr),
        ] {
            if failed(vantage, prefix) {
                lines.push(format!("{machine} (Linux):   ip route add {cidr} via {gateway}"));
                lines.push(format!(
                    "{machine} (Windows): route add {} MASK {} {gateway}",
                    cidr.address,
                    cidr.netmask()
                ));
            }
        }
    }
    by_machine.into_values().flatten().collect()
}

impl Targets {
    fn members_without_probe(&self, desired: &Desired) -> Vec<NodeName> {
        let there = |name: &NodeName| self.probe_containers.contains_key(name);
        desired
            .inventory
            .members()
            .map(|n| n.name.clone())
            .filter(|n| !there(n))
            .collect()
    }
}
