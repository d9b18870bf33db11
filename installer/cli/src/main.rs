//! The `landfall` program: arguments, what a run needs of this machine, rendering. What it does lives in the other crates.

#![forbid(unsafe_code)]

mod agent;
mod args;
mod commands;
mod confirm;
mod load;
mod output;
mod passwords;
mod remote;
mod render;
mod reporter;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version go to standard output and are no error; clap knows which is which.
            let status = if error.use_stderr() { 2 } else { 0 };
            return match error.print() {
                Ok(()) => ExitCode::from(status),
                Err(_) => ExitCode::from(1),
            };
        }
    };
    match args.command {
        args::Command::Agent(command) => ExitCode::from(agent::run(&command)),
        command => ExitCode::from(commands::run(command).status()),
    }
}
