//! `preflight`.

use super::CommandResult;
use crate::args::{Output, Preflight};
use crate::output::{write_stdout, write_whole};
use crate::start::{Started, start};
use crate::trust::open_bundle;
use crate::{load, render};
use landfall_core::explain::Diagnosis;
use landfall_core::finding::Strictness;
use landfall_core::report::Report;
use landfall_engine::run;
use std::path::Path;

/// Checks the machines.
pub fn preflight(args: &Preflight) -> CommandResult {
    let understood = load::read(&args.common.inventory, args.common.limit.as_deref())?;
    let bundle = args.bundle.as_deref();
    let bundle = bundle
        .map(|path| open_bundle(path, &args.trust, &understood.desired))
        .transpose()?;
    let Started { desired, reporter, ctx } = start(&args.common, understood, args.report.as_deref())?;
    run::preflight(&desired, bundle.as_ref(), strictness(args.strict), &ctx);
    let report = reporter.report();
    if args.common.output == Output::Human {
        write_stdout(&render::preflight_summary(&report));
    }
    let mut problems: Vec<Diagnosis> = reporter.write().err().into_iter().collect();
    problems.extend(args.junit.as_deref().and_then(|path| write_junit(&report, path).err()));
    Ok(reporter.close(problems))
}

/// Returns the strictness that `--strict` sets.
pub fn strictness(strict: bool) -> Strictness {
    if strict {
        Strictness::Warnings
    } else {
        Strictness::Refusals
    }
}

/// Writes the report as JUnit XML. The file is readable by everybody, because another program reads it, which may run as another user.
fn write_junit(report: &Report, path: &Path) -> Result<(), Diagnosis> {
    write_whole(path, render::preflight_junit(report)?.as_bytes(), 0o644)
}
