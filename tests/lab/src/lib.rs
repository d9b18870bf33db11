//! Machines in place of VMs: systemd and sshd in podman containers, on an isolated network.
//!
//! [`Lab`] starts and removes them, [`fingerprint`] compares the state of one, [`guard`] counts packets that leave the network.

pub mod fingerprint;
pub mod guard;
pub mod hand;
pub mod host;
mod image;
mod lab;
pub mod operator;
pub mod scenario;

pub use lab::{Lab, Machine, Purpose, Size};
