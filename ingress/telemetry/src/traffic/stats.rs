//! The counts of one entry point or one route.

use super::latency::Latency;
use super::window::Window;
use crate::reason::Reason;
use crate::traffic::{End, Moment};
use http::StatusCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Seconds over which the live rate is taken.
const RATE_SECONDS: u32 = 10;

/// Upper bounds of the duration histogram in `/metrics`, in milliseconds: those of Prometheus' clients, with one more below.
pub(super) const BOUNDS_MS: [u64; 12] = [1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];

/// Who made an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// The endpoint.
    Endpoint,
    /// We, because the route wants it so: a redirect, an answer to a preflight.
    Route,
    /// We, because there was nothing better.
    Us(Reason),
}

/// Counts with a window of `N` seconds.
#[derive(Debug)]
pub struct Stats<const N: usize> {
    /// By hundreds of the status; 1xx is final for upgrades only.
    classes: [AtomicU64; 6],
    /// By reason. Made with the first of them: most routes never have one.
    ours: OnceLock<Box<[AtomicU64; Reason::ALL.len()]>>,
    /// 5xx that endpoints gave.
    upstream: AtomicU64,
    cut: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    ended: AtomicU64,
    micros: AtomicU64,
    /// Milliseconds since the start, and one: 0 is never.
    last: AtomicU64,
    window: Window<N>,
    latency: Latency,
}

impl<const N: usize> Default for Stats<N> {
    fn default() -> Self {
        Self {
            classes: Default::default(),
            ours: OnceLock::new(),
            upstream: AtomicU64::default(),
            cut: AtomicU64::default(),
            received: AtomicU64::default(),
            sent: AtomicU64::default(),
            ended: AtomicU64::default(),
            micros: AtomicU64::default(),
            last: AtomicU64::default(),
            window: Window::default(),
            latency: Latency::default(),
        }
    }
}

/// Requests that are over by duration.
#[derive(Debug, Default)]
pub(super) struct Durations([AtomicU64; BOUNDS_MS.len() + 1]);

impl Durations {
    pub(super) fn add(&self, took: Duration) {
        let bucket = BOUNDS_MS.partition_point(|bound| took > Duration::from_millis(*bound));
        self.0[bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// As in [`Numbers::durations`].
    pub(super) fn read(&self) -> [u64; BOUNDS_MS.len() + 1] {
        std::array::from_fn(|bucket| self.0[bucket].load(Ordering::Relaxed))
    }
}

/// Counts as they were at one moment.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    /// Answers.
    pub requests: u64,
    /// By hundreds of the status.
    pub classes: [u64; 6],
    /// Answers that we made because there was nothing better, by reason; those that never happened are left out.
    pub ours: Vec<(Reason, u64)>,
    /// 5xx that endpoints gave.
    pub upstream: u64,
    /// Answers that did not arrive whole.
    pub cut: u64,
    /// Bytes of requests' bodies.
    pub received: u64,
    /// Bytes of answers' bodies.
    pub sent: u64,
    /// Requests that are over, and the sum of their durations.
    pub ended: u64,
    /// In seconds.
    pub seconds: f64,
    /// Requests that are over by duration, not cumulated; the last is beyond all bounds. Of entry points only.
    pub durations: [u64; BOUNDS_MS.len() + 1],
    /// Requests per second over the last seconds.
    pub rate: f64,
    /// Half of the answers of the last minutes began within this time, 99 of 100 within the second.
    pub quantiles: Option<[Duration; 2]>,
    /// Time since the last answer.
    pub since_last: Option<Duration>,
}

impl Numbers {
    /// Adds those of another; quantiles do not add up and stay.
    pub fn add(&mut self, other: Self) {
        for (sum, class) in self.classes.iter_mut().zip(other.classes) {
            *sum += class;
        }
        for (reason, count) in other.ours {
            match self.ours.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, sum)) => *sum += count,
                None => self.ours.push((reason, count)),
            }
        }
        self.requests += other.requests;
        self.upstream += other.upstream;
        self.cut += other.cut;
        self.received += other.received;
        self.sent += other.sent;
        self.ended += other.ended;
        self.seconds += other.seconds;
        self.rate += other.rate;
        self.since_last = match (self.since_last, other.since_last) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    /// Answers that we made because there was nothing better.
    pub fn ours_total(&self) -> u64 {
        self.ours.iter().map(|(_, count)| count).sum()
    }
}

impl<const N: usize> Stats<N> {
    /// See [`super::Traffic::answered`].
    pub fn answered(&self, now: Moment, status: StatusCode, made: Made, took: Duration) {
        let class = usize::from(status.as_u16() / 100).min(self.classes.len() - 1);
        self.classes[class].fetch_add(1, Ordering::Relaxed);
        match made {
            Made::Us(reason) => {
                self.ours()[reason as usize].fetch_add(1, Ordering::Relaxed);
            }
            Made::Endpoint if class == 5 => {
                self.upstream.fetch_add(1, Ordering::Relaxed);
            }
            Made::Endpoint | Made::Route => {}
        }
        self.last.store(now.millis + 1, Ordering::Relaxed);
        self.window.add(now.second);
        self.latency.add(now.minute(), took);
    }

    /// See [`super::Traffic::ended`].
    pub fn ended(&self, end: &End) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(end.took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
        // Most requests have no body.
        if end.received > 0 {
            self.received.fetch_add(end.received, Ordering::Relaxed);
        }
        self.sent.fetch_add(end.sent, Ordering::Relaxed);
        if end.cut {
            self.cut.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Adds the totals of another.
    pub(super) fn absorb(&self, other: &Self) {
        let singles = |s: &Self| {
            [&s.upstream, &s.cut, &s.received, &s.sent, &s.ended, &s.micros].map(|c| c.load(Ordering::Relaxed))
        };
        let sums = [
            &self.upstream,
            &self.cut,
            &self.received,
            &self.sent,
            &self.ended,
            &self.micros,
        ];
        for (sum, more) in sums.into_iter().zip(singles(other)) {
            sum.fetch_add(more, Ordering::Relaxed);
        }
        let add = |sum: &AtomicU64, more: &AtomicU64| sum.fetch_add(more.load(Ordering::Relaxed), Ordering::Relaxed);
        for (sum, more) in self.classes.iter().zip(&other.classes) {
            add(sum, more);
        }
        if let Some(ours) = other.ours.get() {
            for (sum, more) in self.ours().iter().zip(ours.iter()) {
                add(sum, more);
            }
        }
    }

    fn ours(&self) -> &[AtomicU64; Reason::ALL.len()] {
        self.ours
            .get_or_init(|| Box::new(std::array::from_fn(|_| AtomicU64::new(0))))
    }

    /// How long answers took.
    pub(super) fn latency(&self) -> &Latency {
        &self.latency
    }

    /// Answers of the last whole seconds and the running one, as far back as the window reaches.
    pub(super) fn recent(&self, now: Moment, seconds: u32) -> u64 {
        let seconds = seconds.min(now.second).min(N as u32 - 1);
        (now.second - seconds..=now.second)
            .map(|second| u64::from(self.window.at(second)))
            .sum()
    }

    /// Whether there was an answer within the last seconds.
    pub(super) fn answered_within(&self, now: Moment, time: Duration) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        last > 0 && now.millis.saturating_sub(last - 1) <= millis
    }

    /// Answers in this second.
    pub fn at(&self, second: u32) -> u32 {
        self.window.at(second)
    }

    /// All counts, with what is live: rate and quantiles.
    pub fn numbers(&self, now: Moment) -> Numbers {
        let last = self.last.load(Ordering::Relaxed);
        Numbers {
            rate: self.window.rate(now.second, RATE_SECONDS),
            quantiles: self.latency.quantiles(now.minute(), [0.5, 0.99]),
            since_last: (last > 0).then(|| Duration::from_millis(now.millis.saturating_sub(last - 1))),
            ..self.totals()
        }
    }

    /// What only goes up. Cheap enough to be asked of 10,000 routes at once.
    pub(super) fn totals(&self) -> Numbers {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let classes = std::array::from_fn(|class| read(&self.classes[class]));
        let ours = Reason::ALL
            .iter()
            .zip(self.ours.get().into_iter().flat_map(|ours| ours.iter()))
            .map(|(reason, count)| (*reason, read(count)));
        Numbers {
            requests: classes.iter().sum(),
            classes,
            ours: ours.filter(|(_, count)| *count > 0).collect(),
            upstream: read(&self.upstream),
            cut: read(&self.cut),
            received: read(&self.received),
            sent: read(&self.sent),
            ended: read(&self.ended),
            seconds: read(&self.micros) as f64 / 1e6,
            ..Numbers::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(second: u32) -> Moment {
        Moment {
            second,
            millis: u64::from(second) * 1000,
        }
    }

    #[test]
    fn errors_are_split_into_ours_and_the_endpoints() {
        let stats = Stats::<16>::default();
        let took = Duration::from_millis(3);
        for (status, made) in [
            (200, Made::Endpoint),
            (404, Made::Endpoint),
            (500, Made::Endpoint),
            (308, Made::Route),
            (503, Made::Us(Reason::NoEndpoint)),
            (404, Made::Us(Reason::NoRoute)),
            (404, Made::Us(Reason::NoRoute)),
        ] {
            stats.answered(moment(20), StatusCode::from_u16(status).unwrap(), made, took);
        }
        let numbers = stats.numbers(moment(25));
        assert_eq!((numbers.requests, numbers.upstream, numbers.ours_total()), (7, 1, 3));
        assert_eq!(numbers.classes, [0, 0, 1, 1, 3, 2]);
        let mut ours = numbers.ours;
        ours.sort_by_key(|(_, count)| *count);
        assert_eq!(ours, [(Reason::NoEndpoint, 1), (Reason::NoRoute, 2)]);
        assert_eq!(numbers.rate, 0.7);
        assert_eq!(numbers.since_last, Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_request_that_is_over_adds_its_bytes_and_its_time() {
        let stats = Stats::<16>::default();
        assert_eq!(stats.numbers(moment(1)).since_last, None);
        for (sent, cut, millis) in [(5, false, 1), (7, true, 2), (0, false, 60_000)] {
            stats.ended(&End {
                received: 2,
                sent,
                took: Duration::from_millis(millis),
                cut,
            });
        }
        let numbers = stats.numbers(moment(1));
        assert_eq!(
            (numbers.received, numbers.sent, numbers.cut, numbers.ended),
            (6, 12, 1, 3)
        );
        assert_eq!(numbers.seconds, 60.003);
    }

    #[test]
    fn durations_fall_into_the_bucket_that_ends_with_them() {
        let durations = Durations::default();
        for millis in [1, 2, 60_000] {
            durations.add(Duration::from_millis(millis));
        }
        let read = durations.read();
        assert_eq!((read[0], read[1], read[12]), (1, 1, 1));
    }
}
