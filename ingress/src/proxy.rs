//! Takes connections and serves requests on them until it is told to stop.
//!
//! A request takes one path: [`forward`] finds its backend in the newest snapshot, [`headers`] makes it fit for the next hop,
//! [`crate::pool`] sends it, [`crate::body`] carries what follows. No lock is held while it waits.

mod forward;
mod headers;
mod stall;

use crate::body::Download;
use crate::handover::Door;
use crate::limits::Limits;
use crate::log;
use crate::pool::Pool;
use crate::state::State;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use stall::Unstalled;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch::Receiver;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Pause after accept fails, which it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What every connection shares.
pub struct Proxy {
    state: Arc<State>,
    pool: Arc<Pool>,
    limits: Limits,
}

/// What is known of a connection before its first request.
#[derive(Debug, Clone)]
pub struct Client {
    /// The client's address, from the connection or from a PROXY header.
    pub address: SocketAddr,
    /// Port that the client asked, for X-Forwarded-Port.
    pub port: u16,
    /// Set on a connection with TLS.
    pub tls: Option<Arc<Session>>,
}

/// What a TLS handshake settled.
#[derive(Debug, Default)]
pub struct Session {
    /// Server name that the client asked for, lower case.
    pub server_name: Option<String>,
    /// Certificates that the client showed, DER, its own first; they were checked against their authorities.
    pub client_certificates: Vec<Vec<u8>>,
}

/// Serves until `stopping` turns true, then until the requests in flight have ended.
pub async fn serve(mut door: Door, state: Arc<State>, limits: Limits, mut stopping: Receiver<bool>) {
    let graceful = GracefulShutdown::new();
    let proxy = Arc::new(Proxy {
        pool: Arc::new(Pool::new(limits.clone())),
        state,
        limits,
    });
    let port = door.address().port();
    let sweeper = tokio::spawn(sweep(Arc::clone(&proxy)));
    let slots = Arc::new(Semaphore::new(proxy.limits.connections));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&mut door, &slots) => accepted,
            () = stopped(&mut stopping) => break,
        };
        let Some((stream, peer, slot)) = accepted else { break };
        // Costs speed only when it cannot be set.
        let _ = stream.set_nodelay(true);
        let client = Client {
            address: peer,
            port,
            tls: None,
        };
        let connection = graceful.watch(connection(Arc::clone(&proxy), stream, client));
        let open = proxy.state.counters.connections.one();
        tokio::spawn(async move {
            // An error here is the client's: it went away or spoke no HTTP.
            drop(connection.await);
            drop((slot, open));
        });
    }
    drop(door);
    // A closed door lets nobody in; requests on open connections go on until the stop.
    stopped(&mut stopping).await;
    graceful.shutdown().await;
    sweeper.abort();
}

/// Waits for the stop; holds no lock of the channel afterwards. Nobody left to say it means that it never comes.
pub async fn stopped(stopping: &mut Receiver<bool>) {
    if stopping.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits for a free slot first, so that connections beyond the limit stay in the kernel's queue.
async fn accept(
    door: &mut Door,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, Option<OwnedSemaphorePermit>)> {
    // The semaphore is never closed.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    loop {
        match door.accept().await? {
            Ok((stream, peer)) => return Some((stream, peer, slot)),
            Err(error) => {
                log(&format!("accept: {error}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn connection<S>(
    proxy: Arc<Proxy>,
    stream: S,
    client: Client,
) -> impl hyper_util::server::graceful::GracefulConnection<Output = hyper::Result<()>, Error = hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let client = Arc::new(client);
    let stream = Unstalled::new(stream, proxy.limits.client_stall);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(proxy.limits.head)
        .max_header_size(proxy.limits.head_bytes);
    let service = service_fn(move |request| {
        let (proxy, client) = (Arc::clone(&proxy), Arc::clone(&client));
        async move { Ok::<_, Infallible>(proxy.answer(request, &client).await) }
    });
    builder.serve_connection(TokioIo::new(stream), service)
}

impl Proxy {
    async fn answer(&self, request: Request<Incoming>, client: &Client) -> Response<Download> {
        let in_flight = self.state.counters.requests.one();
        let mut response = match self.forward(request, client).await {
            Ok((response, connection)) => headers::incoming(response)
                .map(|body| Download::endpoint(body, self.limits.silence, connection, in_flight)),
            Err(reason) => {
                self.state.counters.own(reason);
                let (status, text) = reason.answer();
                let mut response = Response::new(Download::own(text, in_flight));
                *response.status_mut() = status;
                let kind = HeaderValue::from_static("text/plain; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                response
            }
        };
        let ours = || HeaderValue::from_static("landfall-ingress");
        response.headers_mut().entry(header::SERVER).or_insert_with(ours);
        if self.state.leaving() {
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        self.state.counters.answered(response.status());
        response
    }
}

async fn sweep(proxy: Arc<Proxy>) {
    loop {
        tokio::time::sleep(proxy.limits.sweep).await;
        let wanted = proxy.state.snapshot().endpoints();
        proxy.pool.sweep(&wanted);
    }
}

#[cfg(test)]
mod tests;
