//! What agents try of the network between nodes before anything is changed: listeners on one side, attempts on the other. Which pairs
//! and ports, and what the results mean, is [`crate::preflight::mesh`]'s to say.

use crate::name::{Digest, NodeName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Characters of a [`MeshListen::token`]: 16 random bytes in hexadecimal digits.
pub const TOKEN_LENGTH: usize = 32;

/// Listeners that a node shall open on its own address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshListen {
    /// Random text of this run, [`TOKEN_LENGTH`] characters; who does not send it gets no answer.
    pub token: String,
    /// The node, which the answers name.
    pub node: NodeName,
    /// Its own address.
    pub address: Ipv4Addr,
    /// TCP ports.
    pub tcp: Vec<u16>,
    /// UDP port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<u16>,
    /// When the listeners close in any case, in milliseconds; they close as soon as the stream of the request ends.
    pub limit_ms: u64,
}

/// Which of the listeners could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MeshListening {
    /// TCP ports, and why.
    pub tcp_failed: BTreeMap<u16, String>,
    /// Why there is no UDP listener, when one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp_failed: Option<String>,
}

/// What a node shall try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshTry {
    /// The token of the run.
    pub token: String,
    /// The node's own address, from which it sends.
    pub address: Ipv4Addr,
    /// Whom it tries.
    pub peers: Vec<MeshPeer>,
}

/// A node that is tried by another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshPeer {
    /// Its name.
    pub node: NodeName,
    /// Its address.
    pub address: Ipv4Addr,
    /// TCP ports on which its agent listens.
    pub tcp: Vec<u16>,
    /// TCP ports on which daemons of the cluster listen: to be connected to is all that is asked of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub daemons: Vec<u16>,
    /// UDP port on which its agent listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<u16>,
}

/// What a node saw of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshSeen {
    /// The peer.
    pub node: NodeName,
    /// What came of each TCP port.
    pub tcp: BTreeMap<u16, PortSeen>,
    /// What came of UDP, where it was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<UdpSeen>,
}

/// What came of a TCP port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortSeen {
    /// The right one answered.
    Open {
        /// After so many microseconds.
        took_us: u64,
    },
    /// Nothing came within the time limit.
    Silent,
    /// The connection was refused, although somebody listens there.
    Refused,
    /// The network says that the way is closed, in its words.
    Closed(String),
    /// Something answered, and not the agent.
    Stranger,
}

/// What came of datagrams with the flag "don't fragment".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UdpSeen {
    /// Small ones that were sent.
    pub sent: u32,
    /// Those that were answered.
    pub answered: u32,
    /// Median time from a small one to its answer, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_us: Option<u64>,
    /// MTU of the interface that leads to the peer, in bytes: the size of the largest packets that were sent.
    pub mtu: u32,
    /// Size of the largest packet that arrived, in bytes; 0 when none did.
    pub largest: u32,
}

/// What the listener of a node answers to the token on a port: nothing that merely sends back what it gets is taken for it.
pub fn answer(token: &str, node: &NodeName, port: u16) -> String {
    Digest::of(format!("{token} {node} {port}").as_bytes()).hex()
}
