//! The `landfall` program: arguments, the context of a run, rendering. The other crates do the work.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod confirm;
mod load;
mod output;
mod passwords;
mod remote;
mod render;
mod reporter;
mod start;
mod trust;
mod upstream_args;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // clap prints help and version to standard output with status 0, and errors to standard error.
            let status = if error.use_stderr() { 2 } else { 0 };
            return match error.print() {
                Ok(()) => ExitCode::from(status),
                Err(_) => ExitCode::from(1),
            };
        }
    };
    ExitCode::from(commands::run(args.command).status())
}
