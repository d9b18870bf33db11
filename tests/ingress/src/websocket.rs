//! As much of WebSocket (RFC 6455) as a proof of open tunnels needs: one handshake, short text frames, close.

use crate::client::{Connection, Failure};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use std::{fmt, io};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The handshake of RFC 6455, section 1.3, so that neither side needs SHA-1.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const TEXT: u8 = 1;
const CLOSE: u8 = 8;

/// The server's half of the handshake.
pub(crate) fn accept(fields: &HeaderMap) -> Response<Full<Bytes>> {
    let field = |name| {
        fields
            .get(name)
            .and_then(|v: &HeaderValue| v.to_str().ok())
            .unwrap_or_default()
    };
    let mut response = Response::new(Full::default());
    let upgrades = field(header::CONNECTION).to_ascii_lowercase().contains("upgrade");
    if !upgrades || !field(header::UPGRADE).eq_ignore_ascii_case("websocket") || field(header::SEC_WEBSOCKET_KEY) != KEY
    {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    }
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = [
        (header::CONNECTION, "Upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_ACCEPT, ACCEPT),
    ];
    for (name, value) in answer {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Sends every text back until the other side closes.
pub(crate) async fn echo<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    while let Ok((opcode, payload)) = read_frame(&mut stream).await {
        if write_frame(&mut stream, opcode, &payload, None).await.is_err() || opcode == CLOSE {
            return;
        }
    }
}

async fn read_frame<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await?;
    let mut mask = [0; 4];
    if head[1] & 0x80 != 0 {
        stream.read_exact(&mut mask).await?;
    }
    let mut payload = vec![0; usize::from(head[1] & 0x7f)];
    if payload.len() > 125 {
        return Err(io::Error::other("a frame longer than any that is sent here"));
    }
    stream.read_exact(&mut payload).await?;
    payload
        .iter_mut()
        .zip(mask.iter().cycle())
        .for_each(|(byte, mask)| *byte ^= mask);
    Ok((head[0] & 0x0f, payload))
}

async fn write_frame<S: AsyncWrite + Unpin>(
    stream: &mut S,
    opcode: u8,
    payload: &[u8],
    mask: Option<[u8; 4]>,
) -> io::Result<()> {
    let length = u8::try_from(payload.len()).map_err(io::Error::other)?;
    let mut frame = vec![0x80 | opcode, length | if mask.is_some() { 0x80 } else { 0 }];
    frame.extend(mask.iter().flatten());
    let key = mask.unwrap_or_default();
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    stream.write_all(&frame).await
}

/// A client's open WebSocket.
#[derive(Debug)]
pub struct WebSocket<S> {
    stream: S,
}

/// What came instead of an echo.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// A close frame with this code.
    Closed(Option<u16>),
    /// The connection ended without one.
    Cut(String),
    /// Something else than what was sent.
    Wrong(String),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(Some(code)) => write!(f, "websocket closed with {code}"),
            Self::Closed(None) => write!(f, "websocket closed without a code"),
            Self::Cut(why) => write!(f, "websocket cut: {why}"),
            Self::Wrong(what) => write!(f, "websocket: {what}"),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Asks for a WebSocket; the error says what came instead.
    pub async fn open(mut connection: Connection<S>, host: &str, path: &str) -> Result<Self, String> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {KEY}\r\n\r\n"
        );
        let answer = connection.exchange(request.as_bytes()).await;
        let answer = answer.map_err(|failure| match failure {
            Failure::Closed => "closed".to_owned(),
            Failure::Broken(text) => text,
        })?;
        if answer.status != 101 || answer.field("sec-websocket-accept") != Some(ACCEPT) {
            return Err(format!("{} {}", answer.status, answer.text()));
        }
        let (stream, rest) = connection.into_parts();
        if !rest.is_empty() {
            return Err("a frame before there was a reason for one".to_owned());
        }
        Ok(Self { stream })
    }

    /// Sends a text and waits for it to come back.
    pub async fn ping(&mut self, text: &str) -> Result<(), Ended> {
        let cut = |error: io::Error| Ended::Cut(error.to_string());
        // A close frame may lie ready although writing fails.
        let written = write_frame(&mut self.stream, TEXT, text.as_bytes(), Some(MASK)).await;
        match (read_frame(&mut self.stream).await, written) {
            (Ok((TEXT, payload)), Ok(())) if payload == text.as_bytes() => Ok(()),
            (Ok((CLOSE, payload)), _) => Err(Ended::Closed(
                payload.first_chunk::<2>().map(|code| u16::from_be_bytes(*code)),
            )),
            (Ok((opcode, payload)), Ok(())) => Err(Ended::Wrong(format!("{opcode} {payload:?}"))),
            (Err(error), _) | (_, Err(error)) => Err(cut(error)),
        }
    }
}
