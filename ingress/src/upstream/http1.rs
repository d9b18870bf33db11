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
use tokio::time::{Instant, timeout};

type Sender = SendRequest<Upload>;
type Answered = (Response<Incoming>, super::Lease);

/// Idle connections by destination.
pub(super) struct Idle {
    idle: Mutex<HashMap<Destination, Vec<(Sender, Instant)>>>,
    limits: Limits,
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
        while let Some(sender) = self.take(to) {
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
            .max_headers(self.limits.head_fields)
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

    fn take(&self, to: &Destination) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let list = idle.get_mut(to)?;
        while let Some((sender, since)) = list.pop() {
            if since.elapsed() < self.limits.pool_idle && sender.is_ready() {
                return Some(sender);
            }
        }
        idle.remove(to);
        None
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
    /// Keeps a connection whose answer has been read to its end, once it can take another request.
    pub(super) fn give_back(self) {
        let Self { to, mut sender, home } = self;
        if sender.is_ready() {
            home.keep(to, sender);
        } else if !sender.is_closed() {
            // The task that drives the connection has not seen the end yet, or the rest of a request is still being sent.
            tokio::spawn(async move {
                if let Ok(Ok(())) = timeout(home.limits.pool_idle, sender.ready()).await {
                    home.keep(to, sender);
                }
            });
        }
    }
}
