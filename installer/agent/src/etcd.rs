//! etcd, asked through its own `etcdctl` inside this node's etcd container.

use crate::agent::Agent;
use crate::containers::{self, ContainerOf};
use crate::error::Result;
use landfall_core::name::NodeName;
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

/// Runs `etcdctl` with these arguments in the static pod that kubeadm made for the member on `node`, this node. Blocks 60 s at most;
/// that no such container runs is an error.
pub fn etcdctl(agent: &Agent, node: &NodeName, args: &[&str]) -> Result<CommandOutput> {
    let pod = format!("etcd-{node}");
    let etcd = ContainerOf {
        namespace: "kube-system",
        pod: &pod,
        container: "etcd",
    };
    let container = containers::running(agent, etcd)?;
    let output = containers::exec(agent, &container, &[&FLAGS, args].concat(), &[], LIMIT)?;
    Ok(CommandOutput {
        status: output.status.code(),
        stdout: output.text(),
        stderr: output.stderr,
    })
}
