//! The way to endpoints: connections by protocol, kept between requests, given up when they are idle too long.
//!
//! INVARIANT: a request comes back as [`Failure::Untouched`] only when no byte of it was sent, so another endpoint may have it. It comes
//! back as [`Failure::Seen`] when the endpoint said that it did not act on it (RFC 9113, 8.7), or when it is safe by its method, has no
//! body, and a kept connection ended before the answer began: then the other side closed it while the request was on its way (RFC 9110,
//! 9.2.2). Whether it is sent again then is not decided here: no connection is tried after one that saw the request.
//!
//! It promises that no wait is without end and that what a client holds is counted ([`budget`]). It knows endpoints by their [`Destination`]
//! and must not know routes, clients' connections or Kubernetes objects.

#![forbid(unsafe_code)]

mod alarm;
mod body;
pub mod budget;
mod connect;
#[cfg(test)]
mod fuzz;
mod http1;
mod http2;
mod kept;
mod limits;
mod upload;

use hyper::body::Body as _;
use hyper::http::response;
use hyper::{Request, Response};
use landfall_ingress_balance::Onward;
use landfall_ingress_http::protocol::Protocol;
use std::collections::BTreeSet;
use std::error::Error as _;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;

pub use alarm::Alarm;
pub use body::Body;
pub use connect::{Stream, Tls, connect};
pub use http1::{AnswerBody, Connection, GATHERED, READ_LARGE, Taken, Tunnel, Unsent};
pub use limits::{Config, POOL_IDLE_PER_ENDPOINT};
pub use upload::{BodyTee, Progress, Stage, Upload, UploadError, UploadLimits};

/// Where a request goes and how the endpoint there is spoken to. Connections are shared by requests with equal destinations.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The endpoint.
    pub address: SocketAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// How TLS is spoken, where the protocol has it.
    pub tls: Option<Tls>,
}

/// The answer ended early.
#[derive(Debug)]
pub enum Cut {
    /// The endpoint broke off, or what it sent is malformed.
    Broken,
    /// The endpoint took it back (CANCEL in HTTP/2).
    Cancelled,
}

impl Cut {
    fn of(error: &hyper::Error) -> Self {
        let cause = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
        match cause.and_then(h2::Error::reason) {
            Some(h2::Reason::CANCEL) => Self::Cancelled,
            _ => Self::Broken,
        }
    }
}

/// Which connection a request takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// One that is open already, when there is one.
    Kept,
    /// A new one.
    New,
}

/// Bounds of the waits for an endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// For a connection, with its TLS handshake.
    pub connect: Duration,
    /// For the head of the answer, since the request was sent.
    pub answer: Duration,
    /// For the endpoint to take more of the request.
    pub send: Duration,
}

impl Destination {
    /// An endpoint that is spoken to in plain HTTP/1.1.
    pub fn plain(address: SocketAddr) -> Self {
        Self {
            address,
            protocol: Protocol::Http1,
            tls: None,
        }
    }
}

/// Who is told of interim answers (RFC 9110, 15.2), by the task that waits for the final one.
pub trait OnInformational: Sync {
    /// Takes the head of one.
    fn on_informational(&self, parts: response::Parts);
}

/// Why no answer came.
#[derive(Debug)]
pub enum Failure {
    /// The endpoint took nothing of the request, which comes back: another endpoint can have it.
    Untouched(Box<Request<Upload>>),
    /// The endpoint saw the request, which comes back and may be sent there: to a limited extent ([`landfall_ingress_balance::Attempts::again`]).
    Seen(Box<Request<Upload>>, Onward),
    /// The endpoint may have acted.
    Broken,
    /// No answer in time; the endpoint may have acted.
    Late,
    /// The request's own body was the matter: a [`Stage`] after [`Stage::Sent`].
    Request(Stage),
}

/// All connections to endpoints.
pub struct Upstream {
    http1: Arc<http1::Idle>,
    http2: http2::Shared,
}

impl Upstream {
    /// Starts empty.
    pub fn new(config: Config) -> Self {
        Self {
            http1: Arc::new(http1::Idle::new(config)),
            http2: http2::Shared::new(config),
        }
    }

    /// Sends a request to one endpoint, over a connection as `over` says, and waits for the head of the answer within `waits`.
    /// Interim answers over HTTP/1.1 go to `interim`.
    pub async fn send(
        &self,
        to: &Destination,
        request: Request<Upload>,
        waits: &Waits,
        over: Over,
        interim: Option<&dyn OnInformational>,
    ) -> Result<Response<Body>, Failure> {
        match to.protocol {
            Protocol::Http1 | Protocol::Https => {
                let answer = self.http1.send(to, request, waits, over, interim).await?;
                Ok(answer.map(Body::http1))
            }
            Protocol::H2c | Protocol::H2 => {
                let answer = self.http2.send(to, request, waits, over).await?;
                Ok(answer.map(|(body, place)| Body::http2(body, place)))
            }
        }
    }

    /// A connection to an endpoint that is spoken to in plain HTTP/1.1, kept or new, for who writes and reads by himself. `None` when it
    /// cannot be had within `waits.connect`.
    pub async fn connection(&self, address: SocketAddr, waits: &Waits) -> Option<Taken> {
        self.http1.connection(address, waits).await
    }

    /// Closes connections that carry no request.
    pub fn close_idle(&self) {
        self.http1.close_idle();
        self.http2.close_idle();
    }

    /// Closes connections to endpoints that no route leads to any more, and those that were idle too long.
    pub fn sweep(&self, wanted: &BTreeSet<SocketAddr>) {
        self.http1.sweep(wanted);
        self.http2.sweep(wanted);
    }
}

/// The moment at which waiting for the head of an answer is over; depends on who is to move.
fn deadline(start: Instant, progress: Option<&Progress>, waits: &Waits) -> Instant {
    let Some(progress) = progress else {
        return start + waits.answer;
    };
    match progress.stage() {
        Stage::Endpoint => progress.last() + waits.send,
        Stage::Sent => progress.last() + waits.answer,
        // The body itself bounds this wait; afterwards it is the endpoint's turn again.
        Stage::Client => Instant::now() + waits.answer,
        // The connection ends now, and with it this wait.
        Stage::Gone | Stage::Malformed | Stage::Large | Stage::Slow => progress.last() + waits.answer,
    }
}

/// Waits for the head of an answer until its [`deadline`].
async fn in_time<T>(answer: impl Future<Output = T>, progress: Option<&Progress>, waits: &Waits) -> Result<T, Failure> {
    let start = Instant::now();
    let mut answer = pin!(answer);
    let mut alarm = Alarm::default();
    poll_fn(|context| {
        if let Poll::Ready(answer) = answer.as_mut().poll(context) {
            return Poll::Ready(Ok(answer));
        }
        let late = alarm.poll(deadline(start, progress, waits), context);
        late.map(|()| Err(Failure::Late))
    })
    .await
}

/// What a broken exchange means: the request's body may be the cause.
fn broken(progress: Option<&Progress>) -> Failure {
    match progress.map(Progress::stage) {
        Some(stage @ (Stage::Gone | Stage::Malformed | Stage::Large | Stage::Slow)) => Failure::Request(stage),
        _ => Failure::Broken,
    }
}

/// A second copy of a request without a body.
pub fn copy(request: &Request<Upload>) -> Option<Request<Upload>> {
    if !request.body().is_end_stream() {
        return None;
    }
    Some(copy_head(request).map(|()| Upload::empty()))
}

/// A second copy of a request's head.
fn copy_head<B>(request: &Request<B>) -> Request<()> {
    let mut copy = Request::new(());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}
