//! `verify`.

use super::{Done, close};
use crate::args::{Output, Verify};
use crate::report::write_whole;
use crate::{load, remote, render, say};
use landfall_core::explain::Diagnosis;
use landfall_engine::run::{self, Outcome};
use std::path::Path;

/// Tries every path into the cluster.
pub fn verify(args: &Verify) -> Done {
    let desired = load::desired(&args.common)?;
    let around = remote::surroundings(&args.common, render::sink(args.common.output), None).map_err(|d| vec![d])?;
    let outcome = run::verify(&desired, &around);
    drop(around);
    if let (Output::Human, Some(report)) = (args.common.output, &outcome.verify) {
        say(&render::verify(report, args.all));
    }
    write_reports(&outcome, args.report.as_deref(), args.junit.as_deref())?;
    Ok(close(&args.common, &outcome))
}

/// Writes verify.json and the JUnit file, where they were asked for.
pub fn write_reports(outcome: &Outcome, folder: Option<&Path>, junit: Option<&Path>) -> Result<(), Vec<Diagnosis>> {
    let Some(report) = &outcome.verify else { return Ok(()) };
    let mut problems = Vec::new();
    if let Some(folder) = folder {
        let text = serde_json::to_string_pretty(report).unwrap_or_default() + "\n";
        problems.extend(write_whole(&folder.join("verify.json"), text.as_bytes(), 0o644).err());
    }
    if let Some(path) = junit {
        problems.extend(write_whole(path, render::junit(report).as_bytes(), 0o644).err());
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}
