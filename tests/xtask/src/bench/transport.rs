//! `cargo xtask bench transport`: `landfall push` to one node and to five, with and without the relay, next to scp and to OpenSSH with
//! aes128-gcm into a file.
//!
//! All ways run in turns on the same machines, each from a clean state; the operator's machine is the operator of the lab. What left it is
//! counted at its interface, so agents, SSH and TCP are in it. The slow line is a token bucket of 100 Mbit/s on that interface.

use super::{figures, memory, on_machines};
use crate::artifacts;
use anyhow::{Context, Result};
use landfall_lab::operator::{BUNDLE, CLUSTER, Operator};
use landfall_lab::{Lab, host};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::process::Command;

/// A cluster of the lab's first control plane alone.
const ONE: &str = "one.yaml";
/// Where scp and ssh put the bundle on the node.
const COPY: &str = "/root/copy.bundle";

/// Where landfall reports.
const REPORT: &str = "transport";

/// A way to bring the bundle to nodes.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    /// What landfall gets; a shell command for OpenSSH's programs.
    run: Run,
    slow: bool,
}

#[derive(Clone, Copy)]
enum Run {
    Push(&'static str, &'static [&'static str]),
    Shell(&'static str),
}

const WAYS: [Way; 7] = [
    way("one_node", Run::Push(ONE, &[]), false),
    way(
        "scp",
        Run::Shell("scp -q -i KEY -o StrictHostKeyChecking=no BUNDLE root@NODE:COPY"),
        false,
    ),
    way(
        "ssh_aes128_gcm",
        Run::Shell("ssh -i KEY -o StrictHostKeyChecking=no -c aes128-gcm@openssh.com root@NODE 'cat > COPY' < BUNDLE"),
        false,
    ),
    way("five_nodes_relay", Run::Push(CLUSTER, &[]), false),
    way("five_nodes_star", Run::Push(CLUSTER, &["--no-relay"]), false),
    way("slow_five_nodes_relay", Run::Push(CLUSTER, &[]), true),
    way("slow_one_node", Run::Push(ONE, &[]), true),
];

const fn way(name: &'static str, run: Run, slow: bool) -> Way {
    Way { name, run, slow }
}

/// What one run showed.
struct Seen {
    seconds: f64,
    /// Without login, agents, preflight and the check of the bundle, where the report says it.
    transfer_seconds: f64,
    sent_bytes: u64,
    peak_kib: Option<u64>,
}

/// Measures all ways `rounds` times in turns and prints one JSON object as the last line; `json` leaves out what is measured meanwhile.
pub fn run(rounds: u8, json: bool) -> Result<()> {
    let built = artifacts::build()?;
    let size = std::fs::metadata(&built.bundle).context("the bundle")?.len();
    let mut seen: BTreeMap<&str, Vec<Seen>> = BTreeMap::new();
    on_machines(&built, |lab| {
        let operator = Operator::of(lab)?;
        operator.write_cluster(|_| {})?;
        let cluster = operator.read(CLUSTER)?;
        operator.write_cluster(|cluster| {
            if let Some(nodes) = cluster["nodes"].as_array_mut() {
                nodes.truncate(1);
            }
        })?;
        let one = operator.read(CLUSTER)?;
        operator.write(ONE, &one)?;
        operator.write(CLUSTER, &cluster)?;
        for round in 1..=rounds {
            if !json {
                println!("round {round} of {rounds}");
            }
            for way in WAYS {
                let came = measure(lab, &operator, way)?;
                if !json {
                    println!(
                        "{}: {:.1} s, {} MB left the operator",
                        way.name,
                        came.seconds,
                        came.sent_bytes / 1_000_000
                    );
                }
                seen.entry(way.name).or_default().push(came);
            }
        }
        Ok(())
    })?;
    let date = host::run(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]))?;
    println!("{}", summarise(&seen, size, date.trim()));
    Ok(())
}

fn measure(lab: &Lab, operator: &Operator, way: Way) -> Result<Seen> {
    let machine = lab.machine("operator")?;
    let node = lab.machine("cp-1")?;
    if way.slow {
        let limit = [
            "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "100mbit", "burst", "256kb", "latency", "50ms",
        ];
        lab.exec(machine, &limit)?;
    }
    let before = operator.sent_bytes()?;
    let (ended, peak_kib) = match way.run {
        Run::Push(inventory, more) => {
            let report = ["--accept-new-host-keys", "--report", REPORT];
            let args = [&["push", "-i", inventory], &report[..], more, &[BUNDLE]].concat();
            let (ended, peak) = memory::peak_during(lab, || operator.landfall(&args))?;
            (ended, Some(peak))
        }
        Run::Shell(script) => {
            let script = script.replace("KEY", "~/.ssh/id_ed25519").replace("BUNDLE", BUNDLE);
            let script = script.replace("NODE", &node.address).replace("COPY", COPY);
            // Both are on the disk at the end, as landfall's blobs are.
            let script = format!("{script} && ssh -i ~/.ssh/id_ed25519 root@{} sync {COPY}", node.address);
            (operator.run(&["sh", "-c", &script])?, None)
        }
    };
    let sent_bytes = operator.sent_bytes()? - before;
    if way.slow {
        lab.exec(machine, &["tc", "qdisc", "del", "dev", "eth0", "root"])?;
    }
    let ended = ended.expect(0)?;
    let seconds = ended.took.as_secs_f64();
    let transfer_seconds = match way.run {
        Run::Push(..) => figures::phase_seconds(&operator.read_json(&format!("{REPORT}/push.json"))?, "execute")?,
        Run::Shell(_) => seconds,
    };
    match way.run {
        Run::Push(inventory, _) => drop(operator.landfall(&["push", "--remove", "-i", inventory])?.expect(0)?),
        Run::Shell(_) => drop(lab.exec(node, &["rm", "-f", COPY])?),
    }
    Ok(Seen {
        seconds,
        transfer_seconds,
        sent_bytes,
        peak_kib,
    })
}

fn summarise(seen: &BTreeMap<&str, Vec<Seen>>, bundle: u64, date: &str) -> Value {
    let median = |name: &str, of: &dyn Fn(&Seen) -> f64| {
        let values = seen.get(name).into_iter().flatten().map(of).collect();
        figures::median(values)
    };
    let seconds = |name: &str| median(name, &|seen| seen.seconds);
    let transfer = |name: &str| median(name, &|seen| seen.transfer_seconds);
    let sent = |name: &str| median(name, &|seen| seen.sent_bytes as f64);
    let ways: Map<String, Value> = WAYS
        .iter()
        .map(|way| {
            let peak = median(way.name, &|seen| seen.peak_kib.unwrap_or(0) as f64 / 1024.0);
            let figures = json!({
                "seconds": rounded(seconds(way.name)),
                "transfer_seconds": rounded(transfer(way.name)),
                "operator_sent_mb": rounded(sent(way.name) / 1e6),
                "operator_peak_mib": rounded(peak),
            });
            (way.name.to_owned(), figures)
        })
        .collect();
    json!({
        "date": date,
        "bundle_mb": rounded(bundle as f64 / 1e6),
        "ways": ways,
        "one_node_to_ssh": rounded(transfer("ssh_aes128_gcm") / transfer("one_node")),
        "one_node_to_scp": rounded(transfer("scp") / transfer("one_node")),
        "relay_egress_to_bundle": rounded(sent("five_nodes_relay") / bundle as f64),
        "star_egress_to_bundle": rounded(sent("five_nodes_star") / bundle as f64),
        "slow_five_to_one": rounded(transfer("slow_five_nodes_relay") / transfer("slow_one_node")),
    })
}

fn rounded(value: f64) -> Value {
    figures::rounded(value, 2)
}
