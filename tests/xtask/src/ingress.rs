//! `cargo xtask soak` and `cargo xtask bench ingress`: build the proxy and its proof for speed, and run the proof.

use crate::go_programs;
use anyhow::{Context, Result, ensure};
use clap::Args;
use landfall_lab::host;
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

/// Debian's proxies that the benchmark compares with.
const PEERS: [&str; 2] = ["nginx", "haproxy"];

/// Arguments of the benchmark that are handed on.
#[derive(Args)]
pub struct Bench {
    /// How often each case is measured on each proxy.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(9..))]
    rounds: u32,
    /// Only these cases, with commas between them: http1_small, http1_64k, http2, tls_handshakes, tls_requests, hosts_10, hosts_10000.
    #[arg(long)]
    cases: Option<String>,
    /// A further peer; its program is built first, which takes some minutes once.
    #[arg(long, value_parser = ["traefik"])]
    with: Option<String>,
    /// Leave out the table before the last line.
    #[arg(long)]
    json: bool,
}

/// Requests through the real program while its world changes.
#[derive(Args)]
pub struct Soak {
    /// Requests of the phase `churn`.
    #[arg(long, default_value_t = 1_000_000)]
    requests: usize,
    /// For symmetry with the other commands: the last line is one JSON object in any case.
    #[arg(long)]
    json: bool,
}

/// Schedules of API events, pods and clients, played with the proxy's own world, table and choice of endpoints.
#[derive(Args)]
pub struct Simulate {
    /// The first schedule.
    #[arg(long)]
    seed: u64,
    /// How many, one after another.
    #[arg(long, default_value_t = 1)]
    count: u64,
}

/// Plays schedules of the seeded simulation, which is a test of the proxy.
pub fn simulate(command: &Simulate) -> Result<ExitCode> {
    let mut cargo = Command::new("cargo");
    cargo.args([
        "test",
        "--quiet",
        "--locked",
        "--package",
        "landfall-ingress-kubernetes",
        "--lib",
    ]);
    cargo.args([
        "no_request_is_lost_that_had_a_usable_endpoint_throughout",
        "--",
        "--nocapture",
    ]);
    cargo.env("LANDFALL_SEED", command.seed.to_string());
    cargo.env("LANDFALL_SEEDS", command.count.to_string());
    let status = cargo.stdin(Stdio::null()).status()?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs the soak.
pub fn soak(command: &Soak) -> Result<ExitCode> {
    let Soak { requests, json: _ } = command;
    proof(&["soak", "--requests", &requests.to_string()])
}

/// Runs the benchmark.
pub fn bench(command: &Bench) -> Result<ExitCode> {
    install_peers()?;
    let rounds = command.rounds.to_string();
    let mut arguments = vec!["bench", "--rounds", &rounds];
    let traefik = command
        .with
        .as_ref()
        .map(|_| go_programs::build(&go_programs::TRAEFIK))
        .transpose()?;
    let traefik = traefik.map(|program| program.display().to_string());
    for (flag, value) in [("--cases", &command.cases), ("--traefik", &traefik)] {
        arguments.extend(value.iter().flat_map(|value| [flag, value]));
    }
    if command.json {
        arguments.push("--json");
    }
    proof(&arguments)
}

/// Installs nginx and haproxy, and leaves their services off: the proofs start them with configurations of their own.
pub fn install_peers() -> Result<()> {
    let missing = |package: &&&str| !PathBuf::from(format!("/usr/sbin/{package}")).exists();
    if PEERS.iter().filter(missing).count() > 0 {
        host::install_packages(&PEERS)?;
        for service in PEERS {
            // Fails where no systemd runs; then nothing was started either.
            let _ = host::root("systemctl")
                .args(["disable", "--now", "--quiet", service])
                .status();
        }
    }
    Ok(())
}

/// The full soak; says whether no request was lost and no WebSocket closed in both phases.
pub fn soak_loses_nothing() -> Result<bool> {
    let output = build(&["soak"])?
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    let phases: Value =
        serde_json::from_str(text.lines().next_back().unwrap_or_default()).context("the soak's last line")?;
    let clean = |phase: &str| phases[phase]["lost"] == 0 && phases[phase]["websockets_closed"] == 0;
    Ok(output.status.success() && clean("churn") && clean("upgrade"))
}

fn proof(arguments: &[&str]) -> Result<ExitCode> {
    let status = build(arguments)?.stdin(Stdio::null()).status()?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Builds for speed; returns the proof's command.
fn build(arguments: &[&str]) -> Result<Command> {
    let packages = [
        "--release",
        "--package",
        "landfall-ingress",
        "--package",
        "landfall-test-ingress",
    ];
    let programs = programs(&packages)?;
    let mut command = Command::new(named(&programs, "landfall-ingress-proof")?);
    command
        .arg("--program")
        .arg(named(&programs, "landfall-ingress")?)
        .args(arguments);
    Ok(command)
}

/// The proof as the tests build it, for what needs no speed.
pub fn proof_program() -> Result<PathBuf> {
    named(
        &programs(&["--package", "landfall-test-ingress"])?,
        "landfall-ingress-proof",
    )
}

/// Builds programs; cargo itself names their files.
pub fn programs(arguments: &[&str]) -> Result<Vec<PathBuf>> {
    let mut cargo = Command::new("cargo");
    cargo.args([
        "build",
        "--locked",
        "--bins",
        "--message-format=json-render-diagnostics",
    ]);
    let output = cargo
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "cargo build of {arguments:?} failed");
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(messages
        .filter_map(|m| m["executable"].as_str().map(PathBuf::from))
        .collect())
}

/// Returns the program of that name.
pub fn named(programs: &[PathBuf], name: &str) -> Result<PathBuf> {
    let is = |path: &&PathBuf| path.file_name().is_some_and(|file| file == name);
    programs
        .iter()
        .find(is)
        .cloned()
        .with_context(|| format!("cargo names no {name}"))
}
