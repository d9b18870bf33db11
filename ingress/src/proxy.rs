//! Takes requests, finds their route, sends them to an endpoint, and to another when the first cannot be reached.

use crate::pool::{Body, Failure, Pool};
use crate::route::{Found, host_of};
use crate::state::State;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch::Receiver;

/// Longest wait for the head of a request on an open connection.
const REQUEST_HEAD: Duration = Duration::from_secs(30);
/// Pause after accept fails, which it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Endpoints tried for one request.
const TRIES: usize = 3;
/// How often connections to endpoints that are gone are forgotten.
const SWEEP: Duration = Duration::from_secs(10);

/// Fields that end at this hop (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Serves until `stopping` turns true, then until connections in flight have ended.
pub async fn serve(listener: TcpListener, state: Arc<State>, mut stopping: Receiver<bool>) {
    let graceful = GracefulShutdown::new();
    let pool = Arc::new(Pool::default());
    let sweeper = tokio::spawn(sweep(Arc::clone(&pool), Arc::clone(&state)));
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    crate::log(&format!("accept: {error}"));
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = stopped(&mut stopping) => break,
        };
        // Costs speed only when it cannot be set.
        let _ = stream.set_nodelay(true);
        let (state, pool) = (Arc::clone(&state), Arc::clone(&pool));
        let service = service_fn(move |request| {
            let (state, pool) = (Arc::clone(&state), Arc::clone(&pool));
            async move { Ok::<_, Infallible>(answer(request, peer, &state, &pool).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        // An error here is the client's: it went away or spoke no HTTP.
        tokio::spawn(async move { drop(connection.await) });
    }
    drop(listener);
    graceful.shutdown().await;
    sweeper.abort();
}

/// Waits for the stop; holds no lock of the channel afterwards. Nobody left to say it means that it never comes.
async fn stopped(stopping: &mut Receiver<bool>) {
    if stopping.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn sweep(pool: Arc<Pool>, state: Arc<State>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let snapshot = state.snapshot();
        pool.keep_only(|endpoint| snapshot.routes().any(|(_, r)| r.backend.endpoints.contains(endpoint)));
    }
}

async fn answer(request: Request<Incoming>, peer: SocketAddr, state: &State, pool: &Arc<Pool>) -> Response<Body> {
    state.counters.in_flight.fetch_add(1, Ordering::Relaxed);
    let response = forward(request, peer, state, pool).await;
    state.counters.in_flight.fetch_sub(1, Ordering::Relaxed);
    let class = usize::from(response.status().as_u16() / 100).min(5);
    state.counters.answers[class].fetch_add(1, Ordering::Relaxed);
    response
}

async fn forward(request: Request<Incoming>, peer: SocketAddr, state: &State, pool: &Arc<Pool>) -> Response<Body> {
    let Some(host) = requested_host(&request) else {
        return plain(StatusCode::BAD_REQUEST, "400: exactly one valid Host is needed\n");
    };
    let snapshot = state.snapshot();
    let backend = match snapshot.find(&host, request.uri().path()) {
        Found::Backend(backend) => backend,
        Found::Nothing => return plain(StatusCode::NOT_FOUND, "404: no Ingress has this host and path\n"),
    };
    let Some(mut request) = outgoing(request, peer) else {
        return plain(StatusCode::BAD_REQUEST, "400: the request target cannot be forwarded\n");
    };
    if backend.endpoints.is_empty() {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "503: the Service has no endpoint\n");
    }
    for endpoint in backend.candidates().take(TRIES) {
        match pool.send(endpoint, request).await {
            Ok((response, sender)) => return incoming(response, endpoint, sender, pool),
            Err(Failure::Untouched(back)) => {
                state.counters.failovers.fetch_add(1, Ordering::Relaxed);
                request = *back;
            }
            Err(Failure::Broken) => return plain(StatusCode::BAD_GATEWAY, "502: the endpoint broke off\n"),
            Err(Failure::Late) => {
                return plain(
                    StatusCode::GATEWAY_TIMEOUT,
                    "504: the endpoint did not answer in time\n",
                );
            }
        }
    }
    plain(
        StatusCode::BAD_GATEWAY,
        "502: no endpoint of the Service can be reached\n",
    )
}

/// S6: the target in absolute form wins over the Host field; more than one Host, or none, is a bad request (RFC 9112, 3.2).
fn requested_host(request: &Request<Incoming>) -> Option<String> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let field = hosts.next();
    if hosts.next().is_some() || (field.is_none() && request.version() != Version::HTTP_10) {
        return None;
    }
    match (request.uri().authority(), field) {
        (Some(authority), _) => host_of(authority.as_str()),
        (None, Some(field)) => host_of(field.to_str().ok()?),
        (None, None) => Some(String::new()),
    }
}

/// The request as the endpoint gets it: same method, path and Host, hop-by-hop fields gone, who asked in X-Forwarded-*.
fn outgoing(request: Request<Incoming>, peer: SocketAddr) -> Option<Request<Body>> {
    let (mut parts, body) = request.into_parts();
    if let Some(authority) = parts.uri.authority() {
        let value = HeaderValue::from_str(authority.as_str()).ok()?;
        parts.headers.insert(header::HOST, value);
    }
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    parts.uri = path.parse::<Uri>().ok()?;
    parts.version = Version::HTTP_11;
    strip_hop_by_hop(&mut parts.headers);
    let set = |headers: &mut HeaderMap, name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    let address = peer.ip().to_canonical().to_string();
    // What clients claim about themselves is replaced: this proxy is the edge, and pods believe these fields.
    set(&mut parts.headers, "x-forwarded-for", &address);
    set(&mut parts.headers, "x-real-ip", &address);
    set(&mut parts.headers, "x-forwarded-proto", "http");
    if let Some(host) = parts.headers.get(header::HOST).cloned() {
        parts.headers.insert("x-forwarded-host", host);
    }
    Some(Request::from_parts(parts, body.boxed()))
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// The answer as the client gets it; its connection to the endpoint is kept when the body has been read to its end.
fn incoming(
    response: Response<Incoming>,
    endpoint: SocketAddr,
    sender: SendRequest<Body>,
    pool: &Arc<Pool>,
) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    strip_hop_by_hop(&mut parts.headers);
    parts.version = Version::HTTP_11;
    let body = Returning {
        body,
        home: Some((endpoint, sender, Arc::clone(pool))),
    };
    let mut response = Response::from_parts(parts, body.boxed());
    // A body that is empty may never be polled, so its connection would never be kept.
    if hyper::body::Body::is_end_stream(response.body()) {
        *response.body_mut() = Empty::new().map_err(|never| match never {}).boxed();
    }
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {});
    let mut response = Response::new(body.boxed());
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// A body that gives its connection back at its end, or when it is dropped after it.
struct Returning {
    body: Incoming,
    home: Option<(SocketAddr, SendRequest<Body>, Arc<Pool>)>,
}

impl Returning {
    fn give_back(&mut self) {
        if let Some((endpoint, sender, pool)) = self.home.take() {
            pool.give_back(endpoint, sender);
        }
    }
}

impl hyper::body::Body for Returning {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(None) = polled {
            self.give_back();
        }
        polled
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        if hyper::body::Body::is_end_stream(&self.body) {
            self.give_back();
        }
    }
}

#[cfg(test)]
mod tests;
