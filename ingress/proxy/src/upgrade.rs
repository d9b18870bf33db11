//! Connections that become something else, mostly WebSocket: a tunnel between client and endpoint.
//!
//! INVARIANT: nothing of a client goes to an endpoint uninterpreted before the endpoint has answered 101 to that client's upgrade. Before
//! that the client's bytes are HTTP, whatever it wishes for.
//!
//! A tunnel outlives changes of routes and endpoints. At the end of the process it has `Limits::tunnel_grace` to end by itself; then
//! both sides of a WebSocket get a close frame with 1001 ("going away"), between two frames and never within one.

use super::reader::Reader;
use super::registry::Place;
use super::{Exchange, Proxy};
use bytes::BytesMut;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, Version};
use landfall_ingress_upstream::{self as upstream, Tunnel};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Room for one read of a tunnel.
const READ: usize = 16 * 1024;
/// The same when only small buffers can be had.
const SMALL_READ: usize = 4 * 1024;
/// Close frame with status 1001, as servers send it.
const GOING_AWAY: &[u8] = &[0x88, 2, 0x03, 0xe9];
/// The same as clients send it: masked, here with a key of zeros. Masks protect from scripts in browsers, which this is not.
const GOING_AWAY_MASKED: &[u8] = &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];

/// A client's upgrade to speak something else.
#[derive(Debug)]
pub(super) struct UpgradeRequest {
    protocol: HeaderValue,
}

impl UpgradeRequest {
    /// Reads the upgrade of a request. `None` without one, and for wishes that are not passed on: HTTP/2 (`h2c` behind a proxy is a way
    /// around it), and those of requests with a body.
    pub(super) fn of<B: hyper::body::Body>(request: &Request<B>) -> Option<Self> {
        let headers = request.headers();
        let mut named = headers.get_all(header::UPGRADE).iter();
        let (protocol, more) = (named.next()?, named.next());
        let text = protocol.to_str().ok()?;
        let token = text.split('/').next().unwrap_or_default();
        let plain = !text.is_empty() && !text.contains([',', ' ', '\t']);
        let forbidden = ["h2c", "h2", "http", "tls"]
            .iter()
            .any(|name| token.eq_ignore_ascii_case(name));
        let fits = request.version() == Version::HTTP_11
            && *request.method() != Method::CONNECT
            && request.body().is_end_stream()
            && landfall_ingress_http::fields::has_word(headers, header::CONNECTION, "upgrade");
        (fits && plain && !forbidden && more.is_none()).then(|| Self {
            protocol: protocol.clone(),
        })
    }

    /// Says it to an endpoint.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, self.protocol.clone());
    }

    /// What the endpoint's 101 means, with the answer as the client gets it. `None` when the endpoint agreed to what nobody asked for.
    pub(super) fn agreed(
        &self,
        response: Response<upstream::Body>,
        silence: Duration,
    ) -> Option<(Response<()>, AcceptedUpgrade)> {
        let same = response
            .headers()
            .get(header::UPGRADE)?
            .as_bytes()
            .eq_ignore_ascii_case(self.protocol.as_bytes());
        if !same {
            return None;
        }
        let (head, body) = response.into_parts();
        let agreed = AcceptedUpgrade {
            endpoint: body.into_tunnel()?,
            websocket: self.protocol.as_bytes().eq_ignore_ascii_case(b"websocket"),
            silence,
            exchange: None,
        };
        let mut response = landfall_ingress_http::fields::incoming(Response::from_parts(head, ()));
        self.apply(response.headers_mut());
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().remove(HeaderName::from_static("http2-settings"));
        Some((response, agreed))
    }
}

/// What client and endpoint agreed on with 101.
pub(crate) struct AcceptedUpgrade {
    endpoint: Tunnel,
    websocket: bool,
    silence: Duration,
    /// Recorded at the tunnel's end.
    pub(crate) exchange: Option<Box<Exchange>>,
}

/// Carries bytes both ways until both sides have ended, nothing moved for long, or the process ends.
pub(super) async fn tunnel<S>(
    proxy: &Proxy,
    mut reader: Reader<S>,
    mut writer: WriteHalf<S>,
    agreed: Box<AcceptedUpgrade>,
    place: &Place,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits = &proxy.limits;
    let AcceptedUpgrade {
        endpoint,
        websocket,
        silence,
        mut exchange,
    } = *agreed;
    place.set_busy();
    let counted = place.budget.buffers(2 * READ);
    let room = if counted.is_some() { READ } else { SMALL_READ };
    let open = proxy.state.counters.tunnels.one();
    let (mut from_endpoint, mut to_endpoint) = tokio::io::split(endpoint.stream);
    let (close, closing) = watch::channel(false);
    let clock = Clock::start();
    let first = std::mem::take(&mut reader.buffer);
    let mut up = Way::new(&clock, closing.clone(), websocket, GOING_AWAY_MASKED);
    let mut down = Way::new(&clock, closing, websocket, GOING_AWAY);
    (up.room, down.room) = (room, room);
    {
        let up = up.carry(first, &mut reader.half, &mut to_endpoint);
        let down = down.carry(endpoint.read, &mut from_endpoint, &mut writer);
        let end = async {
            place.told_to_close(false).await;
            sleep(limits.tunnel_grace).await;
            // Both ways listen as long as they last.
            let _ = close.send(true);
            sleep(limits.tunnel_close).await;
        };
        tokio::select! {
            _ = async { tokio::join!(up, down) } => {}
            () = end => {}
            () = clock.silent(silence) => {}
        }
    }
    if let Some(exchange) = &mut exchange {
        exchange.sent(usize::try_from(down.bytes).unwrap_or(usize::MAX));
        exchange.complete = true;
    }
    // The client's own close frame is still to come; unread it would reset the connection, and with it what was sent last.
    let _ = writer.shutdown().await;
    if *close.borrow() {
        let rest = async {
            let mut buffer = [0; 1024];
            while reader.half.read(&mut buffer).await.unwrap_or(0) > 0 {}
        };
        let _ = timeout(limits.tunnel_close, rest).await;
    }
    drop((exchange, open, counted));
}

/// When something last moved, either way.
struct Clock {
    start: Instant,
    millis: AtomicU64,
}

impl Clock {
    fn start() -> Self {
        Self {
            start: Instant::now(),
            millis: AtomicU64::new(0),
        }
    }

    fn moved(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
    }

    /// Waits until nothing moved for so long.
    async fn silent(&self, longest: Duration) {
        loop {
            let over = self.start + Duration::from_millis(self.millis.load(Ordering::Relaxed)) + longest;
            if over <= Instant::now() {
                return;
            }
            sleep_until(over).await;
        }
    }
}

/// One direction of a tunnel.
struct Way<'a> {
    clock: &'a Clock,
    closing: watch::Receiver<bool>,
    frames: Option<Frames>,
    last_words: &'static [u8],
    bytes: u64,
    /// Room for one read.
    room: usize,
}

impl<'a> Way<'a> {
    fn new(clock: &'a Clock, closing: watch::Receiver<bool>, websocket: bool, last_words: &'static [u8]) -> Self {
        Self {
            clock,
            closing,
            frames: websocket.then(Frames::default),
            last_words,
            bytes: 0,
            room: READ,
        }
    }

    async fn carry<R, W>(&mut self, first: BytesMut, from: &mut R, to: &mut W) -> io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        self.pass(&first, to).await?;
        drop(first);
        let mut buffer = vec![0; self.room];
        loop {
            let closing = *self.closing.borrow();
            if closing && self.frames.as_ref().is_none_or(Frames::is_between) {
                if self.frames.is_some() {
                    to.write_all(self.last_words).await?;
                    to.flush().await?;
                }
                return Ok(());
            }
            let read = tokio::select! {
                biased;
                read = from.read(&mut buffer) => read?,
                // An error means that nobody can say it any more.
                _ = self.closing.wait_for(|closing| *closing), if !closing => continue,
            };
            if read == 0 {
                return to.shutdown().await;
            }
            self.clock.moved();
            self.pass(&buffer[..read], to).await?;
        }
    }

    async fn pass<W: AsyncWrite + Unpin>(&mut self, bytes: &[u8], to: &mut W) -> io::Result<()> {
        let closing = *self.closing.borrow();
        let length = match &mut self.frames {
            None => bytes.len(),
            // Only the frame that has begun; what follows would come after the end.
            Some(frames) if closing => frames.rest_of_frame(bytes),
            Some(frames) => {
                frames.skip(bytes);
                bytes.len()
            }
        };
        if length == 0 {
            return Ok(());
        }
        to.write_all(&bytes[..length]).await?;
        to.flush().await?;
        self.bytes += length as u64;
        self.clock.moved();
        Ok(())
    }
}

/// Finds where WebSocket frames end (RFC 6455, 5.2).
#[derive(Debug, Default)]
struct Frames {
    head: [u8; 14],
    seen: usize,
    payload: u64,
}

impl Frames {
    fn is_between(&self) -> bool {
        self.seen == 0 && self.payload == 0
    }

    fn skip(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = self.take(bytes);
            bytes = &bytes[taken..];
        }
    }

    /// Bytes up to the end of the frame that has begun.
    fn rest_of_frame(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() && !self.is_between() {
            taken += self.take(&bytes[taken..]);
        }
        taken
    }

    /// Takes a piece of a head or a payload from the front; at least a byte.
    fn take(&mut self, bytes: &[u8]) -> usize {
        if self.payload > 0 {
            let taken = bytes.len().min(usize::try_from(self.payload).unwrap_or(usize::MAX));
            self.payload -= taken as u64;
            return taken;
        }
        self.head[self.seen] = bytes[0];
        self.seen += 1;
        if let Some(payload) = self.whole_head() {
            self.seen = 0;
            self.payload = payload;
        }
        1
    }

    /// The payload's length, once the head is whole.
    fn whole_head(&self) -> Option<u64> {
        if self.seen < 2 {
            return None;
        }
        let short = self.head[1] & 0x7f;
        let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
        let (extra, length) = match short {
            126 => (2, u64::from(u16::from_be_bytes([self.head[2], self.head[3]]))),
            127 => {
                let mut long = [0; 8];
                long.copy_from_slice(&self.head[2..10]);
                (8, u64::from_be_bytes(long))
            }
            short => (0, u64::from(short)),
        };
        (self.seen == 2 + extra + mask).then_some(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_end_where_their_heads_say_however_they_arrive() {
        let frames = [
            [&[0x81, 3][..], b"abc"].concat(),
            [&[0x81, 0x83, 9, 9, 9, 9][..], b"abc"].concat(),
            [&[0x82, 126, 1, 0][..], &[7; 256]].concat(),
            [&[0x82, 255, 0, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3, 4][..], &[7; 65537]].concat(),
            vec![0x89, 0],
            vec![0x89, 0x80, 1, 2, 3, 4],
        ];
        let all = frames.concat();
        for step in [1, 2, 3, 7, 1000, all.len()] {
            let mut tracker = Frames::default();
            let mut between = Vec::new();
            let mut seen = 0;
            for part in all.chunks(step) {
                let mut rest = part;
                while !rest.is_empty() {
                    let taken = tracker.take(rest);
                    seen += taken;
                    rest = &rest[taken..];
                    if tracker.is_between() {
                        between.push(seen);
                    }
                }
            }
            let mut wanted = Vec::new();
            for frame in &frames {
                wanted.push(wanted.last().unwrap_or(&0) + frame.len());
            }
            assert_eq!(between, wanted, "{step}");
        }
        let mut tracker = Frames::default();
        tracker.skip(&[0x81, 3, b'a']);
        assert_eq!(tracker.rest_of_frame(b"bc\x81\x01x"), 2);
    }

    #[test]
    fn only_plain_upgrades_of_http_1_1_without_a_body_are_passed_on() {
        let upgrade = |version: Version, fields: &[(&'static str, &'static str)]| {
            let mut request = Request::new(landfall_ingress_upstream::Upload::empty());
            *request.version_mut() = version;
            for (name, value) in fields {
                request.headers_mut().append(*name, HeaderValue::from_static(value));
            }
            UpgradeRequest::of(&request).is_some()
        };
        let connection = ("connection", "keep-alive, Upgrade");
        assert!(upgrade(Version::HTTP_11, &[connection, ("upgrade", "websocket")]));
        assert!(upgrade(Version::HTTP_11, &[connection, ("upgrade", "SPDY/3.1")]));
        for bad in ["h2c", "H2C", "h2", "HTTP/2.0", "TLS/1.2", "websocket, h2c", "", "a b"] {
            assert!(!upgrade(Version::HTTP_11, &[connection, ("upgrade", bad)]), "{bad}");
        }
        assert!(!upgrade(Version::HTTP_11, &[("upgrade", "websocket")]));
        assert!(!upgrade(
            Version::HTTP_11,
            &[connection, ("upgrade", "websocket"), ("upgrade", "h2c")]
        ));
        assert!(!upgrade(Version::HTTP_10, &[connection, ("upgrade", "websocket")]));
        assert!(!upgrade(Version::HTTP_2, &[connection, ("upgrade", "websocket")]));
    }
}
