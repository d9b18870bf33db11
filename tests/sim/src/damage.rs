//! The sweeps over a real bundle as a program; `cargo xtask damage` builds it with the program of its nodes. Ends with one JSON object.

use anyhow::Result;
use clap::{Args, Parser};
use landfall_test_sim::real_bundle::{CUTS, RealBundle, cuts, flips};
use landfall_test_sim::sweep::Failure;
use landfall_test_support::seed;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// Pushes a bundle over connections that are cut, or flips bytes of its file.
#[derive(Parser)]
enum Sweep {
    /// Each case is a push whose connection is cut at several places.
    Cuts(#[command(flatten)] Cases),
    /// Each case is a byte of the file that is flipped.
    Flips(#[command(flatten)] Cases),
}

#[derive(Args)]
struct Cases {
    /// The bundle; its public key is beside it, with the ending `pub`.
    #[arg(long)]
    bundle: PathBuf,
    /// The first case; each further one has the next number. By default one made from the clock.
    #[arg(long)]
    seed: Option<u64>,
    /// How many cases.
    #[arg(long)]
    cases: u64,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]
fn main() -> Result<ExitCode> {
    let say = |failure: &Failure| eprintln!("{failure}");
    let sweep = Sweep::parse();
    let (Sweep::Cuts(cases) | Sweep::Flips(cases)) = &sweep;
    let real = RealBundle::at(&cases.bundle)?;
    let seed = cases.seed.unwrap_or_else(seed::seed);
    println!("from seed {seed} on");
    let (found, failed, seconds) = match sweep {
        Sweep::Cuts(_) => {
            let report = cuts(&real, seed, cases.cases, &say);
            let found = json!({
                "cuts": report.cuts,
                "cuts_in_each": CUTS,
                "within_blobs": report.within_blobs,
                "most_sent_twice": report.most_sent_twice,
                "blob_bytes": report.blob_bytes,
            });
            (found, report.failed, report.seconds)
        }
        Sweep::Flips(_) => {
            let report = flips(&real, seed, cases.cases, &say);
            let found = json!({ "parts": report.parts, "pushed": report.pushed });
            (found, report.failed, report.seconds)
        }
    };
    let is_passed = failed.is_empty();
    let failed: Vec<Value> = failed
        .iter()
        .map(|f| json!({ "seed": f.seed, "schedule": f.schedule, "why": f.why }))
        .collect();
    let result = json!({
        "seed": seed,
        "cases": cases.cases,
        "found": found,
        "passed": cases.cases - failed.len() as u64,
        "failed": failed,
        "seconds": (seconds * 10.0).round() / 10.0,
    });
    println!("{result}");
    Ok(if is_passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
