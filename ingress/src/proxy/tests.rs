use super::*;
use crate::route::{Objects, Snapshot};
use serde_json::json;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// An endpoint that answers every request with its own name and the request's head; counts connections.
async fn endpoint(name: &'static str) -> (SocketAddr, Arc<std::sync::atomic::AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
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

/// A proxy whose one route, host `h`, leads to `endpoints`.
async fn proxy(endpoints: &[SocketAddr]) -> (SocketAddr, Arc<State>, watch::Sender<bool>, tokio::task::JoinHandle<()>) {
    let list = |v| serde_json::from_value(v).unwrap();
    let slice = |(i, e): (usize, &SocketAddr)| {
        json!({ "addressType": "IPv4", "metadata": { "name": format!("s{i}"), "namespace": "d",
            "labels": { "kubernetes.io/service-name": "s" } },
            "ports": [{ "name": "", "port": e.port() }], "endpoints": [{ "addresses": [e.ip()] }] })
    };
    let objects = Objects {
        classes: list(json!([{ "metadata": { "name": "landfall" }, "spec": { "controller": crate::route::CONTROLLER } }])),
        services: serde_json::from_value(
            json!([{ "metadata": { "name": "s", "namespace": "d" }, "spec": { "ports": [{ "port": 80 }] } }]),
        )
        .unwrap(),
        slices: endpoints
            .iter()
            .enumerate()
            .map(|e| serde_json::from_value(slice(e)).unwrap())
            .collect(),
        ingresses: serde_json::from_value(json!([{ "metadata": { "name": "i", "namespace": "d" }, "spec": {
            "ingressClassName": "landfall", "rules": [{ "host": "h", "http": { "paths": [{ "path": "/", "pathType": "Prefix",
                "backend": { "service": { "name": "s", "port": { "number": 80 } } } }] } }] } }]))
        .unwrap(),
    };
    let state = Arc::new(State::new("n", ""));
    state.replace(Snapshot::build(&objects, "landfall"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopping) = watch::channel(false);
    let task = tokio::spawn(serve(listener, Arc::clone(&state), stopping));
    (address, state, stop, task)
}

/// Sends raw text on a fresh connection that asks to be closed; returns the whole answer.
async fn ask(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn get(host: &str) -> String {
    format!("GET /x?q=1 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn requests_reach_endpoints_by_turns_over_kept_connections() {
    let (a, a_connections) = endpoint("alpha").await;
    let (b, _) = endpoint("beta").await;
    let (address, ..) = proxy(&[a, b]).await;
    let mut seen = (0, 0);
    for _ in 0..10 {
        let answer = ask(address, &get("H:80")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(
            answer.contains("GET /x?q=1") && answer.contains("\"x-forwarded-for\": \"127.0.0.1\""),
            "{answer}"
        );
        seen.0 += usize::from(answer.contains("alpha"));
        seen.1 += usize::from(answer.contains("beta"));
    }
    assert_eq!(seen, (5, 5));
    assert_eq!(a_connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over_also_with_a_body() {
    let (a, _) = endpoint("alpha").await;
    let dead = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap()
    };
    let (address, state, ..) = proxy(&[dead, a]).await;
    for _ in 0..4 {
        let text = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        let answer = ask(address, text).await;
        assert!(answer.contains("alpha POST /") && answer.contains("body=5"), "{answer}");
    }
    assert_eq!(state.counters.failovers.load(Ordering::SeqCst), 2);
    let (address, ..) = proxy(&[dead]).await;
    assert!(ask(address, &get("h")).await.starts_with("HTTP/1.1 502"));
    let (address, ..) = proxy(&[]).await;
    assert!(ask(address, &get("h")).await.starts_with("HTTP/1.1 503"));
}

#[tokio::test]
async fn hosts_decide_and_bad_ones_are_refused() {
    let (a, _) = endpoint("alpha").await;
    let (address, ..) = proxy(&[a]).await;
    assert!(ask(address, &get("other")).await.starts_with("HTTP/1.1 404"));
    let two = "GET / HTTP/1.1\r\nHost: h\r\nHost: other\r\nConnection: close\r\n\r\n";
    assert!(ask(address, two).await.starts_with("HTTP/1.1 400"));
    let none = "GET / HTTP/1.1\r\nConnection: close\r\n\r\n";
    assert!(ask(address, none).await.starts_with("HTTP/1.1 400"));
    let absolute = "GET http://h/y HTTP/1.1\r\nHost: other\r\nConnection: close, x-secret\r\nX-Secret: 1\r\n\r\n";
    let answer = ask(address, absolute).await;
    assert!(
        answer.contains("alpha GET /y") && answer.contains("\"host\": \"h\""),
        "{answer}"
    );
    assert!(!answer.contains("x-secret"), "{answer}");
}

#[tokio::test]
async fn a_stop_waits_for_what_is_in_flight() {
    let (a, _) = endpoint("alpha").await;
    let (address, _, stop, task) = proxy(&[a]).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab";
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.send(true).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(TcpStream::connect(address).await.is_err());
    stream.write_all(b"cd").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("body=4"), "{answer}");
    task.await.unwrap();
}
