//! Points 2, 4, 5, 6 on the seed's own case of three machines, from an Ansible inventory: killed during the push and rolled back,
//! killed in the middle of the founding and resumed, repeated, and taken away. Their /usr is read-only.

use super::{Broken, Checks, Stage, VANTAGES, expect_green, expect_refusal, foreign};
use crate::fingerprint::{Fingerprint, differences};
use crate::lab::Machine;
use crate::operator::BUNDLE;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

const INVENTORY: &str = "three.ini";
const INSTALL: [&str; 5] = ["install", "-i", INVENTORY, "--accept-new-host-keys", BUNDLE];
const PUSH: [&str; 5] = ["push", "-i", INVENTORY, "--accept-new-host-keys", BUNDLE];
const PUSH_LIMIT: Duration = Duration::from_secs(120);
const FOUNDING_LIMIT: Duration = Duration::from_secs(300);

/// Shows all of it.
pub fn show(stage: &Stage<'_>, checks: &mut Checks) -> Result<(), Broken> {
    checks.needed(
        "machines with a read-only /usr are refused, and the setting that takes them is named",
        || read_only_usr(stage),
    )?;
    checks.check("5 % of all packets lost: the bundle is pushed, and taken back", || {
        push_over_a_lossy_network(stage)
    });
    checks.check("killed during the push and rolled back: as before", || {
        killed_in_push(stage)
    });
    checks.needed(
        "killed in the middle of the founding: installing again takes it back and founds anew",
        || killed_in_founding(stage),
    )?;
    checks.check(
        "a second install: 0 changes, no journal record, nothing written",
        || again(stage),
    );
    checks.check("the inventory in another order: 0 changes, the founder stays", || {
        reordered(stage)
    });
    checks.check("status and kubeconfig say what there is", || status(stage));
    checks.needed("uninstall takes everything away and leaves what others planted", || {
        foreign::expect_before(stage.lab)?;
        foreign::plant_after(stage.lab)?;
        let ended = stage
            .operator
            .landfall(&["uninstall", "-i", INVENTORY, "--yes"])?
            .expect(0)?;
        println!("lab: uninstall took {:.1} s", ended.took.as_secs_f32());
        foreign::expect_and_take_after(stage.lab)?;
        each_control_plane(stage, LET_WRITE)?;
        stage.expect_unchanged()
    })
}

/// Makes /usr read-only, as Flatcar's is. Machines with a kernel have /lib/modules, and pods mount it.
const KEEP_FROM_WRITING: &str = "mkdir /lib/modules && mount --bind /usr /usr && mount -o remount,bind,ro /usr";
/// Takes that away. What was started since then still has it open.
const LET_WRITE: &str = "umount --lazy /usr && rmdir /lib/modules";

fn control_planes<'a>(stage: &'a Stage<'_>) -> impl Iterator<Item = &'a Machine> {
    let members = stage.lab.members().into_iter();
    members.filter(|machine| machine.name.starts_with("cp-"))
}

fn each_control_plane(stage: &Stage<'_>, script: &str) -> Result<()> {
    control_planes(stage).try_for_each(|machine| stage.lab.shell(machine, script).map(drop))
}

/// Writes the inventory too.
fn read_only_usr(stage: &Stage<'_>) -> Result<()> {
    stage.operator.write_ansible(INVENTORY)?;
    // No workers: the section of workers goes.
    let text = stage.operator.read(INVENTORY)?;
    let kept: Vec<_> = text.lines().filter(|line| !line.starts_with("w-")).collect();
    let text = kept.join("\n") + "\n";
    stage.operator.write(INVENTORY, &text)?;
    each_control_plane(stage, KEEP_FROM_WRITING)?;
    let ended = expect_refusal(stage.operator.landfall(&INSTALL)?, 4, "LF0301")?;
    let setting = "binDir: /opt/landfall/bin";
    ensure!(
        ended.stderr.contains(setting),
        "{setting} is not named:\n{}",
        ended.stderr
    );
    let settings = "{'name': 'lab', 'profile': 'lab'}";
    ensure!(text.contains(settings), "the inventory has other settings:\n{text}");
    let wanted = "{'name': 'lab', 'profile': 'lab', 'binDir': '/opt/landfall/bin'}";
    stage.operator.write(INVENTORY, &text.replace(settings, wanted))
}

/// Each control plane loses a twentieth of what it receives: of the operator's stream, and of what the others send. The host's nft writes the rule into
/// the machine's network namespace.
fn push_over_a_lossy_network(stage: &Stage<'_>) -> Result<()> {
    let lossy = "nft add table inet lossy && \
                 nft 'add chain inet lossy input { type filter hook input priority -300; }' && \
                 nft 'add rule inet lossy input numgen random mod 100 < 5 counter drop'";
    let push = || {
        control_planes(stage).try_for_each(|machine| foreign::in_network(stage.lab, machine, lossy).map(drop))?;
        let ended = stage.operator.landfall(&PUSH)?.expect(0)?;
        println!(
            "lab: the push took {:.1} s with 5 % of packets lost",
            ended.took.as_secs_f32()
        );
        for machine in control_planes(stage) {
            let rules = foreign::in_network(stage.lab, machine, "nft list table inet lossy")?;
            ensure!(
                !rules.contains("packets 0 "),
                "{} lost no packet:\n{rules}",
                machine.name
            );
        }
        Ok(())
    };
    let pushed = push();
    for machine in control_planes(stage) {
        foreign::in_network(stage.lab, machine, "nft delete table inet lossy || true")?;
    }
    let removed = stage
        .operator
        .landfall(&["push", "-i", INVENTORY, "--remove"])?
        .expect(0);
    pushed.and(removed.map(drop))
}

fn killed_in_push(stage: &Stage<'_>) -> Result<()> {
    let running = stage.operator.start(&INSTALL)?;
    running.until(PUSH_LIMIT, |event| {
        event["event"] == "push-progress" && event["bytes"].as_u64().is_some_and(|bytes| bytes > 20_000_000)
    })?;
    stage.operator.kill(running)?;
    stage
        .operator
        .landfall(&["rollback", "-i", INVENTORY, "--yes"])?
        .expect(0)?;
    each_control_plane(stage, LET_WRITE)?;
    stage.expect_unchanged()?;
    each_control_plane(stage, KEEP_FROM_WRITING)
}

fn killed_in_founding(stage: &Stage<'_>) -> Result<()> {
    let running = stage.operator.start(&INSTALL)?;
    running.until(FOUNDING_LIMIT, |event| {
        event["event"] == "step-started" && event["step"] == "init/cp-2"
    })?;
    // kubeadm writes this file before it starts the kubelet, and waits for the API server after that.
    let pid = stage.lab.pid(stage.lab.machine("cp-2")?)?;
    let path = format!("/proc/{pid}/root/etc/kubernetes/manifests/etcd.yaml");
    let end = Instant::now() + FOUNDING_LIMIT;
    while crate::host::sudo("test", &["-e", &path]).is_err() {
        ensure!(Instant::now() < end, "kubeadm did not come to etcd's manifest");
        std::thread::sleep(Duration::from_millis(20));
    }
    stage.operator.kill(running)?;
    let args = [&INSTALL[..], &["--report", "report", "--junit", "verify.xml"]].concat();
    stage.operator.landfall(&args)?.expect(0)?;
    expect_green(&stage.operator.read_json("report/verify.json")?, &VANTAGES)?;
    ensure!(
        stage.operator.read("verify.xml")?.contains("<testsuite "),
        "the JUnit file holds no suite"
    );
    ensure!(
        stage.operator.read_json("report/install.json")?["exitCode"] == 0,
        "install.json says something else"
    );
    Ok(())
}

/// What a run that changes nothing may not touch; the cluster itself goes on writing elsewhere.
const STILL: [&str; 8] = [
    "file /etc",
    "content /etc",
    "file /opt",
    "content /opt",
    "file /usr",
    "content /usr",
    "unit-file ",
    "setting ",
];

fn again(stage: &Stage<'_>) -> Result<()> {
    let journals = |stage: &Stage<'_>| -> Result<String> {
        control_planes(stage)
            .map(|m| {
                stage.lab.shell(
                    m,
                    "find /var/lib/landfall -name '*journal*' -type f -exec sha256sum {} +",
                )
            })
            .collect()
    };
    let (before, journal) = (Fingerprint::take_all(stage.lab)?, journals(stage)?);
    ensure!(journal.contains("journal"), "no journal is found on the nodes");
    let ended = stage.operator.landfall(&INSTALL)?.expect(0)?;
    println!("lab: a second run took {:.1} s", ended.took.as_secs_f32());
    ensure!(
        ended.stdout.lines().any(|line| line == "0 changes"),
        "it does not say \"0 changes\":\n{}",
        ended.stdout
    );
    ensure!(journals(stage)? == journal, "a journal has grown");
    let lines = differences(&before, &Fingerprint::take_all(stage.lab)?);
    let moved: Vec<_> = lines
        .into_iter()
        .filter(|line| STILL.iter().any(|s| line.contains(&format!(" {s}"))))
        .collect();
    ensure!(moved.is_empty(), "something was written:\n{}", moved.join("\n"));
    Ok(())
}

/// The founder is who the cluster's record says: exchanged lines of an inventory change nothing.
fn reordered(stage: &Stage<'_>) -> Result<()> {
    const OTHER: &str = "reordered.ini";
    let text = stage.operator.read(INVENTORY)?;
    let is_control_plane = |line: &&str| line.starts_with("cp-") && line.contains('=');
    let mut backwards = text
        .lines()
        .filter(is_control_plane)
        .rev()
        .collect::<Vec<_>>()
        .into_iter();
    ensure!(
        backwards.len() == 3,
        "the inventory does not list three control planes:\n{text}"
    );
    let lines = text.lines().map(|line| match is_control_plane(&line) {
        true => backwards.next().unwrap_or(line),
        false => line,
    });
    let exchanged: String = lines.map(|line| format!("{line}\n")).collect();
    ensure!(exchanged != text, "the order is the same");
    stage.operator.write(OTHER, &exchanged)?;
    let ended = stage.operator.landfall(&["install", "-i", OTHER, BUNDLE])?.expect(0)?;
    ensure!(
        ended.stdout.lines().any(|line| line == "0 changes"),
        "it does not say \"0 changes\":\n{}",
        ended.stdout
    );
    Ok(())
}

fn status(stage: &Stage<'_>) -> Result<()> {
    let ended = stage.operator.landfall(&["status", "-i", INVENTORY])?.expect(0)?;
    for wanted in [
        "Ready, kubelet v1.37.2",
        "bundle: Kubernetes v1.37.2",
        "etcd: healthy",
        "first certificate to expire",
    ] {
        ensure!(ended.stdout.contains(wanted), "{wanted} is not said:\n{}", ended.stdout);
    }
    stage
        .operator
        .landfall(&["kubeconfig", "-i", INVENTORY, "-w", "kubeconfig"])?
        .expect(0)?;
    let config = stage.operator.run(&["stat", "-c", "%a", "kubeconfig"])?;
    ensure!(
        config.stdout.trim() == "600",
        "the kubeconfig has mode {}",
        config.stdout.trim()
    );
    // The operator has no kubectl: a node's, with the operator's file.
    let text = stage.operator.read("kubeconfig")?;
    let script = "umask 077; cat > /tmp/config; /opt/landfall/bin/kubectl --kubeconfig /tmp/config get nodes --no-headers; status=$?; rm -r /tmp/config /root/.kube; exit $status";
    let nodes = stage
        .lab
        .feed(stage.lab.machine("cp-2")?, &["sh", "-c", script], text.as_bytes())?;
    ensure!(
        nodes.lines().filter(|line| line.contains(" Ready ")).count() == 3,
        "not three nodes are Ready:\n{nodes}"
    );
    Ok(())
}
