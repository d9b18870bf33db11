//! `kubeconfig`.

use super::CommandResult;
use crate::args::Kubeconfig;
use crate::load;
use crate::output::{PRIVATE, write_stdout, write_whole};
use crate::start::{Started, start};
use landfall_core::explain::ExitCode;
use landfall_engine::run;
use std::path::Path;

/// Fetches the admin kubeconfig and writes it for its owner alone.
pub fn kubeconfig(args: &Kubeconfig) -> CommandResult {
    let understood = load::read(&args.common.inventory, args.common.limit.as_deref())?;
    let Started { desired, reporter, ctx } = start(&args.common, understood, None)?;
    let outcome = run::kubeconfig(&desired, &ctx);
    let exit = reporter.close(vec![]);
    if let (ExitCode::Done, Some(secret)) = (exit, &outcome.kubeconfig) {
        if args.write == Path::new("-") {
            write_stdout(&String::from_utf8_lossy(secret.expose()));
        } else {
            write_whole(&args.write, secret.expose(), PRIVATE).map_err(|d| vec![d])?;
            write_stdout(&format!(
                "written to {0}; try: kubectl --kubeconfig {0} get nodes\n",
                args.write.display()
            ));
        }
    }
    Ok(exit)
}
