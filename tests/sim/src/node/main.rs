//! The programs of a simulated node. As agent (its only argument is the directory that stands in for the machine) it serves one session,
//! as a process of its own, so that it can be killed like one; with a limit on files the kernel kills it in the middle of the write that
//! goes beyond, or, when the disk is to be full, refuses that write. As `ask DIRECTORY WORD…` it asks the model of the fleet's clusters
//! for the machine's other programs.

#![forbid(unsafe_code)]

mod model;

use landfall_agent::host::Host;
use landfall_agent::session::serve_on;
use model::Model;
use rustix::process::{Resource, Rlimit, setrlimit};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Longest file that the agent may write, in bytes.
const FILE_LIMIT: &str = "LANDFALL_SIM_FILE_LIMIT";
/// Whether a write beyond the limit fails, as on a full disk, instead of ending the agent.
const FULL_DISK: &str = "LANDFALL_SIM_FULL_DISK";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(first) = arguments.next() else {
        return ExitCode::from(2);
    };
    if first == "ask" {
        let root = arguments.next().unwrap_or_default();
        return model::ask(Path::new(&root), &arguments.collect::<Vec<_>>());
    }
    let limit = std::env::var(FILE_LIMIT).ok().and_then(|text| text.parse().ok());
    if let Some(bytes) = limit
        && !(set(Resource::Core, 0) && set(Resource::Fsize, bytes))
    {
        return ExitCode::from(3);
    }
    // A process that takes the signal goes on, and its write fails.
    if std::env::var_os(FULL_DISK).is_some()
        && signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::new(AtomicBool::new(false))).is_err()
    {
        return ExitCode::from(4);
    }
    let host = match Model::of(Path::new(&first)) {
        Ok(model) => Host::under(first).with_network(Arc::new(model)),
        Err(_) => return ExitCode::from(5),
    };
    ExitCode::from(serve_on(
        host,
        std::io::stdin(),
        std::io::stdout(),
        Duration::from_secs(60),
    ))
}

fn set(resource: Resource, limit: u64) -> bool {
    let limit = Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    setrlimit(resource, limit).is_ok()
}
