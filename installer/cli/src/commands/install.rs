//! `install` and `plan`.

use super::preflight::strictness;
use super::{CommandResult, verify};
use crate::args::{Common, Install, OnFailure, Output, Plan};
use crate::output::{write_stdout, write_whole};
use crate::start::{Started, start};
use crate::trust::open_bundle;
use crate::{load, render};
use landfall_core::explain::{Code, Diagnosis, ExitCode};
use landfall_core::plan::file::PlanFile;
use landfall_core::report::Report;
use landfall_core::verify::CellOutcome;
use landfall_engine::run::{self, InstallOptions, Outcome, Until};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Installs, or with `--dry-run` shows the plan.
pub fn install(args: &Install) -> CommandResult {
    let understood = load::read(&args.common.inventory, args.common.limit.as_deref())?;
    let bundle = open_bundle(&args.bundle, &args.trust, &understood.desired)?;
    let Started { desired, reporter, ctx } = start(&args.common, understood, args.report.as_deref())?;
    let until = if args.dry_run { Until::Plan } else { Until::Done };
    let on_failure = match args.on_failure {
        OnFailure::Keep => run::OnFailure::Keep,
        OnFailure::Rollback => run::OnFailure::Rollback,
    };
    let options = InstallOptions {
        until,
        on_failure,
        plan_file: args.plan.as_deref().map(read_plan).transpose()?,
        relay: !args.no_relay,
        reconnect: Duration::from_secs(args.reconnect),
        strictness: strictness(args.strict),
    };
    let outcome = run::install(&desired, &bundle, &options, &ctx);
    if args.dry_run {
        show_plan(&args.common, &outcome);
        return Ok(reporter.close(vec![]));
    }
    let report = reporter.report();
    if args.common.output == Output::Human {
        if let Some(verified) = &report.verify {
            write_stdout(&render::verify(verified, false));
        }
        write_stdout(&format!("{} changes\n", report.changes));
    }
    let mut problems = verify::write_reports(&outcome, args.report.as_deref(), args.junit.as_deref());
    problems.extend(reporter.write().err());
    let exit = reporter.close(problems);
    if args.common.output == Output::Human && exit == ExitCode::Done {
        write_stdout(&success(&report));
    }
    Ok(exit)
}

fn success(report: &Report) -> String {
    let passed = report.verify.as_ref().map_or(0, |v| v.count(CellOutcome::Pass));
    let cluster = report.cluster.as_deref().unwrap_or_default();
    format!("the cluster {cluster} is up; {passed} paths into it were probed and work\n")
}

/// Shows the plan.
pub fn plan(args: &Plan) -> CommandResult {
    let understood = load::read(&args.common.inventory, args.common.limit.as_deref())?;
    let bundle = open_bundle(&args.bundle, &args.trust, &understood.desired)?;
    let Started { desired, reporter, ctx } = start(&args.common, understood, None)?;
    let options = InstallOptions {
        strictness: strictness(args.strict),
        ..InstallOptions::new(Until::Plan, run::OnFailure::Keep)
    };
    let outcome = run::install(&desired, &bundle, &options, &ctx);
    let mut problems = Vec::new();
    if let (Some(path), Some(file)) = (&args.write, &outcome.plan_file) {
        // The file is private, because it names machines, addresses and files and holds whole objects.
        problems.extend(write_whole(path, file.render().as_bytes(), 0o600).err());
    }
    show_plan(&args.common, &outcome);
    let exit = reporter.close(problems);
    let pending = outcome.plan.as_ref().is_some_and(|p| !p.steps.is_empty());
    Ok(if exit == ExitCode::Done && pending && args.exit_code {
        ExitCode::ChangesPending
    } else {
        exit
    })
}

/// Shows a plan, why each step is pending, and how many bytes each node is sent.
pub fn show_plan(common: &Common, outcome: &Outcome) {
    let Some(plan) = &outcome.plan else { return };
    if common.output == Output::Json {
        let texts: BTreeMap<_, _> = plan
            .steps
            .iter()
            .map(|s| (&s.id, json!({ "text": s.action.text(), "undo": s.action.undo_text() })))
            .collect();
        let line = json!({ "event": "plan", "plan": plan, "texts": texts, "reasons": &outcome.reasons,
            "satisfied": &outcome.satisfied, "bytesToSend": &outcome.bytes_to_send });
        write_stdout(&format!("{line}\n"));
    } else {
        write_stdout(&render::plan(plan, &outcome.reasons, &outcome.bytes_to_send));
        if !outcome.satisfied.is_empty() {
            let text = "steps are as wanted already; `--output json` says of each what was seen";
            write_stdout(&format!("{} {text}\n", outcome.satisfied.len()));
        }
    }
}

fn read_plan(path: &Path) -> Result<PlanFile, Vec<Diagnosis>> {
    let unusable = |what: &str, error: &(dyn std::error::Error + 'static)| {
        let diagnosis = Diagnosis::new(Code::PlanFile, format!("the plan {} {what}", path.display()));
        vec![diagnosis.because(error)]
    };
    let text = std::fs::read_to_string(path).map_err(|e| unusable("cannot be read", &e))?;
    PlanFile::parse(&text).map_err(|e| unusable("cannot be used", &e))
}
