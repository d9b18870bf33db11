//! The sweep over crashes as a program; `cargo xtask crash` builds it with the program of its nodes. Ends with one JSON object.

use clap::Parser;
use landfall_test_sim::sweep::{Amount, sweep};
use landfall_test_support::seed;
use serde_json::json;
use std::process::ExitCode;

/// Injects faults into an install at every record of its journals and elsewhere, and runs a command afterwards.
#[derive(Parser)]
struct Args {
    /// The first case; each further one has the next number. By default one made from the clock.
    #[arg(long)]
    seed: Option<u64>,
    /// How many cases.
    #[arg(long, default_value_t = 256, conflicts_with = "full")]
    cases: u64,
    /// Every place with every command afterwards.
    #[arg(long)]
    full: bool,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]
fn main() -> ExitCode {
    let args = Args::parse();
    let amount = if args.full {
        Amount::Every
    } else {
        Amount::Part(args.cases)
    };
    let say = |text: &str| eprintln!("{text}");
    let report = sweep(args.seed.unwrap_or_else(seed::seed), amount, &say);
    let failed = report.failed.iter();
    let failed: Vec<_> = failed
        .map(|f| json!({ "seed": f.seed, "schedule": f.schedule, "why": f.why }))
        .collect();
    let result = json!({
        "seed": report.seed,
        "records": report.records,
        "places": report.places,
        "cases": report.cases,
        "disturbed": report.disturbed,
        "passed": report.cases - failed.len() as u64,
        "failed": failed,
        "seconds": (report.seconds * 10.0).round() / 10.0,
    });
    println!("{result}");
    if report.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
