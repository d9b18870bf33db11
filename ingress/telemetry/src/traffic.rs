//! Traffic as it is counted: per entry point and per route, without locks where requests pass.
//!
//! A request is counted twice: when the head of its answer is there ([`Traffic::answered`]: status, time, second), and when all of it is
//! sent ([`Traffic::ended`]: bytes, answers cut short). So a WebSocket shows at once and its hours spoil no quantile.
//!
//! INVARIANT: counts of a route survive tables. They belong to its Ingress, host and path, and are found by a lock only once per route
//! and table; routes that are never asked cost nothing. Their number is capped: routes beyond it share [`Routes::OTHERS`].

mod latency;
mod routes;
pub mod series;
mod stats;
mod text;
mod window;

pub use routes::{EVERY_HOST, RouteKey, Routes, Slot};
pub use stats::{Made, Numbers, Stats};

use http::StatusCode;
use latency::Latency;
use series::Series;
use stats::Durations;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Where requests come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryPoint {
    /// In plain text.
    Http,
    /// Over TLS.
    Https,
}

impl EntryPoint {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Http, Self::Https];

    /// Its name in metrics and on the dashboard.
    pub fn label(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// All counts of traffic.
#[derive(Debug)]
pub struct Traffic {
    started: Instant,
    entries: [Stats<64>; EntryPoint::ALL.len()],
    durations: [Durations; EntryPoint::ALL.len()],
    addresses: [OnceLock<SocketAddr>; EntryPoint::ALL.len()],
    series: Mutex<Series>,
    /// Counts by route.
    pub routes: Routes,
}

impl Traffic {
    /// Starts at nothing; `exported` routes at most have series of their own in `/metrics`.
    pub fn new(exported: usize) -> Self {
        Self {
            started: Instant::now(),
            entries: Default::default(),
            durations: Default::default(),
            addresses: Default::default(),
            series: Mutex::default(),
            routes: Routes::new(exported),
        }
    }

    /// Says where an entry point listens; the first word counts.
    pub fn listens(&self, entry: EntryPoint, address: SocketAddr) {
        let _ = self.addresses[entry as usize].set(address);
    }

    /// Where an entry point listens, if it does.
    pub fn address(&self, entry: EntryPoint) -> Option<SocketAddr> {
        self.addresses[entry as usize].get().copied()
    }

    /// Counts of an entry point.
    pub fn entry(&self, entry: EntryPoint) -> &Stats<64> {
        &self.entries[entry as usize]
    }

    /// The head of an answer is there; `took` is the time since the request's head.
    pub fn answered(
        &self,
        entry: EntryPoint,
        route: Option<&Stats<16>>,
        status: StatusCode,
        made: Made,
        took: Duration,
    ) {
        let now = self.now();
        self.entry(entry).answered(now, status, made, took);
        if let Some(route) = route {
            route.answered(now, status, made, took);
        }
    }

    /// A request is over, with or without an answer.
    pub fn ended(&self, entry: EntryPoint, route: Option<&Stats<16>>, end: &End) {
        self.entry(entry).ended(end);
        self.durations[entry as usize].add(end.took);
        if let Some(route) = route {
            route.ended(end);
        }
    }

    /// Now, as counts are kept.
    pub fn now(&self) -> Moment {
        Moment::of(self.started.elapsed())
    }

    /// Numbers of an entry point as of now.
    pub fn entry_numbers(&self, entry: EntryPoint) -> Numbers {
        Numbers {
            durations: self.durations[entry as usize].read(),
            ..self.entry(entry).numbers(self.now())
        }
    }

    /// Numbers of all entry points together.
    pub fn total(&self) -> Numbers {
        let now = self.now();
        let mut total = Numbers::default();
        for entry in &self.entries {
            total.add(entry.numbers(now));
        }
        total.quantiles = Latency::together(self.entries.iter().map(Stats::latency), now.minute(), [0.5, 0.99]);
        total
    }

    /// What happened in the last quarter of an hour. Requests never take this lock.
    pub fn series(&self) -> MutexGuard<'_, Series> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a sample of everything; to be called every [`series::PERIOD`], with the connections of clients that are open.
    pub fn sample(&self, connections: u64) {
        let now = self.now();
        // A sample that comes late is of a longer time.
        let asked = self.routes.asked_within(now, series::PERIOD * 2);
        self.series().take(now, &self.total(), connections, &asked);
    }

    /// Requests of each of the last `seconds` whole seconds over all entry points, oldest first.
    pub fn history(&self, seconds: u32) -> Vec<u32> {
        let now = self.now().second;
        let of = |second: u32| self.entries.iter().map(|e| e.at(second)).sum();
        (1..=seconds)
            .rev()
            .map(|ago| now.checked_sub(ago).map_or(0, of))
            .collect()
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct End {
    /// Bytes of its body.
    pub received: u64,
    /// Bytes of the answer's body.
    pub sent: u64,
    /// Time since the request's head.
    pub took: Duration,
    /// The answer did not arrive whole.
    pub cut: bool,
}

/// Time since the start.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// In whole seconds; lasts 136 years.
    pub second: u32,
    /// In milliseconds.
    pub millis: u64,
}

impl Moment {
    fn of(since_start: Duration) -> Self {
        Self {
            second: u32::try_from(since_start.as_secs()).unwrap_or(u32::MAX),
            millis: u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn minute(self) -> u32 {
        self.second / 60
    }
}

/// Counts of a route that is found for a request.
pub type RouteStats = Arc<Stats<16>>;
