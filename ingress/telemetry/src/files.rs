//! Open files of the process: as many as it may have, and a word to whoever can give some back when they run out.
//!
//! containerd 2 sets no `LimitNOFILE`, so systemd's 1,024 is the soft limit in pods, and 524,288 the hard one; Go's programs, nginx and
//! haproxy raise the soft one themselves, and so does this one. What is short is the process's, so the word about it is too.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// Told when there was no file for something; see [`ran_out`].
static SHORT: Notify = Notify::const_new();
static SHORTAGES: AtomicU64 = AtomicU64::new(0);

/// Raises the soft limit to the hard one. Returns how many files the process may have open; a refusal leaves the soft limit.
pub fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Lowering is never refused, and raising to the hard limit only by what guards system calls.
    let granted = setrlimit(Resource::Nofile, raised).map_or(limit.current, |()| limit.maximum);
    granted.unwrap_or(u64::MAX)
}

/// Files that the process may have open now.
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Whether an error says that there are no files left, in this process or on this node. Then those who can are told to give some back.
pub fn ran_out(error: &io::Error) -> bool {
    let short = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
    let short = short
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
    if short {
        SHORTAGES.fetch_add(1, Ordering::Relaxed);
        SHORT.notify_one();
    }
    short
}

/// How often there was no file for something.
pub fn shortages() -> u64 {
    SHORTAGES.load(Ordering::Relaxed)
}

/// Waits for the next shortage.
pub async fn shortage() {
    SHORT.notified().await;
}
