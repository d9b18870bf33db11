//! Connections to endpoints: kept open between requests, given up when they are idle too long.
//!
//! INVARIANT: a request comes back as [`Failure::Untouched`] only when no byte of it was sent, so another endpoint may have it. What an
//! endpoint may have acted on is sent again only if it is safe by its method, has no body, and a kept connection ended before the
//! answer began: then the other side closed it while the request was on its way (RFC 9110, 9.2.2).

use crate::body::Upload;
use crate::limits::Limits;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

/// A connection that takes one request at a time.
pub type Sender = SendRequest<Upload>;

/// Why no answer came.
#[derive(Debug)]
pub enum Failure {
    /// The endpoint took nothing of the request, which comes back: another endpoint can have it.
    Untouched(Box<Request<Upload>>),
    /// The endpoint may have acted.
    Broken,
    /// No answer in time; the endpoint may have acted.
    Late,
}

/// Idle connections by endpoint.
pub struct Pool {
    idle: Mutex<HashMap<SocketAddr, Vec<(Sender, Instant)>>>,
    limits: Limits,
}

impl Pool {
    /// Starts empty.
    pub fn new(limits: Limits) -> Self {
        Self {
            idle: Mutex::default(),
            limits,
        }
    }

    /// Sends a request to one endpoint, over a kept connection when one is there, and waits for the head of the answer, at most
    /// `limits.connect` and then `limits.answer` since the request last moved. The second value is the connection, to be given back.
    pub async fn send(
        &self,
        endpoint: SocketAddr,
        mut request: Request<Upload>,
    ) -> Result<(Response<Incoming>, Sender), Failure> {
        // A kept connection may just have been closed by the other side; then the request comes back whole, or can be repeated.
        while let Some(sender) = self.take(endpoint) {
            let copy = copy_if_safe(&request);
            match (self.exchange(sender, request).await, copy) {
                (Err(Failure::Untouched(back)), _) => request = *back,
                (Err(Failure::Broken), Some(copy)) => request = copy,
                (other, _) => return other,
            }
        }
        let Ok(Ok(stream)) = timeout(self.limits.connect, TcpStream::connect(endpoint)).await else {
            return Err(Failure::Untouched(Box::new(request)));
        };
        // Without it small writes wait for acknowledgements; failing to set it costs speed only.
        let _ = stream.set_nodelay(true);
        let handshake = http1::Builder::new()
            .max_header_size(self.limits.head_bytes)
            .handshake(TokioIo::new(stream));
        let Ok((sender, connection)) = handshake.await else {
            return Err(Failure::Untouched(Box::new(request)));
        };
        // Its error reaches whoever waits for the answer.
        tokio::spawn(async move { drop(connection.await) });
        self.exchange(sender, request).await
    }

    async fn exchange(
        &self,
        mut sender: Sender,
        request: Request<Upload>,
    ) -> Result<(Response<Incoming>, Sender), Failure> {
        let progress = request.body().progress();
        let result = {
            let mut answer = pin!(sender.try_send_request(request));
            loop {
                let deadline = progress.last() + self.limits.answer;
                tokio::select! {
                    result = &mut answer => break result,
                    () = sleep_until(deadline) => {
                        // A long upload moves the deadline as it goes.
                        if progress.last() + self.limits.answer <= Instant::now() {
                            return Err(Failure::Late);
                        }
                    }
                }
            }
        };
        match result {
            Ok(response) => Ok((response, sender)),
            Err(mut error) => Err(match error.take_message() {
                Some(request) => Failure::Untouched(Box::new(request)),
                None => Failure::Broken,
            }),
        }
    }

    fn take(&self, endpoint: SocketAddr) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let list = idle.get_mut(&endpoint)?;
        while let Some((sender, since)) = list.pop() {
            if since.elapsed() < self.limits.pool_idle && sender.is_ready() {
                return Some(sender);
            }
        }
        idle.remove(&endpoint);
        None
    }

    /// Keeps a connection whose answer has been read to its end, once it can take another request.
    pub fn give_back(self: Arc<Self>, endpoint: SocketAddr, mut sender: Sender) {
        if sender.is_ready() {
            self.keep(endpoint, sender);
        } else if !sender.is_closed() {
            // The task that drives the connection has not seen the end yet, or the rest of a request is still being sent.
            tokio::spawn(async move {
                if let Ok(Ok(())) = timeout(self.limits.pool_idle, sender.ready()).await {
                    self.keep(endpoint, sender);
                }
            });
        }
    }

    fn keep(&self, endpoint: SocketAddr, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let list = idle.entry(endpoint).or_default();
        if list.len() < self.limits.pool_idle_per_endpoint {
            list.push((sender, Instant::now()));
        }
    }

    /// Closes connections to endpoints that no route leads to any more, and those that were idle too long.
    pub fn sweep(&self, wanted: &BTreeSet<SocketAddr>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|endpoint, list| {
            list.retain(|(sender, since)| since.elapsed() < self.limits.pool_idle && !sender.is_closed());
            wanted.contains(endpoint) && !list.is_empty()
        });
    }
}

/// A second copy of a request that may be sent twice: safe by its method and without a body.
fn copy_if_safe(request: &Request<Upload>) -> Option<Request<Upload>> {
    if !request.method().is_safe() || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(Upload::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}
