//! The types of `cluster.yaml`. Parsing is in [`parse`], rules are in [`validate`].

pub mod dns;
pub mod ingress;
pub mod parse;
pub mod pod_network;
pub mod validate;

mod problems;

pub use dns::DnsServer;
pub use ingress::IngressSpec;
pub use pod_network::{Backend, PodNetwork};
pub use problems::Problems;

use crate::finding::Check;
use crate::inventory::Inventory;
use crate::layout;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What the user wants: validated and immutable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The cluster.
    pub spec: ClusterSpec,
    /// The machines.
    pub inventory: Inventory,
}

/// An IPv4 network in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    /// Network address, host bits zero.
    pub address: std::net::Ipv4Addr,
    /// Prefix length, 0 to 32.
    pub prefix: u8,
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}
impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.to_string()
    }
}
impl TryFrom<String> for Cidr {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}
impl std::str::FromStr for Cidr {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let why = || format!("{text:?} is no IPv4 network such as 10.244.0.0/16");
        let (address, prefix) = text.split_once('/').ok_or_else(why)?;
        let address: std::net::Ipv4Addr = address.parse().map_err(|_| why())?;
        let prefix: u8 = prefix.parse().ok().filter(|p| *p <= 32).ok_or_else(why)?;
        let cidr = Self { address, prefix };
        if u32::from(address) & !cidr.mask() != 0 {
            return Err(format!("{text:?} has host bits set; the network is {}", cidr.network()));
        }
        Ok(cidr)
    }
}
impl Cidr {
    fn mask(&self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }
    fn network(&self) -> Self {
        Self {
            address: (u32::from(self.address) & self.mask()).into(),
            prefix: self.prefix,
        }
    }
    /// Returns the network mask in dotted form.
    pub fn netmask(&self) -> std::net::Ipv4Addr {
        self.mask().into()
    }
    /// Says whether the two networks share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        let mask = self.mask() & other.mask();
        u32::from(self.address) & mask == u32::from(other.address) & mask
    }
    /// Says whether the address lies in the network.
    pub fn contains(&self, address: std::net::Ipv4Addr) -> bool {
        self.overlaps(&Self { address, prefix: 32 })
    }
    /// Returns the `n`th address of the network, for instance 10 for kubeadm's DNS Service.
    pub fn nth(&self, n: u32) -> std::net::Ipv4Addr {
        (u32::from(self.address).wrapping_add(n)).into()
    }
}

/// Settings that differ between a real machine and the lab's containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Real machines.
    #[default]
    Standard,
    /// Containers in place of machines (the README of `manifests` lists each exception).
    Lab,
}

/// The wanted cluster. Every field has a default; the defaults are the scenario's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClusterSpec {
    /// Name of the cluster; uninstall asks for it.
    pub name: String,
    /// Lab or real machines.
    pub profile: Profile,
    /// Network of pods, kubeadm's `podSubnet`.
    pub pod_network_cidr: Cidr,
    /// Network of Services, kubeadm's `serviceSubnet`.
    pub service_cidr: Cidr,
    /// DNS domain of the cluster.
    pub cluster_domain: String,
    /// Cluster name of the API endpoint, resolved by every node's hosts file to the local balancer.
    pub control_plane_endpoint: String,
    /// How packets of pods get from node to node.
    pub pod_network: PodNetwork,
    /// Where the cluster's programs are put on each machine. Fixed once the cluster stands.
    pub bin_dir: BinDir,
    /// Mode of kube-proxy.
    pub proxy_mode: ProxyMode,
    /// Whether landfall lets the cluster's traffic through packet filters of others.
    pub firewall: Firewall,
    /// DNS servers for names outside the cluster; empty means: the nodes' own, where they work from every node.
    pub upstream_dns: Vec<IpAddr>,
    /// Zones outside the cluster with DNS servers of their own, which are asked for all names in them.
    pub stub_zones: BTreeMap<String, Vec<DnsServer>>,
    /// More names or addresses for the API server's certificate.
    pub api_server_cert_sans: Vec<String>,
    /// The ingress proxy.
    pub ingress: IngressSpec,
    /// Whether the sample (nginx behind `test.nginx.com`) is deployed.
    pub sample: bool,
    /// Host name of the sample's Ingress.
    pub sample_host: String,
    /// Public keys of builders of bundles, each the line of a key file of minisign.
    pub trusted_keys: Vec<String>,
    /// Limits that preflight enforces.
    pub limits: Limits,
    /// Checks of preflight whose findings are accepted: a refusal becomes a warning, unless it is a hard need.
    pub accept: BTreeSet<Check>,
}

/// A directory for the cluster's programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum BinDir {
    /// On the administrators' path.
    #[default]
    #[serde(rename = "/usr/local/bin")]
    UsrLocal,
    /// Beside the CNI plugins, for machines whose /usr is read-only.
    #[serde(rename = "/opt/landfall/bin")]
    Opt,
}

impl BinDir {
    /// Returns its path.
    pub fn path(self) -> &'static str {
        match self {
            Self::UsrLocal => layout::BIN_DIR,
            Self::Opt => layout::OPT_BIN_DIR,
        }
    }

    /// Says whether it is the one that clusters have by default.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How kube-proxy programs the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    /// nftables, the default.
    #[default]
    Nftables,
    /// iptables.
    Iptables,
}

/// What happens to packet filters that are on the nodes and drop what the cluster sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firewall {
    /// They stay as they are, and are refused where they drop something.
    #[default]
    Keep,
    /// landfall writes accept rules among their rules, for members, pods and clients of the ingress proxy.
    Open,
}

/// Least resources of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Least memory of a control plane node, in MiB (kubeadm asks 1700).
    pub control_plane_memory_mib: u64,
    /// Least memory of a worker, in MiB.
    pub worker_memory_mib: u64,
    /// Least free disk under /var/lib, in MiB.
    pub disk_mib: u64,
    /// Largest clock difference to the fleet's median, to the operator's clock and to the bundle's date, in seconds.
    pub clock_skew_s: u64,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            name: "landfall".to_owned(),
            profile: Profile::Standard,
            pod_network_cidr: Cidr {
                address: [10, 244, 0, 0].into(),
                prefix: 16,
            },
            service_cidr: Cidr {
                address: [10, 96, 0, 0].into(),
                prefix: 12,
            },
            cluster_domain: "cluster.local".to_owned(),
            control_plane_endpoint: "api.landfall.internal".to_owned(),
            pod_network: PodNetwork::default(),
            bin_dir: BinDir::UsrLocal,
            proxy_mode: ProxyMode::Nftables,
            firewall: Firewall::Keep,
            upstream_dns: vec![],
            stub_zones: BTreeMap::new(),
            api_server_cert_sans: vec![],
            ingress: IngressSpec::default(),
            sample: true,
            sample_host: "test.nginx.com".to_owned(),
            trusted_keys: vec![],
            limits: Limits::default(),
            accept: BTreeSet::new(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            control_plane_memory_mib: 1700,
            worker_memory_mib: 900,
            disk_mib: 8 * 1024,
            clock_skew_s: 30,
        }
    }
}
