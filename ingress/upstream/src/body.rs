//! The body of an endpoint's answer, whatever protocol it came by.

use super::{Cut, http1, http2};
use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};

/// See the module's text. Dropped before its end it ends the exchange with the endpoint.
pub struct Body(Source);

enum Source {
    Http1(Box<http1::AnswerBody>),
    Http2 { body: Incoming, _place: http2::Lease },
}

impl Body {
    /// Of an answer that came by HTTP/1.1.
    pub fn http1(body: http1::AnswerBody) -> Self {
        Self(Source::Http1(Box::new(body)))
    }

    /// The place on the shared connection is free when this is dropped.
    pub(super) fn http2(body: Incoming, place: http2::Lease) -> Self {
        Self(Source::Http2 { body, _place: place })
    }

    /// Reads in parts of so many bytes at most, where that is ours to say: over HTTP/2 the endpoint says it.
    pub fn read_parts_of(&mut self, bytes: usize) {
        if let Source::Http1(body) = &mut self.0 {
            body.read_parts_of(bytes);
        }
    }

    /// What is behind an answer with 101. `None` when it cannot be had.
    pub fn into_tunnel(self) -> Option<http1::Tunnel> {
        match self.0 {
            Source::Http1(body) => body.into_tunnel(),
            Source::Http2 { .. } => None,
        }
    }

    /// The next frame; an error is the last.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &mut self.0 {
            Source::Http1(body) => body.poll_frame(context),
            Source::Http2 { body, .. } => {
                let frame = hyper::body::Body::poll_frame(Pin::new(body), context);
                frame.map(|frame| frame.map(|frame| frame.map_err(|error| Cut::of(&error))))
            }
        }
    }

    /// Nothing more will come.
    pub fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Http1(body) => body.is_end_stream(),
            Source::Http2 { body, .. } => hyper::body::Body::is_end_stream(body),
        }
    }

    /// What is known of the bytes that are still to come.
    pub fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Http1(body) => body.size_hint(),
            Source::Http2 { body, .. } => hyper::body::Body::size_hint(body),
        }
    }
}
