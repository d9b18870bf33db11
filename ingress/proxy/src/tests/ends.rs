//! Both ends of a proxy under test: a client that speaks raw text, and endpoints of several tempers.

use crate::limits::Limits;
use crate::state::State;
use crate::{Front, Proxy, serve};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use landfall_ingress_translate::options::CONTROLLER;
use landfall_ingress_translate::route::{Objects, Snapshot};
use landfall_ingress_translate::services::Services;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(super) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address that refuses connections.
pub(super) fn dead() -> SocketAddr {
    // Bound and never listening; kept for as long as the process lasts, or another test gets the port and answers.
    let socket = Box::leak(Box::new(TcpSocket::new_v4().unwrap()));
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    socket.local_addr().unwrap()
}

/// An endpoint that answers every request with its own name and the request's head; counts connections.
pub(super) async fn endpoint(name: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let (listener, address) = listen().await;
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            let service = service_fn(move |request: Request<Incoming>| async move {
                let head = format!("{name} {} {} {:?}", request.method(), request.uri(), request.headers());
                let body = request
                    .into_body()
                    .collect()
                    .await
                    .map(|b| b.to_bytes().len())
                    .unwrap_or(0);
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(format!("{head} body={body}")))))
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, connections)
}

/// An endpoint that reads once and then does as told; counts connections.
pub(super) async fn raw_endpoint(answer: &'static [u8], keep_open: bool) -> (SocketAddr, Arc<AtomicUsize>) {
    let (listener, address) = listen().await;
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer).await;
                if keep_open {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    (address, connections)
}

pub(super) struct Running {
    pub(super) address: SocketAddr,
    pub(super) proxy: Arc<Proxy>,
    pub(super) state: Arc<State>,
    pub(super) stop: watch::Sender<bool>,
    pub(super) task: JoinHandle<()>,
}

/// A proxy whose one route, host `h`, leads to `endpoints`.
pub(super) async fn proxy(endpoints: &[SocketAddr]) -> Running {
    proxy_with(endpoints, Limits::default()).await
}

pub(super) async fn proxy_with(endpoints: &[SocketAddr], limits: Limits) -> Running {
    proxy_with_annotations(endpoints, json!({}), limits).await
}

/// A proxy whose Ingress has annotations.
pub(super) async fn proxy_with_annotations(endpoints: &[SocketAddr], annotations: Value, limits: Limits) -> Running {
    proxy_behind(endpoints, annotations, limits, Front::default()).await
}

/// A proxy with something in front of it.
pub(super) async fn proxy_behind(
    endpoints: &[SocketAddr],
    annotations: Value,
    limits: Limits,
    front: Front,
) -> Running {
    proxy_on(
        Snapshot::build(&objects(endpoints, annotations), "landfall"),
        limits,
        front,
    )
    .await
}

/// A proxy with this table.
pub(super) async fn proxy_on(snapshot: Snapshot, limits: Limits, front: Front) -> Running {
    proxy_over(snapshot, limits, front, false).await
}

/// A proxy with this table, for clients that speak TLS or do not.
pub(super) async fn proxy_over(snapshot: Snapshot, limits: Limits, front: Front, tls: bool) -> Running {
    let state = Arc::new(State::default());
    state.table.store(snapshot.table);
    let (listener, address) = listen().await;
    let (stop, stopping) = watch::channel(false);
    let acceptor = || crate::tls::Acceptor::new(Arc::clone(&state), &landfall_ingress_tls::Options::default()).unwrap();
    let acceptor = tls.then(|| Arc::new(acceptor()));
    let proxy = Proxy::new(Arc::clone(&state), limits, front);
    let task = tokio::spawn(serve(Arc::clone(&proxy), listener.into(), acceptor, stopping));
    Running {
        address,
        proxy,
        state,
        stop,
        task,
    }
}

pub(super) fn objects(endpoints: &[SocketAddr], annotations: Value) -> Objects {
    fn object<K: serde::de::DeserializeOwned>(value: Value) -> Arc<K> {
        Arc::new(serde_json::from_value(value).unwrap())
    }
    let services = Services::default();
    let service = json!({ "metadata": { "name": "s", "namespace": "d" }, "spec": { "ports": [{ "port": 80 }] } });
    services.read_service(service).unwrap();
    for (i, e) in endpoints.iter().enumerate() {
        let slice = json!({ "addressType": "IPv4", "metadata": { "name": format!("s{i}"), "namespace": "d",
            "labels": { "kubernetes.io/service-name": "s" } },
            "ports": [{ "name": "", "port": e.port() }], "endpoints": [{ "addresses": [e.ip()] }] });
        services.read_slice(slice).unwrap();
    }
    Objects {
        classes: vec![object(
            json!({ "metadata": { "name": "landfall" }, "spec": { "controller": CONTROLLER } }),
        )],
        services: Arc::new(services),
        ingresses: vec![object(
            json!({ "metadata": { "name": "i", "namespace": "d", "annotations": annotations }, "spec": {
            "ingressClassName": "landfall", "rules": [{ "host": "h", "http": { "paths": [{ "path": "/", "pathType": "Prefix",
                "backend": { "service": { "name": "s", "port": { "number": 80 } } } }] } }] } }),
        )],
    }
}

/// Sends raw text on a fresh connection and returns all that comes until the other side closes.
pub(super) async fn ask(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    rest(&mut stream).await
}

pub(super) async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset after the answer is the other side's way to refuse what it did not read.
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer))
        .await
        .expect("in time");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads until `end` has come.
pub(super) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(end) {
        let mut buffer = [0; 4096];
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buffer))
            .await
            .expect("in time")
            .unwrap();
        assert_ne!(read, 0, "closed after {:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

pub(super) fn get(host: &str) -> String {
    format!("GET /x?q=1 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

pub(super) fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or_default()
}

/// An endpoint whose answer never ends.
pub(super) async fn endless() -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while stream.write_all(&[b'x'; 65536]).await.is_ok() {}
    });
    address
}
