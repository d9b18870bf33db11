//! Machines that stand in for VMs: systemd and sshd in podman containers, on a network without a way out.
//!
//! [`Lab`] starts and removes them, [`fingerprint`] says what changed on one, [`guard`] counts packets that leave the network.

pub mod fingerprint;
pub mod guard;
pub mod hand;
pub mod host;
mod image;
mod lab;
pub mod operator;
pub mod scenario;

pub use lab::{Lab, Machine, Purpose, Size};
