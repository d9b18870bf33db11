//! Limits per client address: requests per second and per minute, requests at once.
//!
//! Rates are kept as one moment per client, the "theoretical arrival time" of the generic cell rate algorithm (ITU-T I.371): the same
//! answers as a token bucket, without a timer that fills it. As in nginx with `nodelay`, a burst passes at once and what is beyond it
//! is refused, not delayed.
//!
//! Memory is bounded. When it is full of clients that count, those that come new share one entry per Ingress: a flood of addresses
//! then limits itself, and clients that were there before keep their own.

use landfall_ingress_routing::policy::ClientLimits;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Few requests meet on one lock.
const SHARDS: usize = 16;

/// Entries of a full shard are looked through at most this often.
const PURGE_PAUSE: Duration = Duration::from_secs(1);

/// All clients that are limited by some route.
pub(super) struct Limiter {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    start: Instant,
    most_per_shard: usize,
}

#[derive(Default)]
struct Shard {
    clients: HashMap<u64, Entry>,
    next_purge: Duration,
}

/// Times are since the limiter's start.
#[derive(Default)]
struct Entry {
    second: Duration,
    minute: Duration,
    serving: u32,
}

impl Entry {
    /// The arrival times after one more request, or how long it has to wait.
    fn after(&self, limits: &ClientLimits, now: Duration) -> Result<(Duration, Duration), TooMany> {
        if limits.connections.is_some_and(|most| self.serving >= most) {
            return Err(TooMany {
                retry_after: Duration::from_secs(1),
            });
        }
        let burst = limits.burst.max(1);
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        Ok((
            next(self.second, now, limits.requests_per_second, second, burst)?,
            next(self.minute, now, limits.requests_per_minute, minute, burst)?,
        ))
    }

    fn idle(&self, now: Duration) -> bool {
        self.serving == 0 && self.second <= now && self.minute <= now
    }
}

/// A request that is being served and counts.
pub(crate) struct Slot {
    limiter: Arc<Limiter>,
    key: u64,
}

/// The request is one too many; another may come after this time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany {
    pub(super) retry_after: Duration,
}

impl Limiter {
    pub(super) fn new(most_clients: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            start: Instant::now(),
            most_per_shard: most_clients / SHARDS,
        }
    }

    /// Counts a request of a client of one Ingress, or says that it is one too many; then it does not count.
    pub(super) fn admit(
        self: &Arc<Self>,
        limits: &ClientLimits,
        ingress: &str,
        client: IpAddr,
    ) -> Result<Option<Slot>, TooMany> {
        self.admit_at(limits, ingress, client, self.start.elapsed())
    }

    fn admit_at(
        self: &Arc<Self>,
        limits: &ClientLimits,
        ingress: &str,
        client: IpAddr,
        now: Duration,
    ) -> Result<Option<Slot>, TooMany> {
        if limits.is_none() {
            return Ok(None);
        }
        let [own, others] = self.keys(ingress, client);
        let mut shard = self.lock(own);
        let key = shard.key(own, others, self.most_per_shard, now);
        let entry = shard.clients.entry(key).or_default();
        (entry.second, entry.minute) = entry.after(limits, now)?;
        if limits.connections.is_none() {
            return Ok(None);
        }
        entry.serving += 1;
        drop(shard);
        Ok(Some(Slot {
            limiter: Arc::clone(self),
            key,
        }))
    }

    /// What [`Self::admit`] would say now; counts nothing.
    pub(super) fn would_admit(&self, limits: &ClientLimits, ingress: &str, client: IpAddr) -> Result<(), TooMany> {
        let now = self.start.elapsed();
        let [own, others] = self.keys(ingress, client);
        let shard = self.lock(own);
        let full = shard.clients.len() >= self.most_per_shard;
        let shared = || shard.clients.get(&with_shard(others, own)).filter(|_| full);
        let entry = shard.clients.get(&own).or_else(shared);
        entry.map_or(Ok(()), |entry| entry.after(limits, now).map(drop))
    }

    /// Where a client counts, and where all those count that have no room of their own.
    fn keys(&self, ingress: &str, client: IpAddr) -> [u64; 2] {
        [Some(owner(client)), None].map(|who| self.hasher.hash_one((ingress, who)))
    }

    fn lock(&self, key: u64) -> std::sync::MutexGuard<'_, Shard> {
        let shard = &self.shards[shard_of(key)];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shard_of(key: u64) -> usize {
    (key % SHARDS as u64) as usize
}

/// The same key, in the shard of another.
fn with_shard(key: u64, other: u64) -> u64 {
    key - key % SHARDS as u64 + other % SHARDS as u64
}

impl Shard {
    /// The entry that counts for a client: its own, or the one for all others when there is no room.
    fn key(&mut self, own: u64, others: u64, most: usize, now: Duration) -> u64 {
        if self.clients.contains_key(&own) || self.clients.len() < most {
            return own;
        }
        if self.next_purge <= now {
            self.next_purge = now + PURGE_PAUSE;
            self.clients.retain(|_, entry| !entry.idle(now));
        }
        if self.clients.len() < most {
            own
        } else {
            with_shard(others, own)
        }
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Slot")
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut shard = self.limiter.lock(self.key);
        if let Some(entry) = shard.clients.get_mut(&self.key) {
            entry.serving = entry.serving.saturating_sub(1);
        }
    }
}

/// Whoever has one IPv6 address has 2^64 of them, so the network counts.
fn owner(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) >> 64 << 64)),
    }
}

/// The next arrival time of a client, or how long it has to wait. `burst` is in times of the rate.
fn next(
    arrival: Duration,
    now: Duration,
    rate: Option<u32>,
    period: Duration,
    burst: u32,
) -> Result<Duration, TooMany> {
    let Some(rate) = rate else { return Ok(arrival) };
    let interval = period / rate.max(1);
    let arrival = arrival.max(now);
    let tolerance = period * burst;
    match (arrival - now).checked_sub(tolerance) {
        Some(over) if !over.is_zero() => Err(TooMany { retry_after: over }),
        _ => Ok(arrival + interval),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "10.0.0.1";

    fn limits(per_second: Option<u32>, per_minute: Option<u32>, connections: Option<u32>) -> ClientLimits {
        ClientLimits {
            requests_per_second: per_second,
            requests_per_minute: per_minute,
            burst: 5,
            connections,
        }
    }

    fn passed(limiter: &Arc<Limiter>, limits: &ClientLimits, client: &str, now_ms: u64, asked: usize) -> usize {
        let now = Duration::from_millis(now_ms);
        let one = |_: &usize| limiter.admit_at(limits, "d/i", client.parse().unwrap(), now).is_ok();
        (0..asked).filter(one).count()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let limiter = Arc::new(Limiter::new(1600));
        let limits = limits(Some(2), None, None);
        assert_eq!(passed(&limiter, &limits, A, 0, 100), 11);
        assert_eq!(passed(&limiter, &limits, A, 499, 10), 0);
        assert_eq!(passed(&limiter, &limits, A, 500, 10), 1);
        assert_eq!(passed(&limiter, &limits, A, 1500, 10), 2);
        assert_eq!(passed(&limiter, &limits, A, 100_000, 100), 11);
        assert_eq!(passed(&limiter, &limits, "10.0.0.2", 0, 5), 5);
        // The same client spelled otherwise, and its neighbours in an IPv6 network.
        assert_eq!(passed(&limiter, &limits, "::ffff:10.0.0.1", 100_000, 5), 0);
        assert_eq!(passed(&limiter, &limits, "2001:db8::1", 0, 20), 11);
        assert_eq!(passed(&limiter, &limits, "2001:db8::2", 0, 20), 0);
        assert_eq!(passed(&limiter, &limits, "2001:db8:0:1::2", 0, 20), 11);
    }

    #[test]
    fn both_rates_hold_and_a_refused_request_does_not_count() {
        let limiter = Arc::new(Limiter::new(1600));
        let limits = limits(Some(1), Some(2), None);
        assert_eq!(passed(&limiter, &limits, A, 0, 100), 6);
        assert_eq!(passed(&limiter, &limits, A, 60_000, 100), 6);
        let client = A.parse().unwrap();
        let refused = limiter.admit_at(&limits, "d/i", client, Duration::from_secs(60));
        let wait = Duration::from_secs(1);
        assert_eq!(refused.err(), Some(TooMany { retry_after: wait }));
        // Another Ingress counts by itself.
        assert!(
            limiter
                .admit_at(&limits, "d/j", client, Duration::from_secs(60))
                .is_ok()
        );
    }

    #[test]
    fn requests_at_once_are_freed_by_their_end() {
        let limiter = Arc::new(Limiter::new(1600));
        let limits = limits(None, None, Some(2));
        let client = A.parse().unwrap();
        let one = limiter.admit(&limits, "d/i", client).unwrap();
        let two = limiter.admit(&limits, "d/i", client).unwrap();
        assert!(limiter.admit(&limits, "d/i", client).is_err());
        drop(one);
        let three = limiter.admit(&limits, "d/i", client).unwrap();
        assert!(limiter.admit(&limits, "d/i", client).is_err());
        drop((two, three));
        assert!(limiter.admit(&limits, "d/i", client).is_ok());
    }

    #[test]
    fn a_flood_of_addresses_shares_one_entry_and_memory_stays_bounded() {
        let limiter = Arc::new(Limiter::new(160));
        let limits = limits(Some(1), None, None);
        assert_eq!(passed(&limiter, &limits, A, 0, 6), 6);
        let flood = |now| {
            let network = |i: u32| format!("10.{}.{}.{}", 1 + (i >> 16), (i >> 8) & 255, i & 255);
            (0..20_000)
                .filter(|i| passed(&limiter, &limits, &network(*i), now, 1) == 1)
                .count()
        };
        // Each of 160 entries, and one for the others in each of 16 shards with six requests at once.
        assert!(flood(0) <= 160 + SHARDS * 6);
        let count = |limiter: &Limiter| {
            limiter
                .shards
                .iter()
                .map(|s| s.lock().unwrap().clients.len())
                .sum::<usize>()
        };
        assert!(count(&limiter) <= 160 + SHARDS);
        assert_eq!(passed(&limiter, &limits, A, 1000, 6), 1);
        // What is no longer limited makes room.
        assert!(flood(60_000) > 0);
        assert!(count(&limiter) <= 160 + SHARDS);
    }
}
