//! The data plane with a real client and real endpoints on loopback.

use super::*;
use crate::route::{CONTROLLER, Objects, Snapshot};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address that refuses connections.
async fn dead() -> SocketAddr {
    listen().await.1
}

/// An endpoint that answers every request with its own name and the request's head; counts connections.
async fn endpoint(name: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
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
async fn raw_endpoint(answer: &'static [u8], keep_open: bool) -> (SocketAddr, Arc<AtomicUsize>) {
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

struct Running {
    address: SocketAddr,
    state: Arc<State>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// A proxy whose one route, host `h`, leads to `endpoints`.
async fn proxy(endpoints: &[SocketAddr]) -> Running {
    proxy_with(endpoints, Limits::default()).await
}

async fn proxy_with(endpoints: &[SocketAddr], limits: Limits) -> Running {
    let state = Arc::new(State::new("n", ""));
    state.replace(Snapshot::build(&objects(endpoints), "landfall"));
    let (listener, address) = listen().await;
    let (stop, stopping) = watch::channel(false);
    let task = tokio::spawn(serve(listener, Arc::clone(&state), limits, stopping));
    Running {
        address,
        state,
        stop,
        task,
    }
}

fn objects(endpoints: &[SocketAddr]) -> Objects {
    fn object<K: serde::de::DeserializeOwned>(value: Value) -> Arc<K> {
        Arc::new(serde_json::from_value(value).unwrap())
    }
    let slice = |(i, e): (usize, &SocketAddr)| {
        object(
            json!({ "addressType": "IPv4", "metadata": { "name": format!("s{i}"), "namespace": "d",
            "labels": { "kubernetes.io/service-name": "s" } },
            "ports": [{ "name": "", "port": e.port() }], "endpoints": [{ "addresses": [e.ip()] }] }),
        )
    };
    Objects {
        classes: vec![object(
            json!({ "metadata": { "name": "landfall" }, "spec": { "controller": CONTROLLER } }),
        )],
        services: vec![object(
            json!({ "metadata": { "name": "s", "namespace": "d" }, "spec": { "ports": [{ "port": 80 }] } }),
        )],
        slices: endpoints.iter().enumerate().map(slice).collect(),
        ingresses: vec![object(json!({ "metadata": { "name": "i", "namespace": "d" }, "spec": {
            "ingressClassName": "landfall", "rules": [{ "host": "h", "http": { "paths": [{ "path": "/", "pathType": "Prefix",
                "backend": { "service": { "name": "s", "port": { "number": 80 } } } }] } }] } }))],
    }
}

/// Sends raw text on a fresh connection and returns all that comes until the other side closes.
async fn ask(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    rest(&mut stream).await
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset after the answer is the other side's way to refuse what it did not read.
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer))
        .await
        .expect("in time");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads until `end` has come.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
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

fn get(host: &str) -> String {
    format!("GET /x?q=1 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or_default()
}

#[tokio::test]
async fn requests_reach_endpoints_by_turns_over_kept_connections() {
    let (a, a_connections) = endpoint("alpha").await;
    let (b, _) = endpoint("beta").await;
    let proxy = proxy(&[a, b]).await;
    let mut seen = (0, 0);
    for _ in 0..10 {
        let answer = ask(proxy.address, &get("H:80")).await;
        assert_eq!(status(&answer), "200", "{answer}");
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
async fn clients_keep_their_connection_also_over_our_own_answers_and_head() {
    let (a, _) = endpoint("alpha").await;
    let proxy = proxy(&[a]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(status(&read_until(&mut stream, "path\n").await), "404");
    stream.write_all(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(
        status(&head) == "200" && head.contains("content-length: ") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    stream
        .write_all(b"GET /again HTTP/1.1\r\nHost: h\r\n\r\n")
        .await
        .unwrap();
    assert!(read_until(&mut stream, "body=0").await.contains("alpha GET /again"));
    assert_eq!(proxy.state.counters.connections.value(), 1);
    assert_eq!(proxy.state.counters.requests.value(), 0);
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over_also_with_a_body() {
    let (a, _) = endpoint("alpha").await;
    let dead = dead().await;
    let both = proxy(&[dead, a]).await;
    for _ in 0..4 {
        let text = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        let answer = ask(both.address, text).await;
        assert!(answer.contains("alpha POST /") && answer.contains("body=5"), "{answer}");
    }
    assert_eq!(both.state.counters.failovers.load(Ordering::SeqCst), 2);
    let only = proxy(&[dead]).await;
    assert_eq!(status(&ask(only.address, &get("h")).await), "502");
    let none = proxy(&[]).await;
    assert_eq!(status(&ask(none.address, &get("h")).await), "503");
}

#[tokio::test]
async fn a_kept_connection_that_the_endpoint_closed_costs_no_request() {
    let (a, connections) = raw_endpoint(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false).await;
    let proxy = proxy(&[a]).await;
    for i in 1..=20 {
        let answer = ask(proxy.address, &get("h")).await;
        assert_eq!(status(&answer), "200", "request {i}: {answer}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 20);
}

#[tokio::test]
async fn an_endpoint_that_took_a_request_and_broke_off_is_not_asked_again() {
    let (a, connections) = raw_endpoint(b"", false).await;
    let proxy = proxy(&[a, a]).await;
    let text = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    assert_eq!(status(&ask(proxy.address, text).await), "502");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    let (nonsense, _) = raw_endpoint(b"this is no HTTP\r\n\r\n", false).await;
    let proxy = proxy_with(&[nonsense], Limits::default()).await;
    assert_eq!(status(&ask(proxy.address, &get("h")).await), "502");
}

#[tokio::test]
async fn hosts_decide_and_bad_requests_are_refused() {
    let (a, _) = endpoint("alpha").await;
    let proxy = proxy(&[a]).await;
    for (text, wanted) in [
        ("GET / HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n", "404"),
        (
            "GET / HTTP/1.1\r\nHost: h\r\nHost: other\r\nConnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\nConnection: close\r\n\r\n",
            "400",
        ),
        ("GET / HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", "400"),
        (
            "GET http://u:p@h/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
            "400",
        ),
        ("GET / HTTP/1.0\r\n\r\n", "404"),
        ("GET / HTTP/1.0\r\nHost: h\r\n\r\n", "200"),
        (
            "CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\nConnection: close\r\n\r\n",
            "405",
        ),
        ("OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "404"),
        ("\0\u{1}\u{2}\r\n\r\n", "400"),
        (
            "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            "400",
        ),
        ("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", "400"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400"),
    ] {
        let answer = ask(proxy.address, text).await;
        // hyper answers HTTP/2's preface by closing.
        assert!(
            status(&answer) == wanted || (answer.is_empty() && text.starts_with("PRI")),
            "{text:?}: {answer}"
        );
    }
    let absolute = "GET http://h/y HTTP/1.1\r\nHost: other\r\nConnection: close, x-secret\r\nX-Secret: 1\r\n\r\n";
    let answer = ask(proxy.address, absolute).await;
    assert!(
        answer.contains("alpha GET /y") && answer.contains("\"host\": \"h\""),
        "{answer}"
    );
    assert!(!answer.contains("x-secret"), "{answer}");
}

#[tokio::test]
async fn heads_are_bounded_in_size_and_time() {
    let (a, _) = endpoint("alpha").await;
    let limits = Limits {
        head: Duration::from_millis(200),
        ..Limits::default()
    };
    let proxy = proxy_with(&[a], limits).await;
    let large = format!("GET / HTTP/1.1\r\nHost: h\r\nX-Large: {}\r\n\r\n", "a".repeat(70_000));
    assert_eq!(status(&ask(proxy.address, &large).await), "431");
    let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(200));
    assert_eq!(status(&ask(proxy.address, &many).await), "431");
    // A head that never ends, and a connection that never says anything: both are closed.
    for text in ["GET / HTTP/1.1\r\nHost: h\r\nX-Slow: ", ""] {
        let answer = ask(proxy.address, text).await;
        assert!(answer.is_empty() || status(&answer) == "408", "{answer}");
    }
}

#[tokio::test]
async fn silent_endpoints_are_given_up() {
    let limits = Limits {
        answer: Duration::from_millis(200),
        silence: Duration::from_millis(200),
        ..Limits::default()
    };
    let (mute, _) = raw_endpoint(b"", true).await;
    let proxy = proxy_with(&[mute], limits.clone()).await;
    assert_eq!(status(&ask(proxy.address, &get("h")).await), "504");
    let (half, _) = raw_endpoint(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", true).await;
    let proxy = proxy_with(&[half], limits).await;
    let answer = ask(proxy.address, &get("h")).await;
    assert!(status(&answer) == "200" && answer.ends_with("half"), "{answer}");
    assert_eq!(proxy.state.counters.requests.value(), 0);
}

#[tokio::test]
async fn a_slow_upload_is_no_silent_endpoint() {
    let (a, _) = endpoint("alpha").await;
    let limits = Limits {
        answer: Duration::from_millis(300),
        ..Limits::default()
    };
    let proxy = proxy_with(&[a], limits).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stream.write_all(b"x").await.unwrap();
    }
    assert!(rest(&mut stream).await.contains("body=8"));
}

#[tokio::test]
async fn clients_that_expect_100_get_it_only_when_someone_reads() {
    let (a, _) = endpoint("alpha").await;
    let proxy = proxy(&[a]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 100"));
    stream.write_all(b"body").await.unwrap();
    assert!(rest(&mut stream).await.contains("body=4"));
    let refused = ask(proxy.address, &head.replace("Host: h", "Host: z")).await;
    assert_eq!(status(&refused), "404", "{refused}");
}

#[tokio::test]
async fn bodies_stream_in_both_directions() {
    // The endpoint sends the first part of its answer before it has the request's last.
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "first").await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n")
            .await
            .unwrap();
        read_until(&mut stream, "0\r\n\r\n").await;
        stream.write_all(b"4\r\nlate\r\n0\r\n\r\n").await.unwrap();
        std::future::pending::<()>().await;
    });
    let proxy = proxy(&[address]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        .await
        .unwrap();
    read_until(&mut stream, "early").await;
    stream.write_all(b"4\r\nlast\r\n0\r\n\r\n").await.unwrap();
    read_until(&mut stream, "late").await;
}

#[tokio::test]
async fn a_reader_that_stops_reading_is_cut_off() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while stream.write_all(&[b'x'; 65536]).await.is_ok() {}
    });
    let limits = Limits {
        client_stall: Duration::from_millis(200),
        ..Limits::default()
    };
    let proxy = proxy_with(&[address], limits).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(get("h").as_bytes()).await.unwrap();
    let gone = async {
        while proxy.state.counters.connections.value() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        while proxy.state.counters.connections.value() != 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .expect("cut off");
    assert_eq!(proxy.state.counters.requests.value(), 0);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_free_one() {
    let (a, _) = endpoint("alpha").await;
    let limits = Limits {
        connections: 1,
        ..Limits::default()
    };
    let proxy = proxy_with(&[a], limits).await;
    let first = TcpStream::connect(proxy.address).await.unwrap();
    let mut second = TcpStream::connect(proxy.address).await.unwrap();
    second.write_all(get("h").as_bytes()).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(200), second.readable()).await;
    assert!(early.is_err(), "the second was served while the first was open");
    drop(first);
    assert_eq!(status(&rest(&mut second).await), "200");
}

#[tokio::test]
async fn a_stop_waits_for_what_is_in_flight() {
    let (a, _) = endpoint("alpha").await;
    let proxy = proxy(&[a]).await;
    let mut idle = TcpStream::connect(proxy.address).await.unwrap();
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab")
        .await
        .unwrap();
    while proxy.state.counters.requests.value() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    proxy.state.stop();
    assert!(!proxy.state.ready());
    let announced = ask(proxy.address, "GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(announced.contains("connection: close"), "{announced}");
    proxy.stop.send(true).unwrap();
    // The idle connection is closed at once; its end shows that the listener is gone too.
    assert_eq!(rest(&mut idle).await, "");
    assert!(TcpStream::connect(proxy.address).await.is_err());
    stream.write_all(b"cd").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(
        answer.contains("body=4") && answer.contains("connection: close"),
        "{answer}"
    );
    proxy.task.await.unwrap();
}
