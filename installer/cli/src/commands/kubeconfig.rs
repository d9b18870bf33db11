//! `kubeconfig`.

use super::{Done, close};
use crate::args::Kubeconfig;
use crate::report::write_whole;
use crate::{load, remote, render, say};
use landfall_core::explain::ExitCode;
use landfall_engine::run;
use std::path::Path;

/// Fetches the admin kubeconfig and writes it for its owner alone.
pub fn kubeconfig(args: &Kubeconfig) -> Done {
    let desired = load::desired(&args.common)?;
    let around = remote::surroundings(&args.common, render::sink(args.common.output), None).map_err(|d| vec![d])?;
    let outcome = run::kubeconfig(&desired, &around);
    drop(around);
    let exit = close(&args.common, &outcome);
    if let (ExitCode::Done, Some(secret)) = (exit, &outcome.kubeconfig) {
        if args.write == Path::new("-") {
            say(&String::from_utf8_lossy(secret.expose()));
        } else {
            write_whole(&args.write, secret.expose(), 0o600).map_err(|d| vec![d])?;
            say(&format!(
                "written to {0}; try: kubectl --kubeconfig {0} get nodes\n",
                args.write.display()
            ));
        }
    }
    Ok(exit)
}
