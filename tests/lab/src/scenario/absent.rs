//! The founder's power stays off: a changed setting reaches the other members, `verify` names the founder, and the same command completes
//! it once it is back.

use super::{Checks, Stage, answers};
use crate::operator::{BUNDLE, CLUSTER, Ended};
use anyhow::{Result, ensure};
use landfall_test_answers::Condition;
use serde_json::json;
use std::time::{Duration, Instant};

const FOUNDER: &str = "cp-1";
/// An address that nobody has (RFC 5737).
const UPSTREAM: &str = "192.0.2.53";
/// The founder must be completed within this time of its return.
const BACK_LIMIT: Duration = Duration::from_secs(240);
const INSTALL: [&str; 4] = ["install", "-i", CLUSTER, BUNDLE];

/// Shows both.
pub fn show(stage: &Stage<'_>, checks: &mut Checks) {
    checks.check(
        "the founder is off: a changed setting reaches the others (exit 6), and verify names it",
        || without_founder(stage),
    );
    checks.check(
        "the founder is off: the cluster answers as the simulation's model does",
        || answers::expect_recorded(stage, Condition::OneOff),
    );
    checks.check(
        "the founder is back: the same command completes it, then 0 changes",
        || founder_back(stage),
    );
}

fn without_founder(stage: &Stage<'_>) -> Result<()> {
    let lab = stage.lab;
    lab.cut_power(lab.machine(FOUNDER)?)?;
    stage.operator.write_cluster(|cluster| {
        cluster["ingress"] = json!({ "accessLog": "json" });
        cluster["upstreamDns"] = json!([UPSTREAM]);
    })?;
    let ended = stage.operator.landfall(&INSTALL)?.expect(6)?;
    names_founder(&ended)?;
    let ask = "kubectl --kubeconfig /etc/kubernetes/admin.conf --cache-dir /tmp/kube -n kube-system get configmap coredns -o yaml; \
               status=$?; rm -rf /tmp/kube; exit $status";
    let config = lab.shell(lab.machine("cp-2")?, ask)?;
    ensure!(config.contains(UPSTREAM), "CoreDNS does not know of it:\n{config}");
    let verified = stage.operator.landfall(&["verify", "-i", CLUSTER])?;
    ensure!(verified.status != Some(0), "verify is content:\n{}", verified.stdout);
    names_founder(&verified)
}

fn names_founder(ended: &Ended) -> Result<()> {
    ensure!(
        ended.stderr.contains(FOUNDER) || ended.stdout.contains(FOUNDER),
        "{} does not name {FOUNDER}:\n{}\n{}",
        ended.command,
        ended.stdout,
        ended.stderr
    );
    Ok(())
}

fn founder_back(stage: &Stage<'_>) -> Result<()> {
    stage.lab.power_on(stage.lab.machine(FOUNDER)?)?;
    let start = Instant::now();
    loop {
        let ended = stage.operator.landfall(&INSTALL)?;
        if ended.status == Some(0) {
            break;
        }
        ensure!(
            start.elapsed() < BACK_LIMIT,
            "not complete after {} s:\n{}\n{}",
            BACK_LIMIT.as_secs(),
            ended.stdout,
            ended.stderr
        );
        std::thread::sleep(Duration::from_secs(2));
    }
    println!(
        "lab: {FOUNDER} was complete after {:.1} s",
        start.elapsed().as_secs_f32()
    );
    let again = stage.operator.landfall(&INSTALL)?.expect(0)?;
    ensure!(
        again.stdout.lines().any(|line| line == "0 changes"),
        "it does not say \"0 changes\":\n{}",
        again.stdout
    );
    Ok(())
}
