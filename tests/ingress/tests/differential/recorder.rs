//! Endpoints that write down exactly what arrived, and answer as the case says. Strict about nothing: what a proxy lets through is to be
//! seen as it came.

use super::corpus::Reply;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Path of the request that shows whether a connection is kept; not written down.
pub const PROBE: &str = "/is-it-kept";
/// Longest wait for proxies to give up what they do not finish.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a late answer is waited for: enough for a proxy to see what its client has done meanwhile.
const LATE: Duration = Duration::from_millis(500);

/// A request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Endpoint that it came to.
    pub endpoint: &'static str,
    /// Request line.
    pub line: String,
    /// Names and values as they came, one a line.
    pub fields: Vec<String>,
    pub framing: &'static str,
    pub body: Vec<u8>,
    pub trailers: Vec<String>,
}

/// What a proxy's endpoints share.
#[derive(Debug, Default)]
struct Shared {
    reply: Reply,
    seen: Vec<Seen>,
    /// Requests that have begun to arrive.
    open: usize,
}

/// The endpoints behind one proxy.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Shared>>);

impl Recorder {
    /// Starts one more endpoint.
    pub fn endpoint(&self, name: &'static str) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let recorder = self.clone();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let recorder = recorder.clone();
                std::thread::spawn(move || recorder.serve(name, stream));
            }
        });
        address
    }

    /// Begins a case.
    pub fn expect(&self, reply: Reply) {
        let mut shared = self.0.lock().unwrap();
        shared.reply = reply;
        shared.seen.clear();
    }

    /// Waits until a request is there whole.
    pub fn await_request(&self) {
        let start = Instant::now();
        while self.0.lock().unwrap().seen.is_empty() {
            assert!(start.elapsed() < PATIENCE, "no request");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends a case: what arrived whole, once nothing is on its way any more.
    pub fn seen(&self) -> Vec<Seen> {
        let start = Instant::now();
        loop {
            let mut shared = self.0.lock().unwrap();
            if shared.open == 0 {
                return std::mem::take(&mut shared.seen);
            }
            assert!(
                start.elapsed() < PATIENCE,
                "a proxy neither finishes a request nor gives it up"
            );
            drop(shared);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn serve(&self, endpoint: &'static str, stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut connection = Connection {
            stream,
            buffer: Vec::new(),
        };
        while connection.fill() > 0 {
            self.0.lock().unwrap().open += 1;
            let goes_on = self.one(endpoint, &mut connection);
            self.0.lock().unwrap().open -= 1;
            if goes_on.is_none() {
                return;
            }
        }
    }

    /// One request and its answer; none when the connection ends.
    fn one(&self, endpoint: &'static str, connection: &mut Connection) -> Option<()> {
        let (line, fields) = connection.head()?;
        let probe = line.split(' ').nth(1) == Some(PROBE);
        let reply = if probe {
            Reply::default()
        } else {
            self.0.lock().unwrap().reply.clone()
        };
        let mut seen = Seen {
            endpoint,
            line,
            fields,
            framing: "none",
            body: Vec::new(),
            trailers: Vec::new(),
        };
        let upgraded = reply
            .bytes
            .as_ref()
            .is_some_and(|bytes| bytes.starts_with(b"HTTP/1.1 101"));
        let answer = answer(&reply, endpoint, seen.line.starts_with("HEAD "));
        if reply.early {
            connection.stream.write_all(&answer).ok()?;
        }
        let whole = connection.body(&mut seen);
        if whole.is_none() && reply.early {
            // How much of it came before the proxy gave up is chance.
            (seen.framing, seen.body) = ("cut", Vec::new());
        } else {
            whole?;
        }
        if !probe {
            self.0.lock().unwrap().seen.push(seen);
        }
        if reply.late {
            std::thread::sleep(LATE);
        }
        if !reply.early {
            connection.stream.write_all(&answer).ok()?;
        }
        whole?;
        if upgraded {
            connection.echo();
        }
        (!reply.closes && !upgraded).then_some(())
    }
}

/// The answer's bytes, with the endpoint's name in it.
fn answer(reply: &Reply, endpoint: &str, head_only: bool) -> Vec<u8> {
    let usual = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";
    match &reply.bytes {
        None => named(&usual[..usual.len() - if head_only { 2 } else { 0 }], endpoint),
        Some(bytes) if bytes.is_empty() => Vec::new(),
        Some(bytes) => named(bytes, endpoint),
    }
}

/// Puts the name behind the line of the final answer: interim ones are passed on without.
fn named(bytes: &[u8], endpoint: &str) -> Vec<u8> {
    let mut start = 0;
    while bytes[start..].starts_with(b"HTTP/1.1 10") && !bytes[start..].starts_with(b"HTTP/1.1 101") {
        start += find(&bytes[start..], b"\r\n\r\n").expect("an interim answer's end") + 4;
    }
    let line = start + find(&bytes[start..], b"\n").map_or(bytes.len() - start, |end| end + 1);
    [
        &bytes[..line],
        format!("X-Endpoint: {endpoint}\r\n").as_bytes(),
        &bytes[line..],
    ]
    .concat()
}

/// Where one slice is in another.
pub fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// Bytes in one line that shows each of them.
pub fn shown(bytes: &[u8]) -> String {
    bytes
        .escape_ascii()
        .to_string()
        .replace("\\'", "'")
        .replace("\\\"", "\"")
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Bytes that are there, after reading when there were none.
    fn fill(&mut self) -> usize {
        if self.buffer.is_empty() {
            self.more();
        }
        self.buffer.len()
    }

    fn more(&mut self) -> Option<()> {
        let mut bytes = [0; 16 * 1024];
        let read = self.stream.read(&mut bytes).ok().filter(|read| *read > 0)?;
        self.buffer.extend_from_slice(&bytes[..read]);
        Some(())
    }

    fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = find(&self.buffer, end) {
                let text = self.take(at)?;
                self.take(end.len())?;
                return Some(text);
            }
            self.more()?;
        }
    }

    fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            self.more()?;
        }
        let rest = self.buffer.split_off(length);
        Some(std::mem::replace(&mut self.buffer, rest))
    }

    fn head(&mut self) -> Option<(String, Vec<String>)> {
        let head = self.until(b"\r\n\r\n")?;
        let text = shown(&head);
        let mut lines = text.split("\\r\\n").map(str::to_owned);
        Some((lines.next()?, lines.collect()))
    }

    fn body(&mut self, seen: &mut Seen) -> Option<()> {
        let value = |name: &str| {
            let mut fields = seen.fields.iter().filter_map(|field| field.split_once(':'));
            fields
                .find(|(n, _)| n.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.trim().to_owned())
        };
        if value("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            seen.framing = "chunked";
            loop {
                let line = self.until(b"\r\n")?;
                let digits = line.split(|byte| *byte == b';').next()?;
                let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?.trim(), 16).ok()?;
                if size == 0 {
                    break;
                }
                seen.body.extend(self.take(size)?);
                self.until(b"\r\n")?;
            }
            loop {
                let line = self.until(b"\r\n")?;
                if line.is_empty() {
                    return Some(());
                }
                seen.trailers.push(shown(&line));
            }
        }
        if let Some(length) = value("content-length") {
            seen.framing = "length";
            seen.body = self.take(length.parse().ok()?)?;
        }
        Some(())
    }

    /// After an upgrade: what comes goes back.
    fn echo(&mut self) {
        loop {
            if self.stream.write_all(&std::mem::take(&mut self.buffer)).is_err() || self.more().is_none() {
                return;
            }
        }
    }
}
