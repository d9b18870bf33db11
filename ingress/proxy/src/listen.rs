//! Takes connections until it is told to stop, then waits for those that are open.

use super::connection;
use super::registry::{Full, Guard};
use super::sniff::HttpVersion;
use super::stall::Unstalled;
use super::{Client, Proxy, proxy_header};
use crate::tls::Acceptor;
use landfall_ingress_listen::Listener;
use landfall_ingress_telemetry::{files, log};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch::Receiver;

/// Pause after accept fails, which it does when open files run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Serves until `stopping` turns true, then until the requests in flight have ended.
pub async fn serve(
    proxy: Arc<Proxy>,
    mut listener: Listener,
    tls: Option<Arc<Acceptor>>,
    mut stopping: Receiver<bool>,
) {
    let port = listener.address().port();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&mut listener) => accepted,
            () = stopped(&mut stopping) => break,
        };
        let Some((stream, peer)) = accepted else { break };
        let more = if tls.is_some() { proxy.limits.tls_cost } else { 0 };
        let Some(guard) = admit(&proxy, peer, more, &mut stopping).await else {
            continue;
        };
        // Costs speed only when it cannot be set.
        let _ = stream.set_nodelay(true);
        let mut client = Client::new(peer, port);
        client.trusted = proxy.front.trusts(peer);
        let (proxy, tls) = (Arc::clone(&proxy), tls.clone());
        tokio::spawn(async move {
            let open = proxy.state.counters.connections.one();
            greet(&proxy, stream, client, tls.as_deref(), &guard).await;
            drop((open, guard));
        });
    }
    drop(listener);
    // A closed listener lets nobody in; requests on open connections go on until the stop.
    stopped(&mut stopping).await;
    proxy.registry.close_all();
    proxy.registry.empty().await;
}

/// Waits for the stop; holds no lock of the channel afterwards. Nobody left to say it means that it never comes.
pub async fn stopped(stopping: &mut Receiver<bool>) {
    if stopping.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The next connection. `None` when the listener is closed.
async fn accept(listener: &mut Listener) -> Option<(TcpStream, SocketAddr)> {
    loop {
        match listener.accept().await? {
            Ok(accepted) => return Some(accepted),
            Err(error) => {
                // Shortages are counted, and idle connections give way (`tidy`); the pause is for them to end.
                if !files::ran_out(&error) {
                    log(&format!("accept: {error}"));
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A place for a connection; `None` where its address has too many. While it waits for one the others stay in the kernel's queue. A stop ends
/// other connections and not this one, whose client has been let in.
async fn admit(proxy: &Proxy, peer: SocketAddr, more: usize, stopping: &mut Receiver<bool>) -> Option<Guard> {
    let address = peer.ip().to_canonical();
    let mut told = false;
    loop {
        match proxy.registry.admit(address, proxy.front.trusts(peer), more) {
            Ok(guard) => return Some(guard),
            Err(Full::Address) => {
                proxy.state.counters.refused_connections.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            Err(Full::Everywhere) if told => proxy.registry.one_ended().await,
            Err(Full::Everywhere) => tokio::select! {
                () = proxy.registry.one_ended() => {}
                () = stopped(stopping) => {
                    told = true;
                    proxy.registry.close_all();
                }
            },
        }
    }
}

/// What comes before HTTP: a PROXY header from trusted peers, then TLS.
async fn greet(proxy: &Arc<Proxy>, stream: TcpStream, mut client: Client, tls: Option<&Acceptor>, guard: &Guard) {
    if proxy.front.proxy_protocol && client.trusted {
        match proxy_header::take(&stream, proxy.limits.proxy_header).await {
            Ok(Some(told)) => {
                client.address = told.source;
                if told.destination.port() != 0 {
                    client.port = told.destination.port();
                }
                client.trusted = proxy.front.trusts(told.source);
            }
            Ok(None) => {}
            // Who stands in front is broken; nothing that it would understand can be said.
            Err(proxy_header::Malformed) => return,
        }
    }
    // Below TLS: what its layer still has to send when a request has ended, or at its end, is bounded, too.
    let stream = Unstalled::new(stream, proxy.limits.client_stall);
    let Some(tls) = tls else {
        connection::serve(proxy, stream, client, HttpVersion::Unknown, guard.place()).await;
        return;
    };
    // An error here is the client's: it went away, or spoke no TLS.
    if let Ok((mut stream, session)) = tls.accept(stream).await {
        // Of what is written while the client takes nothing: 64 KiB by default.
        stream.get_mut().1.set_buffer_limit(Some(proxy.limits.tls_cost));
        let spoken = if session.http2 {
            HttpVersion::Http2
        } else {
            HttpVersion::Http1
        };
        client.https = true;
        client.tls = Some(Arc::new(session));
        connection::serve(proxy, stream, client, spoken, guard.place()).await;
    }
}
