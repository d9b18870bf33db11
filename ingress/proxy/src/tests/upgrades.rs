//! WebSocket and other protocols after a 101.

use super::ends::{Running, get, listen, proxy, proxy_with, read_until, status};
use crate::limits::Limits;
use landfall_ingress_translate::route::Snapshot;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const UPGRADE: &[u8] =
    b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";
const AGREED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: a\r\n\r\n";

/// An endpoint that agrees to WebSocket and then gives back each byte.
async fn echo() -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let head = read_until(&mut stream, "\r\n\r\n").await;
                assert!(
                    head.contains("upgrade: websocket") && head.contains("sec-websocket-key: k"),
                    "{head}"
                );
                stream.write_all(AGREED).await.unwrap();
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

async fn connect(proxy: &Running) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(UPGRADE).await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(
        status(&head) == "101" && head.contains("sec-websocket-accept: a"),
        "{head}"
    );
    assert!(
        head.contains("connection: upgrade\r\n") && head.contains("upgrade: websocket\r\n"),
        "{head}"
    );
    stream
}

async fn exactly(stream: &mut TcpStream, wanted: &[u8]) {
    let mut seen = vec![0; wanted.len()];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut seen));
    read.await.expect("in time").unwrap();
    assert_eq!(seen, wanted);
}

#[tokio::test]
async fn tunnels_carry_both_ways_and_outlive_changes_of_the_table() {
    let proxy = proxy(&[echo().await]).await;
    let mut stream = connect(&proxy).await;
    stream.write_all(b"\x81\x03abc").await.unwrap();
    exactly(&mut stream, b"\x81\x03abc").await;
    assert_eq!(proxy.state.counters.tunnels.value(), 1);
    proxy.state.table.store(Snapshot::default().table);
    stream.write_all(b"\x81\x01d").await.unwrap();
    exactly(&mut stream, b"\x81\x01d").await;
    // The other side's end is passed on, and with it the tunnel ends.
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    while proxy.state.counters.tunnels.value() != 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn bytes_that_follow_an_upgrade_request_at_once_wait_for_the_101() {
    let (listener, address) = listen().await;
    let (agree, agreed) = tokio::sync::oneshot::channel::<()>();
    let endpoint = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_until(&mut stream, "\r\n\r\n").await;
        assert!(head.ends_with("\r\n\r\n"), "{head}");
        // Nothing may come before the endpoint agreed.
        let early = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut [0; 8])).await;
        assert!(early.is_err(), "{early:?}");
        agreed.await.unwrap();
        stream.write_all(AGREED).await.unwrap();
        exactly(&mut stream, b"\x81\x01x").await;
    });
    let proxy = proxy(&[address]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(&[UPGRADE, b"\x81\x01x"].concat()).await.unwrap();
    agree.send(()).unwrap();
    assert_eq!(status(&read_until(&mut stream, "\r\n\r\n").await), "101");
    endpoint.await.unwrap();
}

#[tokio::test]
async fn the_end_of_the_process_closes_websockets_with_1001_between_two_frames() {
    // The endpoint has begun a frame of five bytes and sent two.
    let limits = Limits {
        tunnel_grace: Duration::from_millis(100),
        ..Limits::default()
    };
    let (listener, address) = listen().await;
    let (go_on, waits) = tokio::sync::oneshot::channel::<()>();
    let endpoint = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(AGREED).await.unwrap();
        exactly(&mut stream, b"\x81\x01g").await;
        stream.write_all(b"\x81\x05he").await.unwrap();
        // The client's side is between two frames, so its end comes at once, masked.
        exactly(&mut stream, b"\x88\x82\0\0\0\0\x03\xe9").await;
        waits.await.unwrap();
        stream.write_all(b"llo\x81\x04late").await.unwrap();
        stream
    });
    let proxy = proxy_with(&[address], limits).await;
    let mut stream = connect(&proxy).await;
    stream.write_all(b"\x81\x01g").await.unwrap();
    exactly(&mut stream, b"\x81\x05he").await;
    proxy.state.lifecycle.stop();
    proxy.stop.send(true).unwrap();
    let early = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut [0; 8])).await;
    assert!(early.is_err(), "a frame was cut: {early:?}");
    go_on.send(()).unwrap();
    exactly(&mut stream, b"llo\x88\x02\x03\xe9").await;
    let _endpoint = endpoint.await.unwrap();
    stream.write_all(b"\x88\x82\0\0\0\0\x03\xe9").await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    drop(stream);
    tokio::time::timeout(Duration::from_secs(5), proxy.task)
        .await
        .expect("the tunnel ends")
        .unwrap();
}

#[tokio::test]
async fn silent_tunnels_are_closed() {
    let limits = Limits {
        silence: Duration::from_millis(200),
        ..Limits::default()
    };
    let proxy = proxy_with(&[echo().await], limits).await;
    let mut stream = connect(&proxy).await;
    let end = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut [0; 8])).await;
    assert_eq!(end.expect("closed").unwrap(), 0);
}

#[tokio::test]
async fn an_endpoint_that_switches_unasked_is_broken() {
    let (address, _) = super::ends::raw_endpoint(AGREED, true).await;
    let proxy = proxy(&[address]).await;
    assert_eq!(status(&super::ends::ask(proxy.address, &get("h")).await), "502");
    let other = String::from_utf8_lossy(UPGRADE)
        .replace("websocket", "other")
        .replace("Upgrade\r\n", "Upgrade, close\r\n");
    assert_eq!(status(&super::ends::ask(proxy.address, &other).await), "502");
}
