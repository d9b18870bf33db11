//! `cargo xtask`: the one entry for developers and CI.

mod dag;
mod suite;

use anyhow::Result;
use clap::{Parser, Subcommand};
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
    Test,
    /// Checks which crate may depend on which.
    Dag,
}

fn main() -> Result<ExitCode> {
    match Args::parse().command {
        Command::Test => suite::run(),
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
