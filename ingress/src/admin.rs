//! Health, metrics and the status page on the dashboard's port; read-only.

mod page;
mod report;

use crate::handover::Door;
use crate::state::State;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Longest wait for the head of a request. Kubernetes' probes and Prometheus send theirs at once.
const REQUEST_HEAD: Duration = Duration::from_secs(10);
/// Longest life of a connection, so that readers that stopped reading hold nothing for ever.
const CONNECTION: Duration = Duration::from_secs(300);
/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 256;
/// Pause after accept fails.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves for ever, also when the door is closed at the end: open connections are still answered.
pub async fn serve(mut door: Door, state: Arc<State>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let slot = Arc::clone(&slots).acquire_owned().await.ok();
        let stream = match door.accept().await {
            Some(Ok((stream, _))) => stream,
            Some(Err(_)) => {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
            None => return std::future::pending().await,
        };
        let state = Arc::clone(&state);
        let service = service_fn(move |request| {
            let response = answer(&request, &state);
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            // An error here is the client's.
            drop(timeout(CONNECTION, connection).await);
            drop(slot);
        });
    }
}

fn answer(request: &Request<Incoming>, state: &State) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "405: only GET and HEAD\n");
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" if state.ready() => text(StatusCode::OK, "ok\n"),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        "/metrics" => respond(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            metrics(state),
        ),
        "/status.json" => respond(StatusCode::OK, "application/json", report::render(state)),
        "/" => respond(StatusCode::OK, "text/html; charset=utf-8", page::render(state)),
        _ => text(StatusCode::NOT_FOUND, "404: not here\n"),
    }
}

fn metrics(state: &State) -> String {
    let snapshot = state.snapshot();
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    state.counters.render(&[
        ("ready", "Whether requests are wanted here.", u64::from(state.ready())),
        (
            "leader",
            "Whether this proxy writes status.",
            u64::from(state.leading()),
        ),
        (
            "handed_over",
            "Whether another process of this node takes connections.",
            u64::from(state.leaving() && !state.stopping()),
        ),
        ("routes", "Routes in the table.", count(snapshot.route_count())),
        ("ingresses", "Ingresses that are served.", count(snapshot.ours.len())),
        (
            "remarks",
            "Objects that lost or could not be used.",
            count(snapshot.remarks.len()),
        ),
        ("uptime_seconds", "Time since the start.", state.uptime().as_secs()),
    ])
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", body.to_owned())
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    let fields = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, policy),
    ];
    for (name, value) in fields {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
