//! Connections behind [`landfall_core::transport::Transport`]: SSH, and this machine itself. The only crate that sees ssh2 and OpenSSL.
//!
//! One thread owns a session and all its channels ([`pump`]); callers use ordinary blocking streams.

mod auth;
mod config;
mod connect;
#[cfg(test)]
mod fuzz;
mod identity;
mod key;
mod known_hosts;
mod local;
mod openssh;
mod options;
mod pattern;
mod process;
mod proxy;
mod pump;
mod refusal;
mod resolve;
mod shell_output;
mod start;
mod wire;

pub use config::SshConfig;
pub use config::apply::Local;
pub use connect::SshTransport;
pub use key::fingerprint;
pub use local::LocalTransport;
pub use openssh::{OpensshMaster, OpensshOptions, OpensshTransport};
pub use options::{Passphrases, SshOptions};
pub use resolve::resolve;

#[cfg(test)]
mod tests;
