//! The reading half of a client's connection, and what was read ahead.

use bytes::{BufMut, BytesMut};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadHalf};

/// Bytes that are held of a client whatever its address holds: most heads, and requests that are sent before an answer is there. They
/// are part of what a connection counts for ([`crate::limits::Limits::connection_cost`]).
pub(super) const READ_AHEAD: usize = 8 * 1024;

/// Bytes that are read behind a head that is still in use, to see whether its client is there.
const LOOK: usize = 1024;

/// Room for one read at most; large bodies move in steps that the allocator likes.
pub(super) const READ: usize = 16 * 1024;

/// Bytes of a client.
pub(crate) struct Reader<S> {
    pub(crate) half: ReadHalf<S>,
    /// What was read and not yet used.
    pub(crate) buffer: BytesMut,
    /// Bytes at the front of it that are in use: a head whose request is on its way.
    pub(super) in_use: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Reader<S> {
    /// Reads more into the buffer, up to `most` bytes in it; there have to be fewer. Nothing is lost when this is dropped.
    pub(crate) async fn more(&mut self, most: usize) -> io::Result<usize> {
        let room = most.saturating_sub(self.buffer.len()).clamp(1, READ);
        if self.buffer.capacity() - self.buffer.len() < room.min(READ_AHEAD / 4) {
            self.buffer.reserve(room);
        }
        self.half.read_buf(&mut (&mut self.buffer).limit(room)).await
    }

    pub(super) fn poll_more(&mut self, most: usize, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        pin!(self.more(most)).poll(context)
    }

    /// Reads what the client sends meanwhile; whether it went away.
    pub(super) fn has_left(&mut self, context: &mut Context<'_>) -> bool {
        // Behind a large head there is still something to be read.
        let most = READ_AHEAD.max(self.in_use + LOOK);
        while self.buffer.len() < most {
            match self.poll_more(most, context) {
                Poll::Pending => return false,
                Poll::Ready(Ok(count)) if count > 0 => {}
                Poll::Ready(_) => return true,
            }
        }
        false
    }

    /// Gives back the memory of what was large; what was read stays.
    pub(super) fn shrink(&mut self) {
        self.buffer = BytesMut::from(&self.buffer[..]);
    }
}
