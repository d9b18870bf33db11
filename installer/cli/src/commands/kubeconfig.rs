//! `kubeconfig`.

use super::CommandResult;
use crate::args::Kubeconfig;
use crate::output::{PRIVATE, write_stdout, write_whole};
use crate::reporter::Reporter;
use crate::{load, remote};
use landfall_ansible::Understood;
use landfall_core::explain::ExitCode;
use landfall_engine::run;
use std::path::Path;

/// Fetches the admin kubeconfig and writes it for its owner alone.
pub fn kubeconfig(args: &Kubeconfig) -> CommandResult {
    let Understood {
        desired,
        notices,
        limit,
    } = load::read(&args.common.inventory, args.common.limit.as_deref())?;
    let reporter = Reporter::new(args.common.output, None)?;
    reporter.warn(&notices);
    let ctx = remote::run_context(&args.common, reporter.clone(), None, limit).map_err(|d| vec![d])?;
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
