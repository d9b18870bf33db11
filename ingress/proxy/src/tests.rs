//! The data plane with a real client and real endpoints on loopback.

mod answers;
mod bounds;
mod ends;
mod frames;
mod fronts;
mod http2;
mod interim;
mod policy;
mod quick;
mod repeats;
mod smuggling;
mod streams;
mod upgrades;

use crate::limits::Limits;
use ends::{ask, dead, endpoint, get, listen, proxy, proxy_with, raw_endpoint, read_until, rest, status};
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

#[tokio::test]
async fn requests_reach_all_endpoints_over_kept_connections() {
    let (a, a_connections) = endpoint("alpha").await;
    let (b, _) = endpoint("beta").await;
    let proxy = proxy(&[a, b]).await;
    let mut seen = (0, 0);
    for _ in 0..40 {
        let answer = ask(proxy.address, &get("H:80")).await;
        assert_eq!(status(&answer), "200", "{answer}");
        assert!(
            answer.contains("GET /x?q=1") && answer.contains("\"x-forwarded-for\": \"127.0.0.1\""),
            "{answer}"
        );
        seen.0 += usize::from(answer.contains("alpha"));
        seen.1 += usize::from(answer.contains("beta"));
    }
    assert!(seen.0 > 5 && seen.1 > 5 && seen.0 + seen.1 == 40, "{seen:?}");
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
    let dead = dead();
    let both = proxy(&[dead, a]).await;
    for _ in 0..40 {
        let text = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        let answer = ask(both.address, text).await;
        assert!(answer.contains("alpha POST /") && answer.contains("body=5"), "{answer}");
    }
    // It is left out after two failures, for some seconds each time.
    let failovers = both.state.counters.failovers.load(Ordering::SeqCst);
    assert!((1..=10).contains(&failovers), "{failovers}");
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
    let other = ends::proxy(&[nonsense]).await;
    assert_eq!(status(&ask(other.address, &get("h")).await), "502");
}

#[tokio::test]
async fn the_path_that_was_routed_is_forwarded_and_what_can_be_read_in_two_ways_is_refused() {
    let (a, _) = endpoint("alpha").await;
    let proxy = proxy(&[a]).await;
    let asked = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    for (path, forwarded) in [
        ("/a%2Fb;c=(d)?q=%2e%2E/../x", "GET /a%2Fb;c=(d)?q=%2e%2E/../x"),
        ("/a/%2e%2e//b?q", "GET /b?q"),
        ("/%61%c3%a4", "GET /a%C3%A4"),
        ("/x/..", "GET /"),
    ] {
        let answer = ask(proxy.address, &asked(path)).await;
        assert!(
            answer.contains(&format!("{forwarded}\n")) || answer.contains(&format!("{forwarded} ")),
            "{path}: {answer}"
        );
    }
    for path in ["/a%5Cb", "/a\\b", "/%00", "/100%", "/..;/admin"] {
        assert_eq!(status(&ask(proxy.address, &asked(path)).await), "400", "{path}");
    }
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
        ("TRACE / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "405"),
        (
            "OPTIONS / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 1\r\nConnection: close\r\n\r\n",
            "200",
        ),
        ("OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "400"),
        ("\0\u{1}\u{2}\r\n\r\n", "400"),
        (
            "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            "400",
        ),
        ("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", "400"),
    ] {
        let answer = ask(proxy.address, text).await;
        assert_eq!(status(&answer), wanted, "{text:?}: {answer}");
    }
    let answer = ask(
        proxy.address,
        "TRACE / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(answer.contains("\r\nallow: GET, HEAD, "), "{answer}");
    let absolute = "GET http://h/y HTTP/1.1\r\nHost: other\r\nConnection: close, x-secret\r\nX-Secret: 1\r\n\r\n";
    let answer = ask(proxy.address, absolute).await;
    assert!(
        answer.contains("alpha GET /y") && answer.contains("\"host\": \"h\""),
        "{answer}"
    );
    assert!(!answer.contains("x-secret"), "{answer}");
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
    proxy.state.lifecycle.stop();
    assert!(!proxy.state.lifecycle.ready());
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

#[tokio::test]
async fn an_answer_that_the_annotation_wants_another_for_is_asked_for_elsewhere() {
    const BUSY: &[u8] = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy";
    let (alpha, _) = endpoint("alpha").await;
    let (busy, asked) = raw_endpoint(BUSY, false).await;
    let annotations = json!({ "nginx.ingress.kubernetes.io/proxy-next-upstream": "error timeout http_503" });
    let both = ends::proxy_with_annotations(&[busy, alpha], annotations.clone(), Limits::default()).await;
    for _ in 0..30 {
        assert_eq!(status(&ask(both.address, &get("h")).await), "200");
    }
    assert!(asked.load(Ordering::SeqCst) > 0, "it was asked first now and then");
    // What may not be repeated, and what has no other endpoint, gets the answer that there is.
    let only = ends::proxy_with_annotations(&[busy], annotations, Limits::default()).await;
    let answer = ask(only.address, &get("h")).await;
    assert!(status(&answer) == "503" && answer.ends_with("busy"), "{answer}");
    let post = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    let mut statuses = std::collections::BTreeSet::new();
    for _ in 0..30 {
        statuses.insert(status(&ask(both.address, post).await).to_owned());
    }
    assert_eq!(statuses.len(), 2, "a POST is not repeated");
}

#[tokio::test]
async fn max_forwards_is_counted_down_and_ends_here_at_none() {
    let (a, _) = endpoint("alpha").await;
    let proxy = proxy(&[a]).await;
    let asked = |method: &str, left: &str| {
        format!("{method} / HTTP/1.1\r\nHost: h\r\nMax-Forwards: {left}\r\nConnection: close\r\n\r\n")
    };
    let answer = ask(proxy.address, &asked("OPTIONS", "0")).await;
    assert!(
        status(&answer) == "200" && answer.contains("x-landfall-reason: max_forwards"),
        "{answer}"
    );
    for (method, left, wanted) in [("OPTIONS", "5", "4"), ("GET", "0", "0"), ("OPTIONS", "many", "many")] {
        let answer = ask(proxy.address, &asked(method, left)).await;
        assert!(
            answer.contains(&format!("\"max-forwards\": \"{wanted}\"")),
            "{method} {left}: {answer}"
        );
    }
}

/// RFC 9110, 10.1.4.
#[tokio::test]
async fn te_is_for_the_next_hop_and_connection_says_so() {
    let (a, _) = endpoint("alpha").await;
    let proxy = proxy(&[a]).await;
    let ask_with = |fields: &str| format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    let answer = ask(proxy.address, &ask_with("TE: trailers\r\nConnection: close, TE\r\n")).await;
    assert!(
        answer.contains("\"te\": \"trailers\"") && answer.contains("\"connection\": \"te\""),
        "{answer}"
    );
    let fields = "HTTP2-Settings: AAMAAABk\r\nTE: gzip\r\nConnection: close\r\n";
    let answer = ask(proxy.address, &ask_with(fields)).await;
    assert!(
        !answer.contains("\"te\"") && !answer.contains("http2-settings"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_backend_that_leads_back_here_ends_soon() {
    for quick in [true, false] {
        let limits = Limits {
            quick,
            ..Limits::default()
        };
        let first = proxy_with(&[], limits.clone()).await;
        let second = proxy_with(&[first.address], limits).await;
        // The first leads to the second, and that to the first again.
        first.state.table.store(
            landfall_ingress_translate::route::Snapshot::build(
                &ends::objects(&[second.address], json!({})),
                "landfall",
            )
            .table,
        );
        let answer = ask(first.address, &get("h")).await;
        assert!(
            status(&answer) == "508" && answer.contains("x-landfall-reason: loop"),
            "{answer}"
        );
        assert!(first.state.counters.connections.value() < 10);
    }
}
