//! Where a route's settings may send a request of our own: to an authentication service, or a copy of the request.

use landfall_ingress_http::host::host_of;
use std::net::SocketAddr;

/// A parsed URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// https.
    pub tls: bool,
    /// Where.
    pub place: Place,
    /// `Host` that it sees; empty for the request's own.
    pub authority: String,
    /// Path and query, at least `/`; may hold nginx's variables.
    pub path: String,
}

/// Where a URL leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// An address.
    Address(SocketAddr),
    /// A Service of the cluster.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its port.
        port: u16,
    },
    /// A name outside the cluster, which is looked up.
    Name {
        /// In small letters, without a dot at its end.
        host: String,
        /// Its port.
        port: u16,
    },
    /// The host of the request itself, through our own table.
    OwnHost,
}

impl Target {
    /// The name, or the address, that its certificate has to be for.
    pub fn server_name(&self) -> String {
        let host = host_of(&self.authority).unwrap_or_default();
        host.trim_matches(['[', ']']).to_owned()
    }
}
