//! A request's body. While there is one the reading half of the connection belongs to it; then it comes home.

use crate::reader::Reader;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use landfall_ingress_http::chunked::{Decoder, Piece};
use landfall_ingress_upstream::UploadError;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

/// A reader that a body has done with.
pub(crate) struct Home<S> {
    pub(crate) reader: Reader<S>,
    /// The body was read to its end: what follows is the next request.
    pub(crate) finished: bool,
    /// The client broke off within it.
    pub(crate) gone: bool,
}

/// A request's body on its way to an endpoint.
pub(crate) struct RequestBody<S> {
    /// Gone when the body has ended.
    reader: Option<Reader<S>>,
    /// Room for one read.
    room: usize,
    decoder: Decoder,
    home: Option<oneshot::Sender<Home<S>>>,
    /// Told when the body is asked for: that is when a client that expects `100 Continue` gets it.
    asked: Option<oneshot::Sender<()>>,
}

impl<S> RequestBody<S> {
    /// Reads `room` bytes at once at most. The second value gets the reader back, the third is told when the body is asked for.
    pub(crate) fn new(
        reader: Reader<S>,
        decoder: Decoder,
        room: usize,
    ) -> (Self, oneshot::Receiver<Home<S>>, oneshot::Receiver<()>) {
        let (home, comes_home) = oneshot::channel();
        let (asked, is_asked) = oneshot::channel();
        let body = Self {
            reader: Some(reader),
            room,
            decoder,
            home: Some(home),
            asked: Some(asked),
        };
        (body, comes_home, is_asked)
    }

    fn go_home(&mut self, finished: bool, gone: bool) {
        if let (Some(reader), Some(home)) = (self.reader.take(), self.home.take()) {
            // Nobody waits any more when the connection ended.
            let _ = home.send(Home { reader, finished, gone });
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Body for RequestBody<S> {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let this = &mut *self;
        if let Some(asked) = this.asked.take() {
            let _ = asked.send(());
        }
        loop {
            let Some(reader) = &mut this.reader else {
                return Poll::Ready(None);
            };
            let frame = match this.decoder.next(&mut reader.buffer) {
                Ok(Piece::Data(data)) => Some(Ok(Frame::data(data))),
                Ok(Piece::Trailers(fields)) => Some(Ok(Frame::trailers(fields))),
                Ok(Piece::End) => None,
                Ok(Piece::More) => match ready!(reader.poll_more(reader.buffer.len() + this.room, context)) {
                    Ok(read) if read > 0 => continue,
                    _ => Some(Err(UploadError::Gone)),
                },
                Err(_) => Some(Err(UploadError::Malformed)),
            };
            match &frame {
                Some(Err(error)) => this.go_home(false, *error == UploadError::Gone),
                _ if this.decoder.is_done() => this.go_home(true, false),
                _ => {}
            }
            return Poll::Ready(frame);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.reader.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.decoder
            .remaining()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl<S> Drop for RequestBody<S> {
    fn drop(&mut self) {
        let finished = self.decoder.is_done();
        self.go_home(finished, false);
    }
}
