//! HTTP/1.1 to endpoints: connections that take one request at a time and are kept between requests.

use super::connect::connect;
use super::{Destination, Failure, Waits, broken, copy, in_time};
use crate::body::Upload;
use crate::limits::Limits;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;

type Sender = SendRequest<Upload>;
type Answered = (Response<Incoming>, super::Lease);

/// Idle connections by destination.
pub(super) struct Idle {
    idle: Mutex<HashMap<Destination, Vec<(Sender, Instant)>>>,
    limits: Limits,
}

/// What [`Idle::take`] found.
enum Taken {
    Ready(Sender),
    /// None is ready, but some will be.
    Soon,
    Nothing,
}

/// A connection and where it belongs.
pub struct Lease {
    to: Destination,
    sender: Sender,
    home: Arc<Idle>,
}

impl Idle {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            idle: Mutex::default(),
            limits,
        }
    }

    pub(super) async fn send(
        self: &Arc<Self>,
        to: &Destination,
        mut request: Request<Upload>,
        waits: &Waits,
    ) -> Result<Answered, Failure> {
        // A kept connection may just have been closed by the other side; then the request comes back whole, or can be repeated.
        while let Some(sender) = self.next(to).await {
            let spare = request.method().is_safe().then(|| copy(&request)).flatten();
            match (self.exchange(to, sender, request, waits).await, spare) {
                (Err(Failure::Untouched(back)), _) => request = *back,
                (Err(Failure::Broken), Some(spare)) => request = spare,
                (other, _) => return other,
            }
        }
        let Some(stream) = connect(to, waits).await else {
            return Err(Failure::Untouched(Box::new(request)));
        };
        let handshake = http1::Builder::new()
            .max_header_size(self.limits.head_bytes)
            .handshake(TokioIo::new(stream));
        let Ok((sender, connection)) = handshake.await else {
            return Err(Failure::Untouched(Box::new(request)));
        };
        // Its error reaches whoever waits for the answer.
        tokio::spawn(async move { drop(connection.with_upgrades().await) });
        self.exchange(to, sender, request, waits).await
    }

    async fn exchange(
        self: &Arc<Self>,
        to: &Destination,
        mut sender: Sender,
        request: Request<Upload>,
        waits: &Waits,
    ) -> Result<Answered, Failure> {
        let progress = request.body().progress();
        match in_time(sender.try_send_request(request), progress.as_ref(), waits).await? {
            Ok(response) => {
                let lease = Lease {
                    to: to.clone(),
                    sender,
                    home: Arc::clone(self),
                };
                Ok((response, super::Lease::Http1(lease)))
            }
            Err(mut error) => Err(match error.take_message() {
                Some(request) => Failure::Untouched(Box::new(request)),
                None => broken(progress.as_ref()),
            }),
        }
    }

    /// A kept connection, if there is one that can take a request.
    async fn next(&self, to: &Destination) -> Option<Sender> {
        match self.take(to) {
            Taken::Ready(sender) => Some(sender),
            Taken::Nothing => None,
            Taken::Soon => {
                // It was given back just now; its own task has to see the end of the answer first.
                tokio::task::yield_now().await;
                match self.take(to) {
                    Taken::Ready(sender) => Some(sender),
                    Taken::Nothing | Taken::Soon => None,
                }
            }
        }
    }

    /// Takes the connection that was given back last of those that are ready; forgets those that are of no use any more.
    fn take(&self, to: &Destination) -> Taken {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(list) = idle.get_mut(to) else {
            return Taken::Nothing;
        };
        let mut at = list.len();
        while at > 0 {
            at -= 1;
            let (sender, since) = &list[at];
            if sender.is_closed() || since.elapsed() >= self.limits.pool_idle {
                list.remove(at);
            } else if sender.is_ready() {
                return Taken::Ready(list.remove(at).0);
            }
        }
        if list.is_empty() { Taken::Nothing } else { Taken::Soon }
    }

    fn keep(&self, to: Destination, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let list = idle.entry(to).or_default();
        if list.len() < self.limits.pool_idle_per_endpoint {
            list.push((sender, Instant::now()));
        }
    }

    pub(super) fn sweep(&self, wanted: &BTreeSet<SocketAddr>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|to, list| {
            list.retain(|(sender, since)| since.elapsed() < self.limits.pool_idle && !sender.is_closed());
            wanted.contains(&to.address) && !list.is_empty()
        });
    }
}

impl Lease {
    /// Keeps a connection whose answer has been read to its end.
    pub(super) fn give_back(self) {
        let Self { to, sender, home } = self;
        // Mostly it is not ready yet: the task that drives it has not seen the end, or the rest of a request is still being sent.
        if !sender.is_closed() {
            home.keep(to, sender);
        }
    }
}
