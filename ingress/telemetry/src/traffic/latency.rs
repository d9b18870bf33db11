//! How long answers took, over the last minute or two: log-linear buckets without locks.
//!
//! A bucket holds two counts, that of the running minute and that of the minute before; whoever counts first in a new minute moves
//! one to the other. So a quantile speaks of the last 60 to 120 seconds and a busy yesterday does not hide a slow today.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets per doubling: within a bucket the ends differ by at most a quarter, so a quantile is off by an eighth at most.
const PER_DOUBLING: usize = 4;
/// The first bucket takes everything below 2^6 µs: no proxied answer is that fast.
const FIRST: u32 = 6;
/// The last takes everything from 2^26 µs, 67 s, which is beyond the default time-outs.
const DOUBLINGS: usize = 20;
const BUCKETS: usize = DOUBLINGS * PER_DOUBLING + 2;
/// Buckets that are made together, when the first of them is needed: the answers of one route mostly lie within five doublings.
const BLOCK: usize = 21;
const BLOCKS: usize = BUCKETS.div_ceil(BLOCK);

/// Fields of a bucket, from above: minute (16 bits), the minute before it (24), this minute (24).
const COUNT_BITS: u32 = 24;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// Durations of the running minute and the one before.
#[derive(Debug, Default)]
pub struct Latency([OnceLock<Box<[AtomicU64; BLOCK]>>; BLOCKS]);

impl Latency {
    /// Counts a duration in this minute.
    pub fn add(&self, minute: u32, took: Duration) {
        let index = bucket_of(took);
        let block = self.0[index / BLOCK].get_or_init(|| Box::new(std::array::from_fn(|_| AtomicU64::new(0))));
        let bucket = &block[index % BLOCK];
        let mut seen = bucket.load(Ordering::Relaxed);
        loop {
            let (before, now) = counts(seen, minute);
            let next = pack(minute, before, (now + 1).min(COUNT_MASK));
            match bucket.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => seen = other,
            }
        }
    }

    /// Returns the durations below which these shares (0 to 1) of the answers stayed; `None` when there were none.
    pub fn quantiles<const N: usize>(&self, minute: u32, shares: [f64; N]) -> Option<[Duration; N]> {
        Self::together([self], minute, shares)
    }

    /// Those of several together.
    pub fn together<'a, const N: usize>(
        all: impl IntoIterator<Item = &'a Self>,
        minute: u32,
        shares: [f64; N],
    ) -> Option<[Duration; N]> {
        let mut sums = [0; BUCKETS];
        for one in all {
            for (sums, block) in sums.chunks_mut(BLOCK).zip(&one.0) {
                let buckets = block.get().into_iter().flat_map(|block| block.iter());
                for (sum, bucket) in sums.iter_mut().zip(buckets) {
                    let (before, now) = counts(bucket.load(Ordering::Relaxed), minute);
                    *sum += before + now;
                }
            }
        }
        let total: u64 = sums.iter().sum();
        (total > 0).then(|| shares.map(|share| quantile(&sums, total, share)))
    }
}

/// The counts of a bucket as seen from this minute: what is older than the minute before counts no more.
fn counts(packed: u64, minute: u32) -> (u64, u64) {
    let before = (packed >> COUNT_BITS) & COUNT_MASK;
    let now = packed & COUNT_MASK;
    let written = packed >> (2 * COUNT_BITS);
    match u64::from(minute & 0xffff).wrapping_sub(written) & 0xffff {
        0 => (before, now),
        1 => (now, 0),
        _ => (0, 0),
    }
}

fn pack(minute: u32, before: u64, now: u64) -> u64 {
    u64::from(minute & 0xffff) << (2 * COUNT_BITS) | before << COUNT_BITS | now
}

fn bucket_of(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    if micros < 1 << FIRST {
        return 0;
    }
    let doubling = micros.ilog2();
    // The two bits behind the first say which quarter of the doubling it is.
    let quarter = (micros >> (doubling - 2)) as usize & (PER_DOUBLING - 1);
    let index = (doubling - FIRST) as usize * PER_DOUBLING + quarter + 1;
    index.min(BUCKETS - 1)
}

/// Where a bucket begins, in microseconds.
fn begin(bucket: usize) -> f64 {
    if bucket == 0 {
        return 0.0;
    }
    let (doubling, quarter) = ((bucket - 1) / PER_DOUBLING, (bucket - 1) % PER_DOUBLING);
    let base = (1_u64 << (FIRST as usize + doubling)) as f64;
    base * (1.0 + quarter as f64 / PER_DOUBLING as f64)
}

/// Within a bucket the durations are taken to be spread evenly.
fn quantile(counts: &[u64], total: u64, share: f64) -> Duration {
    let wanted = total as f64 * share;
    let mut below = 0.0;
    for (bucket, &count) in counts.iter().enumerate() {
        let count = count as f64;
        if count > 0.0 && below + count >= wanted {
            let end = if bucket + 1 < BUCKETS {
                begin(bucket + 1)
            } else {
                begin(bucket)
            };
            let within = ((wanted - below) / count).clamp(0.0, 1.0);
            return Duration::from_micros((begin(bucket) + (end - begin(bucket)) * within) as u64);
        }
        below += count;
    }
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_and_each_begins_where_it_says() {
        for bucket in 1..BUCKETS {
            let first = Duration::from_micros(begin(bucket) as u64);
            assert_eq!(bucket_of(first), bucket, "{first:?}");
            assert_eq!(bucket_of(first - Duration::from_micros(1)), bucket - 1, "{first:?}");
        }
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
        assert_eq!(bucket_of(Duration::ZERO), 0);
    }

    #[test]
    fn quantiles_are_right_within_an_eighth() {
        let latency = Latency::default();
        for millis in 1..=1000 {
            latency.add(7, Duration::from_millis(millis));
        }
        let [p50, p99] = latency.quantiles(7, [0.5, 0.99]).unwrap();
        let near = |found: Duration, wanted: f64| (found.as_secs_f64() / wanted - 1.0).abs() < 0.125;
        assert!(near(p50, 0.5) && near(p99, 0.99), "{p50:?} {p99:?}");
    }

    #[test]
    fn what_is_older_than_the_minute_before_counts_no_more() {
        let latency = Latency::default();
        assert_eq!(latency.quantiles(0, [0.5]), None);
        latency.add(3, Duration::from_secs(8));
        assert!(latency.quantiles(4, [0.5]).unwrap()[0] > Duration::from_secs(7));
        latency.add(4, Duration::from_millis(1));
        assert!(latency.quantiles(4, [0.99]).unwrap()[0] > Duration::from_secs(7));
        assert!(latency.quantiles(5, [0.99]).unwrap()[0] < Duration::from_millis(2));
        assert_eq!(latency.quantiles(6, [0.5]), None);
        // The minute is kept modulo 2^16.
        latency.add(0x1_0005, Duration::from_millis(1));
        assert!(latency.quantiles(0x1_0006, [0.5]).is_some());
    }
}
