//! Which machines there are and how to reach them. Filled by `cluster.yaml` or an Ansible inventory.

use crate::name::NodeName;
use crate::secret::Secret;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::PathBuf;

/// What a machine is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Runs the API server and an etcd member.
    ControlPlane,
    /// Runs workloads only.
    Worker,
    /// Is no member of the cluster; verify looks from here.
    Outside,
}

/// Every machine, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    /// The machines.
    pub nodes: Vec<Node>,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Inventory name, which becomes the Kubernetes Node name.
    pub name: NodeName,
    /// What it is for.
    pub role: Role,
    /// Whether workloads may run on a control plane (it is in both groups, or there are no workers).
    pub schedulable: bool,
    /// Address that the node binds to, from `ip`; else found by the route to its peers.
    pub ip: Option<IpAddr>,
    /// Address that peers use, from `access_ip`; else `ip`.
    pub access_ip: Option<IpAddr>,
    /// How to log in.
    pub connect: Connect,
}

/// How to log in to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// Host name or address to connect to.
    pub host: String,
    /// SSH port.
    pub port: u16,
    /// Login user.
    pub user: String,
    /// Private key file, `~` already expanded.
    pub private_key: Option<PathBuf>,
    /// Login password.
    pub password: Option<Secret>,
    /// Whether root is reached through sudo.
    pub become_root: bool,
    /// Password for sudo.
    pub become_password: Option<Secret>,
}

impl Inventory {
    /// Returns the control plane nodes, in the order of the file; the first is where the cluster starts.
    pub fn control_planes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|n| n.role == Role::ControlPlane)
    }
    /// Returns the workers.
    pub fn workers(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|n| n.role == Role::Worker)
    }
    /// Returns the machines outside the cluster.
    pub fn outside(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|n| n.role == Role::Outside)
    }
    /// Returns every member of the cluster: control planes, then workers.
    pub fn members(&self) -> impl Iterator<Item = &Node> {
        self.control_planes().chain(self.workers())
    }
    /// Returns the machine of that name.
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.iter().find(|n| &n.name == name)
    }
}
