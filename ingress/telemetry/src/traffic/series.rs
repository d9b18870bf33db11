//! The last quarter of an hour as samples, one every ten seconds: of everything together, and of the routes that were asked most.
//!
//! INVARIANT: all of it stays within [`MOST_BYTES`], however many routes there are. Nothing is kept where requests pass: a sample is the
//! difference of counts that are kept anyway.

use crate::traffic::{Moment, Numbers, RouteKey, RouteStats};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

/// Time between two samples.
pub const PERIOD: Duration = Duration::from_secs(10);
/// Samples of a quarter of an hour.
pub const SAMPLES: usize = 90;
/// Routes that have samples of their own.
pub const ROUTES: usize = 256;
/// Longest names of a route, in bytes: host, path and Ingress together. Longer ones, which people do not write, have no samples.
const LONGEST_NAMES: usize = 1024;
/// What allocations and the map take for one route beside its samples and names.
const OVERHEAD: usize = 256;
/// The most that all samples take.
const MOST_BYTES: usize = ROUTES * (SAMPLES * size_of::<Sample>() + size_of::<Track>() + LONGEST_NAMES + OVERHEAD)
    + SAMPLES * size_of::<(Sample, Whole)>();
const _: () = assert!(MOST_BYTES <= 1024 * 1024);

/// What happened between two moments. Counts beyond 32 bits stay at the largest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// Answers.
    pub requests: u32,
    /// Errors that we made.
    pub ours: u32,
    /// 5xx that endpoints gave.
    pub upstream: u32,
    /// Half of the answers, and 99 of 100, began within so many microseconds, as of the last one to two minutes; `None` when nothing
    /// was asked in this sample.
    pub quantiles: Option<[u32; 2]>,
}

/// What only the whole proxy has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Whole {
    /// When the sample ended, in seconds since the start.
    pub second: u32,
    /// Its length in seconds.
    pub length: u32,
    /// Connections of clients at its end.
    pub connections: u32,
}

/// Counts that only go up, as they were at the end of the last sample.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    requests: u64,
    ours: u64,
    upstream: u64,
}

impl Totals {
    fn of(numbers: &Numbers) -> Self {
        Self {
            requests: numbers.requests,
            ours: numbers.ours_total(),
            upstream: numbers.upstream,
        }
    }

    /// What happened since; counts that began anew happened all.
    fn sample(self, since: Self, quantiles: Option<[Duration; 2]>) -> Sample {
        let step = |now: u64, before: u64| u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX);
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let requests = step(self.requests, since.requests);
        Sample {
            requests,
            ours: step(self.ours, since.ours),
            upstream: step(self.upstream, since.upstream),
            quantiles: quantiles.filter(|_| requests > 0).map(|both| both.map(micros)),
        }
    }
}

/// The samples of one route.
#[derive(Debug)]
struct Track {
    samples: Box<[Sample; SAMPLES]>,
    seen: Totals,
}

impl Track {
    /// A route that was not followed before. What it was asked in this sample is known; its errors only when it was never asked before.
    fn new(stats: &RouteStats, recent: u64) -> Self {
        let now = Totals::of(&stats.totals());
        let seen = match now.requests <= recent {
            true => Totals::default(),
            false => Totals {
                requests: now.requests - recent,
                ..now
            },
        };
        Self {
            samples: Box::new([Sample::default(); SAMPLES]),
            seen,
        }
    }

    fn take(&mut self, at: usize, now: Moment, stats: &RouteStats) {
        let numbers = stats.numbers(now);
        let totals = Totals::of(&numbers);
        self.samples[at] = totals.sample(self.seen, numbers.quantiles);
        self.seen = totals;
    }

    fn requests(&self) -> u64 {
        self.samples.iter().map(|sample| u64::from(sample.requests)).sum()
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct Series {
    whole: [(Sample, Whole); SAMPLES],
    seen: Totals,
    last: u32,
    /// How many samples were taken; the next one has its place at this modulo [`SAMPLES`].
    taken: usize,
    routes: HashMap<RouteKey, Track>,
}

impl Default for Series {
    fn default() -> Self {
        Self {
            whole: [(Sample::default(), Whole::default()); SAMPLES],
            seen: Totals::default(),
            last: 0,
            taken: 0,
            routes: HashMap::new(),
        }
    }
}

impl Series {
    /// Takes a sample. `total` is of everything, `asked` has at least the routes that were asked since the last one.
    pub fn take(&mut self, now: Moment, total: &Numbers, connections: u64, asked: &[(RouteKey, RouteStats)]) {
        let at = self.taken % SAMPLES;
        self.taken += 1;
        let length = now.second.saturating_sub(self.last);
        let totals = Totals::of(total);
        let whole = Whole {
            second: now.second,
            length,
            connections: u32::try_from(connections).unwrap_or(u32::MAX),
        };
        self.whole[at] = (totals.sample(self.seen, total.quantiles), whole);
        (self.seen, self.last) = (totals, now.second);

        let mut fresh = Vec::new();
        for track in self.routes.values_mut() {
            track.samples[at] = Sample::default();
        }
        for (key, stats) in asked {
            match self.routes.get_mut(key) {
                Some(track) => track.take(at, now, stats),
                None if names(key) <= LONGEST_NAMES => fresh.push((stats.recent(now, length), key, stats)),
                None => {}
            }
        }
        self.routes.retain(|_, track| track.requests() > 0);
        fresh.sort_unstable_by_key(|(recent, ..)| Reverse(*recent));
        fresh.truncate(ROUTES);
        self.follow(&fresh, at, now);
    }

    /// Follows routes that were asked more in this sample than others in a quarter of an hour, the busiest first.
    fn follow(&mut self, fresh: &[(u64, &RouteKey, &RouteStats)], at: usize, now: Moment) {
        let known = self.routes.iter().map(|(key, track)| (track.requests(), key.clone()));
        let mut known: Vec<_> = known.collect();
        known.sort_unstable_by_key(|(requests, _)| Reverse(*requests));
        for (recent, key, stats) in fresh {
            if self.routes.len() >= ROUTES {
                match known.pop() {
                    Some((requests, quietest)) if requests < *recent => self.routes.remove(&quietest),
                    _ => return,
                };
            }
            let mut track = Track::new(stats, *recent);
            track.take(at, now, stats);
            self.routes.insert((*key).clone(), track);
        }
    }

    /// Places of the samples that were taken, oldest first.
    fn places(&self) -> impl Iterator<Item = usize> {
        let first = self.taken.saturating_sub(SAMPLES);
        (first..self.taken).map(|number| number % SAMPLES)
    }

    /// The samples of everything, oldest first.
    pub fn whole(&self) -> impl Iterator<Item = (Sample, Whole)> {
        self.places().map(|at| self.whole[at])
    }

    /// The routes that have samples, those that were asked most first; each has as many samples as there are of everything.
    pub fn routes(&self) -> Vec<(&RouteKey, Vec<Sample>)> {
        let mut routes: Vec<_> = self.routes.iter().collect();
        routes.sort_unstable_by_key(|(key, track)| (Reverse(track.requests()), *key));
        let samples = |track: &Track| self.places().map(|at| track.samples[at]).collect();
        routes.into_iter().map(|(key, track)| (key, samples(track))).collect()
    }
}

fn names(key: &RouteKey) -> usize {
    key.ingress.len() + key.host.len() + key.path.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;
    use crate::traffic::Made;
    use crate::traffic::routes::tests::key;
    use http::StatusCode;

    fn moment(second: u32) -> Moment {
        Moment {
            second,
            millis: u64::from(second) * 1000,
        }
    }

    fn ask(stats: &RouteStats, second: u32, times: u32, made: Made) {
        for _ in 0..times {
            let status = match made {
                Made::Us(reason) => reason.status(),
                Made::Endpoint | Made::Route => StatusCode::OK,
            };
            stats.answered(moment(second), status, made, Duration::from_millis(4));
        }
    }

    /// Everything together, as the sum of these.
    fn total(routes: &[(RouteKey, RouteStats)], now: Moment) -> Numbers {
        let mut sum = Numbers::default();
        for (_, stats) in routes {
            sum.add(stats.numbers(now));
        }
        sum
    }

    #[test]
    fn a_sample_is_what_happened_since_the_last_and_ninety_are_kept() {
        let mut series = Series::default();
        let routes = [(key("/"), RouteStats::default())];
        for tick in 1..=u32::try_from(SAMPLES).unwrap() + 3 {
            ask(&routes[0].1, tick * 10 - 5, tick, Made::Endpoint);
            ask(&routes[0].1, tick * 10 - 5, 1, Made::Us(Reason::NoEndpoint));
            let now = moment(tick * 10);
            series.take(now, &total(&routes, now), 7, &routes);
        }
        let whole: Vec<_> = series.whole().collect();
        assert_eq!(whole.len(), SAMPLES);
        let (sample, about) = whole[0];
        assert_eq!((sample.requests, sample.ours, sample.upstream), (5, 1, 0));
        assert_eq!((about.second, about.length, about.connections), (40, 10, 7));
        assert_eq!(whole[SAMPLES - 1].0.requests, 94);
        let own = series.routes();
        assert_eq!(own.len(), 1);
        let requests = |samples: &[Sample]| samples.iter().map(|s| s.requests).collect::<Vec<_>>();
        assert_eq!(
            requests(&own[0].1),
            whole.iter().map(|(s, _)| s.requests).collect::<Vec<_>>()
        );
        let [p50, p99] = own[0].1[SAMPLES - 1].quantiles.unwrap();
        assert!((3500..4500).contains(&p50) && p99 >= p50, "{p50} {p99}");
    }

    #[test]
    fn a_route_that_is_asked_no_more_is_zero_and_forgotten_after_a_round() {
        let mut series = Series::default();
        let routes = [(key("/"), RouteStats::default())];
        ask(&routes[0].1, 5, 3, Made::Endpoint);
        for tick in 1..=u32::try_from(SAMPLES).unwrap() {
            let asked = if tick == 1 { &routes[..] } else { &[] };
            series.take(moment(tick * 10), &Numbers::default(), 0, asked);
            let own = series.routes();
            assert_eq!(own[0].1[0].requests, 3, "{tick}");
            assert!(own[0].1[1..].iter().all(|s| *s == Sample::default()), "{tick}");
        }
        series.take(moment(1000), &Numbers::default(), 0, &[]);
        assert!(series.routes().is_empty());
    }

    #[test]
    fn of_many_routes_the_busiest_are_followed_and_a_busier_one_takes_the_place_of_the_quietest() {
        let mut series = Series::default();
        let route = |n: usize| (key(&format!("/{n}")), RouteStats::default());
        let mut routes: Vec<_> = (0..2 * ROUTES).map(route).collect();
        for (n, (_, stats)) in (0..).zip(&routes) {
            ask(stats, 5, n + 1, Made::Endpoint);
        }
        series.take(moment(10), &Numbers::default(), 0, &routes);
        let first = series.routes();
        assert_eq!((first.len(), first[0].1[0].requests), (ROUTES, 512));
        assert_eq!(first[ROUTES - 1].1[0].requests, 257);

        // One that was asked before it was followed: what is older is not in its first sample.
        ask(&routes[0].1, 15, 300, Made::Endpoint);
        ask(&routes[1].1, 15, 200, Made::Endpoint);
        routes.push((key(&"/long".repeat(300)), RouteStats::default()));
        ask(&routes[2 * ROUTES].1, 15, 10_000, Made::Endpoint);
        series.take(moment(20), &Numbers::default(), 0, &routes);
        let second = series.routes();
        let samples = |path: &str| second.iter().find(|(k, _)| &*k.path == path).map(|(_, s)| s.clone());
        assert_eq!(second.len(), ROUTES);
        assert_eq!(samples("/0").unwrap()[1].requests, 300);
        assert!(samples("/1").is_none() && samples("/256").is_none());
        assert!(samples(&"/long".repeat(300)).is_none());
    }
}
