//! The cluster is one that kubeadm itself knows: its certificates, a plan for an upgrade, a worker joined by hand. A founder whose etcd lost its
//! data founds nothing at the boot.

use super::{Checks, KUBECTL, Stage, whole};
use crate::host::sudo;
use crate::operator::CLUSTER;
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

/// The founder.
const FOUNDER: &str = "cp-1";
/// A control plane that stays.
const OTHER: &str = "cp-2";
/// The worker that joins by hand.
const WORKER: &str = "w-2";
/// What a boot and a refused kubelet take at most, or a join.
const LIMIT: Duration = Duration::from_secs(120);

/// Shows all of it.
pub fn show(stage: &Stage<'_>, checks: &mut Checks) {
    checks.check("kubeadm finds every certificate, and plans an upgrade", || {
        kubeadm_knows_it(stage)
    });
    checks.check("a worker joins by kubeadm alone", || worker_by_hand(stage));
    checks.check(
        "a founder without etcd's data founds nothing at the boot, and is named",
        || emptied_founder(stage),
    );
}

fn kubeadm_knows_it(stage: &Stage<'_>) -> Result<()> {
    for name in [FOUNDER, OTHER] {
        let machine = stage.lab.machine(name)?;
        let certificates = stage.lab.shell(
            machine,
            "kubeadm certs check-expiration 2>&1; status=$?; rm -rf /root/.kube; exit $status",
        )?;
        for file in ["admin.conf", "apiserver-kubelet-client", "etcd-peer", "front-proxy-ca"] {
            ensure!(
                certificates.contains(file),
                "{name}: {file} is not listed:\n{certificates}"
            );
        }
        let wrong = certificates.contains("MISSING") || certificates.contains("invalid");
        ensure!(!wrong, "{name}:\n{certificates}");
        let plan = stage.lab.shell(
            machine,
            "kubeadm upgrade plan v1.37.2 2>&1; status=$?; rm -rf /root/.kube; exit $status",
        )?;
        ensure!(plan.contains("v1.37.2"), "{name}: no version is named:\n{plan}");
    }
    Ok(())
}

fn members(stage: &Stage<'_>) -> Result<String> {
    let list = format!(
        "{KUBECTL} -n kube-system exec etcd-{OTHER} -- etcdctl --cacert /etc/kubernetes/pki/etcd/ca.crt \
         --cert /etc/kubernetes/pki/etcd/healthcheck-client.crt --key /etc/kubernetes/pki/etcd/healthcheck-client.key member list; \
         status=$?; rm -rf /tmp/kube; exit $status"
    );
    stage.lab.shell(stage.lab.machine(OTHER)?, &list)
}

fn emptied_founder(stage: &Stage<'_>) -> Result<()> {
    let (lab, machine) = (stage.lab, stage.lab.machine(FOUNDER)?);
    let before = members(stage)?;
    lab.cut_power(machine)?;
    let data = lab.var(machine)?.join("lib/etcd/member");
    sudo("rm", &["-r", &data.to_string_lossy()])?;
    lab.power_on(machine)?;
    let start = Instant::now();
    let named = loop {
        let status = stage.operator.landfall(&["status", "-i", CLUSTER])?;
        if status.stdout.contains("the data of this node's etcd member is gone") {
            break status.stdout;
        }
        ensure!(start.elapsed() < LIMIT, "status does not name it:\n{}", status.stdout);
        std::thread::sleep(Duration::from_secs(2));
    };
    println!("lab: {FOUNDER} was named after {:.1} s", start.elapsed().as_secs_f32());
    let etcd = lab.shell(machine, "pgrep -x etcd || true; ls /var/lib/etcd")?;
    ensure!(etcd.trim().is_empty(), "etcd runs, or has data:\n{etcd}\n{named}");
    ensure!(members(stage)? == before, "etcd's members have changed");
    let verified = stage.operator.landfall(&["verify", "-i", CLUSTER])?.expect(10)?;
    ensure!(
        verified.stdout.contains(FOUNDER),
        "verify does not name it:\n{}",
        verified.stdout
    );
    Ok(())
}

/// The node leaves by kubeadm's own command and comes back by a token. landfall's containerd, images and balancer stay there.
fn worker_by_hand(stage: &Stage<'_>) -> Result<()> {
    let lab = stage.lab;
    let (worker, other) = (lab.machine(WORKER)?, lab.machine(OTHER)?);
    lab.shell(
        other,
        &format!("{KUBECTL} delete node {WORKER}; status=$?; rm -rf /tmp/kube; exit $status"),
    )?;
    lab.shell(worker, "kubeadm reset --force 2>&1")?;
    let join = lab.shell(
        other,
        "kubeadm token create --ttl 10m --print-join-command; status=$?; rm -rf /root/.kube; exit $status",
    )?;
    let join = join
        .lines()
        .find(|line| line.starts_with("kubeadm join"))
        .context("no command to join")?;
    // Machines of the lab have the host's control groups, which may be of version 1; landfall's kubelet is configured for that.
    lab.shell(
        worker,
        &format!("{join} --ignore-preflight-errors SystemVerification 2>&1"),
    )?;
    let start = Instant::now();
    loop {
        let nodes = whole::kubectl(lab, &["get", "nodes", "-o", "json"])?;
        let nodes = nodes["items"].as_array().context("no list of nodes")?;
        let node = nodes.iter().find(|node| node["metadata"]["name"] == WORKER);
        let conditions = node.and_then(|node| node["status"]["conditions"].as_array());
        let is_ready = conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
        if is_ready {
            println!("lab: {WORKER} was Ready after {:.1} s", start.elapsed().as_secs_f32());
            return Ok(());
        }
        ensure!(start.elapsed() < LIMIT, "{WORKER} is not Ready: {node:?}");
        std::thread::sleep(Duration::from_secs(1));
    }
}
