//! How many requests may be sent a second time. Without a bound an overloaded Service gets its load doubled just then.

use crate::clock::now_ms;
use crate::limits::{RETRIES_PER_HUNDRED, RETRIES_PER_SECOND, RETRIES_SAVED};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// A purse: every request pays in a part of a retry, time pays in a few, a retry takes one.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// Requests since the purse was last counted.
    requests: AtomicU32,
    purse: Mutex<Purse>,
}

#[derive(Debug)]
struct Purse {
    /// Hundredths of a retry.
    hundredths: u32,
    /// `None` before the first retry.
    counted_ms: Option<u64>,
}

impl Default for Purse {
    fn default() -> Self {
        Self {
            hundredths: RETRIES_SAVED * 100,
            counted_ms: None,
        }
    }
}

impl Budget {
    /// Counts a request.
    pub(super) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes a retry if there is one.
    pub(super) fn take(&self) -> bool {
        let now = now_ms();
        let requests = self.requests.swap(0, Ordering::Relaxed);
        let mut purse = self.purse.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = purse.counted_ms.map_or(0, |then| now.saturating_sub(then));
        let by_time = u32::try_from(elapsed)
            .unwrap_or(u32::MAX)
            .saturating_mul(RETRIES_PER_SECOND)
            / 10;
        let earned = requests.saturating_mul(RETRIES_PER_HUNDRED).saturating_add(by_time);
        purse.hundredths = purse.hundredths.saturating_add(earned).min(RETRIES_SAVED * 100);
        purse.counted_ms = Some(now);
        let enough = purse.hundredths >= 100;
        if enough {
            purse.hundredths -= 100;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{advance, set};
    use std::time::Duration;

    #[test]
    fn retries_end_with_the_budget_and_come_back_with_requests_and_time() {
        set(1);
        let budget = Budget::default();
        let spend = || (0..10_000).take_while(|_| budget.take()).count();
        assert_eq!(spend(), usize::try_from(RETRIES_SAVED).unwrap());
        for _ in 0..50 {
            budget.request();
        }
        assert_eq!(spend(), usize::try_from(50 * RETRIES_PER_HUNDRED / 100).unwrap());
        advance(Duration::from_millis(1500));
        assert_eq!(spend(), usize::try_from(RETRIES_PER_SECOND * 3 / 2).unwrap());
        advance(Duration::from_secs(100_000));
        assert_eq!(spend(), usize::try_from(RETRIES_SAVED).unwrap());
    }
}
