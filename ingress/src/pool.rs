//! Connections to endpoints: kept open between requests, given up when they are idle too long.

use http_body_util::combinators::BoxBody;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Body of a request on its way to an endpoint.
pub type Body = BoxBody<Bytes, hyper::Error>;

/// Within a cluster a connection is there in milliseconds; a lost SYN is repeated after 1 s.
const CONNECT: Duration = Duration::from_millis(1500);
/// Longest wait for the head of an answer.
const ANSWER: Duration = Duration::from_secs(60);
/// nginx closes idle connections after 75 s, Go's server never; half a minute is below both.
const IDLE: Duration = Duration::from_secs(30);
/// Idle connections kept per endpoint.
const IDLE_PER_ENDPOINT: usize = 32;

/// Why no answer came.
#[derive(Debug)]
pub enum Failure {
    /// The endpoint took nothing of the request, which comes back: another endpoint can have it.
    Untouched(Box<Request<Body>>),
    /// The endpoint may have acted.
    Broken,
    /// No answer in time; the endpoint may have acted.
    Late,
}

/// Idle connections by endpoint.
#[derive(Default)]
pub struct Pool {
    idle: Mutex<HashMap<SocketAddr, Vec<(SendRequest<Body>, Instant)>>>,
}

impl Pool {
    /// Sends a request to one endpoint, over a kept connection when one is there. The second value gives it back afterwards.
    pub async fn send(
        &self,
        endpoint: SocketAddr,
        mut request: Request<Body>,
    ) -> Result<(Response<Incoming>, SendRequest<Body>), Failure> {
        // A kept connection may just have been closed by the other side; then the request comes back whole.
        while let Some(sender) = self.take(endpoint) {
            match exchange(sender, request).await {
                Err(Failure::Untouched(back)) => request = *back,
                other => return other,
            }
        }
        let Ok(Ok(stream)) = timeout(CONNECT, TcpStream::connect(endpoint)).await else {
            return Err(Failure::Untouched(Box::new(request)));
        };
        // Without it small writes wait for acknowledgements; failing to set it costs speed only.
        let _ = stream.set_nodelay(true);
        let Ok((sender, connection)) = http1::handshake(TokioIo::new(stream)).await else {
            return Err(Failure::Untouched(Box::new(request)));
        };
        tokio::spawn(connection);
        exchange(sender, request).await
    }

    fn take(&self, endpoint: SocketAddr) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let list = idle.get_mut(&endpoint)?;
        while let Some((sender, since)) = list.pop() {
            if since.elapsed() < IDLE && sender.is_ready() {
                return Some(sender);
            }
        }
        idle.remove(&endpoint);
        None
    }

    /// Keeps a connection whose answer has been read to its end.
    pub fn give_back(&self, endpoint: SocketAddr, sender: SendRequest<Body>) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let list = idle.entry(endpoint).or_default();
        list.retain(|(s, since)| since.elapsed() < IDLE && !s.is_closed());
        if list.len() < IDLE_PER_ENDPOINT {
            list.push((sender, Instant::now()));
        }
    }

    /// Forgets connections to endpoints that no route leads to.
    pub fn keep_only(&self, wanted: impl Fn(&SocketAddr) -> bool) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|endpoint, _| wanted(endpoint));
    }
}

async fn exchange(
    mut sender: SendRequest<Body>,
    request: Request<Body>,
) -> Result<(Response<Incoming>, SendRequest<Body>), Failure> {
    match timeout(ANSWER, sender.try_send_request(request)).await {
        Ok(Ok(response)) => Ok((response, sender)),
        Ok(Err(mut error)) => Err(match error.take_message() {
            Some(request) => Failure::Untouched(Box::new(request)),
            None => Failure::Broken,
        }),
        Err(_) => Err(Failure::Late),
    }
}
