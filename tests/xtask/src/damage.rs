//! `cargo xtask damage`: builds the simulation's programs and plays its sweeps over the real bundle.

use crate::artifacts;
use crate::ingress::{named, programs};
use anyhow::Result;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

/// What is done to the bundle that lab and demo use.
#[derive(Subcommand)]
pub enum Damage {
    /// Pushes it over connections that are cut at ten random places each; a case is a push.
    Cuts(Cases),
    /// Flips single bytes of the file; a case is a byte.
    Flips(Cases),
}

/// Which cases are played.
#[derive(Args)]
pub struct Cases {
    /// Another bundle; its public key is beside it, with the ending `pub`.
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// The first case; each further one has the next number. By default one made from the clock.
    #[arg(long)]
    seed: Option<u64>,
    /// How many cases: by default 10 pushes, or 1,000 bytes; 1 plays again what failed with a seed.
    #[arg(long)]
    cases: Option<u64>,
    /// For symmetry with the other commands: the last line is one JSON object in any case.
    #[arg(long)]
    json: bool,
}

/// A hundred cuts: ten are made in each push.
const PUSHES: u64 = 10;
/// Bytes that are flipped.
const FLIPS: u64 = 1000;

/// Plays one of the sweeps. The exit code is a failure when a case failed.
pub fn run(damage: &Damage) -> Result<ExitCode> {
    let (name, usual, cases) = match damage {
        Damage::Cuts(cases) => ("cuts", PUSHES, cases),
        Damage::Flips(cases) => ("flips", FLIPS, cases),
    };
    let passed = sweep(name, cases.bundle.clone(), cases.seed, cases.cases.unwrap_or(usual))?;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Plays a hundred cuts; says whether every push passed.
pub fn every_cut() -> Result<bool> {
    sweep("cuts", None, None, PUSHES)
}

/// Flips a thousand bytes; says whether every one was named.
pub fn every_flip() -> Result<bool> {
    sweep("flips", None, None, FLIPS)
}

fn sweep(name: &str, bundle: Option<PathBuf>, seed: Option<u64>, cases: u64) -> Result<bool> {
    let bundle = bundle.map_or_else(artifacts::bundle, Ok)?;
    // All programs of the package are built: the sweep starts another one as its nodes.
    let programs = programs(&["--package", "landfall-test-sim"])?;
    let mut sweep = Command::new(named(&programs, "landfall-sim-damage")?);
    sweep.arg(name).arg("--bundle").arg(bundle);
    sweep.args(["--cases", &cases.to_string()]);
    sweep.args(seed.iter().flat_map(|seed| ["--seed".to_owned(), seed.to_string()]));
    Ok(sweep.stdin(Stdio::null()).status()?.success())
}
