//! Everything that is bounded, with bounds small enough to wait for.

use super::ends::{
    Running, ask, endless, endpoint, get, listen, objects, proxy_over, proxy_with, proxy_with_annotations,
    raw_endpoint, read_until, rest, status,
};
use super::frames::{self, Raw};
use crate::Front;
use crate::limits::Limits;
use landfall_ingress_tls::client::{Alpn, ClientSettings, config};
use landfall_ingress_translate::route::Snapshot;
use rustls::pki_types::ServerName;
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

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
    let proxy = proxy_with_annotations(&[a], annotations, limits).await;
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
    let proxy = proxy_with_annotations(&[a], route, Limits::default()).await;
    let answer = ask(
        proxy.address,
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\nx",
    )
    .await;
    assert_eq!(status(&answer), "408", "{answer}");
}

#[tokio::test]
async fn a_reader_that_stops_reading_is_cut_off() {
    for tls in [false, true] {
        let limits = Limits {
            client_stall: Duration::from_millis(200),
            ..Limits::default()
        };
        let table = Snapshot::build(&objects(&[endless().await], json!({})), "landfall");
        let proxy = proxy_over(table, limits, Front::default(), tls).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        // Kept open to the end of the test.
        let _client: Box<dyn AsyncWrite> = if tls {
            let connector = TlsConnector::from(config(&ClientSettings::default(), Alpn::Http1));
            let name = ServerName::try_from("h").unwrap();
            let mut stream = connector.connect(name, stream).await.unwrap();
            stream.write_all(get("h").as_bytes()).await.unwrap();
            Box::new(stream)
        } else {
            stream.write_all(get("h").as_bytes()).await.unwrap();
            Box::new(stream)
        };
        let gone = async {
            while proxy.state.counters.connections.value() == 0 {
                sleep(Duration::from_millis(10)).await;
            }
            while proxy.state.counters.connections.value() != 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let cut_off = timeout(Duration::from_secs(10), gone).await;
        assert!(cut_off.is_ok(), "with TLS: {tls}");
        assert_eq!(proxy.state.counters.requests.value(), 0);
    }
}

/// A proxy with one place, and the connection that has it: busy, because an idle one would be closed for another.
async fn one_busy_place() -> (Running, TcpStream) {
    let (a, _) = endpoint("alpha").await;
    let limits = Limits {
        connections: 1,
        ..Limits::default()
    };
    let proxy = proxy_with(&[a], limits).await;
    let mut busy = TcpStream::connect(proxy.address).await.unwrap();
    let upload = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\na";
    busy.write_all(upload).await.unwrap();
    while proxy.state.counters.requests.value() == 0 {
        tokio::task::yield_now().await;
    }
    (proxy, busy)
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_free_one() {
    let (proxy, first) = one_busy_place().await;
    let mut second = TcpStream::connect(proxy.address).await.unwrap();
    second.write_all(get("h").as_bytes()).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(200), second.readable()).await;
    assert!(early.is_err(), "the second was served while the first was open");
    drop(first);
    assert_eq!(status(&rest(&mut second).await), "200");
}

#[tokio::test]
async fn a_connection_that_waits_for_a_place_at_a_stop_is_served() {
    let (proxy, mut busy) = one_busy_place().await;
    let mut waits = TcpStream::connect(proxy.address).await.unwrap();
    waits.write_all(get("h").as_bytes()).await.unwrap();
    // Until the listener has it.
    sleep(Duration::from_millis(200)).await;
    proxy.stop.send(true).unwrap();
    busy.write_all(b"b").await.unwrap();
    assert_eq!(status(&rest(&mut busy).await), "200");
    assert_eq!(status(&rest(&mut waits).await), "200");
    let ended = timeout(Duration::from_secs(10), proxy.task).await;
    assert!(ended.is_ok(), "the stop ends with the last of them");
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

/// What the clients of these tests hold, as it counts for their address.
fn held(proxy: &Running) -> usize {
    proxy.proxy.registry.held(Ipv4Addr::LOCALHOST.into())
}

async fn until_held(proxy: &Running, wanted: impl Fn(usize) -> bool) {
    let reached = async {
        while !wanted(held(proxy)) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let reached = timeout(Duration::from_secs(20), reached).await;
    assert!(reached.is_ok(), "{} bytes are held", held(proxy));
}

/// An endpoint that answers with so many bytes, as fast as they are taken.
async fn large(bytes: usize) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(&vec![b'v'; bytes]).await;
            });
        }
    });
    address
}

/// A client whose kernel takes little.
async fn reader(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(address).await.unwrap()
}

/// The kinds are those of CVE-2019-9517 and of hyperium/hyper#2718, over HTTP/1.
#[tokio::test]
async fn answers_that_are_not_read_count_for_their_address_and_go_on_in_small_parts() {
    const READERS: usize = 12;
    const BYTES: usize = 8_000_000;
    let flat = READERS * Limits::default().connection_cost;
    for quick in [true, false] {
        let limits = Limits {
            quick,
            bytes_per_address: 1024 * 1024,
            ..Limits::default()
        };
        let most = limits.bytes_per_address;
        let proxy = proxy_with(&[large(BYTES).await], limits).await;
        let mut readers = Vec::new();
        for _ in 0..READERS {
            let mut stream = reader(proxy.address).await;
            stream.write_all(get("h").as_bytes()).await.unwrap();
            readers.push(stream);
        }
        while proxy.state.counters.requests.value() < READERS as u64 {
            sleep(Duration::from_millis(10)).await;
        }
        // The first have large buffers, until half of it is taken; the last have small ones.
        until_held(&proxy, |held| held > most / 2).await;
        sleep(Duration::from_millis(300)).await;
        let all = held(&proxy);
        assert!(all > flat && all <= most, "quick: {quick}: {all}");
        for place in [0, READERS - 1] {
            let stream = &mut readers[place];
            let mut body = Vec::new();
            let read = timeout(Duration::from_secs(30), stream.read_to_end(&mut body)).await;
            assert!(read.is_ok() && body.len() > BYTES, "quick: {quick}: {}", body.len());
            let end = &body[body.len() - BYTES..];
            assert!(end.iter().all(|byte| *byte == b'v'), "quick: {quick}");
        }
        drop(readers);
        until_held(&proxy, |held| held == 0).await;
    }
}

#[tokio::test]
async fn uploads_that_are_not_taken_and_tunnels_count_for_their_address() {
    let flat = Limits::default().connection_cost;
    let (mute, _) = raw_endpoint(b"", true).await;
    let proxy = proxy_with(&[mute], Limits::default()).await;
    let mut upload = TcpStream::connect(proxy.address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    upload.write_all(head.as_bytes()).await.unwrap();
    until_held(&proxy, |held| held == flat + 64 * 1024).await;
    drop(upload);
    until_held(&proxy, |held| held == 0).await;
    // A small one finds place in what its connection counts for.
    let mut small = TcpStream::connect(proxy.address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8192\r\n\r\nx";
    small.write_all(head.as_bytes()).await.unwrap();
    while proxy.state.counters.requests.value() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(held(&proxy), flat);

    let agreed = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    let (other, _) = raw_endpoint(agreed, true).await;
    let proxy = proxy_with(&[other], Limits::default()).await;
    let mut tunnel = TcpStream::connect(proxy.address).await.unwrap();
    let annotations = "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    tunnel.write_all(annotations.as_bytes()).await.unwrap();
    read_until(&mut tunnel, "\r\n\r\n").await;
    until_held(&proxy, |held| held == flat + 32 * 1024).await;
}

/// An upload whose connection has small buffers alone arrives whole.
#[tokio::test]
async fn an_upload_goes_on_where_there_is_no_room_for_large_buffers() {
    let (a, _) = endpoint("alpha").await;
    let limits = Limits {
        bytes_per_address: 2 * Limits::default().connection_cost,
        ..Limits::default()
    };
    let proxy = proxy_with(&[a], limits).await;
    let _other = TcpStream::connect(proxy.address).await.unwrap();
    let body = "x".repeat(300_000);
    let text = format!(
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n493e0\r\n{body}\r\n0\r\n\r\n"
    );
    let answer = ask(proxy.address, &text).await;
    assert!(
        answer.ends_with("body=300000") || answer.contains("body=300000\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_connection_over_tls_counts_for_what_its_layer_keeps() {
    let limits = Limits::default();
    let flat = limits.connection_cost + limits.tls_cost;
    let proxy = proxy_over(Snapshot::default(), limits, Front::default(), true).await;
    let client = TcpStream::connect(proxy.address).await.unwrap();
    until_held(&proxy, |held| held == flat).await;
    drop(client);
    until_held(&proxy, |held| held == 0).await;
    // An address without room for it gets no place.
    let limits = Limits {
        bytes_per_address: 2 * flat - 1,
        ..Limits::default()
    };
    let proxy = proxy_over(Snapshot::default(), limits, Front::default(), true).await;
    let first = TcpStream::connect(proxy.address).await.unwrap();
    until_held(&proxy, |held| held == flat).await;
    let mut second = TcpStream::connect(proxy.address).await.unwrap();
    assert_eq!(second.read(&mut [0; 1]).await.unwrap(), 0);
    assert_eq!(proxy.state.counters.refused_connections.load(Ordering::Relaxed), 1);
    drop(first);
}

#[tokio::test]
async fn a_large_head_counts_until_its_request_is_done_with() {
    let large = format!("GET /x HTTP/1.1\r\nHost: h\r\nX-Large: {}\r\n\r\n", "a".repeat(20_000));
    for quick in [true, false] {
        let limits = Limits {
            quick,
            ..Limits::default()
        };
        let (flat, head) = (limits.connection_cost, limits.head_bytes);
        let (mute, _) = raw_endpoint(b"", true).await;
        let proxy = proxy_with(&[mute], limits.clone()).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.write_all(large.as_bytes()).await.unwrap();
        while proxy.state.counters.requests.value() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(held(&proxy), flat + head, "quick: {quick}");
        drop(stream);
        until_held(&proxy, |held| held == 0).await;
        // The next request on the same connection is a small one.
        let (a, _) = endpoint("alpha").await;
        let proxy = proxy_with(&[a], limits).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.write_all(large.as_bytes()).await.unwrap();
        read_until(&mut stream, "body=0").await;
        until_held(&proxy, |held| held == flat).await;
        stream.write_all(b"GET /y HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        read_until(&mut stream, "body=0").await;
    }
}

/// What is read ahead is bounded, and requests that wait there are answered one after the other.
#[tokio::test]
async fn requests_that_are_sent_ahead_are_answered_in_their_order() {
    const COUNT: usize = 400;
    let (a, _) = endpoint("alpha").await;
    for quick in [true, false] {
        let limits = Limits {
            quick,
            ..Limits::default()
        };
        let proxy = proxy_with(&[a], limits).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let requests: String = (0..COUNT)
            .map(|number| format!("GET /{number}/ HTTP/1.1\r\nHost: h\r\n\r\n"))
            .collect();
        let (mut read, mut write) = stream.split();
        let sending = async {
            write.write_all(requests.as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        };
        let mut seen = String::new();
        let reading = async {
            let mut buffer = vec![0; 65_536];
            while seen.matches("body=0").count() < COUNT {
                let count = read.read(&mut buffer).await.unwrap();
                assert_ne!(count, 0, "closed after {} answers", seen.matches("body=0").count());
                seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        };
        tokio::select! {
            () = sending => {}
            read = timeout(Duration::from_secs(60), reading) => read.expect("in time"),
        }
        let mut rest = &seen[..];
        for number in 0..COUNT {
            let path = format!("alpha GET /{number}/ ");
            let place = rest.find(&path).unwrap_or_else(|| panic!("{path} comes in its order"));
            rest = &rest[place..];
        }
    }
}
