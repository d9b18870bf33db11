//! `install` and `plan`.

use super::{Done, close, complain};
use crate::args::{Common, Install, OnFailure, Output, Plan};
use crate::report::{Recorder, write_whole};
use crate::{load, remote, render, say};
use landfall_bundle::BundleFile;
use landfall_core::explain::{Code, Diagnosis, ExitCode};
use landfall_core::plan::file::PlanFile;
use landfall_core::verify::CellOutcome;
use landfall_engine::run::{self, InstallOptions, Outcome, Until};
use serde_json::json;
use std::path::Path;

/// Installs, or with `--dry-run` shows the plan.
pub fn install(args: &Install) -> Done {
    let desired = load::desired(&args.common)?;
    let bundle = open(&args.bundle, &args.common)?;
    let recorder = Recorder::new(render::sink(args.common.output));
    let around = remote::surroundings(&args.common, recorder.clone(), args.report.clone()).map_err(|d| vec![d])?;
    let until = if args.dry_run { Until::Plan } else { Until::Done };
    let on_failure = match args.on_failure {
        OnFailure::Keep => run::OnFailure::Keep,
        OnFailure::Rollback => run::OnFailure::Rollback,
    };
    let options = InstallOptions {
        until,
        on_failure,
        plan_file: args.plan.as_deref().map(read_plan).transpose()?,
    };
    let outcome = run::install(&desired, &bundle, &options, &around);
    drop(around);
    if args.dry_run {
        return Ok(show_plan(&args.common, &outcome));
    }
    if args.common.output == Output::Human {
        if let Some(report) = &outcome.verify {
            say(&render::verify(report, false));
        }
        say(&format!("{} changes\n", outcome.changes));
    }
    let exit = close(&args.common, &outcome);
    if let Some(folder) = &args.report {
        let index = bundle.index();
        let about = json!({
            "path": bundle.path(),
            "indexDigest": bundle.index_digest().to_string(),
            "kubernetes": index.kubernetes_version,
            "recipe": index.recipe,
        });
        let report = recorder.install_report(&outcome, &about, exit);
        write_whole(&folder.join("install.json"), format!("{report:#}\n").as_bytes(), 0o644).map_err(|d| vec![d])?;
    }
    super::verify::write_reports(&outcome, args.report.as_deref(), args.junit.as_deref())?;
    if args.common.output == Output::Human && exit == ExitCode::Done {
        let cells = outcome.verify.as_ref().map_or(0, |v| v.count(CellOutcome::Pass));
        say(&format!(
            "the cluster {} is up; {cells} paths into it were tried and work\n",
            desired.spec.name
        ));
    }
    Ok(exit)
}

/// Shows the plan.
pub fn plan(args: &Plan) -> Done {
    let desired = load::desired(&args.common)?;
    let bundle = open(&args.bundle, &args.common)?;
    let around = remote::surroundings(&args.common, render::sink(args.common.output), None).map_err(|d| vec![d])?;
    let options = InstallOptions::new(Until::Plan, run::OnFailure::Keep);
    let outcome = run::install(&desired, &bundle, &options, &around);
    drop(around);
    if let (Some(path), Some(file)) = (&args.write, &outcome.plan_file) {
        // It names machines, addresses and files, and holds whole objects.
        write_whole(path, file.render().as_bytes(), 0o600).map_err(|d| vec![d])?;
    }
    let exit = show_plan(&args.common, &outcome);
    let pending = outcome.plan.as_ref().is_some_and(|p| !p.steps.is_empty());
    Ok(if exit == ExitCode::Done && pending && args.exit_code {
        ExitCode::ChangesPending
    } else {
        exit
    })
}

fn show_plan(common: &Common, outcome: &Outcome) -> ExitCode {
    if let Some(plan) = &outcome.plan {
        if common.output == Output::Json {
            say(&format!(
                "{}\n",
                json!({ "event": "plan", "plan": plan, "bytesToSend": outcome.bytes_to_send })
            ));
        } else {
            say(&render::plan(plan, &outcome.reasons, &outcome.bytes_to_send));
        }
    }
    close(common, outcome)
}

fn read_plan(path: &Path) -> Result<PlanFile, Vec<Diagnosis>> {
    let unusable = |what: &str, error: &(dyn std::error::Error + 'static)| {
        let diagnosis = Diagnosis::new(Code::PlanFile, format!("the plan {} {what}", path.display()));
        vec![diagnosis.because(error).next("make it by `landfall plan -o FILE`")]
    };
    let text = std::fs::read_to_string(path).map_err(|e| unusable("cannot be read", &e))?;
    PlanFile::parse(&text).map_err(|e| unusable("cannot be used", &e))
}

fn open(path: &Path, common: &Common) -> Result<BundleFile, Vec<Diagnosis>> {
    let bundle = BundleFile::open(path).map_err(|d| vec![d])?;
    if common.output == Output::Human {
        complain("warning: the bundle is not signed; its digests protect against damage, not against forgery\n");
    }
    Ok(bundle)
}
