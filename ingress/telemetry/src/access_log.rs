//! The access log: one JSON object per line on standard output, written by a thread of its own.
//!
//! INVARIANT: a request never waits for the log. Its line goes into a bounded queue, or is dropped and counted.
//!
//! Lines hold no field of the request but `User-Agent`, and never a query: tokens travel in `Authorization`, cookies, `Referer` and
//! queries. What a client can choose is cut to a length.

use crate::traffic::EntryPoint;
use http::{Method, StatusCode, Version};
use jiff::Timestamp;
use serde::Serialize;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Lines that may wait: about 2 MB, half a second at 16,000 requests per second.
const WAITING: usize = 8192;
/// Bytes written at once: as a pipe holds.
const BATCH_BYTES: usize = 64 * 1024;
/// Longest path and user agent in a line; heads may have 64 KiB.
const LONGEST_PATH: usize = 1024;
const LONGEST_AGENT: usize = 256;

/// Which requests are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Mode {
    /// Every request.
    Json,
    /// Answers that the proxy made because there was nothing better, 5xx of endpoints, and answers cut short.
    #[default]
    Errors,
    /// None.
    Off,
}

/// What is known of a request when it is over.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// Given by the client or made here.
    pub request_id: &'a str,
    /// The client's address, without its port.
    pub client: IpAddr,
    /// Where it came in.
    pub entry_point: EntryPoint,
    /// HTTP version of the request.
    pub version: Version,
    /// Version of TLS.
    pub tls: Option<&'a str>,
    /// Its method.
    pub method: &'a Method,
    /// Host as asked.
    pub host: &'a str,
    /// Path as asked, without the query.
    pub path: &'a str,
    /// `User-Agent`.
    pub user_agent: Option<&'a str>,
    /// Status of the answer; none when the client left before.
    pub status: Option<StatusCode>,
    /// Why the answer is ours, or why it is not whole.
    pub reason: Option<&'a str>,
    /// Ingress, host and path of the route.
    pub route: Option<(&'a str, &'a str, &'a str)>,
    /// `namespace/service:port`.
    pub service: Option<&'a str>,
    /// Endpoint that answered, or was tried last.
    pub endpoint: Option<SocketAddr>,
    /// Endpoints that were tried.
    pub tries: u32,
    /// From the request's head to the answer's.
    pub answer_took: Option<Duration>,
    /// From the request's head to the answer's end.
    pub took: Duration,
    /// Bytes of the request's body.
    pub received: u64,
    /// Bytes of the answer's body.
    pub sent: u64,
    /// The answer did not arrive whole.
    pub cut: bool,
}

/// A line as it is written; the order of fields is that of the log.
#[derive(Serialize)]
struct Written<'a> {
    time: String,
    request_id: &'a str,
    client: IpAddr,
    entry_point: &'a str,
    protocol: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_version: Option<&'a str>,
    method: &'a str,
    host: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingress: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route_host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route_path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<SocketAddr>,
    tries: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer_ms: Option<f64>,
    duration_ms: f64,
    bytes_in: u64,
    bytes_out: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
}

/// Where lines go.
#[derive(Debug)]
pub struct AccessLog {
    mode: Mode,
    lines: Option<SyncSender<String>>,
    dropped: AtomicU64,
}

impl AccessLog {
    /// Starts the thread that writes to `out`, unless nothing is logged.
    pub fn start(mode: Mode, out: impl Write + Send + 'static) -> Self {
        let lines = (mode != Mode::Off).then(|| {
            let (sender, receiver) = sync_channel(WAITING);
            std::thread::spawn(move || write_all(&receiver, out));
            sender
        });
        Self {
            mode,
            lines,
            dropped: AtomicU64::new(0),
        }
    }

    /// What is logged.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether a request that ended so is logged.
    pub fn wants(&self, failed: bool) -> bool {
        match self.mode {
            Mode::Json => true,
            Mode::Errors => failed,
            Mode::Off => false,
        }
    }

    /// Puts a line into the queue; drops it when that is full.
    pub fn write(&self, line: &Line<'_>) {
        let Some(lines) = &self.lines else { return };
        // Text, numbers and no maps: this cannot fail.
        let Ok(mut text) = serde_json::to_string(&line.as_written()) else {
            return;
        };
        text.push('\n');
        if lines.try_send(text).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines that found the queue full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl<'a> Line<'a> {
    fn as_written(&self) -> Written<'a> {
        Written {
            time: format!("{:.3}", Timestamp::now()),
            request_id: self.request_id,
            client: self.client.to_canonical(),
            entry_point: self.entry_point.label(),
            protocol: protocol(self.version),
            tls_version: self.tls,
            method: self.method.as_str(),
            host: cut(self.host, LONGEST_AGENT),
            path: cut(self.path, LONGEST_PATH),
            user_agent: self.user_agent.map(|agent| cut(agent, LONGEST_AGENT)),
            status: self.status.map(|status| status.as_u16()),
            reason: self.reason,
            ingress: self.route.map(|r| r.0),
            route_host: self.route.map(|r| r.1),
            route_path: self.route.map(|r| r.2),
            service: self.service,
            endpoint: self.endpoint,
            tries: self.tries,
            answer_ms: self.answer_took.map(millis),
            duration_ms: millis(self.took),
            bytes_in: self.received,
            bytes_out: self.sent,
            cut: self.cut,
        }
    }
}

/// In thousandths of a millisecond.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        _ => "other",
    }
}

fn cut(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest)]
}

/// Ends when the sender is gone or nobody reads. Lines that wait are written together.
fn write_all(lines: &Receiver<String>, mut out: impl Write) {
    let mut batch = Vec::with_capacity(BATCH_BYTES);
    while let Ok(first) = lines.recv() {
        batch.extend_from_slice(first.as_bytes());
        while batch.len() < BATCH_BYTES {
            let Ok(next) = lines.try_recv() else { break };
            batch.extend_from_slice(next.as_bytes());
        }
        if out.write_all(&batch).and_then(|()| out.flush()).is_err() {
            return;
        }
        batch.clear();
    }
}

/// A request's name: the client's when it is a plain word, else one of our own. Two proxies never make the same: 64 of its bits are
/// chosen by chance at the start.
pub fn request_id(given: Option<&str>) -> String {
    use std::hash::{BuildHasher, RandomState};
    use std::sync::OnceLock;
    static START: OnceLock<u64> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let word = |id: &&str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    if let Some(given) = given.filter(word) {
        return given.to_owned();
    }
    // The standard library takes its keys from the kernel.
    let start = START.get_or_init(|| RandomState::new().hash_one(std::process::id()));
    format!("{start:016x}{:016x}", COUNT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::sync::mpsc::{Sender, channel};

    fn line<'a>(path: &'a str, method: &'a Method) -> Line<'a> {
        Line {
            request_id: "r1",
            client: "::ffff:10.0.0.9".parse().unwrap(),
            entry_point: EntryPoint::Https,
            version: Version::HTTP_2,
            tls: Some("TLSv1_3"),
            method,
            host: "h",
            path,
            user_agent: Some("curl/8"),
            status: Some(StatusCode::BAD_GATEWAY),
            reason: Some("broken"),
            route: Some(("d/i", "h", "/")),
            service: Some("d/s:80"),
            endpoint: Some("10.1.1.1:80".parse().unwrap()),
            tries: 2,
            answer_took: Some(Duration::from_micros(1500)),
            took: Duration::from_millis(2),
            received: 3,
            sent: 4,
            cut: false,
        }
    }

    struct Channel(Sender<Vec<u8>>);

    impl Write for Channel {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let sent = self.0.send(bytes.to_vec());
            sent.map(|()| bytes.len())
                .map_err(|_| std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_says_what_happened_and_why() {
        let (sender, receiver) = channel();
        let log = AccessLog::start(Mode::Json, Channel(sender));
        let path = format!("/a\"\u{e4}{}", "x".repeat(2000));
        log.write(&line(&path, &Method::GET));
        let text = String::from_utf8(receiver.recv().unwrap()).unwrap();
        assert!(text.ends_with('\n') && text.matches('\n').count() == 1, "{text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        for (field, wanted) in [
            ("client", "10.0.0.9"),
            ("protocol", "HTTP/2"),
            ("entry_point", "https"),
            ("tls_version", "TLSv1_3"),
            ("reason", "broken"),
            ("ingress", "d/i"),
            ("service", "d/s:80"),
            ("endpoint", "10.1.1.1:80"),
        ] {
            assert_eq!(value[field], wanted, "{field}");
        }
        assert_eq!(
            (value["status"].as_u64(), value["tries"].as_u64()),
            (Some(502), Some(2))
        );
        assert_eq!(
            (value["answer_ms"].as_f64(), value["duration_ms"].as_f64()),
            (Some(1.5), Some(2.0))
        );
        assert_eq!(value["path"].as_str().unwrap().len(), LONGEST_PATH);
        let time = value["time"].as_str().unwrap();
        assert!(
            time.len() == "2026-01-01T00:00:00.000Z".len() && time.ends_with('Z'),
            "{time}"
        );
    }

    #[test]
    fn a_log_that_nobody_reads_holds_no_request_up() {
        struct Stuck(std::sync::mpsc::Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                let _ = self.0.recv();
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (_stuck, receiver) = channel();
        let log = AccessLog::start(Mode::Json, Stuck(receiver));
        for _ in 0..2 * WAITING {
            log.write(&line("/", &Method::GET));
        }
        // What was taken for the first batch made room.
        assert!(
            log.dropped() > 0 && log.dropped() <= WAITING as u64,
            "{}",
            log.dropped()
        );
    }

    #[test]
    fn modes_choose_what_is_logged() {
        for (mode, fine, failed) in [
            (Mode::Json, true, true),
            (Mode::Errors, false, true),
            (Mode::Off, false, false),
        ] {
            let log = AccessLog::start(mode, std::io::sink());
            assert_eq!((log.wants(false), log.wants(true)), (fine, failed), "{mode:?}");
        }
    }

    #[test]
    fn a_request_keeps_a_good_name_and_gets_one_of_its_own_otherwise() {
        assert_eq!(request_id(Some("abc-1_2.Z")), "abc-1_2.Z");
        let made: std::collections::BTreeSet<_> = [None, Some(""), Some("a b"), Some("a\"b"), Some(&*"x".repeat(65))]
            .map(request_id)
            .into();
        assert_eq!(made.len(), 5);
        assert!(made.iter().all(|id| id.len() == 32), "{made:?}");
    }
}
