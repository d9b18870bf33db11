//! What clients of HTTP/1 get back: framing, streams, and our own answers with their reasons.

use super::ends::{
    Running, ask, endpoint, get, listen, proxy, proxy_with, proxy_with_annotations, raw_endpoint, read_until, rest,
    status,
};
use crate::limits::Limits;
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn reason(answer: &str) -> &str {
    let field = answer.split("x-landfall-reason: ").nth(1);
    field.and_then(|rest| rest.lines().next()).unwrap_or_default()
}

async fn answered_by(raw: &'static [u8], request: &str) -> String {
    let (address, _) = raw_endpoint(raw, false).await;
    ask(proxy(&[address]).await.address, request).await
}

#[tokio::test]
async fn answers_end_where_their_kind_says() {
    let head = "HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let old = "GET / HTTP/1.0\r\nHost: h\r\n\r\n";
    let kept = "GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n";
    let get = &get("h");
    // Answer of the endpoint, request, what the client's answer must hold, what it ends with.
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
    let rows: [(&'static [u8], &str, &[&str], &str); 9] = [
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
            get,
            &["content-length: 3\r\n"],
            "\r\n\r\nabc",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
            head,
            &["content-length: 3\r\n"],
            "\r\n\r\n",
        ),
        (
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
            get,
            &["content-length: 3\r\n"],
            "\r\n\r\n",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", get, &["204 No Content"], "\r\n\r\n"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            get,
            &["content-length: 0\r\n"],
            "\r\n\r\n",
        ),
        (chunked, get, &["transfer-encoding: chunked\r\n"], "0\r\n\r\n"),
        (chunked, old, &["connection: close\r\n"], "\r\n\r\nabc"),
        (chunked, kept, &["connection: close\r\n"], "\r\n\r\nabc"),
        (
            b"HTTP/1.0 200 OK\r\n\r\nabc",
            get,
            &["transfer-encoding: chunked\r\n", "3\r\nabc\r\n"],
            "0\r\n\r\n",
        ),
    ];
    for (raw, request, holds, ends) in rows {
        let answer = answered_by(raw, request).await;
        for part in holds.iter().chain(&["date: ", "server: landfall-ingress\r\n"]) {
            assert!(answer.contains(part), "{part:?} is not in {answer:?}");
        }
        assert!(answer.ends_with(ends), "{ends:?} is not the end of {answer:?}");
        assert!(
            !answer.contains("content-length") || !answer.contains("transfer-encoding"),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn s25_server_is_added_only_where_the_endpoint_sent_none() {
    let get = &get("h");
    let none = answered_by(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", get).await;
    assert!(none.contains("server: landfall-ingress\r\n"), "{none}");
    let own = answered_by(
        b"HTTP/1.1 200 OK\r\nServer: s\r\nDate: d\r\nContent-Length: 0\r\n\r\n",
        get,
    )
    .await;
    assert!(
        own.contains("server: s\r\n") && own.contains("date: d\r\n") && !own.contains("landfall"),
        "{own}"
    );
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_never_whole() {
    let cut = answered_by(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", &get("h")).await;
    assert!(cut.contains("content-length: 5") && cut.ends_with("ab"), "{cut}");
    let cut = answered_by(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        &get("h"),
    )
    .await;
    assert!(cut.contains("2\r\nab\r\n") && !cut.contains("0\r\n\r\n"), "{cut}");
}

#[tokio::test]
async fn trailers_reach_clients_that_take_them() {
    let raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: a\r\n\r\n1\r\nx\r\n0\r\nA: b\r\nContent-Length: 9\r\n\r\n";
    let takes = "GET / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n";
    let answer = answered_by(raw, takes).await;
    assert!(answer.ends_with("1\r\nx\r\n0\r\na: b\r\n\r\n"), "{answer:?}");
    let answer = answered_by(raw, &get("h")).await;
    assert!(answer.ends_with("1\r\nx\r\n0\r\n\r\n"), "{answer:?}");
}

/// RFC 9112, 5.1: of an answer's field a proxy takes the blanks before the colon away; of a request's it does not.
#[tokio::test]
async fn blanks_before_a_colon_of_an_answer_are_taken_away() {
    let raw = b"HTTP/1.1 200 OK\r\nX-A : 1\r\nContent-Length\t : 2\r\n\r\nhi";
    for request in [
        &get("h"),
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    ] {
        let answer = answered_by(raw, request).await;
        assert_eq!(status(&answer), "200", "{answer}");
        assert!(
            answer.contains("\r\nx-a: 1\r\n") && answer.ends_with("\r\n\r\nhi"),
            "{answer}"
        );
        assert!(answer.contains("\r\ncontent-length: 2\r\n"), "{answer}");
    }
    let two = b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\nContent-Length: 3\r\n\r\nhi!";
    assert_eq!(status(&answered_by(two, &get("h")).await), "502");
}

#[tokio::test]
async fn events_come_one_by_one_and_a_client_that_leaves_is_noticed() {
    let (listener, address) = listen().await;
    let (send, mut next) = tokio::sync::mpsc::unbounded_channel::<&'static [u8]>();
    let endpoint = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head).await.unwrap();
        while let Some(event) = next.recv().await {
            stream.write_all(event).await.unwrap();
        }
        // The proxy ends its side when its client has ended.
        stream.read(&mut [0; 8]).await.unwrap_or(0)
    });
    let proxy = proxy(&[address]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    for event in [&b"9\r\ndata: 1\n\n\r\n"[..], b"9\r\ndata: 2\n\n\r\n"] {
        send.send(event).unwrap();
        assert!(read_until(&mut stream, "\n\n").await.contains("data: "));
    }
    drop(stream);
    drop(send);
    let end = tokio::time::timeout(Duration::from_secs(5), endpoint);
    assert_eq!(end.await.expect("noticed").unwrap(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_ends_the_request() {
    let (address, _) = raw_endpoint(b"", true).await;
    let proxy = proxy(&[address]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    until(&proxy, 1).await;
    drop(stream);
    until(&proxy, 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_within_its_body_gets_no_answer_and_the_endpoint_no_whole_request() {
    let (listener, address) = listen().await;
    let endpoint = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "ab").await;
        rest(&mut stream).await
    });
    let proxy = proxy(&[address]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        .await
        .unwrap();
    until(&proxy, 1).await;
    drop(stream);
    until(&proxy, 0).await;
    let seen = endpoint.await.unwrap();
    assert!(!seen.contains("0\r\n\r\n"), "{seen}");
}

async fn until(proxy: &Running, requests: u64) {
    let reached = async {
        while proxy.state.counters.requests.value() != requests {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), reached)
        .await
        .expect("in time");
}

#[tokio::test]
async fn requests_that_are_sent_at_once_are_answered_in_order() {
    let (a, _) = endpoint("alpha").await;
    let proxy = proxy(&[a]).await;
    let one = |path: &str, more: &str| format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n{more}\r\nabc");
    let text = [
        one("/1", ""),
        one("/2", ""),
        "\r\nGET /3 HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
        one("/4", "Connection: close\r\n"),
    ];
    let answer = ask(proxy.address, &text.concat()).await;
    let places: Vec<_> = ["/1 ", "/2 ", "/3 ", "/4 "]
        .iter()
        .map(|path| answer.find(path))
        .collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{answer}");
}

#[tokio::test]
async fn bodies_reach_the_endpoint_whatever_the_method_and_the_framing() {
    let (a, _) = endpoint("alpha").await;
    let proxy = proxy(&[a]).await;
    for method in ["GET", "DELETE", "POST", "REPORT"] {
        for framing in [
            "Content-Length: 3\r\n\r\nabc",
            "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ] {
            let text = format!("{method} / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{framing}");
            let answer = ask(proxy.address, &text).await;
            assert!(
                answer.contains(&format!("alpha {method} /")) && answer.contains("body=3"),
                "{answer}"
            );
        }
    }
}

#[tokio::test]
async fn bodies_that_are_too_large_get_413_whether_they_say_so_or_not() {
    let (a, _) = endpoint("alpha").await;
    let limit = json!({ "nginx.ingress.kubernetes.io/proxy-body-size": "10" });
    let proxy = proxy_with_annotations(&[a], limit, Limits::default()).await;
    let known = |length: usize| {
        let body = "x".repeat(length);
        format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
    };
    let chunked = |length: usize| {
        let body = "1\r\nx\r\n".repeat(length);
        format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{body}0\r\n\r\n")
    };
    assert!(ask(proxy.address, &known(10)).await.contains("body=10"));
    assert!(ask(proxy.address, &chunked(10)).await.contains("body=10"));
    for text in [known(11), chunked(11), known(1_000_000)] {
        let answer = ask(proxy.address, &text).await;
        assert_eq!((status(&answer), reason(&answer)), ("413", "large_body"), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn slow_heads_and_slow_bodies_get_408() {
    let (a, _) = endpoint("alpha").await;
    let limits = Limits {
        head: Duration::from_millis(150),
        body_grace: Duration::from_millis(150),
        ..Limits::default()
    };
    let proxy = proxy_with(&[a], limits).await;
    for text in [
        "GET / HTTP/1.1\r\nHost: h\r\nX-Slow: ",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab",
    ] {
        let answer = ask(proxy.address, text).await;
        assert_eq!(
            (status(&answer), reason(&answer)),
            ("408", "slow_request"),
            "{text:?}: {answer}"
        );
    }
    // One who says nothing is owed nothing.
    assert_eq!(ask(proxy.address, "").await, "");
    // Byte by byte is slow too, although it never stops.
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 500\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    for _ in 0..100 {
        let _ = stream.write_all(b"x").await;
        let mut buffer = [0; 1024];
        if let Ok(Ok(read)) = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut buffer)).await {
            answer = String::from_utf8_lossy(&buffer[..read]).into_owned();
            break;
        }
    }
    assert_eq!(status(&answer), "408", "{answer}");
}

#[tokio::test]
async fn an_endpoint_that_takes_nothing_more_of_a_body_is_given_up() {
    let (listener, address) = listen().await;
    let held = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        std::future::pending::<()>().await;
        drop(stream);
    });
    let limits = Limits {
        send: Duration::from_millis(200),
        ..Limits::default()
    };
    let proxy = proxy_with(&[address], limits).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n")
        .await
        .unwrap();
    let (mut from, mut to) = stream.split();
    let writing = async { while to.write_all(&[b'x'; 65536]).await.is_ok() {} };
    let mut buffer = [0; 1024];
    let read = tokio::select! {
        biased;
        read = from.read(&mut buffer) => read.unwrap(),
        () = writing => panic!("the proxy closed without an answer"),
    };
    let answer = String::from_utf8_lossy(&buffer[..read]).into_owned();
    assert_eq!((status(&answer), reason(&answer)), ("504", "late"), "{answer}");
    held.abort();
}

#[tokio::test]
async fn s23_our_own_answers_say_why() {
    let (a, _) = endpoint("alpha").await;
    let proxy = proxy(&[a]).await;
    for (text, wanted) in [
        (
            "GET / HTTP/1.1\r\nHost: nobody\r\nConnection: close\r\n\r\n",
            ("404", "no_route"),
        ),
        ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", ("400", "bad_request")),
        ("GET / HTTP/1.1\nHost: h\r\n\r\n", ("400", "bad_framing")),
        (
            "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\nConnection: close\r\n\r\n",
            ("405", "bad_method"),
        ),
    ] {
        let answer = ask(proxy.address, text).await;
        assert_eq!((status(&answer), reason(&answer)), wanted, "{answer}");
        assert!(answer.contains("server: landfall-ingress\r\n"), "{answer}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(17_000));
    assert_eq!(reason(&ask(proxy.address, &long).await), "long_target");
    let large = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "a".repeat(70_000));
    assert_eq!(reason(&ask(proxy.address, &large).await), "large_head");
    let (mute, _) = raw_endpoint(b"", false).await;
    let broken = super::ends::proxy(&[mute]).await;
    let text = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    assert_eq!(reason(&ask(broken.address, text).await), "broken");
    let none = super::ends::proxy(&[]).await;
    assert_eq!(reason(&ask(none.address, &get("h")).await), "no_endpoint");
}

#[tokio::test]
async fn an_answer_before_the_body_is_read_still_arrives() {
    // The endpoint refuses at once and reads nothing; the client is in the middle of a large body.
    let (address, _) = raw_endpoint(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", false).await;
    let proxy = proxy(&[address]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3000000\r\n\r\n")
        .await
        .unwrap();
    let (mut from, mut to) = stream.split();
    let writing = async {
        for _ in 0..30 {
            let _ = to.write_all(&[b'x'; 100_000]).await;
        }
        std::future::pending::<()>().await;
    };
    let mut buffer = [0; 1024];
    let read = tokio::select! {
        read = from.read(&mut buffer) => read.unwrap(),
        () = writing => unreachable!("it never ends"),
    };
    let answer = String::from_utf8_lossy(&buffer[..read]).into_owned();
    // Whether the endpoint's end or its answer is seen first is a race of the kernel's.
    assert!(["403", "502"].contains(&status(&answer)), "{answer}");
    drop(rest(&mut stream));
}
