//! When the service gives way to somebody who wants it otherwise. Two programs that write in turns would help nobody, but a package upgrade that loads
//! settings or rules of the machine anew now and then is no rival.

use std::time::{Duration, Instant};

/// How often somebody may change a thing back within [`WITHIN`] before it is theirs.
pub(super) const MOST_CHANGES: usize = 3;
/// A program that does not want what the service writes changes it all the time; a person or an upgrade does so now and then.
pub(super) const WITHIN: Duration = Duration::from_secs(600);

/// The recent changes by somebody else.
#[derive(Debug, Default)]
pub(super) struct Rivalry(Vec<Instant>);

impl Rivalry {
    /// Counts a change.
    pub(super) fn note(&mut self, now: Instant) {
        self.forget_old(now);
        self.0.push(now);
    }

    /// Says whether there were so many lately that the thing is somebody else's.
    pub(super) fn is_lost(&mut self, now: Instant) -> bool {
        self.forget_old(now);
        self.0.len() >= MOST_CHANGES
    }

    fn forget_old(&mut self, now: Instant) {
        self.0.retain(|then| now.saturating_duration_since(*then) < WITHIN);
    }
}
