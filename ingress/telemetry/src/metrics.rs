//! What is counted for the whole proxy, why it answers by itself, and the Prometheus text of both.
//!
//! INVARIANT: the number of series is bounded. Labels come from fixed lists, except for routes, whose number is capped
//! ([`crate::traffic`]) with one more series for all others.

mod text;

use crate::reason::Reason;
pub use text::{Text, label};

use http::StatusCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Cipher suites of TLS 1.3 and 1.2 that rustls with ring knows, by their IANA names as rustls writes them; the last takes what is new.
const CIPHERS: [&str; 10] = [
    "TLS13_AES_256_GCM_SHA384",
    "TLS13_AES_128_GCM_SHA256",
    "TLS13_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "other",
];

/// What is counted.
#[derive(Debug, Default)]
pub struct Counters {
    /// Answers by hundreds of their status: index 2 counts 200 to 299.
    answers: [AtomicU64; 6],
    own: [AtomicU64; Reason::ALL.len()],
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
    /// Connections that were closed at once, because their address had too many.
    pub refused_connections: AtomicU64,
    /// Streams of HTTP/2 that were refused, because their connection or address held too much.
    pub refused_streams: AtomicU64,
    /// Connections of clients that are upgraded, mostly to WebSocket.
    pub tunnels: Gauge,
    open: [Gauge; OpenProtocol::ALL.len()],
    rebuilds: [Rebuilds; Rebuild::ALL.len()],
    handshakes: [AtomicU64; CIPHERS.len()],
    /// TLS handshakes that came to nothing.
    pub handshake_failures: AtomicU64,
}

/// How much of a table was made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebuild {
    /// All of it.
    Whole,
    /// What changes concern.
    Part,
}

impl Rebuild {
    /// All of them.
    const ALL: [Self; 2] = [Self::Whole, Self::Part];

    fn label(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Part => "part",
        }
    }
}

/// Tables of one kind, and how long they took to build, in microseconds.
#[derive(Debug, Default)]
struct Rebuilds {
    count: AtomicU64,
    sum: AtomicU64,
    last: AtomicU64,
    longest: AtomicU64,
}

/// What is spoken on an open connection of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenProtocol {
    /// HTTP/1.
    Http1,
    /// HTTP/2, with or without TLS.
    Http2,
}

impl OpenProtocol {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Http1, Self::Http2];

    /// Its name in metrics and on the dashboard.
    pub fn label(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
        }
    }
}

impl Counters {
    /// Counts an answer by its status.
    pub fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).min(self.answers.len() - 1);
        self.answers[class].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an answer of our own.
    pub fn own(&self, reason: Reason) {
        self.own[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a table and the time that it took to build.
    pub fn rebuilt(&self, kind: Rebuild, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let of = &self.rebuilds[kind as usize];
        of.count.fetch_add(1, Ordering::Relaxed);
        of.sum.fetch_add(micros, Ordering::Relaxed);
        of.last.store(micros, Ordering::Relaxed);
        of.longest.fetch_max(micros, Ordering::Relaxed);
    }

    /// Connections on which this is spoken.
    pub fn open(&self, protocol: OpenProtocol) -> &Gauge {
        &self.open[protocol as usize]
    }

    /// Counts a TLS handshake by its cipher suite, named as rustls names it; the version follows from it.
    pub fn handshake(&self, cipher: &str) {
        let known = CIPHERS.iter().position(|name| *name == cipher);
        self.handshakes[known.unwrap_or(CIPHERS.len() - 1)].fetch_add(1, Ordering::Relaxed);
    }

    /// Open connections by what is spoken; those that were upgraded are counted once more.
    pub fn open_by_protocol(&self) -> [(&'static str, u64); 3] {
        let [http1, http2] = OpenProtocol::ALL.map(|protocol| (protocol.label(), self.open(protocol).value()));
        [http1, http2, ("upgraded", self.tunnels.value())]
    }

    /// Writes all series; `gauges` are values that are kept elsewhere.
    pub fn render(&self, text: &mut Text, gauges: &[(&str, &str, u64)]) {
        self.render_answers(text);
        self.render_events(text);
        self.render_rebuilds(text);
        self.render_connections(text);
        let own_gauges = [
            ("requests_in_flight", "Requests being served.", self.requests.value()),
            ("connections", "Open connections of clients.", self.connections.value()),
            ("tunnels", "Upgraded connections of clients.", self.tunnels.value()),
        ];
        for (name, help, value) in own_gauges.iter().chain(gauges) {
            text.series(name, "gauge", help, [(String::new(), *value)]);
        }
    }

    fn render_answers(&self, text: &mut Text) {
        let classes = (1..self.answers.len()).map(|c| (format!("{{class=\"{c}xx\"}}"), read(&self.answers[c])));
        text.series("responses_total", "counter", "Answers by class of status.", classes);
        let own = Reason::ALL
            .iter()
            .map(|&r| (format!("{{reason=\"{}\"}}", r.label()), read(&self.own[r as usize])));
        text.series(
            "own_responses_total",
            "counter",
            "Answers that no endpoint gave, by reason.",
            own,
        );
    }

    /// Single counters.
    fn render_events(&self, text: &mut Text) {
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
            (
                "refused_connections_total",
                "Connections closed at once, because their address had too many.",
                &self.refused_connections,
            ),
            (
                "refused_streams_total",
                "HTTP/2 streams refused, because their connection or address held too much memory.",
                &self.refused_streams,
            ),
            (
                "tls_handshake_failures_total",
                "TLS handshakes that came to nothing.",
                &self.handshake_failures,
            ),
        ];
        for (name, help, counter) in counters {
            text.series(name, "counter", help, [(String::new(), read(counter))]);
        }
    }

    /// Route tables.
    fn render_rebuilds(&self, text: &mut Text) {
        let of = |value: fn(&Rebuilds) -> &AtomicU64| {
            let all = Rebuild::ALL.map(|kind| (kind.label(), read(value(&self.rebuilds[kind as usize]))));
            all.map(|(label, value)| (format!("{{kind=\"{label}\"}}"), value))
        };
        let seconds = |value| of(value).map(|(labels, micros)| (labels, micros as f64 / 1e6));
        let help = "Route tables built, whole or in part.";
        text.series("table_rebuilds_total", "counter", help, of(|r| &r.count));
        let help = "Time that building took.";
        text.series("table_rebuild_seconds_total", "counter", help, seconds(|r| &r.sum));
        let help = "Time that building took last.";
        text.series("table_rebuild_last_seconds", "gauge", help, seconds(|r| &r.last));
        let help = "Longest time that building took.";
        text.series("table_rebuild_longest_seconds", "gauge", help, seconds(|r| &r.longest));
    }

    fn render_connections(&self, text: &mut Text) {
        let handshakes = CIPHERS.iter().zip(&self.handshakes).map(|(name, count)| {
            let version = if name.starts_with("TLS13") { "1.3" } else { "1.2" };
            let version = if *name == "other" { "other" } else { version };
            (format!("{{version=\"{version}\",cipher=\"{name}\"}}"), read(count))
        });
        text.series(
            "tls_handshakes_total",
            "counter",
            "TLS handshakes by version and cipher suite.",
            handshakes,
        );
        let open = self
            .open_by_protocol()
            .map(|(name, value)| (format!("{{protocol=\"{name}\"}}"), value));
        text.series(
            "open_connections",
            "gauge",
            "Open connections of clients by protocol.",
            open,
        );
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
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
