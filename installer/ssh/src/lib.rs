//! SSH behind [`landfall_core::transport::Transport`]: the only crate that sees ssh2 and OpenSSL.
//!
//! A session and all its channels live and die on one thread of their own ([`pump`]); the outside sees ordinary blocking streams.

mod auth;
mod connect;
mod known_hosts;
mod pump;
mod resolve;
mod sudo;

pub use connect::{SshOptions, SshTransport};
pub use known_hosts::fingerprint;

#[cfg(test)]
mod tests;
