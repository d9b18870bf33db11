//! landfall's ingress proxy: follows Ingress objects and sends HTTP requests to the pods behind them.
//!
//! Data flows one way: [`landfall_ingress_kubernetes`] follows API objects and has a table made of them, [`landfall_ingress_proxy`] serves
//! requests from the newest one, [`landfall_ingress_admin`] shows it. [`run`] is the order from start to end.

#![forbid(unsafe_code)]

mod args;
mod check;
mod probe;
mod run;

use args::{Args, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Args::parse();
    match args.command {
        Some(Command::Probe(probe)) => probe::ask(&probe.socket, probe.question),
        Some(Command::Check(check)) => check::run(&check),
        None => serve(args.serve),
    }
}

fn serve(args: args::Serve) -> ExitCode {
    use tokio::runtime::Builder;
    // One worker needs no threads that steal from each other, nor their wake-ups.
    let mut runtime = match args.workers.map(std::num::NonZeroUsize::get) {
        Some(1) => Builder::new_current_thread(),
        Some(workers) => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(workers);
            builder
        }
        None => Builder::new_multi_thread(),
    };
    let result = match runtime.enable_all().build() {
        Ok(runtime) => runtime.block_on(run::run(args)),
        Err(error) => Err(format!("no runtime: {error}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            landfall_ingress_telemetry::log(&text);
            ExitCode::FAILURE
        }
    }
}
