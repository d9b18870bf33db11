//! TLS with real handshakes on loopback and certificates made for the test.

mod backends;
mod clients;
mod ends;
mod handshakes;
mod hosts;
pub(crate) mod pki;
