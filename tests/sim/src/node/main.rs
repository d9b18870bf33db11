//! The programs of a simulated node. As agent (its only argument is the directory in place of the machine's root) it serves one session in a
//! process of its own, so that tests can kill it. With a limit on the size of files the kernel kills it in the middle of the write that exceeds
//! the limit, or fails that write to simulate a full disk. As `ask DIRECTORY WORD…` it asks the model of the fleet's clusters for the machine's other
//! programs.

#![forbid(unsafe_code)]

mod model;

use landfall_agent::host::Host;
use landfall_agent::session::serve_on;
use landfall_test_support::pipes::{CLOCK_BEHIND, FILE_LIMIT, FULL_DISK};
use model::Model;
use rustix::process::{Resource, Rlimit, setrlimit};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

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
    let behind = std::env::var(CLOCK_BEHIND).ok().and_then(|text| text.parse().ok());
    let host = match Model::of(Path::new(&first)) {
        Ok(model) => Host::under(first)
            .with_network(Arc::new(model))
            .with_clock_behind(Duration::from_secs(behind.unwrap_or_default())),
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
