//! `cargo xtask`: the one entry for developers and CI.

mod artifacts;
mod bench;
mod check;
mod crash;
mod dag;
mod damage;
mod debian;
mod demo;
mod firewalld;
mod go_programs;
mod ingress;
mod machines;
mod modules;
mod openssh;
mod oracle;
mod reproduce;
mod room;
mod size;
mod sk_dummy;
mod sudo_rs;
mod suite;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Developer commands of landfall.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything CI checks; the last line is `N passed, N failed, N skipped`.
    Test {
        /// Also what takes long, some hours: every crash of an install, cut pushes and flipped bytes of the bundle, more fuzzing, simulations and hand-overs of the ingress proxy, and its million requests.
        #[arg(long)]
        full: bool,
        /// One section alone, by its name in the output: `lab`, `tests`, …
        #[arg(long, value_name = "SECTION")]
        only: Option<String>,
    },
    /// Format, then clippy and unit tests of the crates that differ from main.
    Check,
    /// Accepts the program's present output as snapshots; `git diff` shows the difference.
    Bless,
    /// Builds the programs as they are released and compares their sizes with a budget.
    Size,
    /// Checks which crate may depend on which.
    Dag,
    /// Builds the program as it is released and the bundle, into `.cache`.
    Build,
    /// Builds the program as people get it: it carries the ingress proxy, and makes bundles without a checkout.
    Release {
        /// The file to write.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Builds program and bundle twice, in two places, as two users, and compares every byte. Takes more than twenty minutes.
    Reproduce,
    /// Locks the newest Debian packages of the suite for the recipe `source`, in bundle/source/lock.yaml.
    LockDebian,
    /// Machines to work on by hand, without a cluster.
    #[command(subcommand)]
    Lab(machines::Machines),
    /// Measures: an installation on machines of the lab, the ingress proxy on this machine.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Sends requests through the ingress proxy while endpoints and routes change; the last line is one JSON object.
    Soak(ingress::Soak),
    /// Runs the simulation's installs with injected faults; the last line is one JSON object.
    Crash(crash::Crash),
    /// Pushes the bundle over connections that are cut, or flips bytes of it; the last line is one JSON object.
    #[command(subcommand)]
    Damage(damage::Damage),
    /// Plays seeded schedules of API events, pods and clients through the ingress proxy's decisions, on a clock of their own.
    Simulate(ingress::Simulate),
    /// Builds everything, starts machines on a closed network, installs and verifies a cluster there.
    Demo {
        /// Remove all of it again.
        #[arg(long)]
        down: bool,
        /// Folder for install.json and verify.json.
        #[arg(long, value_name = "DIR")]
        report: Option<PathBuf>,
    },
}

fn main() -> Result<ExitCode> {
    match Args::parse().command {
        Command::Test { full, only } => suite::run(full, only),
        Command::Check => check::check(),
        Command::Bless => check::bless(),
        Command::Size => size::run(),
        Command::Build => {
            let built = artifacts::build()?;
            println!("{}\n{}", built.program.display(), built.bundle.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Release { output } => artifacts::publish(&output).map(|()| ExitCode::SUCCESS),
        Command::Reproduce => reproduce::run(),
        Command::LockDebian => artifacts::lock_debian().map(|()| ExitCode::SUCCESS),
        Command::Lab(command) => machines::run(&command).map(|()| ExitCode::SUCCESS),
        Command::Bench(command) => bench::run(&command),
        Command::Soak(command) => ingress::soak(&command),
        Command::Crash(command) => crash::run(&command),
        Command::Damage(command) => damage::run(&command),
        Command::Simulate(command) => ingress::simulate(&command),
        Command::Demo { down: true, .. } => demo::down().map(|()| ExitCode::SUCCESS),
        Command::Demo { report, .. } => demo::up(report.as_deref()).map(|()| ExitCode::SUCCESS),
        Command::Dag => {
            let faults = dag::check()?;
            for fault in &faults {
                println!("{fault}");
            }
            Ok(if faults.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
    }
}
