//! What was seen on the machines. Gathered by the agent, read-only; compared by preflight, used by the planner.

use crate::name::Digest;
use crate::spec::Cidr;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// What the agent is asked to look at.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FactsQuery {
    /// Addresses of the other members, to find the route to them.
    pub peers: Vec<IpAddr>,
    /// TCP ports that must be free.
    pub tcp_ports: Vec<u16>,
    /// UDP ports that must be free.
    pub udp_ports: Vec<u16>,
    /// Programs to look for on root's path.
    pub programs: Vec<String>,
    /// Paths whose existence matters.
    pub paths: Vec<String>,
    /// Units whose state matters.
    pub units: Vec<String>,
    /// Kernel features, each by its evidence.
    pub features: Vec<crate::action::KernelFeature>,
    /// Whether the node's DNS servers are asked (takes up to 2 s when they do not answer).
    pub ask_dns: bool,
}

/// One machine, as seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Kernel's host name.
    pub hostname: String,
    /// Content of /etc/machine-id.
    pub machine_id: String,
    /// `uname -m`.
    pub architecture: String,
    /// Kernel release.
    pub kernel: String,
    /// `PRETTY_NAME` of os-release.
    pub os: String,
    /// Whether systemd is process 1 and its version (first number), if so.
    pub systemd: Option<u32>,
    /// Processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Free disk for root under /var/lib, in MiB.
    pub disk_free_mib: u64,
    /// Node's clock, milliseconds since the epoch, when it was read.
    pub clock_ms: u64,
    /// IPv4 addresses with their interface.
    pub addresses: Vec<InterfaceAddress>,
    /// IPv4 routes of the main table.
    pub routes: Vec<Route>,
    /// For each peer asked: source address and interface that the kernel would use.
    pub peer_routes: BTreeMap<IpAddr, PeerRoute>,
    /// Ports asked for that something listens on: `tcp/6443` → program if known.
    pub ports_taken: BTreeMap<String, String>,
    /// Programs asked for that are there.
    pub programs: BTreeSet<String>,
    /// Paths asked for that exist.
    pub paths: BTreeSet<String>,
    /// Units asked for: name → active state (`active`, `inactive`, …), absent ones left out.
    pub units: BTreeMap<String, String>,
    /// Modules of features asked for that are there already or could be loaded.
    pub features: BTreeSet<String>,
    /// Active swap areas.
    pub swaps: Vec<String>,
    /// Cgroup version, 1 (also hybrid) or 2.
    pub cgroup_version: u8,
    /// Whether SELinux enforces.
    pub selinux_enforcing: bool,
    /// The node's own DNS servers.
    pub dns_servers: Vec<IpAddr>,
    /// Whether every asked DNS server answered NOERROR over both UDP and TCP within 2 s; `None` when not asked.
    pub dns_works: Option<bool>,
    /// Whether the state directory may hold programs (not mounted noexec).
    pub exec_allowed: bool,
    /// SHA-256 of the cluster CA's certificate in DER form, where the node has one.
    #[serde(default)]
    pub cluster_ca: Option<Digest>,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceAddress {
    /// Interface name.
    pub interface: String,
    /// Address.
    pub address: Ipv4Addr,
    /// Prefix length.
    pub prefix: u8,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination; `0.0.0.0/0` is the default route.
    pub destination: Cidr,
    /// Interface name.
    pub interface: String,
}

/// How the kernel would reach a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRoute {
    /// Source address.
    pub source: IpAddr,
    /// Interface.
    pub interface: String,
}

impl NodeFacts {
    /// Says whether there is a default route.
    pub fn has_default_route(&self) -> bool {
        self.routes.iter().any(|r| r.destination.prefix == 0)
    }
    /// Returns the interface that carries `address`.
    pub fn interface_of(&self, address: IpAddr) -> Option<&str> {
        self.addresses
            .iter()
            .find(|a| IpAddr::V4(a.address) == address)
            .map(|a| a.interface.as_str())
    }
}
