//! Everything that is bounded, with bounds small enough to wait for.

use super::ends::{ask, endless, endpoint, get, proxy_wishing, proxy_with, raw_endpoint, read_until, rest, status};
use super::frames::{self, Raw};
use crate::limits::Limits;
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

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

/// A balancer in front that sends a request into the end of a connection answers its client with 502: it has to be the first to close.
#[tokio::test]
async fn an_idle_connection_is_kept_for_longer_than_a_head_may_take_and_not_for_ever() {
    assert!(
        Limits::default().idle > Duration::from_secs(60),
        "AWS' balancers close after 60 s"
    );
    let (a, _) = endpoint("alpha").await;
    let limits = Limits {
        head: Duration::from_millis(150),
        idle: Duration::from_millis(900),
        http2_look: Duration::from_millis(50),
        ..Limits::default()
    };
    let proxy = proxy_with(&[a], limits).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        read_until(&mut stream, "body=0").await;
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    // A head that has begun has its own bound, whatever is left of the other.
    let before = tokio::time::Instant::now();
    stream
        .write_all(b"GET /x HTTP/1.1\r\nHost: h\r\nX-Slow: ")
        .await
        .unwrap();
    assert_eq!(status(&rest(&mut stream).await), "408");
    assert!(before.elapsed() >= Duration::from_millis(150));
    let mut idle = TcpStream::connect(proxy.address).await.unwrap();
    idle.write_all(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    read_until(&mut idle, "body=0").await;
    assert_eq!(rest(&mut idle).await, "", "closed without a word");
    let mut raw = Raw::greet(proxy.address).await;
    raw.request(1, &[]).await;
    raw.until(frames::DATA).await;
    let since = tokio::time::Instant::now();
    raw.until(frames::GOAWAY).await;
    assert!(since.elapsed() >= Duration::from_millis(600), "{:?}", since.elapsed());
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

/// Sends a body of eight bytes, one each 100 ms, to a proxy that gives bodies 300 ms and no second more.
async fn slowly(annotations: serde_json::Value, fields: &str) -> String {
    let (a, _) = endpoint("alpha").await;
    let limits = Limits {
        body_grace: Duration::from_millis(300),
        body_rate: 1_000_000,
        ..Limits::default()
    };
    let proxy = proxy_wishing(&[a], annotations, limits).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}Content-Length: 8\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if stream.write_all(b"x").await.is_err() {
            break;
        }
    }
    rest(&mut stream).await
}

#[tokio::test]
async fn a_slow_upload_goes_on_where_the_route_lets_it() {
    let usual = slowly(json!({}), "").await;
    assert!(!usual.contains("body=8"), "{usual}");
    let route = json!({ "ingress.landfall.dev/client-body-timeout": "5" });
    assert!(slowly(route, "").await.contains("body=8"));
    let connect = slowly(json!({}), "Content-Type: application/connect+proto\r\n").await;
    assert!(connect.contains("body=8"), "{connect}");
}

#[tokio::test]
async fn silence_within_a_body_is_bounded_as_the_route_says() {
    let (a, _) = endpoint("alpha").await;
    let route = json!({ "ingress.landfall.dev/client-body-timeout": "1" });
    let proxy = proxy_wishing(&[a], route, Limits::default()).await;
    let answer = ask(
        proxy.address,
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\nx",
    )
    .await;
    assert_eq!(status(&answer), "408", "{answer}");
}

#[tokio::test]
async fn a_reader_that_stops_reading_is_cut_off() {
    let address = endless().await;
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
    let mut first = TcpStream::connect(proxy.address).await.unwrap();
    // Busy: an idle one would be closed for the second.
    let upload = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\na";
    first.write_all(upload).await.unwrap();
    while proxy.state.counters.requests.value() == 0 {
        tokio::task::yield_now().await;
    }
    let mut second = TcpStream::connect(proxy.address).await.unwrap();
    second.write_all(get("h").as_bytes()).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(200), second.readable()).await;
    assert!(early.is_err(), "the second was served while the first was open");
    drop(first);
    assert_eq!(status(&rest(&mut second).await), "200");
}

#[tokio::test]
async fn connections_of_one_address_beyond_its_share_are_closed_and_counted() {
    let (a, _) = endpoint("alpha").await;
    let limits = Limits {
        connections_per_address: 1,
        ..Limits::default()
    };
    let proxy = proxy_with(&[a], limits).await;
    let refused = || proxy.state.counters.refused_connections.load(Ordering::Relaxed);
    let held = TcpStream::connect(proxy.address).await.unwrap();
    for n in 1..4 {
        assert_eq!(ask(proxy.address, &get("h")).await, "");
        assert_eq!(refused(), n);
    }
    drop(held);
    let served = async { while status(&ask(proxy.address, &get("h")).await) != "200" {} };
    tokio::time::timeout(Duration::from_secs(10), served)
        .await
        .expect("its share again");
}

#[tokio::test]
async fn what_an_address_holds_bounds_its_streams_and_connections_of_http2_and_comes_back() {
    let (a, _) = endpoint("alpha").await;
    let cost = 1024;
    let limits = Limits {
        connection_cost: cost,
        http2_cost: cost,
        request_cost: cost,
        bytes_per_address: 6 * cost,
        ..Limits::default()
    };
    let proxy = proxy_with(&[a], limits).await;
    let large = "a".repeat(3 * 1024);
    let mut first = Raw::greet(proxy.address).await;
    // 2 of 6 are taken by the connection, and 4 would be by this request and its field.
    first.request(1, &[("x-large", &large)]).await;
    assert_eq!(
        first.until(frames::RST_STREAM).await.body,
        [0, 0, 0, 7],
        "REFUSED_STREAM"
    );
    for stream in [3, 5, 7] {
        first.request(stream, &[]).await;
        first.until(frames::HEADERS).await;
        first.until(frames::DATA).await;
    }
    let mut second = Raw::greet(proxy.address).await;
    let mut third = Raw::greet(proxy.address).await;
    let mut fourth = Raw::connect(proxy.address).await;
    fourth.stream.write_all(frames::PREFACE).await.unwrap();
    assert!(fourth.next().await.is_none(), "an address has no more than it may hold");
    drop((first, second.stream.shutdown().await));
    while proxy.state.counters.connections.value() > 1 {
        tokio::task::yield_now().await;
    }
    third.request(1, &[]).await;
    third.until(frames::HEADERS).await;
}
