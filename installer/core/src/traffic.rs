//! What nodes, pods and clients send to each other: the one list of it, for tries, for what packet filters would drop, and for the rules
//! that let it through.

use crate::inventory::Role;
use crate::layout::{self, Callers, ClusterPort};
use crate::packet_filter::Hook;
use crate::packet_filter::accept::{Accept, BRIDGE, LOOPBACK, Peers, Protocol, TUNNEL};
use crate::packet_filter::openings::Openings;
use crate::spec::{Backend, ClusterSpec};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Tables that daemons of the cluster make: kube-proxy, flannel, CNI's portmap.
pub const OWN_TABLES: [&str; 4] = [
    "ip kube-proxy",
    "ip flannel-ipv4",
    "ip cni_hostport",
    "inet cni_hostport",
];

/// A port that others reach on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The port.
    pub port: u16,
}

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.protocol, self.port)
    }
}

/// Returns what a node of one role needs of a node of another (or of its own kind).
pub fn services(spec: &ClusterSpec, caller: Role, called: Role) -> Vec<Service> {
    let tcp = |port| Service { protocol: "tcp", port };
    let is_called = |own: &&ClusterPort| match own.callers {
        Callers::Itself => false,
        Callers::ControlPlanes => caller == Role::ControlPlane,
        Callers::Members => true,
    };
    let mut services: Vec<Service> = layout::NODE_PORTS
        .iter()
        .filter(is_called)
        .map(|own| tcp(own.port))
        .collect();
    if called == Role::ControlPlane {
        let ports = layout::CONTROL_PLANE_PORTS.iter().filter(is_called);
        services.extend(ports.map(|own| tcp(own.port)));
    }
    services.extend(proxy_ports(spec).map(tcp));
    let vxlan = spec.pod_network.udp_port();
    services.extend(vxlan.map(|port| Service { protocol: "udp", port }));
    services
}

/// Returns the ports on which the ingress proxy serves clients.
pub fn ingress_ports(spec: &ClusterSpec) -> impl Iterator<Item = u16> {
    let ports = [spec.ingress.http_port, spec.ingress.https_port];
    ports.into_iter().filter(|_| spec.ingress.enabled)
}

/// Returns the ports of a node's ingress proxy that other members need: those of clients, and the dashboard's. The proxies of all nodes are the
/// endpoints of the dashboard's Ingress, and each asks the others for its view of the fleet.
pub fn proxy_ports(spec: &ClusterSpec) -> impl Iterator<Item = u16> {
    let ingress = &spec.ingress;
    let dashboard = (ingress.enabled && ingress.dashboard).then_some(ingress.dashboard_port);
    ingress_ports(spec).chain(dashboard)
}

/// A member of the cluster, as its peers know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// What it is for.
    pub role: Role,
    /// Its address.
    pub address: Ipv4Addr,
}

/// Returns what a node's packet filters must let through: what other members and pods need of it and it of them, and of everybody else what
/// clients send to the ingress proxy. `peers` are the other members.
pub fn openings(spec: &ClusterSpec, mark: &str, own: Peer, interface: &str, peers: &[Peer]) -> Openings {
    let mut peers = peers.to_vec();
    peers.sort_unstable();
    let mut accept = Vec::new();
    for hook in [Hook::Input, Hook::Output] {
        accept.extend(of_node(hook));
        accept.extend(of_peers(spec, hook, own, &peers));
    }
    accept.extend(of_pods(spec, own, interface));
    accept.extend(of_clients(spec));
    Openings {
        mark: mark.to_owned(),
        address: own.address,
        interface: interface.to_owned(),
        accept,
    }
}

/// What the node sends to itself: kubelet, balancer, etcd and probes meet on the loopback link.
fn of_node(hook: Hook) -> Option<Accept> {
    let link = Some(LOOPBACK.to_owned());
    match hook {
        Hook::Input => Some(Accept {
            through: link,
            ..Accept::at(hook)
        }),
        Hook::Output => Some(Accept {
            out_of: link,
            ..Accept::at(hook)
        }),
        Hook::Forward => None,
    }
}

/// What other members send to the node, or it to them: ports that the same members need stand together.
fn of_peers(spec: &ClusterSpec, hook: Hook, own: Peer, peers: &[Peer]) -> Vec<Accept> {
    let with = |addresses: Vec<Ipv4Addr>| match hook {
        Hook::Output => Accept {
            to: Peers::Addresses(addresses),
            ..Accept::at(hook)
        },
        Hook::Input | Hook::Forward => Accept {
            from: Peers::Addresses(addresses),
            ..Accept::at(hook)
        },
    };
    let mut needed: BTreeMap<Service, Vec<Ipv4Addr>> = BTreeMap::new();
    for peer in peers {
        let services = match hook {
            Hook::Output => services(spec, own.role, peer.role),
            Hook::Input | Hook::Forward => services(spec, peer.role, own.role),
        };
        for service in services {
            needed.entry(service).or_default().push(peer.address);
        }
    }
    let mut together: Vec<(Vec<Ipv4Addr>, &str, Vec<u16>)> = Vec::new();
    for (service, addresses) in needed {
        match together
            .iter_mut()
            .find(|(of, protocol, _)| (of, *protocol) == (&addresses, service.protocol))
        {
            Some((.., ports)) => ports.push(service.port),
            None => together.push((addresses, service.protocol, vec![service.port])),
        }
    }
    let mut accept = Vec::new();
    if !peers.is_empty() {
        let established = with(peers.iter().map(|peer| peer.address).collect());
        accept.push(Accept {
            established: true,
            ..established
        });
    }
    accept.extend(together.into_iter().map(|(addresses, protocol, ports)| Accept {
        protocol: Some(if protocol == "udp" {
            Protocol::Udp
        } else {
            Protocol::Tcp
        }),
        ports,
        ..with(addresses)
    }));
    accept
}

/// What pods send: to the API server of their node, and through the node to other pods and to the outside; what comes back to them; and what
/// the node sends to them. Pods of a node are behind its bridge, those of others behind the tunnel, or without one behind the node's interface.
fn of_pods(spec: &ClusterSpec, own: Peer, interface: &str) -> Vec<Accept> {
    let links = [BRIDGE, pods_link(spec, interface)];
    let pods = Peers::Network(spec.pod_network_cidr);
    let from = |hook, link: &str| Accept {
        from: pods.clone(),
        through: Some(link.to_owned()),
        ..Accept::at(hook)
    };
    let to = |hook| Accept {
        to: pods.clone(),
        ..Accept::at(hook)
    };
    let mut accept: Vec<Accept> = links
        .map(|link| Accept {
            established: true,
            ..from(Hook::Input, link)
        })
        .to_vec();
    if own.role == Role::ControlPlane {
        accept.push(Accept {
            protocol: Some(Protocol::Tcp),
            ports: vec![layout::API_SERVER_PORT],
            ..from(Hook::Input, BRIDGE)
        });
    }
    accept.extend(links.map(|link| from(Hook::Forward, link)));
    accept.push(Accept {
        established: true,
        ..to(Hook::Forward)
    });
    accept.push(to(Hook::Output));
    accept
}

/// Returns the link of a node behind which the pods of other nodes are. `interface` is the one that carries the node's address.
pub fn pods_link<'a>(spec: &ClusterSpec, interface: &'a str) -> &'a str {
    match spec.pod_network.backend {
        Backend::Vxlan => TUNNEL,
        Backend::HostGw => interface,
    }
}

/// What clients of the ingress proxy send, whoever they are, and what it answers.
fn of_clients(spec: &ClusterSpec) -> Vec<Accept> {
    let ports: Vec<u16> = ingress_ports(spec).collect();
    if ports.is_empty() {
        return vec![];
    }
    let tcp = |hook| Accept {
        protocol: Some(Protocol::Tcp),
        ..Accept::at(hook)
    };
    vec![
        Accept {
            ports: ports.clone(),
            ..tcp(Hook::Input)
        },
        Accept {
            source_ports: ports,
            established: true,
            ..tcp(Hook::Output)
        },
    ]
}

#[cfg(test)]
mod tests;
