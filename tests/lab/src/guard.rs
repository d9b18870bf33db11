//! Counts packets that try to leave the lab's network: the proof that an install needs no internet.

use crate::host::{root, sudo};
use crate::lab::Lab;
use anyhow::{Context, Result, ensure};
use std::io::Write;
use std::process::Stdio;

/// An nftables table on the host that counts, and drops, what comes from the lab's bridge and is not meant for its network.
pub struct Guard {
    table: String,
}

impl Guard {
    /// Adds the table and checks that it counts: it sends a packet outwards, which must be counted.
    pub fn start(lab: &Lab) -> Result<Self> {
        let bridge = lab.bridge()?;
        let table = format!("landfall_guard_{bridge}");
        let guard = Self { table };
        guard.stop()?;
        let subnet = lab.subnet();
        let table = &guard.table;
        // The cluster's own networks are reached by way of the nodes: the machine outside sends to them across the bridge.
        let rules = format!(
            "table inet {table} {{\n  counter left {{ }}\n  chain seen {{\n    \
             ip daddr {{ {subnet}, 10.244.0.0/16, 10.96.0.0/12 }} return\n    \
             ip daddr {{ 224.0.0.0/4, 255.255.255.255 }} return\n    meta l4proto ipv6-icmp return\n    ip6 daddr ff00::/8 return\n    \
             counter name left drop\n  }}\n  \
             chain arriving {{ type filter hook prerouting priority -300; iifname \"{bridge}\" jump seen; }}\n}}\n"
        );
        let mut nft = root("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn()?;
        nft.stdin
            .take()
            .context("nft takes no input")?
            .write_all(rules.as_bytes())?;
        ensure!(nft.wait()?.success(), "nft refused the guard's rules");
        guard.prove(lab)?;
        Ok(guard)
    }

    fn prove(&self, lab: &Lab) -> Result<()> {
        let outside = lab.machine("outside")?;
        let gateway = lab.gateway();
        // 192.0.2.0/24 is for documentation (RFC 5737): nobody is there.
        lab.exec(outside, &["ip", "route", "add", "192.0.2.1", "via", &gateway])?;
        let sent = lab.shell(outside, "ping -c 1 -W 1 192.0.2.1; ip route del 192.0.2.1");
        sent.context("a packet cannot be sent outwards on purpose")?;
        ensure!(
            self.left()? > 0,
            "the guard does not see a packet that was sent outwards on purpose"
        );
        sudo("nft", &["reset", "counters", "table", "inet", &self.table]).map(drop)
    }

    /// How many packets tried to leave since the start.
    pub fn left(&self) -> Result<u64> {
        let text = sudo("nft", &["-j", "list", "counter", "inet", &self.table, "left"])?;
        let value: serde_json::Value = serde_json::from_str(&text)?;
        let counters = value["nftables"].as_array().context("nft's answer has no list")?;
        let packets = counters.iter().find_map(|c| c["counter"]["packets"].as_u64());
        packets.context("nft's answer has no count")
    }

    /// Removes the table.
    pub fn stop(&self) -> Result<()> {
        if sudo("nft", &["list", "table", "inet", &self.table]).is_ok() {
            sudo("nft", &["delete", "table", "inet", &self.table])?;
        }
        Ok(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            println!("the guard stays behind: {error:#}");
        }
    }
}
