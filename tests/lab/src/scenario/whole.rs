//! Points 1, 5 and 6 on three control planes and two workers: installed from nothing, without a packet leaving, and taken away.

use super::{Broken, Checks, Stage, VANTAGES, expect_green};
use crate::guard::Guard;
use crate::lab::Lab;
use crate::operator::{BUNDLE, CLUSTER};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Installs from nothing.
pub fn show(stage: &Stage<'_>, checks: &mut Checks) -> Result<(), Broken> {
    let guard = checks.needed("the guard sees packets that leave the network", || {
        Guard::start(stage.lab)
    })?;
    let mut sent = 0;
    checks.needed(
        "install after uninstall, from nothing, one machine by ssh itself: exit 0, all cells as expected",
        || {
            stage.operator.write_cluster(by_ssh_itself)?;
            let args = ["install", "-i", CLUSTER, "--report", "whole", BUNDLE];
            let before = stage.operator.sent_bytes()?;
            let ended = stage.operator.landfall(&args)?;
            sent = stage.operator.sent_bytes()? - before;
            println!("lab: install took {:.1} s", ended.took.as_secs_f32());
            if ended.status != Some(0) {
                stage.operator.show_logs("whole")?;
            }
            ended.expect(0)?;
            let log = stage.operator.read("whole/landfall.log")?;
            ensure!(
                log.contains("ssh logs in"),
                "no machine was reached by ssh itself:\n{log}"
            );
            expect_green(&stage.operator.read_json("whole/verify.json")?, &VANTAGES)
        },
    )?;
    checks.check(
        "one copy of the bundle left the operator, and an agent for each node",
        || {
            let bundle = stage.operator.bundle_bytes()?;
            println!("lab: {sent} bytes left the operator, the bundle has {bundle}");
            // Five copies are more than four bundles, because workers need less.
            ensure!(
                sent < 2 * bundle,
                "{sent} bytes left the operator, and the bundle has {bundle}"
            );
            Ok(())
        },
    );
    checks.check("not one packet left the network", || {
        let left = guard.left()?;
        ensure!(left == 0, "{left} packets tried to leave");
        Ok(())
    });
    checks.check("every image was already present on its machine", || images(stage.lab));
    checks.check("Secrets are encrypted at rest and the audit log is written", || {
        hardened(stage.lab)
    });
    Ok(())
}

/// Lets the operator's own ssh lead to the machine where root is reached by sudo.
fn by_ssh_itself(cluster: &mut Value) {
    let nodes = cluster["nodes"].as_array_mut().into_iter().flatten();
    for node in nodes.filter(|node| node["user"] == "ops") {
        node["connection"] = json!("openssh");
    }
}

/// Asks the API server by the first control plane; the arguments ask for JSON.
pub(super) fn kubectl(lab: &Lab, args: &[&str]) -> Result<Value> {
    let command = [
        &[
            "kubectl",
            "--kubeconfig",
            "/etc/kubernetes/admin.conf",
            "--cache-dir",
            "/tmp/kube",
        ],
        args,
    ]
    .concat();
    let text = lab.exec(lab.machine("cp-1")?, &command)?;
    lab.shell(lab.machine("cp-1")?, "rm -rf /tmp/kube")?;
    serde_json::from_str(&text).context("kubectl's answer is no JSON")
}

fn images(lab: &Lab) -> Result<()> {
    let events = kubectl(
        lab,
        &["get", "events", "-A", "-o", "json", "--field-selector", "reason=Pulled"],
    )?;
    let pulling = kubectl(
        lab,
        &[
            "get",
            "events",
            "-A",
            "-o",
            "json",
            "--field-selector",
            "reason=Pulling",
        ],
    )?;
    let items = events["items"].as_array().context("no list of events")?;
    ensure!(items.len() >= 5, "only {} events about images", items.len());
    let pulled: Vec<_> = items
        .iter()
        .filter_map(|e| e["message"].as_str())
        .filter(|m| !m.contains("already present on machine"))
        .collect();
    ensure!(pulled.is_empty(), "pulled:\n{}", pulled.join("\n"));
    ensure!(
        pulling["items"].as_array().is_some_and(Vec::is_empty),
        "an image was pulled"
    );
    Ok(())
}

fn hardened(lab: &Lab) -> Result<()> {
    let machine = lab.machine("cp-1")?;
    let secret = "kubectl --kubeconfig /etc/kubernetes/admin.conf create secret generic probe -n default --from-literal=word=plaintext-marker >/dev/null && sync; \
                  grep -rqa plaintext-marker /var/lib/etcd; found=$?; \
                  kubectl --kubeconfig /etc/kubernetes/admin.conf delete secret probe -n default >/dev/null; rm -rf /root/.kube; exit $((found == 0))";
    lab.shell(machine, secret)
        .context("a Secret's value is readable in etcd's files")?;
    lab.shell(
        machine,
        "grep -q '\"resource\":\"secrets\"' /var/log/kubernetes/audit.log",
    )
    .context("the audit log does not know of it")?;
    lab.shell(
        machine,
        "grep -q plaintext-marker /var/log/kubernetes/audit.log && exit 1 || exit 0",
    )
    .context("the audit log holds the value")
    .map(drop)
}

/// Takes the whole cluster away.
pub fn take_away(stage: &Stage<'_>, checks: &mut Checks) {
    checks.check("uninstall of three and two: fingerprints as before", || {
        let ended = stage
            .operator
            .landfall(&["uninstall", "-i", CLUSTER, "--yes"])?
            .expect(0)?;
        println!("lab: uninstall took {:.1} s", ended.took.as_secs_f32());
        stage.expect_unchanged_but_for_reboots()
    });
}
