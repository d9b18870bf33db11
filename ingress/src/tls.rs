//! TLS on both sides: the handshake with clients, which certificate a host has, client certificates, and TLS to endpoints.
//!
//! ```text
//! Secrets ──read once──> certificate.rs ─┐
//! Ingresses ──────────────> table.rs ────┴─> Snapshot::certificate
//! connection ──> accept.rs ──server name──> newest Snapshot: certificate, authorities for clients ──> proxy::connection
//! request ──> client.rs: may a request for this host come over this connection?
//! ```
//!
//! INVARIANT: the server name picks the certificate, the Host picks the route (S18). A Secret that cannot be used costs its own hosts
//! their certificate and nothing else (S19). A host's certificate comes only from the namespace that the host belongs to (S20).

mod accept;
pub mod backend;
mod certificate;
pub mod client;
mod facts;
mod provider;
mod table;

pub use accept::Acceptor;
pub use certificate::{Certificate, Fault};
pub use facts::{Fact, Outline, earliest, facts, outline};
pub use provider::provider;
pub use table::{Held, Wish, claim, claim_default, operators};

use crate::secrets::Name;
use rustls::{CipherSuite, ProtocolVersion};
use std::sync::Arc;

/// What operators choose about TLS.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(id = "tls")]
pub struct Options {
    /// Oldest TLS version that clients may speak.
    #[arg(long, value_enum, default_value_t)]
    pub tls_min_version: MinVersion,
    /// Cipher suites that are offered, by their IANA names, comma-separated; all that are safe when not given.
    #[arg(long, value_delimiter = ',', value_parser = provider::parse_suite)]
    pub tls_ciphers: Vec<CipherSuite>,
    /// Secret (namespace/name) with the certificate for hosts that have none; a self-signed one when not given.
    #[arg(long, value_parser = parse_name)]
    pub default_certificate: Option<Name>,
    /// Answer 421 when a request's Host has another certificate than the connection was made with.
    #[arg(long)]
    pub strict_sni: bool,
}

fn parse_name(text: &str) -> Result<Name, String> {
    Name::parse(text).ok_or_else(|| "namespace/name is needed".to_owned())
}

/// Oldest version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum MinVersion {
    /// RFC 5246.
    #[default]
    #[value(name = "1.2", alias = "VersionTLS12")]
    Tls12,
    /// RFC 8446.
    #[value(name = "1.3", alias = "VersionTLS13")]
    Tls13,
}

/// What a TLS handshake settled.
#[derive(Debug, Default)]
pub struct Session {
    /// Server name that the client asked for, lower case.
    pub server_name: Option<String>,
    /// Certificates that the client showed, DER, its own first; they were checked against `authorities`.
    pub client_certificates: Vec<Vec<u8>>,
    /// The authorities that the client was asked to be known to; `None` when it was not asked.
    pub authorities: Option<Arc<Vec<Vec<u8>>>>,
    /// Version of the protocol.
    pub version: Option<ProtocolVersion>,
    /// HTTP/2 was chosen by ALPN.
    pub http2: bool,
    /// Another host's certificate is not good enough: [`Options::strict_sni`].
    pub strict: bool,
}

#[cfg(test)]
pub(crate) mod tests;
