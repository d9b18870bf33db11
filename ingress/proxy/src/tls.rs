//! TLS on both sides: the handshake with clients, which certificate a host has, client certificates, and TLS to endpoints.
//!
//! ```text
//! Secrets, Ingresses ──translate/──> RouteTable::certificate
//! connection ──> accept.rs ──server name──> newest RouteTable: certificate, authorities for clients ──> proxy::connection
//! request ──> client.rs: may a request for this host come over this connection?
//! ```
//!
//! INVARIANT: the server name picks the certificate, the Host picks the route (S18). A Secret that cannot be used costs its own hosts
//! their certificate and nothing else (S19). A host's certificate comes only from the namespace that the host belongs to (S20).

mod accept;
pub mod client;
mod facts;

pub use accept::Acceptor;
pub use facts::{Fact, Outline, earliest, facts, outline};

#[cfg(test)]
pub(crate) mod tests;
