//! `journal show` and `journal repair`.

use super::CommandResult;
use crate::args::{Common, JournalRepair, Output};
use crate::confirm::{confirm_repair, need_terminal};
use crate::output::write_stdout;
use crate::start::{Started, start};
use crate::{load, render};
use landfall_ansible::Understood;
use landfall_core::explain::{Code, Diagnosis, ExitCode};
use landfall_engine::run::{self, Outcome, RepairSummary, Until};

/// Reads the inventory without a limit: the journals of some nodes do not tell the order of the runs.
fn whole(common: &Common) -> Result<Understood, Vec<Diagnosis>> {
    load::whole(common, || {
        Diagnosis::new(Code::Usage, "journals are read from every node, without --limit")
    })
}

/// Shows the cluster's record, its runs and what landfall owns on each node.
pub fn show(common: &Common) -> CommandResult {
    let understood = whole(common)?;
    let Started { desired, reporter, ctx } = start(common, understood, None)?;
    let outcome = run::journal(&desired, &ctx);
    write_stdout(&match common.output {
        Output::Json => format!("{}\n", render::journals_json(&outcome)),
        Output::Human => render::journals(&outcome),
    });
    Ok(reporter.close(vec![]))
}

/// Repairs damaged journals.
pub fn repair(args: &JournalRepair) -> CommandResult {
    let understood = whole(&args.common)?;
    if !args.yes && !args.dry_run {
        need_terminal().map_err(|d| vec![d])?;
    }
    let Started { desired, reporter, ctx } = start(&args.common, understood, args.report.as_deref())?;
    let until = if args.dry_run { Until::Plan } else { Until::Done };
    let yes = |_: &RepairSummary| Ok(());
    let ask: run::ConfirmRepair = if args.yes { &yes } else { &confirm_repair };
    let outcome = run::repair_journals(&desired, until, ask, &ctx);
    if args.common.output == Output::Json {
        write_stdout(&format!("{}\n", render::repair_json(&outcome)));
    }
    let problems = reporter.write().err().into_iter().collect();
    let exit = reporter.close(problems);
    // Repairs are reported even when another node is absent.
    if args.common.output == Output::Human && (exit == ExitCode::Done || outcome.changes > 0) {
        write_stdout(&text(&outcome, until));
    }
    Ok(exit)
}

/// Returns the text that says what was repaired, or would be.
fn text(outcome: &Outcome, until: Until) -> String {
    if outcome.journals.is_empty() {
        return "no journal is damaged\n".to_owned();
    }
    let lost = outcome.journals.iter();
    let mut text: String = lost
        .map(|(node, reading)| render::lost_lines(node, &reading.lost))
        .collect();
    let journals = render::plural(outcome.journals.len(), "journal");
    text.push_str(&match until {
        Until::Plan => format!("{journals} would be repaired: the intact lines are kept\n"),
        Until::Done | Until::Pushed => {
            format!("done; {journals} repaired. The next rollback or uninstall names what cannot be undone\n")
        }
    });
    text
}
