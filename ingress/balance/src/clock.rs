//! A monotonic clock in milliseconds, for what is compared often and kept in atomics. Tests set it; nothing else may.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Milliseconds since the first call, never 0.
pub fn now_ms() -> u64 {
    #[cfg(any(test, feature = "testing"))]
    if let Some(set) = SET.with(std::cell::Cell::get) {
        return set;
    }
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(Instant::now);
    milliseconds(start.elapsed()).saturating_add(1)
}

/// A duration as this clock counts it.
pub fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(any(test, feature = "testing"))]
thread_local! {
    static SET: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

/// Stops this thread's clock at that time.
#[cfg(any(test, feature = "testing"))]
pub fn set(ms: u64) {
    SET.with(|clock| clock.set(Some(ms)));
}

/// Moves this thread's clock on; it no longer moves by itself.
#[cfg(any(test, feature = "testing"))]
pub fn advance(by: Duration) {
    set(now_ms() + milliseconds(by));
}
