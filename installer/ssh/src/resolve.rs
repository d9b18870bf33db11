//! Resolves host names by `getent`, because glibc's name look-up does not work in a static program. No other module resolves names.

use landfall_core::explain::{Code, Diagnosis};
use std::net::IpAddr;
use std::process::{Command, Stdio};

/// Returns the addresses of a host; a literal address is returned as it is. A name without addresses is an error. Blocks as long as the system's
/// resolver does.
pub fn resolve(host: &str) -> Result<Vec<IpAddr>, Diagnosis> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let failed = || {
        Diagnosis::new(Code::Unreachable, format!("the name {host} has no address here"))
            .next("use an address in the inventory (ansible_host or host), or add the name to /etc/hosts")
    };
    let output = Command::new("getent")
        .args(["ahosts", host])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            failed()
                .saw("getent, which looks names up, cannot be started")
                .because(&error)
        })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut addresses: Vec<IpAddr> = text
        .lines()
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .collect();
    addresses.dedup();
    if addresses.is_empty() {
        Err(failed())
    } else {
        Ok(addresses)
    }
}
