//! Pure checks before the first change: what was seen on the machines against what a cluster needs, now and after the next boot.
//!
//! [`query`] says what a node's agent shall look at, [`check`] compares, [`choose_address`] picks the address a node joins with. The table
//! of checks is [`Check`](crate::finding::Check); how much a finding matters in a run is [`settle`](crate::finding::settle)'s to say.

mod addresses;
mod cloud_init;
pub mod distribution;
mod dns;
mod filters;
mod fleet;
mod host;
mod leftovers;
mod limits;
mod link_config;
pub mod mesh;
mod modules;
mod places;
mod pod_network;
mod record;
mod room;
mod security;
mod swap;
mod sysctl;
mod tuned;

pub use record::{check_record, records_disagree, too_few_control_planes, unlisted_members};
pub use room::{Coming, no_room};
pub use security::fapolicyd_rules;

use crate::bundle_index::BundleIndex;
use crate::facts::{FactsQuery, FilePattern, InterfaceAddress, NodeFacts, SurveyQuery};
use crate::finding::{Check, Finding, Severity};
use crate::inventory::{Node, Role};
use crate::journal::Ownership;
use crate::layout;
use crate::name::NodeName;
use crate::plan::install::kernel_features;
use crate::plan::key::is_bare;
use crate::spec::{ClusterSpec, Desired, Profile};
use crate::sysctl_conf;
use crate::traffic::OWN_TABLES;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Programs that kubeadm 1.37 insists on (cmd/kubeadm/app/preflight/checks.go) and that are not in the bundle.
const HOST_PROGRAMS: [&str; 2] = ["mount", "cp"];
/// Programs of which CNI's portmap needs one, whichever the node has (plugins 1.9, portmap/main.go, ensureBackend).
const PORTMAP_PROGRAMS: [&str; 2] = ["nft", "iptables"];

/// What [`check`] compares.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The spec and the machines.
    pub desired: &'a Desired,
    /// What was seen on the machines that are here.
    pub facts: &'a BTreeMap<NodeName, NodeFacts>,
    /// What is landfall's on them.
    pub owned: &'a BTreeMap<NodeName, Ownership>,
    /// Kernel settings that landfall writes, with their values.
    pub settings: &'a [(String, String)],
    /// The operator's clock when each machine's facts came in, milliseconds since the epoch.
    pub clocks: &'a BTreeMap<NodeName, u64>,
    /// The bundle, when one is named.
    pub bundle: Option<BundleFacts<'a>>,
}

/// What preflight needs to know of a bundle.
#[derive(Debug, Clone, Copy)]
pub struct BundleFacts<'a> {
    /// What is in it.
    pub index: &'a BundleIndex,
    /// When its file was written, milliseconds since the epoch. (The index itself holds no time: same inputs, same bytes.)
    pub written_ms: Option<u64>,
}

/// TCP ports that a node's part of the cluster listens on.
fn tcp_ports(spec: &ClusterSpec, role: Role) -> Vec<u16> {
    let mut ports = layout::NODE_PORTS.map(|own| own.port).to_vec();
    if role == Role::ControlPlane {
        ports.extend(layout::CONTROL_PLANE_PORTS.map(|own| own.port));
    }
    if spec.ingress.enabled {
        let ingress = &spec.ingress;
        ports.extend([ingress.http_port, ingress.https_port, ingress.dashboard_port]);
    }
    ports
}

/// Returns what to look at on a node.
pub fn query(desired: &Desired, node: &Node) -> FactsQuery {
    let others = desired.inventory.members().filter(|other| other.name != node.name);
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    FactsQuery {
        peers: others
            .filter_map(|other| other.access_ip.or(other.ip).or_else(|| other.connect.host.parse().ok()))
            .collect(),
        tcp_ports: tcp_ports(&desired.spec, node.role),
        udp_ports: desired.spec.pod_network.udp_port().into_iter().collect(),
        programs: texts(&[HOST_PROGRAMS, PORTMAP_PROGRAMS].concat()),
        paths: [
            texts(&leftovers::FOREIGN_PATHS),
            texts(&swap::PATHS),
            texts(&cloud_init::PATHS),
        ]
        .concat(),
        units: [
            leftovers::units(),
            swap::units(),
            texts(&security::UNITS),
            texts(&host::FIREWALL_UNITS),
            texts(&tuned::UNITS),
            texts(&link_config::UNITS),
        ]
        .concat(),
        features: kernel_features(),
        ask_dns: desired.spec.upstream_dns.is_empty(),
        survey: Some(SurveyQuery {
            files: [
                swap::files(),
                sysctl_conf::patterns(),
                tuned::files(),
                modules::files(),
                cloud_init::files(),
                addresses::files(),
                link_config::files(),
                leftovers::files(),
                places::files(),
                limits::files(),
                security::files(),
                distribution::files(),
            ]
            .concat(),
            places: places::places(node.role, desired.spec.bin_dir),
            mutable_files: places::mutable_files(desired.spec.bin_dir),
            listed: texts(&leftovers::DIRECTORIES),
            modules: modules::needed(&desired.spec),
            chain_prefixes: texts(&leftovers::CHAINS),
            table_names: leftovers::table_names(),
            try_overlay: Some(layout::CONTAINERD_DIR.to_owned()),
            try_nftables: true,
            filters_without: Some(texts(&OWN_TABLES)),
        }),
    }
}

/// Asks for whole files.
fn whole(patterns: &[&str]) -> Vec<FilePattern> {
    only(patterns, &[])
}

/// Asks for the lines of files that begin with one of `keys`, and for headings of sections.
fn only(patterns: &[&str], keys: &[&str]) -> Vec<FilePattern> {
    let pattern = |pattern: &&str| FilePattern {
        pattern: (*pattern).to_owned(),
        only: keys.iter().map(|key| (*key).to_owned()).collect(),
    };
    patterns.iter().map(pattern).collect()
}

/// Compares everything, and returns all that was found.
pub fn check(input: &Input) -> Vec<Finding> {
    let mut findings = fleet::check(input);
    for node in input.desired.inventory.members() {
        let Some(facts) = input.facts.get(&node.name) else {
            continue;
        };
        let mut look = Look {
            input,
            node,
            facts,
            ours: input.owned.get(&node.name).is_some_and(|own| !is_bare(own)),
            lab: input.desired.spec.profile == Profile::Lab,
            found: vec![],
        };
        for check in CHECKS {
            check(&mut look);
        }
        findings.append(&mut look.found);
    }
    findings
}

/// The checks of one node.
const CHECKS: [fn(&mut Look); 16] = [
    host::check,
    pod_network::check,
    filters::check,
    swap::check,
    sysctl::check,
    tuned::check,
    modules::check,
    cloud_init::check,
    addresses::check,
    link_config::check,
    places::check,
    room::check,
    leftovers::check,
    limits::check,
    security::check,
    distribution::check,
];

/// One node, and what was found there so far.
struct Look<'a> {
    input: &'a Input<'a>,
    node: &'a Node,
    facts: &'a NodeFacts,
    /// Whether an earlier run of landfall left things there, which are no findings.
    ours: bool,
    lab: bool,
    found: Vec<Finding>,
}

impl Look<'_> {
    fn add(&mut self, finding: Finding) {
        self.found.push(finding.on([&self.node.name]));
    }

    /// Adds something that speaks against a first install. Where landfall is already, it has done without harm so far, and what it needs
    /// to mend itself must not be refused: there it is a warning.
    fn add_before_install(&mut self, finding: Finding) {
        let most = if self.ours { Severity::Warn } else { Severity::Refuse };
        self.add(finding.at_most(most));
    }

    /// Says that something could not be looked at.
    fn not_determined(&mut self, check: Check, why: impl Into<String>) {
        let next = "look at it yourself, or leave it";
        self.add(Finding::new(
            Check::NotDetermined,
            format!("{check} was not checked"),
            why,
            next,
        ));
    }

    /// Says how a unit is there: it runs, or it will after the next boot.
    fn unit_state(&self, unit: &str) -> Option<&'static str> {
        if self.facts.units.get(unit).is_some_and(|state| state == "active") {
            return Some("active");
        }
        let enabled = self.facts.survey.enabled_units.contains(unit);
        enabled.then_some("starts at the next boot")
    }

    /// Returns the text of a file, when it is there.
    fn text(&self, path: &str) -> Option<&str> {
        Some(self.facts.survey.files.get(path)?.text.as_str())
    }

    /// Returns a number that a file of /proc holds.
    fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.trim().parse().ok()
    }
}

/// Says whether an `option` (`name=value` or a word) stands on the kernel's command line.
fn has_kernel_option(look: &Look, options: &[&str]) -> bool {
    let line = look.text(CMDLINE).unwrap_or_default();
    line.split_whitespace().any(|word| options.contains(&word))
}

/// The kernel's command line.
const CMDLINE: &str = "/proc/cmdline";

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
    let refuse = |what: String, saw: String| {
        let next = format!(
            "give the machine {recorded} again and name it in the inventory; landfall has no command yet that removes one member and joins it anew"
        );
        Finding::new(Check::AddressChanged, what, saw, next).on([&node.name])
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
    let refuse = |what: &str, saw: String| {
        let next = "set `ip` for the node in the inventory to the address its peers reach";
        Finding::new(Check::NodeAddress, what, saw, next).on([&node.name])
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
pub(crate) mod tests;
#[cfg(test)]
pub(crate) use tests::good as facts_of_a_good_node;
