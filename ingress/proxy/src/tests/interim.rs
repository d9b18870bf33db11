//! Interim answers of endpoints (RFC 9110, 15.2), the quick way and the usual way.

use super::ends::{Running, ask, listen, proxy_with, proxy_with_annotations, read_until, rest, status};
use crate::limits::Limits;
use crate::tls::tests::pki::Authority;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use landfall_ingress_telemetry::traffic::EntryPoint;
use landfall_ingress_tls::provider::provider;
use rustls::ServerConfig;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

const HINT: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
/// [`HINT`] as clients get it.
const PASSED: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
const FINAL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

/// An endpoint that answers each request with these bytes.
async fn answering(answer: String) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                while stream.read(&mut [0; 4096]).await.unwrap_or(0) > 0 {
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
        }
    });
    address
}

/// An endpoint that sends [`HINT`] without end to whoever asks, and tells how many bytes it got rid of.
async fn hinting_for_ever() -> (SocketAddr, Arc<AtomicUsize>) {
    let (listener, address) = listen().await;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    tokio::spawn(async move {
        let many = HINT.repeat(1000);
        while let Ok((mut stream, _)) = listener.accept().await {
            while let Ok(written) = stream.write(many.as_bytes()).await {
                count.fetch_add(written, Ordering::Relaxed);
                // Only whole ones.
                let rest = HINT.len() - written % HINT.len();
                let end = &HINT.as_bytes()[HINT.len() - rest % HINT.len()..];
                if stream.write_all(end).await.is_err() {
                    break;
                }
            }
        }
    });
    (address, sent)
}

/// A proxy on which plain requests go the quick way, or do not.
async fn one_way(quick: bool, endpoint: SocketAddr, limits: Limits) -> Running {
    proxy_with(&[endpoint], Limits { quick, ..limits }).await
}

#[tokio::test]
async fn interim_answers_reach_clients_in_their_order_and_form() {
    let other = "HTTP/1.1 102 Working\r\nA: b\r\na: c\r\n\r\n";
    let hops = "HTTP/1.1 103 Early Hints\r\nConnection: x-hop, Keep-Alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: x\r\n\
         Content-Length: 5\r\nTransfer-Encoding: chunked\r\nLink: </a.css>; rel=preload\r\n\r\n";
    let rows: [(&str, &[&str], &str); 7] = [
        ("none", &[], ""),
        ("one", &[HINT], PASSED),
        ("two", &[HINT, HINT], &PASSED.repeat(2)),
        (
            "others",
            &[other, HINT, "HTTP/1.1 199 \r\n\r\n"],
            &format!("HTTP/1.1 102 Processing\r\na: b\r\na: c\r\n\r\n{PASSED}HTTP/1.1 199 \r\n\r\n"),
        ),
        ("ours to send", &["HTTP/1.1 100 Continue\r\n\r\n"], ""),
        ("ours to send and one", &["HTTP/1.1 100 Continue\r\n\r\n", HINT], PASSED),
        ("fields of one hop", &[hops], PASSED),
    ];
    let requests = [
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi",
    ];
    let last = "GET / HTTP/1.1\r\nHost: nobody\r\nConnection: close\r\n\r\n";
    for (name, interim, wanted) in rows {
        for request in requests {
            let body = if request.starts_with("HEAD") { "" } else { "ok" };
            let last_bytes = FINAL.strip_suffix("ok").unwrap();
            let endpoint = answering(format!("{}{last_bytes}{body}", interim.concat())).await;
            for quick in [true, false] {
                let proxy = one_way(quick, endpoint, Limits::default()).await;
                // Behind it one that shows that the connection is in order.
                let answers = ask(proxy.address, &format!("{request}{last}")).await;
                let (before, after) = answers.split_once("HTTP/1.1 200 OK\r\n").unwrap_or((&answers, ""));
                assert_eq!(before, wanted, "{name}, quick {quick}: {request}");
                assert!(
                    after.contains(&format!("\r\n\r\n{body}HTTP/1.1 404 ")),
                    "{name}, quick {quick}: {answers}"
                );
                let numbers = proxy.state.observer.traffic.entry_numbers(EntryPoint::Http);
                assert_eq!(
                    (numbers.requests, numbers.classes[0]),
                    (2, 0),
                    "the final ones are counted"
                );
            }
        }
    }
}

#[tokio::test]
async fn clients_of_older_and_newer_versions_get_the_final_answer_alone() {
    let endpoint = answering(format!("{HINT}{FINAL}")).await;
    let proxy = one_way(true, endpoint, Limits::default()).await;
    let old = ask(proxy.address, "GET / HTTP/1.0\r\nHost: h\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.1 200 ") && old.ends_with("\r\n\r\nok"), "{old}");
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::builder().uri("http://h/").body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("link"));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
}

/// Sends an interim answer, and the final one when it is told that the first has arrived.
async fn in_two_steps<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, arrived: &Notify) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(HINT.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    arrived.notified().await;
    stream.write_all(FINAL.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    // Until it is closed.
    let _ = stream.read_u8().await;
}

#[tokio::test]
async fn an_interim_answer_is_there_before_the_final_one_also_from_endpoints_with_tls() {
    let authority = Authority::new("ours");
    let pair = authority.server(&["h"]);
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![pair.der()], pair.key())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    for (tls, quick) in [(false, true), (false, false), (true, true)] {
        let (listener, address) = listen().await;
        let arrived = Arc::new(Notify::new());
        let (told, acceptor) = (Arc::clone(&arrived), acceptor.clone());
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            match tls {
                true => in_two_steps(acceptor.accept(stream).await.unwrap(), &told).await,
                false => in_two_steps(stream, &told).await,
            }
        });
        let annotations = json!({ "nginx.ingress.kubernetes.io/backend-protocol": if tls { "HTTPS" } else { "HTTP" } });
        let limits = Limits {
            quick,
            connect: Duration::from_secs(20),
            ..Limits::default()
        };
        let proxy = proxy_with_annotations(&[address], annotations, limits).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.write_all(GET.as_bytes()).await.unwrap();
        assert_eq!(read_until(&mut stream, "\r\n\r\n").await, PASSED);
        arrived.notify_one();
        let answer = read_until(&mut stream, "\r\n\r\nok").await;
        assert_eq!(status(&answer), "200");
    }
}

#[tokio::test]
async fn thousands_of_interim_answers_do_not_break_the_final_one() {
    let endpoint = answering(format!("{}{FINAL}", HINT.repeat(20_000))).await;
    for quick in [true, false] {
        let proxy = one_way(quick, endpoint, Limits::default()).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        for _ in 0..2 {
            stream.write_all(GET.as_bytes()).await.unwrap();
            let answers = read_until(&mut stream, "\r\n\r\nok").await;
            let (interim, last) = answers.split_once("HTTP/1.1 200 OK\r\n").unwrap();
            assert!(last.ends_with("\r\n\r\nok"), "{last}");
            assert_eq!(interim.replace(PASSED, ""), "", "each is whole");
        }
    }
}

#[tokio::test]
async fn interim_answers_without_end_neither_hold_a_client_for_ever_nor_fill_memory() {
    for quick in [true, false] {
        let (endpoint, _) = hinting_for_ever().await;
        let limits = Limits {
            answer: Duration::from_millis(300),
            ..Limits::default()
        };
        let proxy = one_way(quick, endpoint, limits).await;
        let answers = ask(proxy.address, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
        assert!(answers.starts_with(PASSED), "{}", &answers[..100]);
        let last = answers.rsplit("\r\n\r\nHTTP/1.1 ").next().unwrap();
        assert!(last.starts_with("504 "), "quick {quick}: {last}");

        // A client that takes nothing of it.
        let (endpoint, sent) = hinting_for_ever().await;
        let limits = Limits {
            client_stall: Duration::from_millis(300),
            ..Limits::default()
        };
        let proxy = one_way(quick, endpoint, limits).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.write_all(GET.as_bytes()).await.unwrap();
        let over = async {
            while sent.load(Ordering::Relaxed) == 0 || proxy.state.counters.connections.value() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(30), over).await.expect("it is given up");
        // What fits into the buffers of two sockets on both sides.
        let sent = sent.load(Ordering::Relaxed);
        assert!(sent < 64 << 20, "quick {quick}: {sent}");
    }
}

#[tokio::test]
async fn an_interim_answer_does_not_prolong_the_wait_for_the_final_one() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                tokio::time::sleep(Duration::from_millis(1200)).await;
                let _ = stream.write_all(HINT.as_bytes()).await;
                let _ = stream.read(&mut [0; 4096]).await;
            });
        }
    });
    for quick in [true, false] {
        let limits = Limits {
            answer: Duration::from_millis(1500),
            ..Limits::default()
        };
        let proxy = one_way(quick, address, limits).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let start = Instant::now();
        stream.write_all(GET.as_bytes()).await.unwrap();
        let answer = read_until(&mut stream, "HTTP/1.1 504 ").await;
        assert!(answer.starts_with(PASSED), "{answer}");
        assert!(
            start.elapsed() < Duration::from_millis(2400),
            "quick {quick}: {:?}",
            start.elapsed()
        );
    }
}

#[tokio::test]
async fn a_request_that_got_an_interim_answer_is_not_sent_again() {
    // On each connection one answer, then a hint and the end.
    let (listener, address) = listen().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            for answer in [FINAL, HINT] {
                if stream.read(&mut [0; 4096]).await.unwrap_or(0) == 0 {
                    break;
                }
                count.fetch_add(1, Ordering::SeqCst);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    for quick in [true, false] {
        asked.store(0, Ordering::SeqCst);
        let proxy = one_way(quick, address, Limits::default()).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.write_all(GET.as_bytes()).await.unwrap();
        read_until(&mut stream, "\r\n\r\nok").await;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let answer = rest(&mut stream).await;
        let answer = answer
            .strip_prefix(PASSED)
            .unwrap_or_else(|| panic!("quick {quick}: {answer}"));
        assert_eq!(status(answer), "502", "quick {quick}");
        assert_eq!(asked.load(Ordering::SeqCst), 2, "quick {quick}");
    }
}
