//! The agent of a simulated node: serves one session for a directory that stands in for the machine, as a process of its own, so that
//! it can be killed like one. With a limit on files the kernel kills it in the middle of the write that goes beyond.

#![forbid(unsafe_code)]

use landfall_agent::host::Host;
use landfall_agent::session::serve_on;
use rustix::process::{Resource, Rlimit, setrlimit};
use std::process::ExitCode;
use std::time::Duration;

/// Longest file that the agent may write, in bytes.
const FILE_LIMIT: &str = "LANDFALL_SIM_FILE_LIMIT";

fn main() -> ExitCode {
    let Some(root) = std::env::args_os().nth(1) else {
        return ExitCode::from(2);
    };
    let limit = std::env::var(FILE_LIMIT).ok().and_then(|text| text.parse().ok());
    if let Some(bytes) = limit
        && !(set(Resource::Core, 0) && set(Resource::Fsize, bytes))
    {
        return ExitCode::from(3);
    }
    let host = Host::under(root);
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
