//! Plain requests the quick way and the usual way, through the whole data plane: what endpoint, client, counts and log get is the same.

use super::ends::{Running, listen, proxy_with, read_until, rest};
use crate::limits::Limits;
use landfall_ingress_telemetry::traffic::EntryPoint;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const WARM: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

/// An endpoint that keeps its connections; the first request of each gets [`WARM`], later ones `answer`, with the end of the connection
/// when `ends`. Returns the heads that it got.
async fn scripted(answer: Vec<u8>, ends: bool) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let (listener, address) = listen().await;
    let heads = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (answer, kept) = (answer.clone(), Arc::clone(&kept));
            tokio::spawn(async move {
                let mut first = true;
                let mut buffer = Vec::new();
                while stream.read_buf(&mut buffer).await.unwrap_or(0) > 0 {
                    while let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                        let head: Vec<u8> = buffer.drain(..end + 4).collect();
                        kept.lock().unwrap().push(String::from_utf8(head).unwrap());
                        let text = if first { WARM } else { &answer };
                        stream.write_all(text).await.unwrap();
                        if ends && !first {
                            return;
                        }
                        first = false;
                    }
                }
            });
        }
    });
    (address, heads)
}

/// Sorted lines, without what differs from time to time.
fn lines(text: &str) -> Vec<String> {
    let changing = ["date: ", "x-request-id: ", "x-forwarded-port: "];
    let lines = text
        .split("\r\n")
        .filter(|line| !changing.iter().any(|start| line.starts_with(start)));
    let mut lines: Vec<String> = lines.map(str::to_owned).collect();
    lines.sort();
    lines
}

/// What is counted of all requests: by class, ours, upstream's, cut, bytes.
fn counted(running: &Running) -> String {
    let numbers = running.state.observer.traffic.entry_numbers(EntryPoint::Http);
    format!(
        "{:?} {:?} {} {} {} {} in flight {}",
        numbers.classes,
        numbers.ours,
        numbers.upstream,
        numbers.cut,
        numbers.sent,
        numbers.ended,
        running.state.counters.requests.value()
    )
}

/// One warm-up, then `request`; what the endpoint got, what the client got, what was counted.
async fn one_way(quick: bool, request: &str, answer: &[u8], ends: bool) -> (Vec<String>, Vec<String>, String) {
    let (endpoint, heads) = scripted(answer.to_vec(), ends).await;
    let limits = Limits {
        quick,
        answer: Duration::from_millis(300),
        silence: Duration::from_millis(300),
        ..Limits::default()
    };
    let running = proxy_with(&[endpoint], limits).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream
        .write_all(b"GET /warm HTTP/1.1\r\nHost: h\r\n\r\n")
        .await
        .unwrap();
    read_until(&mut stream, "hi").await;
    stream.write_all(request.as_bytes()).await.unwrap();
    // Two more in the queue: one that shows that the connection is in order, and one that ends it.
    stream
        .write_all(b"GET /last HTTP/1.1\r\nHost: nobody\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let answer = rest(&mut stream).await;
    let over = async {
        while running.state.counters.connections.value() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), over)
        .await
        .expect("the connection ends");
    let heads = heads.lock().unwrap().last().map(|head| lines(head)).unwrap_or_default();
    (heads, lines(&answer), counted(&running))
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table of requests")]
async fn a_plain_request_means_the_same_the_quick_way() {
    let get = "GET /a?b=c HTTP/1.1\r\nHost: h\r\nUser-Agent: x\r\nCookie: a=b\r\n\r\n";
    let head = "HEAD /a HTTP/1.1\r\nHost: h:80\r\nConnection: keep-alive\r\n\r\n";
    let large = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n".to_vec(),
        vec![b'x'; 300_000],
    ]
    .concat();
    let rows: [(&str, &str, &[u8], bool); 18] = [
        (
            "small",
            get,
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: s\r\n\r\nhello",
            false,
        ),
        ("large", get, &large, false),
        ("head", head, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false),
        (
            "not modified",
            get,
            b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
            false,
        ),
        ("error", get, b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno", false),
        (
            "chunked",
            get,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            false,
        ),
        (
            "early hints",
            get,
            b"HTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Hints\r\nLink: </b>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            false,
        ),
        (
            "early hints to a HEAD",
            head,
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: </a>\r\nKeep-Alive: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
            false,
        ),
        (
            "early hints and the end",
            get,
            b"HTTP/1.1 103 Hints\r\n\r\n",
            true,
        ),
        (
            "early hints and silence",
            get,
            b"HTTP/1.1 103 Hints\r\n\r\n",
            false,
        ),
        (
            "early hints and nonsense",
            get,
            b"HTTP/1.1 103 Hints\r\nContent-Length: 5\r\n\r\nhello\r\n\r\n",
            false,
        ),
        (
            "close",
            get,
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
            true,
        ),
        ("until close", get, b"HTTP/1.1 200 OK\r\n\r\nhi", true),
        (
            "more than it says",
            get,
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi there",
            false,
        ),
        ("cut", get, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", true),
        (
            "silent within",
            get,
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi",
            false,
        ),
        ("no answer in time", get, b"HTTP/1.1 200", false),
        ("nonsense", get, b"this is no HTTP\r\n\r\n", false),
    ];
    for (name, request, answer, ends) in rows {
        let usual = one_way(false, request, answer, ends).await;
        let quick = one_way(true, request, answer, ends).await;
        assert_eq!(quick, usual, "{name}");
    }
}

#[tokio::test]
async fn an_endpoint_that_ends_its_kept_connection_costs_a_plain_request_nothing() {
    // Every second request of a connection finds it closed.
    let (endpoint, heads) = scripted(Vec::new(), true).await;
    let running = proxy_with(&[endpoint], Limits::default()).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    for _ in 0..10 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        let answer = read_until(&mut stream, "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        if !answer.ends_with("hi") {
            read_until(&mut stream, "hi").await;
        }
    }
    assert_eq!(heads.lock().unwrap().len(), 19);
}

#[tokio::test]
async fn a_client_that_leaves_a_plain_request_ends_it_at_the_endpoint() {
    let (endpoint, heads) = scripted(Vec::new(), false).await;
    let running = proxy_with(&[endpoint], Limits::default()).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    read_until(&mut stream, "hi").await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let waits = async {
        while heads.lock().unwrap().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(stream);
        while running.state.counters.requests.value() > 0 || running.state.counters.connections.value() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), waits)
        .await
        .expect("it ends with its client");
    let numbers = running.state.observer.traffic.entry_numbers(EntryPoint::Http);
    assert_eq!((numbers.requests, numbers.ended), (1, 2));
}
