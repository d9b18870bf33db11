//! HTTP/1.1 to endpoints: connections that take one request at a time and are kept between requests.
//!
//! ```text
//! Idle ──> Connection::exchange ──> Body ──> Idle
//! ```
//!
//! This is not hyper's client because that gives each connection a task and each request two channels to it, which was more than a
//! quarter of a request's cost (2026-11-25: see "Figures" in the README), and because an answer with two lengths has to be refused.

mod body;
mod connection;

use super::connect::{Stream, connect};
use super::{Config, Destination, Failure, OnInformational, Over, Upload, Waits};
use crate::limits::POOL_IDLE_PER_ENDPOINT;
use bytes::BytesMut;
use connection::Lost;
use hyper::body::Body as _;
use hyper::{Method, Request, Response};
use landfall_ingress_balance::Onward;
use landfall_ingress_http::protocol::Protocol;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

pub use body::{Body as AnswerBody, READ_LARGE};
pub use connection::{Connection, GATHERED, Unsent};

/// Idle connections by destination.
pub(super) struct Idle {
    idle: Mutex<HashMap<Destination, Vec<(Connection, Instant)>>>,
    config: Config,
}

/// A connection, taken for one exchange. Dropped it is closed.
pub struct Taken {
    /// What is on it is driven by who took it.
    pub connection: Connection,
    /// It had no exchange before: that it ends is not because it was kept too long.
    pub fresh: bool,
    home: Home,
}

impl Taken {
    /// Waits for an answer to a request without a body that was begun at `start`, whatever kind of answer it is; some of it may be there
    /// already. Interim ones go to `interim`.
    pub async fn answer(
        self,
        method: &Method,
        start: Instant,
        waits: &Waits,
        interim: &dyn OnInformational,
    ) -> Result<Response<AnswerBody>, Failure> {
        let Self {
            mut connection, home, ..
        } = self;
        match connection.answer(method, None, start, waits, Some(interim)).await {
            Ok(head) => {
                let body = AnswerBody::new(connection, home, head.framing, head.keep_alive);
                Ok(Response::from_parts(head.parts, body))
            }
            Err(Lost::Failed(failure)) => Err(failure),
            Err(Lost::Untouched(_) | Lost::Unanswered) => Err(Failure::Broken),
        }
    }

    /// Gives the connection back after its exchange.
    #[inline]
    pub fn keep(self) {
        if self.connection.is_ready() {
            self.home.keep(self.connection);
        }
    }
}

/// Where a connection belongs.
struct Home {
    to: Destination,
    idle: Arc<Idle>,
}

/// A connection after a 101, and what was read of it already.
pub struct Tunnel {
    /// The endpoint.
    pub stream: Stream,
    /// Its first bytes.
    pub read: BytesMut,
}

impl Idle {
    pub(super) fn new(config: Config) -> Self {
        Self {
            idle: Mutex::default(),
            config,
        }
    }

    pub(super) async fn send(
        self: &Arc<Self>,
        to: &Destination,
        request: Request<Upload>,
        waits: &Waits,
        over: Over,
        interim: Option<&dyn OnInformational>,
    ) -> Result<Response<AnswerBody>, Failure> {
        let (parts, mut body) = request.into_parts();
        // A kept connection may just have been closed by the other side.
        let repeatable = parts.method.is_safe() && body.is_end_stream();
        let mut kept = match over {
            Over::Kept => self.take(to),
            Over::New => None,
        };
        loop {
            let fresh = kept.is_none();
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => match connect(to, waits.connect).await {
                    Some(stream) => Connection::new(stream, self.config.head_bytes),
                    None => return Err(Failure::Untouched(Box::new(Request::from_parts(parts, body)))),
                },
            };
            match connection.exchange(&parts, body, waits, interim).await {
                Ok(head) => {
                    let home = Home {
                        to: to.clone(),
                        idle: Arc::clone(self),
                    };
                    let body = AnswerBody::new(connection, home, head.framing, head.keep_alive);
                    return Ok(Response::from_parts(head.parts, body));
                }
                // No byte of it was sent: the second turn has a new connection.
                Err(Lost::Untouched(back)) if !fresh => body = *back,
                Err(Lost::Untouched(back)) => {
                    return Err(Failure::Untouched(Box::new(Request::from_parts(parts, *back))));
                }
                Err(Lost::Unanswered) if repeatable && !fresh => {
                    let again = Box::new(Request::from_parts(parts, Upload::empty()));
                    return Err(Failure::Seen(again, Onward::Same));
                }
                Err(Lost::Unanswered) => return Err(Failure::Broken),
                Err(Lost::Failed(failure)) => return Err(failure),
            }
        }
    }

    /// A connection to a plain endpoint, kept or new. `None` when there is none to be had.
    pub(super) async fn connection(self: &Arc<Self>, address: SocketAddr, waits: &Waits) -> Option<Taken> {
        let to = Destination {
            address,
            protocol: Protocol::Http1,
            tls: None,
        };
        let (connection, fresh) = match self.take(&to) {
            Some(connection) => (connection, false),
            None => {
                let stream = connect(&to, waits.connect).await?;
                (Connection::new(stream, self.config.head_bytes), true)
            }
        };
        let idle = Arc::clone(self);
        Some(Taken {
            connection,
            fresh,
            home: Home { to, idle },
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Destination, Vec<(Connection, Instant)>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the connection that was given back last; closes those that are of no use any more on the way.
    fn take(&self, to: &Destination) -> Option<Connection> {
        let mut idle = self.lock();
        let list = idle.get_mut(to)?;
        while let Some((mut connection, since)) = list.pop() {
            if since.elapsed() < self.config.pool_idle && connection.is_alive() {
                return Some(connection);
            }
        }
        None
    }

    pub(super) fn close_idle(&self) {
        self.lock().clear();
    }

    pub(super) fn sweep(&self, wanted: &BTreeSet<SocketAddr>) {
        self.lock().retain(|to, list| {
            list.retain_mut(|(connection, since)| since.elapsed() < self.config.pool_idle && connection.is_alive());
            wanted.contains(&to.address) && !list.is_empty()
        });
    }
}

impl Home {
    /// Keeps a connection whose exchange is over, unless there are enough.
    fn keep(self, mut connection: Connection) {
        connection.shrink();
        let mut idle = self.idle.lock();
        let list = idle.entry(self.to).or_default();
        if list.len() < POOL_IDLE_PER_ENDPOINT {
            list.push((connection, Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests;
