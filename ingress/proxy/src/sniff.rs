//! HTTP/1 or HTTP/2 with prior knowledge: the first byte that differs from HTTP/2's preface decides (S27).

use super::registry::Place;
use crate::limits::Limits;
use bytes::{Buf, BytesMut};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::timeout;

/// RFC 9113, 3.4. No HTTP/1 request begins like that: `PRI` is no method and 2.0 no version of it.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Room for the first read.
const FIRST: usize = 8 * 1024;

/// What is known of the protocol beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HttpVersion {
    /// Nothing: the first bytes tell, for HTTP/2 may be spoken with prior knowledge.
    Unknown,
    /// HTTP/1 was agreed on.
    Http1,
    /// HTTP/2 was agreed on.
    Http2,
}

/// Reads until the protocol is known; returns what was read too. `None` when the client says nothing, or too slowly, or went away.
pub(super) async fn first<S>(stream: &mut S, limits: &Limits, place: &Place) -> Option<(HttpVersion, BytesMut)>
where
    S: AsyncRead + Unpin,
{
    let mut buffer = BytesMut::with_capacity(FIRST);
    place.set_idle();
    let reading = async {
        loop {
            let seen = buffer.len().min(PREFACE.len());
            if buffer[..seen] != PREFACE[..seen] {
                return Some(HttpVersion::Http1);
            }
            if seen == PREFACE.len() {
                return Some(HttpVersion::Http2);
            }
            tokio::select! {
                biased;
                read = stream.read_buf(&mut buffer) => if read.unwrap_or(0) == 0 {
                    return None;
                },
                () = place.told_to_close(false) => return None,
            }
        }
    };
    let spoken = timeout(limits.head, reading).await.ok()??;
    Some((spoken, buffer))
}

/// A stream of which something was read already.
pub(super) struct Rewound<S> {
    first: BytesMut,
    stream: S,
}

impl<S> Rewound<S> {
    pub(super) fn new(stream: S, first: BytesMut) -> Self {
        Self { first, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first[..length]);
        self.first.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
