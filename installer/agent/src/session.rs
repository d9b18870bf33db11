//! One session with an operator: the banner line, then frames. A thread per request. The end of the channel, or a minute
//! without a frame, ends everything that this session started.

use crate::agent::Agent;
use crate::host::Host;
use crate::request;
use landfall_core::wire::AGENT_BANNER;
use landfall_core::wire::mux::{Mux, Role};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The operator pings every 5 s; a minute covers a laptop that sleeps for a moment and a switch that reboots.
const SILENCE: Duration = Duration::from_secs(60);
/// After the end, requests have so long to notice: everything they wait for looks at least five times a second.
const WIND_DOWN: Duration = Duration::from_secs(5);

/// The requests that run, so that the end can wait for them and the operator can be told what is worked on.
#[derive(Default)]
struct Running {
    requests: Mutex<BTreeMap<usize, (String, Instant)>>,
    changed: Condvar,
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, (String, Instant)>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, number: usize, what: String) {
        self.lock().insert(number, (what, Instant::now()));
    }

    fn end(&self, number: usize) {
        self.lock().remove(&number);
        self.changed.notify_all();
    }

    /// One line for each request, the longest first.
    fn text(&self) -> String {
        let mut text = String::new();
        for (what, since) in self.lock().values() {
            text.push_str(&format!("{what}, for {} s\n", since.elapsed().as_secs()));
        }
        text
    }

    fn wait_for_none(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut requests = self.lock();
        while !requests.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            requests = self
                .changed
                .wait_timeout(requests, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// Keeps what this process holds (keys of the cluster, for a while) out of core files and of other processes' reach. Children inherit the
/// limit on core files.
fn keep_memory_private() -> rustix::io::Result<()> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    let none = rustix::process::Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(rustix::process::Resource::Core, none)
}

/// Serves an operator on this machine until the channel ends. Returns the exit status of the process.
pub fn serve(input: impl Read + Send + 'static, output: impl Write + Send + 'static) -> u8 {
    if keep_memory_private().is_err() {
        return 1;
    }
    serve_on(Host::real(), input, output, SILENCE)
}

/// Serves an operator on a machine, with a limit on silence.
pub fn serve_on(
    host: Host,
    input: impl Read + Send + 'static,
    mut output: impl Write + Send + 'static,
    silence: Duration,
) -> u8 {
    let banner = format!("{AGENT_BANNER} {}\n", env!("CARGO_PKG_VERSION"));
    if output
        .write_all(banner.as_bytes())
        .and_then(|()| output.flush())
        .is_err()
    {
        return 1;
    }
    let agent = Arc::new(Agent::new(host));
    let running = Arc::new(Running::default());
    let told = Arc::clone(&running);
    let mux = Mux::new(Role::Agent(Box::new(move || told.text())), Box::new(output));
    let pump = Arc::clone(&mux);
    thread::spawn(move || pump.pump(input));
    watch(Arc::clone(&mux), silence);
    let mut number = 0;
    while let Some((header, stream)) = mux.accept() {
        let (agent, counted) = (Arc::clone(&agent), Arc::clone(&running));
        number += 1;
        running.begin(number, request::name(&header));
        let name = format!("request-{number}");
        let work = move || {
            // A panic in one request is a bug of ours and must not delay the end.
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                request::answer(&agent, &header, stream)
            }));
            counted.end(number);
            if let Err(panic) = caught {
                std::panic::resume_unwind(panic);
            }
        };
        if thread::Builder::new().name(name).spawn(work).is_err() {
            running.end(number);
        }
    }
    agent.children.stop();
    running.wait_for_none(WIND_DOWN);
    agent.release_lease();
    0
}

fn watch(mux: Arc<Mux>, silence: Duration) {
    thread::spawn(move || {
        let (mut seen, mut since) = (mux.frames_received(), Instant::now());
        while mux.closed().is_none() {
            thread::sleep(silence.min(Duration::from_secs(1)));
            let now = mux.frames_received();
            if now != seen {
                (seen, since) = (now, Instant::now());
            } else if since.elapsed() >= silence {
                mux.close("the operator has not been heard for too long");
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Set in the process of its own that the test below needs: what it changes holds for the whole process.
    const CHILD: &str = "LANDFALL_TEST_PRIVATE_MEMORY";

    #[test]
    fn memory_with_keys_is_in_no_core_file() {
        if std::env::var_os(CHILD).is_none() {
            let name = "session::tests::memory_with_keys_is_in_no_core_file";
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            assert!(
                child
                    .args(["--exact", name])
                    .env(CHILD, "1")
                    .status()
                    .unwrap()
                    .success()
            );
            return;
        }
        keep_memory_private().unwrap();
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"]);
        let dumpable = rustix::process::dumpable_behavior().unwrap();
        assert_eq!(dumpable, rustix::process::DumpableBehavior::NotDumpable);
    }
}
