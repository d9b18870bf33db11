//! Counters and their Prometheus text. No label comes from a request or an object, so the number of series is fixed.

use crate::reason::Reason;
use hyper::StatusCode;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted.
#[derive(Debug, Default)]
pub struct Counters {
    /// Answers by hundreds of their status: index 2 counts 200 to 299.
    answers: [AtomicU64; 6],
    own: OwnAnswers,
    /// Endpoints that could not be reached, so that another was tried.
    pub failovers: AtomicU64,
    /// Snapshots taken over.
    pub snapshots: AtomicU64,
    /// Watches that ended in an error.
    pub watch_errors: AtomicU64,
    /// Requests whose answer is not yet sent in full.
    pub requests: Gauge,
    /// Connections of clients.
    pub connections: Gauge,
    /// Connections of clients that are upgraded, mostly to WebSocket.
    pub tunnels: Gauge,
}

impl Counters {
    /// Counts an answer by its status.
    pub fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).min(self.answers.len() - 1);
        self.answers[class].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an answer of our own.
    pub fn own(&self, reason: Reason) {
        self.own.0[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Writes all series in Prometheus text format 0.0.4; `gauges` are values that are kept elsewhere.
    pub fn render(&self, gauges: &[(&str, &str, u64)]) -> String {
        let mut text = Text::default();
        let classes = (1..self.answers.len()).map(|c| (format!("{{class=\"{c}xx\"}}"), read(&self.answers[c])));
        text.series("responses_total", "counter", "Answers by class of status.", classes);
        let own = Reason::ALL
            .iter()
            .map(|r| (format!("{{reason=\"{}\"}}", r.label()), read(&self.own.0[*r as usize])));
        text.series(
            "own_responses_total",
            "counter",
            "Answers that no endpoint gave, by reason.",
            own,
        );
        let counters = [
            (
                "failovers_total",
                "Endpoints that could not be reached.",
                &self.failovers,
            ),
            ("snapshots_total", "Route tables taken over.", &self.snapshots),
            (
                "watch_errors_total",
                "Watches of the API that ended in an error.",
                &self.watch_errors,
            ),
        ];
        for (name, help, counter) in counters {
            text.series(name, "counter", help, [(String::new(), read(counter))]);
        }
        let own_gauges = [
            ("requests_in_flight", "Requests being served.", self.requests.value()),
            ("connections", "Open connections of clients.", self.connections.value()),
            ("tunnels", "Upgraded connections of clients.", self.tunnels.value()),
        ];
        for (name, help, value) in own_gauges.iter().chain(gauges) {
            text.series(name, "gauge", help, [(String::new(), *value)]);
        }
        text.0
    }
}

/// One counter for each reason.
#[derive(Debug)]
struct OwnAnswers([AtomicU64; Reason::ALL.len()]);

impl Default for OwnAnswers {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::default()))
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn series(&mut self, name: &str, kind: &str, help: &str, values: impl IntoIterator<Item = (String, u64)>) {
        // Writing to a String does not fail.
        let _ = writeln!(
            self.0,
            "# HELP landfall_ingress_{name} {help}\n# TYPE landfall_ingress_{name} {kind}"
        );
        for (labels, value) in values {
            let _ = writeln!(self.0, "landfall_ingress_{name}{labels} {value}");
        }
    }
}

/// A number of things that are there now.
#[derive(Debug, Default, Clone)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Counts one more until the guard is dropped, however that comes about.
    pub fn one(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(&self.0))
    }

    /// How many there are.
    pub fn value(&self) -> u64 {
        read(&self.0)
    }
}

/// One thing that is there; see [`Gauge::one`].
#[derive(Debug)]
pub struct Counted(Arc<AtomicU64>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
