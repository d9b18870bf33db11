//! Facts of the machines. The agent gathers them and changes nothing; preflight checks them and the planner uses them.

use crate::name::Digest;
pub use crate::packet_filter::PacketFilters;
use crate::spec::Cidr;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// What the agent is asked to gather.
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
    /// What only preflight needs; `None` for other commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub survey: Option<SurveyQuery>,
}

/// What preflight needs: settings for the next boot, disks, leftovers of other software.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SurveyQuery {
    /// Files whose text matters.
    pub files: Vec<FilePattern>,
    /// Directories in which landfall or the cluster will keep files; where one is absent, the nearest that is there is looked at.
    pub places: Vec<String>,
    /// Files that must not be immutable.
    pub mutable_files: Vec<String>,
    /// Directories whose content matters.
    pub listed: Vec<String>,
    /// Kernel modules that will be needed.
    pub modules: Vec<String>,
    /// Prefixes of names of nftables chains.
    pub chain_prefixes: Vec<String>,
    /// Names of nftables tables, whatever their family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub table_names: Vec<String>,
    /// Directory in whose file system an overlay is mounted for a try.
    pub try_overlay: Option<String>,
    /// Whether tables of each family of nf_tables are made for a try.
    pub try_nftables: bool,
    /// Tables of nftables (`family name`) whose rules do not matter, because daemons of the cluster make them; `None` when no packet filter is
    /// read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filters_without: Option<Vec<String>>,
}

/// Files by name; `*` stands for any characters within one part of the path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePattern {
    /// The path.
    pub pattern: String,
    /// Keys of the lines that are wanted; other lines come back empty, because the file may hold secrets. All lines when there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
}

/// What was gathered for preflight.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Survey {
    /// Texts of the files that are there, by path.
    pub files: BTreeMap<String, FileText>,
    /// The places asked for.
    pub places: BTreeMap<String, PlaceFacts>,
    /// Files asked for that are immutable.
    pub immutable: BTreeSet<String>,
    /// Names in the directories asked for, of those that are there.
    pub contents: BTreeMap<String, Vec<String>>,
    /// Links with what makes links of their sort (`bridge`, `vxlan`; empty for hardware).
    pub links: BTreeMap<String, String>,
    /// nftables chains with the prefixes asked for, as `family table chain`.
    pub chains: BTreeSet<String>,
    /// nftables tables with the names asked for, as `family table`.
    #[serde(default)]
    pub tables: BTreeSet<String>,
    /// Units asked for that are enabled, and so start at a boot.
    pub enabled_units: BTreeSet<String>,
    /// Features asked for that are there now.
    pub features_now: BTreeSet<String>,
    /// Modules asked for that the kernel has as such; others are built in, or absent.
    pub modules: BTreeSet<String>,
    /// Those of them that are loaded now.
    #[serde(default)]
    pub loaded_modules: BTreeSet<String>,
    /// Families of nf_tables in which a table could be made, by name.
    pub nftables_families: BTreeMap<String, Tried>,
    /// Whether an overlay could be mounted.
    pub overlay: Tried,
    /// Rules of packet filters.
    #[serde(default)]
    pub filters: PacketFilters,
    /// Version of the host's nft, for instance `1.0.6`, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nft_version: Option<String>,
}

/// A file's text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FileText {
    /// The text, as far as it was asked for; at most 64 KiB.
    pub text: String,
    /// Where the file really is, when its path leads over a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real: Option<String>,
}

/// The result of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tried {
    /// It was not tried, or it says nothing.
    #[default]
    Unknown,
    /// It works.
    Works,
    /// It does not work; the kernel's error.
    Fails(String),
}

/// A directory in which files will be kept, and its file system.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlaceFacts {
    /// The directory that is there: the place itself, or the nearest one above it.
    pub directory: String,
    /// The file system's number (`st_dev`).
    pub device: u64,
    /// Size of the file system, in bytes; 0 when it does not say.
    pub total_bytes: u64,
    /// Free for everybody, in bytes.
    pub available_bytes: u64,
    /// Free for root, in bytes.
    pub free_bytes: u64,
    /// Inodes in all; 0 when the file system makes them as needed.
    pub inodes: u64,
    /// Free inodes.
    pub free_inodes: u64,
    /// Whether programs may not be started from there.
    pub noexec: bool,
    /// Whether a file could be made.
    pub write: Tried,
    /// What is mounted at the very place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mounted: Option<Mounted>,
}

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounted {
    /// What is mounted, as the kernel names it: a device, a data set, a share.
    pub source: String,
    /// Type of the file system.
    pub kind: String,
}

/// The facts of one machine.
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
    /// Interfaces that carry addresses, by name, but for the loopback.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub interfaces: BTreeMap<String, InterfaceFacts>,
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
    /// What each of these servers said over UDP within 2 s when it was asked for the root's name servers: the usual name of its response
    /// code, or `None` for silence. Empty when they were not asked.
    pub dns_answers: BTreeMap<IpAddr, Option<String>>,
    /// SHA-256 of the cluster CA's certificate in DER form, where the node has one.
    #[serde(default)]
    pub cluster_ca: Option<Digest>,
    /// What preflight alone looks at.
    #[serde(default)]
    pub survey: Survey,
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
    /// Whether it has a limited lifetime in the kernel: it was leased by DHCP.
    #[serde(default)]
    pub is_leased: bool,
}

/// What an interface is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InterfaceFacts {
    /// Size of the largest packet, in bytes.
    pub mtu: u32,
    /// Drivers of the network cards behind it, for instance `vmxnet3`; of a bond, bridge or VLAN those of the cards below.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub drivers: BTreeSet<String>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination; `0.0.0.0/0` is the default route.
    pub destination: Cidr,
    /// Interface name.
    pub interface: String,
    /// The router that it leads over, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
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
    /// Returns the interface that carries `address`.
    pub fn interface_of(&self, address: IpAddr) -> Option<&str> {
        self.addresses
            .iter()
            .find(|a| IpAddr::V4(a.address) == address)
            .map(|a| a.interface.as_str())
    }
    /// Returns the MTU of the interface that carries `address`, in bytes, where it is known.
    pub fn mtu_of(&self, address: IpAddr) -> Option<u32> {
        Some(self.interfaces.get(self.interface_of(address)?)?.mtu)
    }
}
