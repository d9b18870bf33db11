//! One session with an operator: a line that says who speaks, then frames. A thread per request. The end of the channel, or a minute
//! without any sign of life, ends everything that this session started.

use crate::agent::Agent;
use crate::host::Host;
use crate::request;
use landfall_core::wire::AGENT_BANNER;
use landfall_core::wire::mux::Mux;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The operator asks for a sign of life every 5 s; a minute covers a laptop that sleeps for a moment and a switch that reboots.
const SILENCE: Duration = Duration::from_secs(60);
/// After the end, requests have so long to notice: everything they wait for looks at least five times a second.
const WIND_DOWN: Duration = Duration::from_secs(5);

/// Counts requests that run, so that the end can wait for them.
#[derive(Default)]
struct Running {
    count: Mutex<usize>,
    changed: Condvar,
}

impl Running {
    fn add(&self, change: isize) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_add_signed(change);
        self.changed.notify_all();
    }

    fn wait_for_none(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        while *count > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            count = self
                .changed
                .wait_timeout(count, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// Serves an operator on this machine until the channel ends. Returns the exit status of the process.
pub fn serve(input: impl Read + Send + 'static, output: impl Write + Send + 'static) -> u8 {
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
    let mux = Mux::new(Box::new(output));
    let pump = Arc::clone(&mux);
    thread::spawn(move || pump.pump(input));
    watch(Arc::clone(&mux), silence);
    let running = Arc::new(Running::default());
    let numbers = AtomicUsize::new(0);
    while let Some((header, stream)) = mux.accept() {
        let (agent, counted) = (Arc::clone(&agent), Arc::clone(&running));
        running.add(1);
        let name = format!("request-{}", numbers.fetch_add(1, Ordering::Relaxed));
        let work = move || {
            // A panic in one request is our fault and must not keep the end waiting.
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                request::answer(&agent, &header, stream)
            }));
            counted.add(-1);
            if let Err(panic) = caught {
                std::panic::resume_unwind(panic);
            }
        };
        if thread::Builder::new().name(name).spawn(work).is_err() {
            running.add(-1);
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
