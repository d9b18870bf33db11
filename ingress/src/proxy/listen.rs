//! Takes connections until it is told to stop, then waits for those that are open.

use super::stall::Unstalled;
use super::{Client, Proxy};
use crate::body::Upload;
use crate::handover::Door;
use crate::log;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
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

/// Serves until `stopping` turns true, then until the requests in flight have ended.
pub async fn serve(proxy: Arc<Proxy>, mut door: Door, mut stopping: Receiver<bool>) {
    let graceful = GracefulShutdown::new();
    let port = door.address().port();
    let sweeper = {
        let proxy = Arc::clone(&proxy);
        tokio::spawn(async move { proxy.sweep().await })
    };
    let slots = Arc::new(Semaphore::new(proxy.limits.connections));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&mut door, &slots) => accepted,
            () = stopped(&mut stopping) => break,
        };
        let Some((stream, peer, slot)) = accepted else { break };
        // Costs speed only when it cannot be set.
        let _ = stream.set_nodelay(true);
        let mut client = Client::new(peer, port);
        client.trusted = proxy.front.trusts(peer);
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
        .max_headers(proxy.limits.head_fields)
        .max_header_size(proxy.limits.head_bytes);
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (proxy, client) = (Arc::clone(&proxy), Arc::clone(&client));
        async move { Ok::<_, Infallible>(proxy.answer(request.map(Upload::new), &client).await) }
    });
    builder.serve_connection(TokioIo::new(stream), service)
}
