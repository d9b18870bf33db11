//! Requests of our own to services of the cluster: authentication, mirrors, error pages. Bounded in number, time and size, apart from
//! the requests of clients.

use crate::limits::Limits;
use crate::upstream::{Destination, connect};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::time::timeout;

type Sender = SendRequest<Full<Bytes>>;

/// Idle connections kept per destination.
const IDLE_PER_DESTINATION: usize = 8;
/// Idle connections of all destinations are looked through beyond this number of them.
const IDLE_DESTINATIONS: usize = 256;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FetchError {
    /// Too many such requests are under way, or this one took too long.
    Late,
    /// Nobody took the request.
    Unreachable,
    /// It was taken and not answered, or the answer is too large.
    Broken,
}

/// A client of its own.
pub(super) struct Fetcher {
    idle: Mutex<HashMap<Destination, Vec<(Sender, Instant)>>>,
    slots: Semaphore,
    total: Duration,
    connect: Duration,
    kept: Duration,
    head_bytes: usize,
}

impl Fetcher {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            idle: Mutex::default(),
            slots: Semaphore::new(limits.subrequests),
            total: limits.subrequest,
            connect: limits.connect,
            kept: limits.pool_idle,
            head_bytes: limits.head_bytes,
        }
    }

    /// Sends a request to the first destination that takes it and returns the whole answer, whose body may have `most` bytes. Waits at most
    /// `limits.subrequest` for all of it.
    pub(super) async fn fetch(
        &self,
        destinations: &[Destination],
        request: &Request<Full<Bytes>>,
        most: usize,
    ) -> Result<Response<Bytes>, FetchError> {
        let all = async {
            // The semaphore is never closed.
            let _slot = self.slots.acquire().await;
            for to in destinations {
                match self.ask(to, request, most).await {
                    Err(FetchError::Unreachable) => {}
                    other => return other,
                }
            }
            Err(FetchError::Unreachable)
        };
        timeout(self.total, all).await.unwrap_or(Err(FetchError::Late))
    }

    async fn ask(
        &self,
        to: &Destination,
        request: &Request<Full<Bytes>>,
        most: usize,
    ) -> Result<Response<Bytes>, FetchError> {
        // A kept connection may have been closed by the other side; whatever came of the request there, it is one that may be repeated.
        if let Some(sender) = self.take(to)
            && let Ok(response) = self.exchange(to, sender, request, most).await
        {
            return Ok(response);
        }
        let Some(stream) = connect(to, self.connect).await else {
            return Err(FetchError::Unreachable);
        };
        let handshake = http1::Builder::new()
            .max_header_size(self.head_bytes)
            .allow_spaces_after_header_name_in_responses(true)
            .handshake(TokioIo::new(stream));
        let Ok((sender, connection)) = handshake.await else {
            return Err(FetchError::Unreachable);
        };
        // Its error reaches whoever waits for the answer.
        tokio::spawn(async move { drop(connection.await) });
        self.exchange(to, sender, request, most).await
    }

    async fn exchange(
        &self,
        to: &Destination,
        mut sender: Sender,
        request: &Request<Full<Bytes>>,
        most: usize,
    ) -> Result<Response<Bytes>, FetchError> {
        let answer = sender.send_request(request.clone()).await;
        let (parts, body) = answer.map_err(|_| FetchError::Broken)?.into_parts();
        let body = Limited::new(body, most).collect().await;
        let body = body.map_err(|_| FetchError::Broken)?.to_bytes();
        if sender.is_ready() {
            self.keep(to, sender);
        }
        Ok(Response::from_parts(parts, body))
    }

    fn take(&self, to: &Destination) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let list = idle.get_mut(to)?;
        while let Some((sender, since)) = list.pop() {
            if since.elapsed() < self.kept && sender.is_ready() {
                return Some(sender);
            }
        }
        idle.remove(to);
        None
    }

    fn keep(&self, to: &Destination, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() >= IDLE_DESTINATIONS {
            idle.retain(|_, list| {
                list.retain(|(sender, since)| since.elapsed() < self.kept && !sender.is_closed());
                !list.is_empty()
            });
        }
        if idle.len() >= IDLE_DESTINATIONS && !idle.contains_key(to) {
            return;
        }
        let list = idle.entry(to.clone()).or_default();
        if list.len() < IDLE_PER_DESTINATION {
            list.push((sender, Instant::now()));
        }
    }
}
