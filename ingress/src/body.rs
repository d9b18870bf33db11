//! Bodies on their way through: counted, bounded in their silence, never gathered.

use crate::metrics::Counted;
use crate::pool::{Pool, Sender};
use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// The body of a request, from client to endpoint.
#[derive(Debug)]
pub struct Upload {
    body: Option<Incoming>,
    progress: Progress,
}

impl Upload {
    /// Wraps a client's body.
    pub fn new(body: Incoming) -> Self {
        Self {
            body: Some(body),
            progress: Progress::start(),
        }
    }

    /// No body.
    pub fn empty() -> Self {
        Self {
            body: None,
            progress: Progress::start(),
        }
    }

    /// Tells when this body last moved.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(context));
        self.progress.moved();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

/// When something last moved.
#[derive(Debug, Clone)]
pub struct Progress {
    start: Instant,
    millis: Arc<AtomicU64>,
}

impl Progress {
    fn start() -> Self {
        Self {
            start: Instant::now(),
            millis: Arc::default(),
        }
    }

    fn moved(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
    }

    /// The last moment of movement, the start when there was none.
    pub fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }
}

/// The body of an answer, from endpoint or proxy to client.
pub struct Download {
    source: Source,
    /// The request is in flight until its answer is sent.
    _in_flight: Counted,
}

enum Source {
    Own(Full<Bytes>),
    Endpoint(Box<Returning>),
}

impl Download {
    /// A text of our own.
    pub fn own(text: &'static str, in_flight: Counted) -> Self {
        Self {
            source: Source::Own(Full::new(Bytes::from_static(text.as_bytes()))),
            _in_flight: in_flight,
        }
    }

    /// What an endpoint sends; `connection` goes back to the pool at its end.
    pub fn endpoint(body: Incoming, silence: Duration, connection: Connection, in_flight: Counted) -> Self {
        let mut returning = Returning {
            body,
            silence,
            quiet: None,
            connection: Some(connection),
        };
        // An empty body may never be polled.
        if returning.body.is_end_stream() {
            returning.give_back();
        }
        Self {
            source: Source::Endpoint(Box::new(returning)),
            _in_flight: in_flight,
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = DownloadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        match &mut self.source {
            Source::Own(body) => Pin::new(body).poll_frame(context).map_err(|never| match never {}),
            Source::Endpoint(body) => body.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(body) => body.is_end_stream(),
            Source::Endpoint(body) => body.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(body) => body.size_hint(),
            Source::Endpoint(body) => body.body.size_hint(),
        }
    }
}

/// A connection to an endpoint and where it belongs.
pub struct Connection {
    /// The other side.
    pub endpoint: SocketAddr,
    /// The connection.
    pub sender: Sender,
    /// Where it is kept.
    pub pool: Arc<Pool>,
}

struct Returning {
    body: Incoming,
    silence: Duration,
    /// Runs while the endpoint is silent.
    quiet: Option<Pin<Box<Sleep>>>,
    connection: Option<Connection>,
}

impl Returning {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(frame) => {
                self.quiet = None;
                // With a known length the end shows with the last frame, and nobody asks for another.
                if frame.is_none() || self.body.is_end_stream() {
                    self.give_back();
                }
                Poll::Ready(frame.map(|f| f.map_err(DownloadError::Endpoint)))
            }
            Poll::Pending => {
                let silence = self.silence;
                let quiet = self.quiet.get_or_insert_with(|| Box::pin(sleep(silence)));
                ready!(quiet.as_mut().poll(context));
                Poll::Ready(Some(Err(DownloadError::Silent)))
            }
        }
    }

    fn give_back(&mut self) {
        if let Some(Connection { endpoint, sender, pool }) = self.connection.take() {
            pool.give_back(endpoint, sender);
        }
    }
}

/// Why an answer ended early; the client sees its connection close.
#[derive(Debug)]
pub enum DownloadError {
    /// The endpoint broke off.
    Endpoint(hyper::Error),
    /// The endpoint sent nothing for too long.
    Silent,
}

impl fmt::Display for DownloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Endpoint(_) => "the endpoint broke off",
            Self::Silent => "the endpoint fell silent",
        })
    }
}

impl std::error::Error for DownloadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Endpoint(error) => Some(error),
            Self::Silent => None,
        }
    }
}
