//! Checks the paths into the cluster: every source (in the report: `vantage`) probes every target, and each result is one cell of the report.
//!
//! [`targets`] reads the targets from the API, [`judge`] turns a probe's result into a cell.

mod judge;
mod targets;

use crate::cluster::Cluster;
use crate::context::RunContext;
use crate::emitter::EventEmitter;
use crate::fleet::{self, Sessions};
use crate::session::NodeSession;
use judge::{absent_sample, judge, unprobed};
use landfall_core::event::Phase;
use landfall_core::explain::Diagnosis;
use landfall_core::name::NodeName;
use landfall_core::spec::Desired;
use landfall_core::verify::{Cell, ProbeResult, ProbeSpec, VerifyReport};
use landfall_core::wire::Request;
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
    /// The name does not exist, and that is said within the milliseconds.
    NoSuchName { within_ms: u64 },
}

/// One thing to look at.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub kind: TargetKind,
    pub name: String,
    pub probe: ProbeSpec,
    pub expect: Expectation,
}

/// Looks from everywhere at everything. `unreachable` members and outside machines become red cells of their own.
pub fn verify(
    desired: &Desired,
    members: &Sessions,
    outside: &Sessions,
    unreachable: &[(String, Diagnosis)],
    ctx: &RunContext,
    emitter: &EventEmitter,
) -> Result<VerifyReport, Diagnosis> {
    emitter.phase(Phase::Verify, || {
        let cluster = Cluster::default();
        let found = look_up(desired, &cluster, members)?;
        let sources = probe_sources(members, outside, &found);
        let mut cells: Vec<Cell> = fleet::each(&sources, |source| run_probes(source, &found, desired, ctx))
            .into_iter()
            .flatten()
            .collect();
        for name in found.members_without_probe(desired) {
            cells.push(unprobed(&format!("pod/{name}"), "no probe pod is running on this node"));
        }
        for (vantage, diagnosis) in unreachable {
            cells.push(unprobed(vantage, &diagnosis.what));
        }
        if found.sample == Sample::Absent {
            cells.push(absent_sample());
        }
        let missing_routes = missing_routes(&cells, desired, &found);
        Ok(VerifyReport {
            version: REPORT_VERSION,
            cells,
            missing_routes,
        })
    })
}

struct ProbeSource {
    kind: VantageKind,
    name: String,
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
                prober,
            });
        }
    }
    for (node, session) in members {
        sources.push(ProbeSource {
            kind: VantageKind::Node,
            name: format!("node/{node}"),
            prober: Prober::Agent(Arc::clone(session)),
        });
    }
    sources.push(ProbeSource {
        kind: VantageKind::Operator,
        name: "operator".to_owned(),
        prober: Prober::Local,
    });
    for (node, session) in outside {
        let prober = Prober::Agent(Arc::clone(session));
        sources.push(ProbeSource {
            kind: VantageKind::Outside,
            name: format!("outside/{node}"),
            prober,
        });
    }
    sources
}

fn run_probes(source: &ProbeSource, found: &Targets, desired: &Desired, ctx: &RunContext) -> Vec<Cell> {
    let targets = found.seen_from(source.kind, desired);
    let probes: Vec<ProbeSpec> = targets.iter().map(|t| t.probe.clone()).collect();
    let results: Result<Vec<ProbeResult>, Diagnosis> = match &source.prober {
        Prober::Local => Ok((ctx.local_prober)(&probes)),
        Prober::Agent(session) => session.ask(&Request::Probe { probes }),
        Prober::Container(session, container) => session.ask(&Request::ProbeInContainer {
            container: container.clone(),
            probes,
        }),
    };
    match results {
        Ok(results) => targets
            .iter()
            .zip(&results)
            .map(|(target, result)| judge(source.kind, &source.name, target, result))
            .collect(),
        Err(diagnosis) => {
            let why = diagnosis
                .saw
                .first()
                .map_or(diagnosis.what.clone(), |saw| format!("{}: {saw}", diagnosis.what));
            vec![unprobed(&source.name, &why)]
        }
    }
}

/// Lines for outside machines that reach nodes but neither pods nor Services.
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
