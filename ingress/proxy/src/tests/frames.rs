//! HTTP/2 frame by frame, for what a well-behaved client would not do.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) body: Vec<u8>,
}

impl Frame {
    pub(super) fn new(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Self {
        let body = body.to_vec();
        Self {
            kind,
            flags,
            stream,
            body,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.body.len()).unwrap().to_be_bytes();
        [
            &length[1..],
            &[self.kind, self.flags],
            &self.stream.to_be_bytes(),
            &self.body,
        ]
        .concat()
    }
}

/// A field that is in no table (RFC 7541, 6.2.2).
pub(super) fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        match u8::try_from(text.len()) {
            Ok(length) if length < 127 => bytes.push(length),
            _ => {
                bytes.push(127);
                let mut rest = text.len() - 127;
                while rest >= 128 {
                    bytes.push(u8::try_from(rest % 128).unwrap() | 128);
                    rest /= 128;
                }
                bytes.push(u8::try_from(rest).unwrap());
            }
        }
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// A request for `/` of host `h`, with more fields.
pub(super) fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    // GET, http and / are in the static table.
    let mut bytes = vec![0x82, 0x86, 0x84];
    bytes.extend(field(":authority", "h"));
    for (name, value) in fields {
        bytes.extend(field(name, value));
    }
    bytes
}

/// A whole request as one frame.
pub(super) fn whole_request(stream: u32) -> Frame {
    Frame::new(HEADERS, END_HEADERS | END_STREAM, stream, &head(&[]))
}

pub(super) struct Raw {
    pub(super) stream: TcpStream,
    seen: Vec<u8>,
}

impl Raw {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(address).await.unwrap(),
            seen: Vec::new(),
        }
    }

    /// The server's end of a connection whose client has said its preface.
    pub(super) async fn accept(mut stream: TcpStream) -> Self {
        stream.read_exact(&mut [0; PREFACE.len()]).await.unwrap();
        let seen = Vec::new();
        let mut raw = Self { stream, seen };
        raw.send(SETTINGS, 0, 0, &[]).await;
        raw
    }

    /// Says the preface and settings.
    pub(super) async fn greet(address: SocketAddr) -> Self {
        let mut raw = Self::connect(address).await;
        raw.stream.write_all(PREFACE).await.unwrap();
        raw.send(SETTINGS, 0, 0, &[]).await;
        raw.until(SETTINGS).await;
        raw.send(SETTINGS, ACK, 0, &[]).await;
        raw
    }

    pub(super) async fn send(&mut self, kind: u8, flags: u8, stream: u32, body: &[u8]) {
        self.stream
            .write_all(&Frame::new(kind, flags, stream, body).bytes())
            .await
            .unwrap();
    }

    pub(super) async fn request(&mut self, stream: u32, fields: &[(&str, &str)]) {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &head(fields))
            .await;
    }

    /// The next frame; none when the other side has closed.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let [a, b, c, kind, flags, s @ ..] = &self.seen[..]
                && s.len() >= 4
            {
                let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
                let stream = u32::from_be_bytes([s[0], s[1], s[2], s[3]]);
                if self.seen.len() >= 9 + length {
                    let frame = Frame::new(*kind, *flags, stream, &self.seen[9..9 + length]);
                    self.seen.drain(..9 + length);
                    return Some(frame);
                }
            }
            let mut buffer = [0; 16384];
            let read = tokio::time::timeout(Duration::from_secs(10), self.stream.read(&mut buffer));
            match read.await.expect("in time") {
                Ok(read) if read > 0 => self.seen.extend_from_slice(&buffer[..read]),
                _ => return None,
            }
        }
    }

    pub(super) async fn until(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next().await.expect("the connection is open");
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Sends so many turns of frames; whether the other side closed before it had them all.
    pub(super) async fn flood(&mut self, turns: u32, frames: impl Fn(u32) -> Vec<Frame>) -> bool {
        for turn in 0..turns {
            let bytes: Vec<u8> = frames(turn).iter().flat_map(Frame::bytes).collect();
            // Answers are read too, or both sides would wait for each other.
            let mut buffer = [0; 16384];
            let read = self.stream.try_read(&mut buffer);
            let closed =
                matches!(&read, Ok(0)) || matches!(&read, Err(e) if e.kind() != std::io::ErrorKind::WouldBlock);
            if closed || self.stream.write_all(&bytes).await.is_err() {
                return true;
            }
            tokio::task::yield_now().await;
        }
        // What was refused shows at the latest now.
        let end = async { while let Ok(1..) = self.stream.read(&mut [0; 16384]).await {} };
        tokio::time::timeout(Duration::from_secs(5), end).await.is_ok()
    }
}
