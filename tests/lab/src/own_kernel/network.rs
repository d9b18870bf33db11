//! The machines' network: a bridge in a network namespace of its own, from which no link leads out.

use crate::host::{root, run, sudo};
use anyhow::Result;
use std::process::Command;

const NAMESPACE: &str = "landfall-own";
const BRIDGE: &str = "lab0";
/// The first three numbers of its addresses.
const SUBNET: &str = "10.90.4";

/// The network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Network;

impl Network {
    /// What stands before a command on this network.
    pub const PREFIX: &str = "sudo ip netns exec landfall-own";

    /// Describes it; nothing is made.
    pub fn new() -> Self {
        Self
    }

    /// Makes it, unless it is there.
    pub fn up(self) -> Result<()> {
        if self.exists()? {
            return Ok(());
        }
        sudo("ip", &["netns", "add", NAMESPACE])?;
        let ip = |arguments: &[&str]| run(self.inside("ip").args(arguments)).map(drop);
        ip(&["link", "set", "lo", "up"])?;
        ip(&[
            "link",
            "add",
            BRIDGE,
            "type",
            "bridge",
            "stp_state",
            "0",
            "forward_delay",
            "0",
        ])?;
        ip(&["address", "add", &format!("{SUBNET}.1/24"), "dev", BRIDGE])?;
        ip(&["link", "set", BRIDGE, "up"])
    }

    /// Removes it with all its links.
    pub fn down(self) -> Result<()> {
        if self.exists()? {
            sudo("ip", &["netns", "delete", NAMESPACE])?;
        }
        Ok(())
    }

    /// Gives a machine its end of a link.
    pub fn plug(self, tap: &str) -> Result<()> {
        if run(self.inside("ip").args(["link", "show", tap])).is_err() {
            run(self.inside("ip").args(["tuntap", "add", "dev", tap, "mode", "tap"]))?;
        }
        run(self.inside("ip").args(["link", "set", tap, "master", BRIDGE, "up"])).map(drop)
    }

    /// A program on this network and on no other, as root, not yet started.
    pub fn inside(self, program: &str) -> Command {
        let mut command = root("ip");
        command.args(["netns", "exec", NAMESPACE, program]);
        command
    }

    /// The address of the machine at a place, from 0.
    pub fn address(self, at: usize) -> String {
        format!("{SUBNET}.{}", 11 + at)
    }

    fn exists(self) -> Result<bool> {
        let list = sudo("ip", &["netns", "list"])?;
        Ok(list
            .lines()
            .any(|line| line.split_whitespace().next() == Some(NAMESPACE)))
    }
}
