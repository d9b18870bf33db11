//! `cargo xtask crash`: builds the simulation's programs and plays its sweep over crashes.

use crate::ingress::{named, programs};
use anyhow::Result;
use clap::Args;
use std::process::{Command, ExitCode, Stdio};

/// Runs installs of three control planes and two workers with injected faults, and a command afterwards.
#[derive(Args)]
pub struct Crash {
    /// Every record of every journal with every command afterwards, an hour and a quarter.
    #[arg(long)]
    full: bool,
    /// The first case; each further one has the next number. By default one made from the clock.
    #[arg(long)]
    seed: Option<u64>,
    /// How many cases; 1 plays again what failed with a seed.
    #[arg(long, conflicts_with = "full")]
    cases: Option<u64>,
    /// For symmetry with the other commands: the last line is one JSON object in any case.
    #[arg(long)]
    json: bool,
}

/// What thousands of cases are built with: 80 of them took 85 s, and 148 s without (2026-11-30, two cores). The build takes a minute more.
const OPTIMIZED: [&str; 2] = ["--config", "profile.dev.opt-level=1"];

/// Plays the sweep. The exit code is a failure when a case failed.
pub fn run(command: &Crash) -> Result<ExitCode> {
    let mut arguments = Vec::new();
    for (flag, value) in [("--seed", command.seed), ("--cases", command.cases)] {
        arguments.extend(value.iter().flat_map(|value| [flag.to_owned(), value.to_string()]));
    }
    Ok(if sweep(command.full, &arguments)? {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Plays all of it; says whether every case passed.
pub fn every_place() -> Result<bool> {
    sweep(true, &[])
}

fn sweep(full: bool, arguments: &[String]) -> Result<bool> {
    // Both programs of the package are built: the sweep starts the other one as its nodes.
    let mut build = vec!["--package", "landfall-test-sim"];
    build.extend(OPTIMIZED.iter().filter(|_| full));
    let programs = programs(&build)?;
    let mut sweep = Command::new(named(&programs, "landfall-sim-crash")?);
    sweep.args(full.then_some("--full")).args(arguments);
    Ok(sweep.stdin(Stdio::null()).status()?.success())
}
