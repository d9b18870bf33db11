//! Point 7: wrong input ends with the documented code, and nodes stay as they were.

use super::{Checks, Stage, expect_refusal};
use crate::lab::OPS_PASSWORD;
use crate::operator::{BUNDLE, CLUSTER};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

/// Shows them all.
pub fn show(stage: &Stage<'_>, checks: &mut Checks) {
    checks.check("an inventory with three errors: all three named, exit 3", || {
        three_errors(stage)
    });
    checks.check("unknown host keys are refused, exit 6", || {
        let ended = stage.operator.landfall(&["install", "-i", CLUSTER, BUNDLE])?;
        expect_refusal(ended, 6, "LF0202").map(drop)
    });
    checks.check("a node that cannot be reached: exit 6", || {
        let nobody = with_nodes(|nodes| nodes[1]["host"] = json!("10.90.2.250"));
        refused(stage, nobody, &["--connect-timeout", "3"], 6, "LF0201")
    });
    checks.check("a wrong host key: exit 6", || wrong_host_key(stage));
    checks.check("a wrong sudo password: exit 6, and the password is not shown", || {
        let wrong = with_nodes(|nodes| nodes[2]["becomePassword"] = json!("wrong horse"));
        stage.operator.write_cluster(wrong)?;
        let ended = expect_refusal(accept(stage, &[])?, 6, "LF0205")?;
        let all = format!("{}{}", ended.stdout, ended.stderr);
        ensure!(
            !all.contains("wrong horse") && !all.contains(OPS_PASSWORD),
            "a password is shown:\n{all}"
        );
        Ok(())
    });
    checks.check("port 6443 taken: exit 4", || port_taken(stage));
    checks.check("a pod network that overlaps the nodes' own: exit 4", || {
        let overlap = |cluster: &mut Value| cluster["podNetworkCidr"] = json!("10.90.0.0/16");
        refused(stage, overlap, &[], 4, "LF0301")
    });
    checks.check("a corrupt bundle: exit 5, named", || corrupt_bundle(stage));
    checks.check("a dry run prints the plan and stops", || {
        stage.operator.write_cluster(|_| {})?;
        let ended = accept(stage, &["--dry-run"])?.expect(0)?;
        let planned = stage.operator.landfall(&["plan", "-i", CLUSTER, BUNDLE])?.expect(0)?;
        ensure!(
            ended.stdout.contains("init/cp-2"),
            "the plan is not shown:\n{}",
            ended.stdout
        );
        ensure!(ended.stdout == planned.stdout, "plan and --dry-run differ");
        Ok(())
    });
    checks.check("after all of them the nodes are as they were", || {
        stage.expect_unchanged()
    });
}

/// Changes the list of nodes.
fn with_nodes(change: impl FnOnce(&mut Vec<Value>)) -> impl FnOnce(&mut Value) {
    move |cluster| {
        if let Some(nodes) = cluster["nodes"].as_array_mut() {
            change(nodes);
        }
    }
}

fn accept(stage: &Stage<'_>, more: &[&str]) -> Result<crate::operator::Ended> {
    let args = ["install", "-i", CLUSTER, "--accept-new-host-keys"];
    stage.operator.landfall(&[&args, more, &[BUNDLE]].concat())
}

fn refused(stage: &Stage<'_>, change: impl FnOnce(&mut Value), more: &[&str], status: i32, code: &str) -> Result<()> {
    stage.operator.write_cluster(change)?;
    expect_refusal(accept(stage, more)?, status, code).map(drop)
}

fn three_errors(stage: &Stage<'_>) -> Result<()> {
    let text =
        "[kube_control_plane]\na ansible_port=many\nb ansible_host=10.90.2.11 ip=10.90.2.999\n[kube_node]\nc[1:x]\n";
    stage.operator.write("wrong.ini", text)?;
    let ended = stage
        .operator
        .landfall(&["install", "-i", "wrong.ini", BUNDLE])?
        .expect(3)?;
    for wanted in ["\"many\"", "10.90.2.999", "line 5"] {
        ensure!(
            ended.stderr.contains(wanted),
            "{wanted} is not named:\n{}",
            ended.stderr
        );
    }
    Ok(())
}

fn wrong_host_key(stage: &Stage<'_>) -> Result<()> {
    stage.operator.write_cluster(|_| {})?;
    // cp-1 shows its own key; the file says that it has the operator's.
    let script = "umask 077; printf '10.90.2.11 ' > wrong_hosts; cut -d' ' -f1,2 /srv/key.pub >> wrong_hosts";
    stage.operator.run(&["sh", "-c", script])?.expect(0)?;
    let ended = stage
        .operator
        .landfall(&["install", "-i", CLUSTER, "--known-hosts", "wrong_hosts", BUNDLE])?;
    expect_refusal(ended, 6, "LF0203").map(drop)
}

fn port_taken(stage: &Stage<'_>) -> Result<()> {
    let machine = stage.lab.machine("cp-2")?;
    let start = "systemd-run --quiet --unit squatter socat TCP-LISTEN:6443,fork /dev/null";
    stage.lab.shell(machine, start)?;
    stage.operator.write_cluster(|_| {})?;
    let refused = accept(stage, &[]).and_then(|ended| expect_refusal(ended, 4, "LF0301"));
    stage.lab.exec(
        machine,
        &[
            "sh",
            "-c",
            "systemctl stop squatter; systemctl reset-failed squatter || exit 0",
        ],
    )?;
    ensure!(refused?.stderr.contains("6443"), "the port is not named");
    Ok(())
}

fn corrupt_bundle(stage: &Stage<'_>) -> Result<()> {
    stage.operator.write_cluster(|_| {})?;
    // One byte in the middle of the file, where some blob lies.
    let script = "cp /srv/landfall.bundle bad.bundle && at=$(($(stat -c %s bad.bundle) / 2)) && \
                  old=$(od -An -tu1 -j $at -N 1 bad.bundle) && \
                  printf \"\\\\$(printf %o $(( (old + 1) % 256 )))\" | dd of=bad.bundle bs=1 seek=$at conv=notrunc status=none";
    stage.operator.run(&["sh", "-c", script])?.expect(0)?;
    expect_refusal(
        stage.operator.landfall(&["bundle", "verify", "bad.bundle"])?,
        5,
        "LF0402",
    )?;
    let ended = stage
        .operator
        .landfall(&["install", "-i", CLUSTER, "--accept-new-host-keys", "bad.bundle"])?;
    expect_refusal(ended, 5, "LF0402")?;
    stage.operator.run(&["rm", "bad.bundle"])?.expect(0).map(drop)
}
