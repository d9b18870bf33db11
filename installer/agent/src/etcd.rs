//! etcd, asked through its own `etcdctl` inside this node's etcd container.

use crate::agent::Agent;
use crate::containers;
use crate::error::Result;
use landfall_core::wire::CommandOutput;
use std::time::Duration;

/// Connection flags: the member on this node, with the certificate that kubeadm makes for health checks.
const FLAGS: [&str; 5] = [
    "etcdctl",
    "--endpoints=https://127.0.0.1:2379",
    "--cacert=/etc/kubernetes/pki/etcd/ca.crt",
    "--cert=/etc/kubernetes/pki/etcd/healthcheck-client.crt",
    "--key=/etc/kubernetes/pki/etcd/healthcheck-client.key",
];
/// etcdctl's own time-outs are 5 s per question; a member list asks one after the other.
const LIMIT: Duration = Duration::from_secs(30);

/// Runs `etcdctl` with these arguments. Blocks 30 s at most.
pub fn etcdctl(agent: &Agent, args: &[&str]) -> Result<CommandOutput> {
    let container = containers::running_named(agent, "etcd")?;
    let output = containers::exec(agent, &container, &[&FLAGS, args].concat(), &[], LIMIT)?;
    Ok(CommandOutput {
        status: output.status.code(),
        stdout: output.text(),
        stderr: output.stderr,
    })
}

/// Says whether the member here answers, no member is a learner or unstarted, and all are healthy; the error says what was seen.
pub fn all_healthy(agent: &Agent) -> std::result::Result<(), String> {
    let ask = |args: &[&str]| {
        let output = etcdctl(agent, args).map_err(|error| error.diagnosis().what)?;
        match output.status {
            Some(0) => Ok(output.stdout),
            _ => Err(output.stderr.lines().last().unwrap_or("etcdctl failed").to_owned()),
        }
    };
    let list: serde_json::Value = serde_json::from_str(&ask(&["member", "list", "--write-out=json"])?)
        .map_err(|e| format!("etcd's member list: {e}"))?;
    for member in list["members"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let name = member["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            return Err(format!("the etcd member {} has not started", member["peerURLs"]));
        }
        if member["isLearner"].as_bool() == Some(true) {
            return Err(format!("the etcd member {name} is still a learner"));
        }
    }
    ask(&["endpoint", "health", "--cluster"]).map(|_| ())
}
