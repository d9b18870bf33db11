//! Blobs that nodes give each other, so that the operator sends one copy: what the operator tells their agents, and what these say to each
//! other over TLS 1.3. The listening agent makes a key for this one listener; peers learn it from the operator and accept no other.

use crate::name::{Digest, NodeName};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A listener that a node shall open on its own address, port [`RELAY_PORT`](crate::layout::RELAY_PORT).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayListen {
    /// Its own address.
    pub address: IpAddr,
    /// Random text of this run; who does not say it gets nothing.
    pub token: String,
}

/// Answer to [`RelayListen`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayListening {
    /// The listener's public key: a SubjectPublicKeyInfo (RFC 7250) in base64.
    pub key: String,
}

/// A node that has a blob, or receives it just now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelaySource {
    /// Its name.
    pub node: NodeName,
    /// Its address.
    pub address: IpAddr,
    /// The key of its listener, as in [`RelayListening`].
    pub key: String,
    /// The token of its listener.
    pub token: String,
}

/// What a node says first on a connection to another one: a line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayAsk {
    /// The token of the listener.
    pub token: String,
    /// The blob.
    pub digest: Digest,
    /// How many of its first bytes are not wanted.
    pub from_bytes: u64,
}

/// The answer: a line of JSON, and after [`Self::Follows`] the bytes of the blob, each as soon as the chunk that it is in was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum RelayAnswer {
    /// The bytes follow.
    Follows,
    /// The node has none of it, and none is coming.
    Absent,
}
