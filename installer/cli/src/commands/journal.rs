//! `journal show` and `journal repair`.

use super::CommandResult;
use crate::args::{Common, JournalRepair, Output};
use crate::confirm::{confirm_repair, need_terminal};
use crate::output::write_stdout;
use crate::reporter::Reporter;
use crate::{load, remote, render};
use landfall_ansible::Understood;
use landfall_core::explain::{Code, Diagnosis, ExitCode};
use landfall_core::spec::Desired;
use landfall_engine::run::{self, Outcome, RepairSummary, Until};

/// Reads the inventory. The journals of a part tell no order of runs, so that there is no limit.
fn whole(common: &Common) -> Result<(Desired, Vec<String>), Vec<Diagnosis>> {
    let Understood {
        desired,
        notices,
        limit,
    } = load::read(&common.inventory, common.limit.as_deref())?;
    if limit.is_some() {
        let what = "journals are read from every node, without --limit";
        return Err(vec![Diagnosis::new(Code::Usage, what)]);
    }
    Ok((desired, notices))
}

/// Shows the cluster's record, its runs and what is landfall's on each node.
pub fn show(common: &Common) -> CommandResult {
    let (desired, notices) = whole(common)?;
    let reporter = Reporter::new(common.output, None)?;
    reporter.warn(&notices);
    let ctx = remote::run_context(common, reporter.clone(), None, None).map_err(|d| vec![d])?;
    let outcome = run::journal(&desired, &ctx);
    write_stdout(&match common.output {
        Output::Json => format!("{}\n", render::journals_json(&outcome)),
        Output::Human => render::journals(&outcome),
    });
    Ok(reporter.close(vec![]))
}

/// Repairs damaged journals.
pub fn repair(args: &JournalRepair) -> CommandResult {
    let (desired, notices) = whole(&args.common)?;
    if !args.yes && !args.dry_run {
        need_terminal().map_err(|d| vec![d])?;
    }
    let reporter = Reporter::new(args.common.output, args.report.as_deref())?;
    reporter.warn(&notices);
    let ctx = remote::run_context(&args.common, reporter.clone(), args.report.clone(), None).map_err(|d| vec![d])?;
    let until = if args.dry_run { Until::Plan } else { Until::Done };
    let yes = |_: &RepairSummary| Ok(());
    let ask: run::ConfirmRepair = if args.yes { &yes } else { &confirm_repair };
    let outcome = run::repair_journals(&desired, until, ask, &ctx);
    if args.common.output == Output::Json {
        write_stdout(&format!("{}\n", render::repair_json(&outcome)));
    }
    let problems = reporter.write().err().into_iter().collect();
    let exit = reporter.close(problems);
    // What was repaired is told also when another node is absent.
    if args.common.output == Output::Human && (exit == ExitCode::Done || outcome.changes > 0) {
        write_stdout(&told(&outcome, until));
    }
    Ok(exit)
}

/// Says what was repaired, or would be.
fn told(outcome: &Outcome, until: Until) -> String {
    if outcome.journals.is_empty() {
        return "no journal is damaged\n".to_owned();
    }
    let lost = outcome.journals.iter();
    let mut text: String = lost
        .map(|(node, reading)| render::lost_lines(node, &reading.lost))
        .collect();
    let journals = render::plural(outcome.journals.len(), "journal");
    text.push_str(&match until {
        Until::Plan => format!("{journals} would be made of its whole lines\n"),
        Until::Done => format!(
            "done; {journals} repaired. The next rollback or uninstall names what of this cannot be taken back\n"
        ),
    });
    text
}
