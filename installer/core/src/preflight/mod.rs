//! Pure checks before the first change: what was seen on the machines against what a cluster needs.
//!
//! [`query`] says what a node's agent shall look at, [`check`] compares, [`choose_address`] picks the address a node joins with.

mod fleet;
mod host;
mod record;

pub use record::{check_record, records_disagree, too_few_control_planes, unlisted_members};

use crate::explain::{Code, Diagnosis};
use crate::facts::{FactsQuery, InterfaceAddress, NodeFacts};
use crate::inventory::{Node, Role};
use crate::journal::Ownership;
use crate::layout;
use crate::name::NodeName;
use crate::plan::install::kernel_features;
use crate::spec::{ClusterSpec, Desired};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// One result of a check. Any stops the run before its first change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Stable, kebab-case name of the check.
    pub id: &'static str,
    /// The nodes concerned.
    pub nodes: Vec<NodeName>,
    /// What is wrong.
    pub what: String,
    /// What was seen.
    pub saw: String,
    /// What to do about it.
    pub next: String,
}

impl From<Finding> for Diagnosis {
    fn from(finding: Finding) -> Self {
        let mut diagnosis = Diagnosis::new(Code::Preflight, format!("preflight {}: {}", finding.id, finding.what));
        diagnosis.node = if finding.nodes.len() == 1 {
            finding.nodes.first().cloned()
        } else {
            None
        };
        if finding.nodes.len() > 1 {
            let nodes: Vec<_> = finding.nodes.iter().map(NodeName::as_str).collect();
            diagnosis = diagnosis.saw(format!("on {}", nodes.join(", ")));
        }
        diagnosis.saw(finding.saw).next(finding.next)
    }
}

/// Programs that kubeadm 1.37 insists on (cmd/kubeadm/app/preflight/checks.go) and that are not in the bundle.
const HOST_PROGRAMS: [&str; 2] = ["mount", "cp"];
/// Paths whose presence means another Kubernetes or containerd.
const FOREIGN_PATHS: [&str; 6] = [
    "/etc/kubernetes",
    "/var/lib/kubelet",
    "/var/lib/etcd",
    "/var/lib/containerd",
    "/usr/local/bin/kubelet",
    "/usr/bin/kubelet",
];
/// Units whose activity means another container runtime, Kubernetes or firewall.
const FOREIGN_UNITS: [&str; 7] = [
    "kubelet.service",
    "containerd.service",
    "docker.service",
    "crio.service",
    "k3s.service",
    "firewalld.service",
    "ufw.service",
];
/// UDP port of flannel's VXLAN on Linux.
const VXLAN_PORT: u16 = 8472;

/// Returns what to look at on a node.
pub fn query(desired: &Desired, node: &Node) -> FactsQuery {
    let mut tcp_ports = vec![10250, 10248, 10249, 10256, layout::API_BALANCER_PORT];
    if node.role == Role::ControlPlane {
        tcp_ports.extend([layout::API_SERVER_PORT, 2379, 2380, 2381, 10257, 10259]);
    }
    if desired.spec.ingress.enabled {
        let ingress = &desired.spec.ingress;
        tcp_ports.extend([ingress.http_port, ingress.https_port, ingress.dashboard_port]);
    }
    let others = desired.inventory.members().filter(|other| other.name != node.name);
    FactsQuery {
        peers: others
            .filter_map(|other| other.access_ip.or(other.ip).or_else(|| other.connect.host.parse().ok()))
            .collect(),
        tcp_ports,
        udp_ports: vec![VXLAN_PORT],
        programs: HOST_PROGRAMS.iter().map(|p| (*p).to_owned()).collect(),
        paths: FOREIGN_PATHS.iter().map(|p| (*p).to_owned()).collect(),
        units: FOREIGN_UNITS.iter().map(|u| (*u).to_owned()).collect(),
        features: kernel_features(),
        ask_dns: desired.spec.upstream_dns.is_empty(),
    }
}

/// Compares everything; the install may begin when there is no finding.
pub fn check(
    desired: &Desired,
    facts: &BTreeMap<NodeName, NodeFacts>,
    owned: &BTreeMap<NodeName, Ownership>,
) -> Vec<Finding> {
    let mut findings = fleet::check(desired, facts, owned);
    for node in desired.inventory.members() {
        if let Some(seen) = facts.get(&node.name) {
            let ours = owned.get(&node.name).is_some_and(|own| !own.is_empty());
            findings.extend(host::check(desired, node, seen, ours));
        }
    }
    findings
}

/// Links that landfall's network makes on a node: the CNI bridge, flannel's tunnel, and one `veth` for each pod.
fn is_our_link(name: &str) -> bool {
    matches!(name, "cni0" | "flannel.1") || name.starts_with("veth")
}

/// Says whether an address may be the node's own: not one that landfall's network gave it.
fn is_own_address(spec: &ClusterSpec, seen: &InterfaceAddress) -> bool {
    let given = [spec.pod_network_cidr, spec.service_cidr]
        .iter()
        .any(|range| range.contains(seen.address));
    !(seen.address.is_loopback() || given || is_our_link(&seen.interface))
}

/// Returns the address and interface of a node: the recorded ones of a member, which etcd and certificates hold; else the one chosen
/// by [`choose_address`]. A member whose address changed since it joined is refused.
pub fn member_address(
    spec: &ClusterSpec,
    node: &Node,
    recorded: Option<IpAddr>,
    facts: &NodeFacts,
) -> Result<(IpAddr, String), Finding> {
    let Some(recorded) = recorded else {
        return choose_address(spec, node, facts);
    };
    let refuse = |what: String, saw: String| Finding {
        id: "address-changed",
        nodes: vec![node.name.clone()],
        what,
        saw,
        next: format!(
            "give the machine {recorded} again and name it in the inventory; a member with another address has to be taken out with \
             `landfall uninstall` on that node alone, and joined anew"
        ),
    };
    if let Some(named) = node.access_ip.or(node.ip).filter(|named| *named != recorded) {
        let what = format!("the node joined the cluster as {recorded}, and the inventory names another address");
        return Err(refuse(what, named.to_string()));
    }
    match facts.interface_of(recorded) {
        Some(interface) => Ok((recorded, interface.to_owned())),
        None => {
            let what = format!("the node joined the cluster as {recorded}, and no interface carries that any more");
            let own = facts.addresses.iter().filter(|a| is_own_address(spec, a));
            let own: Vec<_> = own.map(|a| format!("{} on {}", a.address, a.interface)).collect();
            Err(refuse(what, own.join(", ")))
        }
    }
}

/// Picks the address and interface that a node joins with: `access_ip`, else `ip`, else the source of the route to its peers, else the
/// address it was reached at, else its only address. Addresses that landfall's own network gave the node do not count.
pub fn choose_address(spec: &ClusterSpec, node: &Node, facts: &NodeFacts) -> Result<(IpAddr, String), Finding> {
    let refuse = |what: &str, saw: String| Finding {
        id: "node-address",
        nodes: vec![node.name.clone()],
        what: what.to_owned(),
        saw,
        next: "set `ip` for the node in the inventory to the address its peers reach".to_owned(),
    };
    let seen = || {
        facts
            .addresses
            .iter()
            .map(|a| format!("{} on {}", a.address, a.interface))
            .collect::<Vec<_>>()
            .join(", ")
    };
    // An address that peers use but the node does not carry (behind NAT) can be no etcd peer and no VXLAN endpoint.
    if let Some((what, ip)) = node
        .access_ip
        .map(|ip| ("access_ip", ip))
        .or(node.ip.map(|ip| ("ip", ip)))
    {
        let interface = facts.interface_of(ip);
        let interface =
            interface.ok_or_else(|| refuse(&format!("no interface carries {ip}, the node's `{what}`"), seen()))?;
        return Ok((ip, interface.to_owned()));
    }
    let mut sources: Vec<_> = facts
        .peer_routes
        .values()
        .filter(|r| !is_our_link(&r.interface))
        .map(|r| (r.source, r.interface.clone()))
        .collect();
    sources.sort();
    sources.dedup();
    let reached_at = node
        .connect
        .host
        .parse()
        .ok()
        .and_then(|ip| Some((ip, facts.interface_of(ip)?.to_owned())));
    match (sources.as_slice(), reached_at) {
        ([one], _) => Ok(one.clone()),
        ([], Some(reached)) => Ok(reached),
        ([], None) => {
            let outward: Vec<_> = facts.addresses.iter().filter(|a| is_own_address(spec, a)).collect();
            match outward.as_slice() {
                [only] => Ok((IpAddr::V4(only.address), only.interface.clone())),
                _ => Err(refuse("the node's own address is not clear", seen())),
            }
        }
        (many, _) => {
            let saw = many
                .iter()
                .map(|(ip, interface)| format!("{ip} on {interface}"))
                .collect::<Vec<_>>()
                .join(", ");
            Err(refuse(
                "the routes to the other nodes start from several addresses",
                saw,
            ))
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::good as facts_of_a_good_node;
