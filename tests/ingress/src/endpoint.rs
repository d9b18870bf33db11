//! Real endpoints: HTTP/1.1 servers on loopback that start, drain like a pod, or are killed.

use crate::websocket;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What an endpoint answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// JSON that tells service, pod and the request as it came.
    Echo,
    /// `SERVICE NONCE BODY`, where the nonce is the value of the field `x-nonce`.
    Short,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Serving,
    /// Takes no connection; each request is the last on its connection.
    Draining,
    /// Killed: it stops at once.
    Killed,
}

struct Shared {
    kind: Kind,
    service: String,
    pod: String,
    requests: AtomicUsize,
    connections: AtomicUsize,
}

/// A running endpoint; killed when dropped.
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    life: watch::Sender<Life>,
}

impl Endpoint {
    /// Answers with JSON that describes the request.
    pub async fn echo(service: &str, pod: &str) -> Self {
        Self::echo_at(LOOPBACK, service, pod).await.unwrap()
    }

    /// The same on another address of this machine. Fails when it is none.
    pub async fn echo_at(address: IpAddr, service: &str, pod: &str) -> io::Result<Self> {
        Self::start(address, Kind::Echo, service, pod).await
    }

    /// Answers with its Service's name and what the request bore.
    pub async fn short(service: &str) -> Self {
        Self::start(LOOPBACK, Kind::Short, service, "").await.unwrap()
    }

    async fn start(address: IpAddr, kind: Kind, service: &str, pod: &str) -> io::Result<Self> {
        let listener = TcpListener::bind((address, 0)).await?;
        let shared = Arc::new(Shared {
            kind,
            service: service.to_owned(),
            pod: pod.to_owned(),
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
        });
        let (life, living) = watch::channel(Life::Serving);
        let address = listener.local_addr()?;
        tokio::spawn(serve(listener, Arc::clone(&shared), living));
        Ok(Self { address, shared, life })
    }

    /// Requests that it has answered or is answering.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Connections that are open to it.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Ends as a server does on SIGTERM: no new connections, idle ones closed, requests in flight answered.
    pub fn drain(&self) {
        self.life.send_replace(Life::Draining);
    }

    /// Ends as a process does on SIGKILL.
    pub fn kill(&self) {
        self.life.send_replace(Life::Killed);
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, living: watch::Receiver<Life>) {
    let mut watched = living.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    tokio::spawn(connection(stream, Arc::clone(&shared), living.clone()));
                }
            }
            _ = watched.wait_for(|life| *life != Life::Serving) => return,
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, mut living: watch::Receiver<Life>) {
    stream.set_nodelay(true).unwrap();
    let open = Open::new(&shared);
    let tunnels = living.clone();
    let service = service_fn(move |request| {
        let (open, living) = (open.clone(), tunnels.clone());
        async move { Ok::<_, Infallible>(answer(request, open, living).await) }
    });
    let mut served = pin!(
        http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
    );
    loop {
        tokio::select! {
            // Errors of the other side are detected there.
            _ = served.as_mut() => return,
            changed = living.changed() => {
                // A dropped endpoint is killed before its sender goes.
                if changed.is_err() || *living.borrow() == Life::Killed {
                    return;
                }
                served.as_mut().graceful_shutdown();
            }
        }
    }
}

/// One open connection, also while it is a tunnel.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: &Arc<Shared>) -> Arc<Self> {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self(Arc::clone(shared)))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn answer(
    mut request: Request<Incoming>,
    open: Arc<Open>,
    mut living: watch::Receiver<Life>,
) -> Response<Full<Bytes>> {
    let shared = Arc::clone(&open.0);
    shared.requests.fetch_add(1, Ordering::Relaxed);
    if request.headers().contains_key(header::SEC_WEBSOCKET_KEY) {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            if let Ok(stream) = upgrade.await {
                tokio::select! {
                    () = websocket::echo(TokioIo::new(stream)) => {}
                    _ = living.wait_for(|life| *life == Life::Killed) => {}
                }
            }
            drop(open);
        });
        return websocket::accept(request.headers());
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let (kind, text) = match shared.kind {
        Kind::Echo => ("application/json", describe(&shared, &parts, &body).to_string()),
        Kind::Short => {
            let nonce = parts
                .headers
                .get("x-nonce")
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default();
            let text = format!("{} {nonce} {}", shared.service, String::from_utf8_lossy(&body));
            ("text/plain", text)
        }
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = StatusCode::OK;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn describe(shared: &Shared, parts: &hyper::http::request::Parts, body: &Bytes) -> Value {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut fields: Vec<_> = parts
        .headers
        .iter()
        .map(|(name, value)| json!([name.as_str(), text(value)]))
        .collect();
    fields.sort_by_key(ToString::to_string);
    json!({
        "service": shared.service,
        "pod": shared.pod,
        "method": parts.method.as_str(),
        "target": parts.uri.to_string(),
        "proto": format!("{:?}", parts.version),
        "host": parts.headers.get(header::HOST).map(text),
        "fields": fields,
        "body": String::from_utf8_lossy(body),
    })
}
