//! The proofs that are programs: `cargo xtask soak` and `cargo xtask bench ingress` start them, and the lab's scenario.

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use landfall_test_ingress::bench;
use landfall_test_ingress::conformance::{self, Kubectl};
use landfall_test_ingress::soak::{self, Settings};
use std::net::IpAddr;
use std::path::PathBuf;

/// Proofs of the ingress proxy.
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
    /// Plays the conformance suite in a cluster that landfall installed; makes and removes the namespace `conformance`.
    Conformance {
        /// Addresses of all nodes, with commas between them.
        #[arg(long, value_delimiter = ',', required = true)]
        nodes: Vec<IpAddr>,
        /// Address of this machine that the nodes reach: the endpoints listen there.
        #[arg(long)]
        endpoints: IpAddr,
        /// kubectl with an administrator's rights, as a command with its arguments.
        #[arg(last = true, required = true)]
        kubectl: Vec<String>,
    },
}

fn main() -> Result<()> {
    let args = Args::parse();
    match args.command {
        Command::Soak { requests } => {
            println!(
                "{}",
                runtime()?.block_on(soak::run(&Settings::new(args.program, requests)))
            );
            Ok(())
        }
        Command::Bench(settings) => bench::run(&args.program, &settings),
        Command::Conformance {
            nodes,
            endpoints,
            kubectl,
        } => {
            let cluster = Kubectl::new(kubectl, nodes, endpoints)?;
            let played = runtime()?.block_on(conform(&cluster));
            cluster.leave()?;
            played
        }
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    // kubectl blocks the thread that plays, so endpoints need another, whatever the machine has.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

/// Plays all features; a line for each scenario.
async fn conform(cluster: &Kubectl) -> Result<()> {
    let (mut played, mut failed) = (0, 0);
    for feature in conformance::features() {
        for scenario in conformance::play(cluster, feature).await? {
            played += 1;
            failed += usize::from(scenario.failure.is_some());
            let word = scenario.failure.map_or("ok".to_owned(), |why| format!("FAILED\n{why}"));
            println!("{} ... {word}", scenario.name);
        }
    }
    ensure!(failed == 0, "{failed} of {played} scenarios do not hold");
    println!("{played} scenarios hold");
    Ok(())
}
