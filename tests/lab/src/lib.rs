//! Machines in place of VMs: systemd and sshd in podman containers, on an isolated network.
//!
//! [`own_kernel`] has machines that do not share this host's kernel. [`Lab`] starts and removes containers, [`fingerprint`] compares the state of one, [`guard`] counts packets that leave the network.

pub mod fingerprint;
pub mod guard;
pub mod hand;
pub mod host;
mod image;
mod lab;
pub mod operator;
pub mod own_kernel;
pub mod scenario;

pub use lab::{Lab, Machine, Purpose, Size};
