//! What stands in front: PROXY headers, trusted proxies; and how many connections there may be.

use super::ends::{ask, endpoint, get, proxy_behind, proxy_with, read_until, rest, status};
use super::frames::{self, Raw};
use crate::Front;
use crate::limits::Limits;
use landfall_ingress_http::network::Network;
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn front(trusted: &str, proxy_protocol: bool) -> Front {
    Front {
        trusted: vec![Network::parse(trusted).unwrap()],
        proxy_protocol,
    }
}

#[tokio::test]
async fn proxy_headers_of_trusted_peers_name_the_client() {
    let (a, _) = endpoint("alpha").await;
    let trusting = proxy_behind(&[a], json!({}), Limits::default(), front("127.0.0.0/8", true)).await;
    let v2 = [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(),
        &[9, 8, 7, 6, 1, 1, 1, 1, 0, 1, 1, 0xbb],
    ]
    .concat();
    for header in [&b"PROXY TCP4 9.8.7.6 1.1.1.1 1 443\r\n"[..], &v2] {
        let mut stream = TcpStream::connect(trusting.address).await.unwrap();
        // What the client behind says about itself is not believed.
        let request = "GET /x HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close\r\n\r\n";
        stream.write_all(&[header, request.as_bytes()].concat()).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(
            answer.contains("\"x-forwarded-for\": \"9.8.7.6\"") && answer.contains("\"x-forwarded-port\": \"443\""),
            "{answer}"
        );
    }
    // None, a broken one, and one that never ends.
    assert_eq!(status(&ask(trusting.address, &get("h")).await), "200");
    assert_eq!(
        ask(trusting.address, &format!("PROXY TCP4 a b c d\r\n{}", get("h"))).await,
        ""
    );
    let untrusting = proxy_behind(&[a], json!({}), Limits::default(), front("10.0.0.0/8", true)).await;
    let header = "PROXY TCP4 9.8.7.6 1.1.1.1 1 80\r\n";
    assert_eq!(
        status(&ask(untrusting.address, &format!("{header}{}", get("h"))).await),
        "400"
    );
    let off = proxy_behind(&[a], json!({}), Limits::default(), front("127.0.0.0/8", false)).await;
    assert_eq!(status(&ask(off.address, &format!("{header}{}", get("h"))).await), "400");
}

#[tokio::test]
async fn http2_with_prior_knowledge_may_follow_a_proxy_header() {
    let (a, _) = endpoint("alpha").await;
    let proxy = proxy_behind(&[a], json!({}), Limits::default(), front("127.0.0.0/8", true)).await;
    let mut raw = Raw::connect(proxy.address).await;
    let header = b"PROXY TCP4 9.8.7.6 1.1.1.1 1 80\r\n";
    raw.stream.write_all(&[header, frames::PREFACE].concat()).await.unwrap();
    raw.send(frames::SETTINGS, 0, 0, &[]).await;
    raw.request(1, &[]).await;
    let body = String::from_utf8_lossy(&raw.until(frames::DATA).await.body).into_owned();
    assert!(body.contains("\"x-forwarded-for\": \"9.8.7.6\""), "{body}");
}

#[tokio::test]
async fn a_proxy_header_in_pieces_is_waited_for_and_not_for_ever() {
    let (a, _) = endpoint("alpha").await;
    let limits = Limits {
        proxy_header: Duration::from_millis(300),
        ..Limits::default()
    };
    let proxy = proxy_behind(&[a], json!({}), limits, front("127.0.0.0/8", true)).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in ["PROXY TCP4 9.8", ".7.6 1.1.1.1 1 80\r", "\n", &get("h")] {
        stream.write_all(piece.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(rest(&mut stream).await.contains("\"x-forwarded-for\": \"9.8.7.6\""));
    assert_eq!(ask(proxy.address, "PROXY TCP4 9.8").await, "");
}

#[tokio::test]
async fn forwarded_fields_are_kept_only_of_trusted_peers() {
    let (a, _) = endpoint("alpha").await;
    let request = "GET /x HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\n\
                   X_Forwarded_For: 6.6.6.6\r\nConnection: close\r\n\r\n";
    let trusting = proxy_behind(&[a], json!({}), Limits::default(), front("127.0.0.1", false)).await;
    let answer = ask(trusting.address, request).await;
    assert!(
        answer.contains("\"x-forwarded-for\": \"9.9.9.9, 127.0.0.1\""),
        "{answer}"
    );
    assert!(
        answer.contains("\"x-forwarded-proto\": \"https\"") && !answer.contains("6.6.6.6"),
        "{answer}"
    );
    let untrusting = proxy_behind(&[a], json!({}), Limits::default(), Front::default()).await;
    let answer = ask(untrusting.address, request).await;
    assert!(
        answer.contains("\"x-forwarded-for\": \"127.0.0.1\"") && answer.contains("\"x-forwarded-proto\": \"http\""),
        "{answer}"
    );
    assert!(!answer.contains("9.9.9.9") && !answer.contains("6.6.6.6"), "{answer}");
    let id = |answer: &str| {
        answer
            .split("\"x-request-id\": \"")
            .nth(1)
            .map(|rest| rest[..32].to_owned())
    };
    let (one, two) = (
        id(&answer).unwrap(),
        id(&ask(untrusting.address, request).await).unwrap(),
    );
    assert!(one != two && one.bytes().all(|b| b.is_ascii_hexdigit()), "{one} {two}");
}

#[tokio::test]
async fn an_idle_connection_makes_room_for_a_new_one() {
    let (a, _) = endpoint("alpha").await;
    let limits = Limits {
        connections: 1,
        ..Limits::default()
    };
    let proxy = proxy_with(&[a], limits).await;
    let mut first = TcpStream::connect(proxy.address).await.unwrap();
    first.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    read_until(&mut first, "body=0").await;
    assert_eq!(status(&ask(proxy.address, &get("h")).await), "200");
    assert_eq!(first.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn one_address_has_only_its_share_of_connections() {
    let (a, _) = endpoint("alpha").await;
    let limits = Limits {
        connections_per_address: 1,
        ..Limits::default()
    };
    let proxy = proxy_with(&[a], limits).await;
    let mut first = TcpStream::connect(proxy.address).await.unwrap();
    first.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    read_until(&mut first, "body=0").await;
    let mut second = TcpStream::connect(proxy.address).await.unwrap();
    // Closed or reset, whichever the kernel says first.
    assert_eq!(second.read(&mut [0; 8]).await.unwrap_or(0), 0);
    first.write_all(get("h").as_bytes()).await.unwrap();
    assert_eq!(status(&rest(&mut first).await), "200");
}
