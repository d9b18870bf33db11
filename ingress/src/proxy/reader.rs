//! The reading half of a client's connection, and what was read ahead.

use bytes::BytesMut;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadHalf};

/// Room for one read: most heads fit, and large bodies move in steps that the allocator likes.
const READ: usize = 16 * 1024;

/// Bytes that are read ahead while an answer is on its way: requests that a client sends before it has the answer.
pub(super) const READ_AHEAD: usize = 16 * 1024;

/// Bytes of a client.
pub(crate) struct Reader<S> {
    pub(crate) half: ReadHalf<S>,
    /// What was read and not yet used.
    pub(crate) buffer: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Reader<S> {
    /// Reads more into the buffer. Nothing is lost when this is dropped.
    pub(crate) async fn more(&mut self) -> io::Result<usize> {
        if self.buffer.capacity() - self.buffer.len() < READ / 4 {
            self.buffer.reserve(READ);
        }
        self.half.read_buf(&mut self.buffer).await
    }

    pub(super) fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        pin!(self.more()).poll(context)
    }

    /// Reads what the client sends meanwhile; whether it went away.
    pub(super) fn has_left(&mut self, context: &mut Context<'_>) -> bool {
        while self.buffer.len() < READ_AHEAD {
            match self.poll_more(context) {
                Poll::Pending => return false,
                Poll::Ready(Ok(count)) if count > 0 => {}
                Poll::Ready(_) => return true,
            }
        }
        false
    }
}
