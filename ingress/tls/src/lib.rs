//! TLS without connections: certificates and their keys, the provider of cryptography, what is checked of endpoints, and what a handshake
//! settled.
//!
//! It promises that a key is never part of a text, and that a certificate which is to be checked is checked or the connection is none. It
//! knows neither Secrets nor routes, and must not depend on a runtime.

#![forbid(unsafe_code)]

pub mod certificate;
pub mod client;
pub mod limits;
pub mod provider;

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
    /// Answer 421 when a request's Host has another certificate than the connection was made with.
    #[arg(long)]
    pub strict_sni: bool,
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
