//! `push`.

use super::CommandResult;
use super::preflight::strictness;
use crate::args::{Output, Push};
use crate::output::write_stdout;
use crate::start::{Started, start};
use crate::trust::open_bundle;
use crate::{load, render};
use landfall_core::explain::{Code, Diagnosis, ExitCode};
use landfall_engine::run::{self, InstallOptions, Until};
use std::time::Duration;

/// Sends blobs ahead of an install, or takes them away again.
pub fn push(args: &Push) -> CommandResult {
    let understood = load::whole(&args.common, || {
        let what = "push is written into every node's journal, and takes no --limit";
        Diagnosis::new(Code::Usage, what)
    })?;
    let Some(path) = args.bundle.as_deref().filter(|_| !args.remove) else {
        let Started { desired, reporter, ctx } = start(&args.common, understood, args.report.as_deref())?;
        let outcome = run::push_remove(&desired, &ctx);
        let problems = reporter.write().err().into_iter().collect();
        let exit = reporter.close(problems);
        if args.common.output == Output::Human && exit == ExitCode::Done {
            write_stdout(&format!("{} nodes kept blobs, and no more\n", outcome.changes));
        }
        return Ok(exit);
    };
    let bundle = open_bundle(path, &args.trust, &understood.desired)?;
    let Started { desired, reporter, ctx } = start(&args.common, understood, args.report.as_deref())?;
    let options = InstallOptions {
        relay: !args.no_relay,
        reconnect: Duration::from_secs(args.reconnect),
        strictness: strictness(args.strict),
        ..InstallOptions::new(Until::Pushed, run::OnFailure::Keep)
    };
    let outcome = run::install(&desired, &bundle, &options, &ctx);
    let problems = reporter.write().err().into_iter().collect();
    let exit = reporter.close(problems);
    if args.common.output == Output::Human && exit == ExitCode::Done {
        let sent: u64 = outcome.bytes_sent.values().sum();
        let nodes = outcome.bytes_sent.values().filter(|bytes| **bytes > 0).count();
        write_stdout(&format!(
            "{} sent to {nodes} nodes, which keep it until an install has used it\n",
            render::bytes(sent)
        ));
    }
    Ok(exit)
}
