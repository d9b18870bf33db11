//! `verify`.

use super::CommandResult;
use crate::args::{Output, Verify};
use crate::output::{PRIVATE, write_stdout, write_whole};
use crate::start::{Started, start};
use crate::{load, render};
use landfall_core::explain::Diagnosis;
use landfall_engine::run::{self, Outcome};
use std::path::Path;

/// Probes every path into the cluster.
pub fn verify(args: &Verify) -> CommandResult {
    let understood = load::read(&args.common.inventory, args.common.limit.as_deref())?;
    let Started { desired, reporter, ctx } = start(&args.common, understood, args.report.as_deref())?;
    let outcome = run::verify(&desired, args.wait.unwrap_or_default(), &ctx);
    if let (Output::Human, Some(report)) = (args.common.output, &outcome.verify) {
        write_stdout(&render::verify(report, args.all));
    }
    let problems = write_reports(&outcome, args.report.as_deref(), args.junit.as_deref());
    Ok(reporter.close(problems))
}

/// Writes verify.json and the JUnit file, if they were asked for; returns the errors.
pub fn write_reports(outcome: &Outcome, folder: Option<&Path>, junit: Option<&Path>) -> Vec<Diagnosis> {
    let Some(report) = &outcome.verify else { return vec![] };
    let mut problems = Vec::new();
    if let Some(folder) = folder {
        let text = serde_json::to_string_pretty(report).unwrap_or_default() + "\n";
        problems.extend(write_whole(&folder.join("verify.json"), text.as_bytes(), PRIVATE).err());
    }
    if let Some(path) = junit {
        // The file is readable by everybody, because another program reads it, which may run as another user.
        let write = |xml: String| write_whole(path, xml.as_bytes(), 0o644);
        problems.extend(render::junit(report).and_then(write).err());
    }
    problems
}
