//! The body of an answer.

use super::stalls::StreamStall;
use super::{AcceptedUpgrade, Exchange};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use landfall_ingress_http::fields::fit_trailers;
use landfall_ingress_upstream::budget::Budget;
use landfall_ingress_upstream::{self as upstream, Alarm, Cut};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// Room for one read for a client that shares its connection with others.
const SHARED_READ: usize = 16 * 1024;

/// The body of an answer, from endpoint or proxy to client.
pub struct Download {
    source: Source,
    /// The request is in flight until its answer is sent; what is known of it by then is recorded when this is dropped.
    exchange: Option<Box<Exchange>>,
    watched: Option<Watched>,
}

/// A stream of HTTP/2 that this is sent on.
struct Watched {
    stall: Arc<StreamStall>,
    budget: Arc<Budget>,
    _stream: Box<dyn Send + Sync>,
}

enum Source {
    Own(Option<Bytes>),
    Endpoint(Box<Returning>),
    /// None: what follows the head is another protocol.
    Tunnel(Option<Box<AcceptedUpgrade>>),
}

impl Download {
    /// A text of our own.
    pub fn own(text: impl Into<Bytes>) -> Self {
        let text = text.into();
        Self::from_source(Source::Own((!text.is_empty()).then_some(text)))
    }

    /// What an endpoint sends. It may be silent so long.
    pub fn endpoint(body: upstream::Body, silence: Duration) -> Self {
        Self::from_source(Source::Endpoint(Box::new(Returning {
            body,
            silence,
            quiet_since: None,
            alarm: Alarm::default(),
        })))
    }

    /// After the head comes what client and endpoint agreed on.
    pub fn tunnel(agreed: AcceptedUpgrade) -> Self {
        Self::from_source(Source::Tunnel(Some(Box::new(agreed))))
    }

    fn from_source(source: Source) -> Self {
        Self {
            source,
            exchange: None,
            watched: None,
        }
    }

    /// Takes what client and endpoint agreed on, with the record, which ends with it.
    pub fn agreed(&mut self) -> Option<Box<AcceptedUpgrade>> {
        let Source::Tunnel(agreed) = &mut self.source else {
            return None;
        };
        let mut agreed = agreed.take()?;
        agreed.exchange = self.exchange.take();
        Some(agreed)
    }

    /// Ties this to a stream of HTTP/2, which it is told of while it waits for its client.
    /// What is handed over counts for `budget` until it is sent.
    pub(crate) fn watched(
        mut self,
        (stall, stream): (Arc<StreamStall>, Box<dyn Send + Sync>),
        budget: &Arc<Budget>,
    ) -> Self {
        if let Source::Endpoint(returning) = &mut self.source {
            returning.body.read_parts_of(SHARED_READ);
        }
        self.watched = Some(Watched {
            stall,
            budget: Arc::clone(budget),
            _stream: stream,
        });
        self
    }

    /// Whether it is ours, or no larger than that for sure.
    pub(crate) fn is_small(&self, bytes: u64) -> bool {
        match &self.source {
            Source::Endpoint(returning) => returning.body.size_hint().upper().is_some_and(|most| most <= bytes),
            Source::Own(_) | Source::Tunnel(_) => true,
        }
    }

    /// Has it read from its endpoint in parts of so many bytes at most.
    pub(crate) fn read_parts_of(&mut self, bytes: usize) {
        if let Source::Endpoint(returning) = &mut self.source {
            returning.body.read_parts_of(bytes);
        }
    }

    /// Ties the request's record to this body: it is complete when the body is dropped.
    pub fn recorded(mut self, exchange: Box<Exchange>) -> Self {
        self.exchange = Some(exchange);
        self
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = DownloadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        if let Some(watched) = &self.watched {
            if watched.budget.poll_room(context).is_pending() {
                watched.stall.wait_on();
                return Poll::Pending;
            }
            watched.stall.taken();
        }
        let frame = match &mut self.source {
            Source::Tunnel(_) => None,
            Source::Own(text) => text.take().map(|text| Ok(Frame::data(text))),
            Source::Endpoint(body) => ready!(body.poll(context)),
        };
        if let (Some(watched), Some(Ok(_))) = (&self.watched, &frame) {
            watched.stall.wait();
        }
        if let Some(exchange) = &mut self.exchange {
            match &frame {
                Some(Ok(frame)) => exchange.sent(frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(_)) => exchange.cut = true,
                None => exchange.complete = true,
            }
        }
        Poll::Ready(match &self.watched {
            Some(watched) => frame.map(|frame| frame.map(|frame| watched.counted(frame))),
            None => frame,
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(text) => text.is_none(),
            Source::Tunnel(_) => true,
            Source::Endpoint(body) => body.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Source::Tunnel(_) => SizeHint::with_exact(0),
            Source::Endpoint(body) => body.body.size_hint(),
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        let over = self.is_end_stream();
        if let Some(exchange) = &mut self.exchange {
            exchange.complete |= over;
        }
    }
}

impl Watched {
    /// The same frame; its data counts until the last of it is dropped.
    fn counted(&self, frame: Frame<Bytes>) -> Frame<Bytes> {
        frame.map_data(|data| self.budget.send(data.len()).with(data))
    }
}

struct Returning {
    body: upstream::Body,
    silence: Duration,
    quiet_since: Option<Instant>,
    alarm: Alarm,
}

impl Returning {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        if let Poll::Ready(frame) = self.body.poll_frame(context) {
            self.quiet_since = None;
            return Poll::Ready(frame.map(|frame| match frame {
                Ok(frame) => Ok(fit(frame)),
                Err(Cut::Cancelled) => Err(DownloadError::Cancelled),
                Err(Cut::Broken) => Err(DownloadError::Endpoint),
            }));
        }
        let since = *self.quiet_since.get_or_insert_with(Instant::now);
        let over = self.alarm.poll(since + self.silence, context);
        over.map(|()| Some(Err(DownloadError::Silent)))
    }
}

/// A frame without what a client must not get in trailers.
fn fit(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            fit_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// Why an answer ended early; the client sees its connection close.
#[derive(Debug)]
pub enum DownloadError {
    /// The endpoint broke off, or what it sent is malformed.
    Endpoint,
    /// The endpoint took its answer back (CANCEL).
    Cancelled,
    /// The endpoint sent nothing for too long.
    Silent,
}

impl fmt::Display for DownloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Endpoint => "the endpoint broke off, or its answer is malformed",
            Self::Cancelled => "the endpoint took its answer back",
            Self::Silent => "the endpoint fell silent",
        })
    }
}

impl std::error::Error for DownloadError {
    /// What a client of HTTP/2 is told where it is not that something broke.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        static CANCEL: LazyLock<h2::Error> = LazyLock::new(|| h2::Reason::CANCEL.into());
        matches!(self, Self::Cancelled).then(|| &*CANCEL as _)
    }
}
