//! The long proofs, as `cargo xtask soak` and `cargo xtask bench ingress` start them.

use anyhow::Result;
use clap::{Parser, Subcommand};
use landfall_test_ingress::bench;
use landfall_test_ingress::soak::{self, Settings};
use std::path::PathBuf;

/// Long proofs of the ingress proxy.
#[derive(Parser)]
struct Args {
    /// The proxy's program.
    #[arg(long, global = true, default_value = "landfall-ingress")]
    program: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends requests while endpoints and routes change; the last line is one JSON object.
    Soak {
        /// Requests of the phase `churn`.
        #[arg(long, default_value_t = 1_000_000)]
        requests: usize,
    },
    /// Compares with other proxies; the last line is one JSON object.
    Bench(bench::Settings),
}

fn main() -> Result<()> {
    let args = Args::parse();
    match args.command {
        Command::Soak { requests } => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            println!(
                "{}",
                runtime.block_on(soak::run(&Settings::new(args.program, requests)))
            );
            Ok(())
        }
        Command::Bench(settings) => bench::run(&args.program, &settings),
    }
}
