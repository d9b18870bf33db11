//! `cargo xtask bench install`: landfall against a careful administrator's script, on the same kind of machines, in turns.
//!
//! Every run gets machines of its own, all of them ordinary: the script cannot handle one without root's login. A round is one run of
//! each; which is first alternates. landfall runs in the operator's machine, the script's `ssh` and `scp` on the host, as the
//! original's did: both have the same processors and reach the nodes by the same bridge. Not within the script's time are programs
//! and images taken out of the bundle, for an administrator would have them lying ready; packing them is. landfall does more in
//! its time: ingress proxy, encryption at rest, audit log, and verify from every source at the end.

mod figures;
mod inventory;
mod memory;
mod transport;

use crate::artifacts::{self, Artifacts};
use crate::ingress;
use anyhow::{Context, Result};
use clap::Subcommand;
use figures::{HandRun, LandfallRun, Round};
use landfall_lab::hand::{self, Materials};
use landfall_lab::host;
use landfall_lab::operator::{BUNDLE, CLUSTER, Operator};
use landfall_lab::{Lab, Purpose, Size};
use std::fs;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// The benchmark's network is 10.90.3.0/24.
const NET: u8 = 3;
const SIZE: Size = Size {
    control_planes: 3,
    workers: 2,
};

/// What to measure.
#[derive(Subcommand)]
pub enum Bench {
    /// Installation, next to a script that does it by hand; the last line is one JSON object.
    Install {
        /// How many times each of the two installs; the figures are medians.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
        rounds: u8,
        /// Leave out the table before the last line.
        #[arg(long)]
        json: bool,
    },
    /// The bundle's way to one node and to five, next to scp and OpenSSH; the last line is one JSON object.
    Transport {
        /// How many times each way runs; the figures are medians.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
        rounds: u8,
        /// Leave out the lines about each round before the last line.
        #[arg(long)]
        json: bool,
    },
    /// The ingress proxy, next to nginx and haproxy; the last line is one JSON object.
    Ingress(ingress::Bench),
    /// Reading an inventory of 2,000 hosts, next to ansible-inventory; prints one JSON object.
    Inventory {
        /// How many times each reads it; the figures are medians.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
        rounds: u8,
    },
}

/// Measures it.
pub fn run(command: &Bench) -> Result<ExitCode> {
    match command {
        Bench::Install { rounds, json } => install(*rounds, *json).map(|()| ExitCode::SUCCESS),
        Bench::Transport { rounds, json } => transport::run(*rounds, *json).map(|()| ExitCode::SUCCESS),
        Bench::Ingress(command) => ingress::bench(command),
        Bench::Inventory { rounds } => inventory::run(*rounds),
    }
}

fn install(rounds: u8, json: bool) -> Result<()> {
    let built = artifacts::build()?;
    let kept = artifacts::cache()?.join("bench");
    fs::create_dir_all(&kept).with_context(|| format!("{} cannot be made", kept.display()))?;
    println!("taking programs and images for the script out of the bundle");
    let materials = Materials::prepare(&built.bundle, &artifacts::cache()?)?;
    let mut done = Vec::new();
    for number in 1..=rounds {
        println!("round {number} of {rounds}");
        let round = if number % 2 == 1 {
            let landfall = by_landfall(&built)?;
            let hand = by_hand(&built, &materials)?;
            Round { landfall, hand }
        } else {
            let hand = by_hand(&built, &materials)?;
            let landfall = by_landfall(&built)?;
            Round { landfall, hand }
        };
        let report = kept.join(format!("install-{number}.json"));
        fs::write(&report, format!("{:#}\n", round.landfall.report))
            .with_context(|| format!("{} cannot be written", report.display()))?;
        println!("landfall's report of this round is {}", report.display());
        done.push(round);
    }
    let date = host::run(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]))?;
    let figures = figures::summarise(&done, date.trim())?;
    if !json {
        println!("{}", figures::table(&figures));
    }
    println!("{figures}");
    Ok(())
}

/// Starts machines, lets `work` use them, and removes them, also when something failed.
fn on_machines<T>(built: &Artifacts, work: impl FnOnce(&Lab) -> Result<T>) -> Result<T> {
    let lab = Lab::new("bench", NET, SIZE, &artifacts::cache()?).without_bare();
    let worked = lab
        .up(&built.program, &built.bundle)
        .and_then(|()| settle(&lab))
        .and_then(|()| work(&lab));
    let removed = lab.down().context("the machines cannot be removed");
    match worked {
        Ok(value) => removed.map(|()| value),
        Err(error) => {
            if let Err(also) = removed {
                println!("{also:#}");
            }
            Err(error)
        }
    }
}

/// Waits until every machine has booted, so that neither of the two pays for it.
fn settle(lab: &Lab) -> Result<()> {
    for machine in lab.machines() {
        // Its exit status says how healthy the machine is, which is not the question here.
        lab.output(machine, "root", &["systemctl", "is-system-running", "--wait"], &[])?;
    }
    Ok(())
}

fn by_hand(built: &Artifacts, materials: &Materials) -> Result<HandRun> {
    on_machines(built, |lab| {
        let start = Instant::now();
        let laps = hand::install(lab, materials).context("the installation by hand")?;
        let took = start.elapsed();
        println!("hand: {:.1} s in all", took.as_secs_f32());
        Ok(HandRun { took, laps })
    })
}

fn by_landfall(built: &Artifacts) -> Result<LandfallRun> {
    on_machines(built, |lab| {
        let operator = Operator::of(lab)?;
        operator.write_cluster(|_| {})?;
        let install = |report: &str, more: &[&str]| {
            let args = ["install", "-i", CLUSTER, "--report", report];
            let ended = operator.landfall(&[&args, more, &[BUNDLE]].concat())?;
            println!("landfall: install took {:.1} s", ended.took.as_secs_f32());
            ended.expect(0)
        };
        let (first, rss_kib) = memory::peak_during(lab, || install("report", &["--accept-new-host-keys"]))?;
        let journal = journal_time(lab)?;
        let again = install("again", &[])?;
        let uninstall = operator.landfall(&["uninstall", "-i", CLUSTER, "--yes"])?.expect(0)?;
        println!("landfall: uninstall took {:.1} s", uninstall.took.as_secs_f32());
        let named = |purpose| {
            let members = lab.members().into_iter().filter(move |m| m.purpose == purpose);
            members.map(|m| m.name.clone()).collect()
        };
        Ok(LandfallRun {
            took: first.took,
            rerun: again.took,
            uninstall: uninstall.took,
            rss_kib,
            journal,
            report: operator.read_json("report/install.json")?,
            rerun_report: operator.read_json("again/install.json")?,
            control_planes: named(Purpose::ControlPlane),
            workers: named(Purpose::Worker),
        })
    })
}

/// How long a control plane's journal takes, written once more on its disk after the install: a write and an fsync for each record. landfall itself
/// groups some records, so it needs fewer; its disk is busier.
fn journal_time(lab: &Lab) -> Result<Duration> {
    let line = r#"cd /var/lib/landfall && trap 'rm -f bench' EXIT && from=$(date +%s%N) &&
        perl -MIO::Handle -e 'open(my $to, ">>", "bench") or die; while (<STDIN>) { print $to $_; $to->flush; $to->sync or die }' < journal.jsonl &&
        echo $(($(date +%s%N) - from))"#;
    let nanoseconds = lab.shell(lab.machine("cp-1")?, line)?;
    Ok(Duration::from_nanos(nanoseconds.trim().parse()?))
}
