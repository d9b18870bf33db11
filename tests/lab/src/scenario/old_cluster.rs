//! Clusters that the program of commit 726b1b0 left, with journals of version 1: one that is whole is looked at, taken on by an ordinary
//! install and uninstalled; one whose install was killed is rolled back.

use super::{Broken, Checks, Release, Stage, VANTAGES, expect_green};
use crate::fingerprint::{Fingerprint, differences};
use crate::lab::Machine;
use crate::operator::{BUNDLE, CLUSTER};
use anyhow::{Result, ensure};
use std::time::Duration;

const INSTALL: [&str; 5] = ["install", "-i", CLUSTER, "--accept-new-host-keys", BUNDLE];
const JOIN_LIMIT: Duration = Duration::from_secs(300);
/// Acts that may happen once in a cluster's life.
const ONE_SHOT: [&str; 6] = [
    "certificates/",
    "init/",
    "join-kubelet/",
    "join-control-plane/",
    "finish-control-plane/",
    "join-worker/",
];
/// Files of a runc that was killed. Journals of version 1 do not say whether such files were there before.
const RUNC_FILES: &str = "/tmp/runc-process";
/// Prints process id and start time of a machine's etcd.
const ETCD: &str = "for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" != etcd ] || echo ${p##*/} $(cut -d' ' -f22 $p/stat); done";
/// Prints the digests of what landfall keeps on a machine.
const STATE: &str = "find /var/lib/landfall -type f -exec sha256sum {} + | sort -k 2";

/// Shows all of it. The operator has the new program at the end.
pub fn show(stage: &Stage<'_>, now: &Release, old: &Release, checks: &mut Checks) -> Result<(), Broken> {
    checks.needed("the old program installs its cluster", || {
        stage.lab.put(&old.program, &old.bundle)?;
        stage.operator.landfall(&INSTALL)?.expect(0)?;
        stage.lab.put(&now.program, &now.bundle)
    })?;
    checks.check("looking at the old cluster writes nothing", || looked_at(stage));
    checks.needed(
        "an ordinary install takes the old cluster on: no one-shot step, etcd is not started again",
        || taken_on(stage),
    )?;
    checks.check("the next install says \"0 changes\"", || {
        let ended = stage.operator.landfall(&INSTALL)?.expect(0)?;
        let is_nothing = ended.stdout.lines().any(|line| line == "0 changes");
        ensure!(is_nothing, "it does not say so:\n{}", ended.stdout);
        Ok(())
    });
    checks.needed("uninstall of the cluster that was taken on: as before", || {
        stage
            .operator
            .landfall(&["uninstall", "-i", CLUSTER, "--yes"])?
            .expect(0)?;
        stage.expect_unchanged()
    })?;
    checks.needed(
        "an old install that was killed in its joins is rolled back: as before",
        || {
            stage.lab.put(&old.program, &old.bundle)?;
            let running = stage.operator.start(&INSTALL)?;
            running.until(JOIN_LIMIT, |event| {
                event["event"] == "step-started" && event["step"] == "join-control-plane/cp-2"
            })?;
            stage.operator.kill(running)?;
            stage.lab.put(&now.program, &now.bundle)?;
            stage
                .operator
                .landfall(&["rollback", "-i", CLUSTER, "--yes"])?
                .expect(0)?;
            stage.expect_unchanged_but_for(RUNC_FILES)
        },
    )
}

fn on_each(stage: &Stage<'_>, script: &str) -> Result<String> {
    let ask = |machine: &Machine| Ok(format!("{}:\n{}", machine.name, stage.lab.shell(machine, script)?));
    stage.lab.members().into_iter().map(ask).collect()
}

fn looked_at(stage: &Stage<'_>) -> Result<()> {
    let before = on_each(stage, STATE)?;
    ensure!(before.contains("journal.jsonl"), "no journal is found:\n{before}");
    // The old cluster's ingress serves neither TLS nor a protected dashboard: verify finds red cells.
    for (looking, status) in [
        (&["status", "-i", CLUSTER][..], 0),
        (&["verify", "-i", CLUSTER], 10),
        (&["journal", "show", "-i", CLUSTER], 0),
        (&["plan", "-i", CLUSTER, BUNDLE], 0),
    ] {
        stage.operator.landfall(looking)?.expect(status)?;
    }
    // The program of a newer version comes to the nodes with the first look; it is no part of what was recorded.
    let recorded = |state: &str| {
        let lines = state.lines().filter(|line| !line.contains("/var/lib/landfall/bin/"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let after = on_each(stage, STATE)?;
    ensure!(
        recorded(&before) == recorded(&after),
        "before:\n{before}\nafter:\n{after}"
    );
    Ok(())
}

fn taken_on(stage: &Stage<'_>) -> Result<()> {
    let (etcd, machines) = (on_each(stage, ETCD)?, Fingerprint::take_all(stage.lab)?);
    let install = [&INSTALL[..], &["--report", "taken", "--output", "json"]].concat();
    let ended = stage.operator.landfall(&install)?.expect(0)?;
    let repeated: Vec<&str> = ended
        .stdout
        .lines()
        .filter(|line| line.contains("\"step-started\"") && ONE_SHOT.iter().any(|step| line.contains(step)))
        .collect();
    ensure!(
        repeated.is_empty(),
        "one-shot steps ran again:\n{}",
        repeated.join("\n")
    );
    let after = on_each(stage, ETCD)?;
    ensure!(
        etcd == after,
        "etcd was started again; before:\n{etcd}\nafter:\n{after}"
    );
    expect_green(&stage.operator.read_json("taken/verify.json")?, &VANTAGES)?;
    let changed: Vec<String> = differences(&machines, &Fingerprint::take_all(stage.lab)?)
        .into_iter()
        .filter(|line| line.contains(" content /etc/kubernetes/pki"))
        .collect();
    ensure!(changed.is_empty(), "certificates changed:\n{}", changed.join("\n"));
    Ok(())
}
