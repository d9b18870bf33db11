//! Requests of our own to services of the cluster: authentication, mirrors, error pages. Bounded in number, time and size, apart from
//! the requests of clients.
//!
//! INVARIANT: what a service may have acted on is sent again only when its method is idempotent and a kept connection ended before the
//! answer began, and that is paid for by the Service's budget. A request that was not sent at all goes over a new connection.

use super::slots::Slots;
use crate::limits::Limits;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use landfall_ingress_balance::Backend;
use landfall_ingress_upstream::{Destination, connect};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
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

/// Why a connection gave no answer.
enum Lost {
    /// Nothing of the request was sent.
    Untouched,
    /// The connection ended before the answer began.
    Unanswered,
    /// What came is no answer, or no whole one.
    Broken,
}

/// Who has a share of the requests under way: a Service by its place in memory, which lasts as long as its requests, others by address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sharer {
    Service(usize),
    Other(Option<SocketAddr>),
}

impl Recipient {
    fn sharer(&self) -> Sharer {
        match &self.service {
            Some(service) => Sharer::Service(Arc::as_ptr(service).addr()),
            None => Sharer::Other(self.destinations.first().map(|to| to.address)),
        }
    }
}

/// Whom a request of our own is for.
#[derive(Debug)]
pub(super) struct Recipient {
    /// Where it may be had, in the order of tries.
    pub(super) destinations: Vec<Destination>,
    /// The Service that this is, whose budget pays for what is sent again; `None` for others, who have one together.
    pub(super) service: Option<Arc<Backend>>,
}

/// A client of its own.
pub(super) struct Fetcher {
    idle: Mutex<HashMap<Destination, Vec<(Sender, Instant)>>>,
    slots: Arc<Slots<Sharer>>,
    total: Duration,
    connect: Duration,
    kept: Duration,
    head_bytes: usize,
    /// Pays for what is sent again to what is no Service.
    others: Backend,
}

impl Fetcher {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            idle: Mutex::default(),
            slots: Slots::new(limits.subrequests, limits.subrequests / 4),
            total: limits.subrequest,
            connect: limits.connect,
            kept: limits.pool_idle,
            head_bytes: limits.head_bytes,
            others: Backend::default(),
        }
    }

    /// Sends a request to the first destination that takes it and returns the whole answer, whose body may have `most` bytes. Waits at most
    /// `limits.subrequest` for all of it.
    pub(super) async fn fetch(
        &self,
        to: &Recipient,
        request: &Request<Full<Bytes>>,
        most: usize,
    ) -> Result<Response<Bytes>, FetchError> {
        let budget = to.service.as_deref().unwrap_or(&self.others);
        let all = async {
            let _slot = self.slots.acquire(to.sharer()).await;
            budget.count_request();
            for to in &to.destinations {
                match self.ask(to, request, most, budget).await {
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
        budget: &Backend,
    ) -> Result<Response<Bytes>, FetchError> {
        // A kept connection may have been closed by the other side, before the request or with it on its way.
        if let Some(sender) = self.take(to) {
            match self.exchange(to, sender, request, most).await {
                Ok(response) => return Ok(response),
                Err(Lost::Untouched) => {}
                Err(Lost::Unanswered) if request.method().is_idempotent() && budget.may_retry() => {}
                Err(_) => return Err(FetchError::Broken),
            }
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
        let answer = self.exchange(to, sender, request, most).await;
        answer.map_err(|lost| match lost {
            Lost::Untouched => FetchError::Unreachable,
            _ => FetchError::Broken,
        })
    }

    async fn exchange(
        &self,
        to: &Destination,
        mut sender: Sender,
        request: &Request<Full<Bytes>>,
        most: usize,
    ) -> Result<Response<Bytes>, Lost> {
        let answer = sender.try_send_request(request.clone()).await;
        let answer = answer.map_err(|mut error| match (error.take_message(), error.error().is_parse()) {
            (Some(_), _) => Lost::Untouched,
            (None, true) => Lost::Broken,
            (None, false) => Lost::Unanswered,
        });
        let (parts, body) = answer?.into_parts();
        let body = Limited::new(body, most).collect().await;
        let body = body.map_err(|_| Lost::Broken)?.to_bytes();
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
