//! The wire between nodes: which pairs are tried on which ports ([`plan`]), and what the results mean ([`judge`]): which of two nodes is
//! at fault, or the path between them.

mod judge;

pub use judge::judge;

use super::filters::own_address;
use crate::cluster_record::ClusterRecord;
use crate::facts::NodeFacts;
use crate::inventory::Role;
use crate::journal::Ownership;
use crate::mesh::{MeshListen, MeshListening, MeshPeer, MeshTry};
use crate::name::NodeName;
use crate::spec::{ClusterSpec, Desired};
use crate::traffic::{Service, services};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// How long listeners stay open at most, in milliseconds; they close as soon as the attempts are over. 128 attempts that nobody answers take about
/// 9 s (the agent's limits), and nodes of a large cluster make several times as many.
const LISTEN_MS: u64 = 60_000;
/// The unit whose activity means that daemons of the cluster hold their ports, or are about to.
const KUBELET: &str = "kubelet.service";

/// What is known before anything is tried.
#[derive(Debug, Clone, Copy)]
pub struct MeshInput<'a> {
    /// The spec and the machines.
    pub desired: &'a Desired,
    /// What was seen on the machines that are here.
    pub facts: &'a BTreeMap<NodeName, NodeFacts>,
    /// What is landfall's on them.
    pub owned: &'a BTreeMap<NodeName, Ownership>,
    /// The cluster, where it is recorded.
    pub record: Option<&'a ClusterRecord>,
}

/// Who listens, and who tries whom.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MeshPlan {
    /// Listeners, by node.
    pub listens: BTreeMap<NodeName, MeshListen>,
    /// Attempts, by the node that makes them.
    pub tries: BTreeMap<NodeName, MeshTry>,
}

/// A member that takes part.
struct Member<'a> {
    name: &'a NodeName,
    role: Role,
    address: Ipv4Addr,
    /// TCP ports that daemons of the cluster hold; `None` where none run.
    daemons: Option<BTreeSet<u16>>,
}

fn members<'a>(input: &MeshInput<'a>) -> Vec<Member<'a>> {
    let member = |node: &'a crate::inventory::Node| {
        let facts = input.facts.get(&node.name)?;
        let recorded = input
            .record
            .and_then(|record| record.members.get(&node.name))
            .map(|member| member.address);
        let address = match recorded {
            Some(IpAddr::V4(recorded)) => recorded,
            _ => own_address(input.desired, node, facts)?.0,
        };
        let ours = input.owned.get(&node.name).is_some_and(|own| !own.is_empty());
        let state = facts.units.get(KUBELET).map(String::as_str);
        let runs = ours && matches!(state, Some("active" | "activating" | "reloading"));
        let taken = facts
            .ports_taken
            .keys()
            .filter_map(|port| port.strip_prefix("tcp/")?.parse().ok());
        Some(Member {
            name: &node.name,
            role: node.role,
            address,
            daemons: runs.then(|| taken.collect()),
        })
    };
    input.desired.inventory.members().filter_map(member).collect()
}

/// Plans the attempts: each member tries every other on each port that it needs there. Where daemons of the cluster run, their ports are
/// asked, and nothing listens in their place. `token` is random text of this run.
pub fn plan(input: &MeshInput, token: &str) -> MeshPlan {
    let members = members(input);
    let spec = &input.desired.spec;
    let mut plan = MeshPlan::default();
    for from in &members {
        let others = members.iter().filter(|to| to.name != from.name);
        let peers: Vec<MeshPeer> = others.map(|to| peer(spec, from, to)).collect();
        for (to, peer) in members.iter().filter(|to| to.name != from.name).zip(&peers) {
            let listen = plan.listens.entry(to.name.clone()).or_insert_with(|| MeshListen {
                token: token.to_owned(),
                node: to.name.clone(),
                address: to.address,
                tcp: vec![],
                udp: None,
                limit_ms: LISTEN_MS,
            });
            listen.tcp.extend(&peer.tcp);
            listen.udp = listen.udp.or(peer.udp);
        }
        if !peers.is_empty() {
            let tries = MeshTry {
                token: token.to_owned(),
                address: from.address,
                peers,
            };
            plan.tries.insert(from.name.clone(), tries);
        }
    }
    for listen in plan.listens.values_mut() {
        listen.tcp.sort_unstable();
        listen.tcp.dedup();
    }
    plan.listens
        .retain(|_, listen| !listen.tcp.is_empty() || listen.udp.is_some());
    plan
}

fn peer(spec: &ClusterSpec, from: &Member, to: &Member) -> MeshPeer {
    let needed = services(spec, from.role, to.role);
    let (udp, tcp): (Vec<Service>, Vec<Service>) = needed.into_iter().partition(|s| s.protocol == "udp");
    let tcp = tcp.into_iter().map(|service| service.port);
    let (tcp, daemons) = match &to.daemons {
        None => (tcp.collect(), vec![]),
        Some(taken) => (vec![], tcp.filter(|port| taken.contains(port)).collect()),
    };
    MeshPeer {
        node: to.name.clone(),
        address: to.address,
        tcp,
        daemons,
        udp: udp.first().filter(|_| to.daemons.is_none()).map(|service| service.port),
    }
}

impl MeshPlan {
    /// Takes a node out that cannot listen: nobody tries it.
    pub fn leave_out(&mut self, node: &NodeName) {
        self.listens.remove(node);
        for tries in self.tries.values_mut() {
            tries.peers.retain(|peer| peer.node != *node);
        }
    }

    /// Takes out what a node does not listen on: a TCP port that somebody holds is asked all the same. Returns what is not tried, for people.
    pub fn without_failed(&mut self, node: &NodeName, listening: &MeshListening) -> Vec<String> {
        let peers = self.tries.values_mut().flat_map(|tries| &mut tries.peers);
        for peer in peers.filter(|peer| peer.node == *node) {
            let (failed, open): (Vec<u16>, Vec<u16>) = peer
                .tcp
                .iter()
                .partition(|port| listening.tcp_failed.contains_key(port));
            peer.tcp = open;
            peer.daemons.extend(failed);
            peer.udp = peer.udp.filter(|_| listening.udp_failed.is_none());
        }
        let tcp = listening
            .tcp_failed
            .iter()
            .map(|(port, why)| format!("tcp {port}: {why}"));
        let udp = listening.udp_failed.iter().map(|why| format!("udp: {why}"));
        tcp.chain(udp).collect()
    }
}
