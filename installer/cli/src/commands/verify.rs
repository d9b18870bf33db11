//! `verify`.

use super::CommandResult;
use crate::args::{Output, Verify};
use crate::output::{PRIVATE, write_stdout, write_whole};
use crate::reporter::Reporter;
use crate::{load, remote, render};
use landfall_ansible::Understood;
use landfall_core::explain::Diagnosis;
use landfall_engine::run::{self, Outcome};
use std::path::Path;

/// Tries every path into the cluster.
pub fn verify(args: &Verify) -> CommandResult {
    let Understood {
        desired,
        notices,
        limit,
    } = load::read(&args.common.inventory, args.common.limit.as_deref())?;
    let reporter = Reporter::new(args.common.output, args.report.as_deref())?;
    reporter.warn(&notices);
    let ctx = remote::run_context(&args.common, reporter.clone(), args.report.clone(), limit).map_err(|d| vec![d])?;
    let outcome = run::verify(&desired, &ctx);
    if let (Output::Human, Some(report)) = (args.common.output, &outcome.verify) {
        write_stdout(&render::verify(report, args.all));
    }
    let problems = write_reports(&outcome, args.report.as_deref(), args.junit.as_deref());
    Ok(reporter.close(problems))
}

/// Writes verify.json and the JUnit file, where they were asked for; returns what went wrong.
pub fn write_reports(outcome: &Outcome, folder: Option<&Path>, junit: Option<&Path>) -> Vec<Diagnosis> {
    let Some(report) = &outcome.verify else { return vec![] };
    let mut problems = Vec::new();
    if let Some(folder) = folder {
        let text = serde_json::to_string_pretty(report).unwrap_or_default() + "\n";
        problems.extend(write_whole(&folder.join("verify.json"), text.as_bytes(), PRIVATE).err());
    }
    if let Some(path) = junit {
        // The user names this file for another program, which may run as another user.
        let write = |xml: String| write_whole(path, xml.as_bytes(), 0o644);
        problems.extend(render::junit(report).and_then(write).err());
    }
    problems
}
