//! HTTP/2 on both sides, and its floods.

use super::ends::{Running, endless, endpoint, get, listen, proxy, proxy_with, proxy_with_annotations, status};
use super::frames::{self, Frame, Raw};
use crate::limits::Limits;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Opens an HTTP/2 connection to the proxy.
pub(super) async fn client(proxy: &Running) -> SendRequest<Full<Bytes>> {
    client_of(proxy).await
}

/// The same for bodies of any kind.
pub(super) async fn client_of<B>(proxy: &Running) -> SendRequest<B>
where
    B: hyper::body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

fn ask(host: &str) -> hyper::http::request::Builder {
    Request::builder().uri(format!("http://{host}/x?q=1"))
}

async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8_lossy(&body).into_owned()
}

/// An endpoint that speaks HTTP/2 alone, gives back each message and ends with trailers, as gRPC does.
async fn grpc() -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: Request<Incoming>| async move {
                assert_eq!(request.headers()["te"], "trailers");
                assert_eq!(request.uri().authority().unwrap(), "h");
                let mut body = request.into_body();
                let (send, mut receive) = mpsc::unbounded_channel();
                tokio::spawn(async move {
                    while let Some(Ok(frame)) = body.frame().await {
                        if let Ok(data) = frame.into_data() {
                            let _ = send.send(hyper::body::Frame::data(data));
                        }
                    }
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static("0"));
                    let _ = send.send(hyper::body::Frame::trailers(trailers));
                });
                let frames = futures_util::stream::poll_fn(move |context| {
                    receive.poll_recv(context).map(|frame| frame.map(Ok::<_, Infallible>))
                });
                Ok::<_, Infallible>(Response::new(StreamBody::new(frames)))
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

async fn proxy_to_http2(endpoint: SocketAddr) -> Running {
    let annotations = json!({ "nginx.ingress.kubernetes.io/backend-protocol": "GRPC" });
    proxy_with_annotations(&[endpoint], annotations, Limits::default()).await
}

#[tokio::test]
async fn s27_both_versions_are_spoken_on_one_port_whatever_arrives_first() {
    let (a, connections) = endpoint("alpha").await;
    let proxy = proxy(&[a]).await;
    let mut sender = client(&proxy).await;
    for _ in 0..3 {
        let response = sender
            .send_request(ask("h").body(Full::default()).unwrap())
            .await
            .unwrap();
        assert_eq!(response.headers()["server"], "landfall-ingress");
        let text = text(response).await;
        assert!(
            text.contains("alpha GET /x?q=1") && text.contains("\"host\": \"h\""),
            "{text}"
        );
        assert_eq!(status(&super::ends::ask(proxy.address, &get("h")).await), "200");
    }
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 1);
    // The preface byte by byte, and a method that begins like it.
    let mut raw = Raw::connect(proxy.address).await;
    for byte in frames::PREFACE {
        raw.stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    raw.send(frames::SETTINGS, 0, 0, &[]).await;
    assert_eq!(raw.next().await.unwrap().kind, frames::SETTINGS);
    let answer = super::ends::ask(proxy.address, "PRI /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    assert!(answer.contains("alpha PRI /x"), "{answer}");
    // No upgrade to it.
    let annotations = "GET /x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n";
    let answer = super::ends::ask(proxy.address, annotations).await;
    assert!(
        status(&answer) == "200" && !answer.to_lowercase().contains("http2-settings"),
        "{answer}"
    );
}

#[tokio::test]
async fn s6_authority_and_host_must_agree() {
    let (a, _) = endpoint("alpha").await;
    let proxy = proxy(&[a]).await;
    let mut sender = client(&proxy).await;
    for (request, wanted) in [
        (ask("h").header("host", "h"), 200),
        (ask("H:80").header("host", "h."), 200),
        (ask("h").header("host", "other"), 400),
        (ask("other"), 404),
    ] {
        let response = sender
            .send_request(request.body(Full::default()).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status().as_u16(), wanted, "{response:?}");
        let reason = response.headers().get("x-landfall-reason").map(HeaderValue::as_bytes);
        let wanted = match wanted {
            400 => Some(&b"bad_request"[..]),
            404 => Some(&b"no_route"[..]),
            _ => None,
        };
        assert_eq!(reason, wanted);
    }
}

#[tokio::test]
async fn two_lengths_are_refused_also_when_they_are_equal() {
    let (a, _) = endpoint("alpha").await;
    let proxy = proxy(&[a]).await;
    let mut raw = Raw::greet(proxy.address).await;
    raw.request(1, &[("content-length", "0"), ("content-length", "0")])
        .await;
    // Refused by us, or reset as malformed before.
    let frame = loop {
        match raw.next().await.expect("the connection is open") {
            frame if frame.kind == frames::DATA || frame.kind == frames::RST_STREAM => break frame,
            _ => {}
        }
    };
    assert!(frame.kind == frames::RST_STREAM || frame.body.starts_with(b"400"));
}

#[tokio::test]
async fn cookie_crumbs_and_bodies_reach_http1_endpoints_whole() {
    let (a, _) = endpoint("alpha").await;
    let proxy = proxy(&[a]).await;
    let mut sender = client(&proxy).await;
    let request = ask("h").method("POST").header("cookie", "a=1").header("cookie", "b=2");
    let request = request.body(Full::new(Bytes::from(vec![b'x'; 300_000]))).unwrap();
    let answer = text(sender.send_request(request).await.unwrap()).await;
    assert!(
        answer.contains("\"cookie\": \"a=1; b=2\"") && answer.ends_with("body=300000"),
        "{answer}"
    );
}

#[tokio::test]
async fn grpc_passes_in_both_directions_with_its_trailers() {
    let proxy = proxy_to_http2(grpc().await).await;
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let (send, mut receive) = mpsc::unbounded_channel::<Bytes>();
    let messages = futures_util::stream::poll_fn(move |context| {
        let frame = receive.poll_recv(context);
        frame.map(|data| data.map(|data| Ok::<_, Infallible>(hyper::body::Frame::data(data))))
    });
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = ask("h")
        .method("POST")
        .header("te", "trailers")
        .header("content-type", "application/grpc");
    let request = request.body(StreamBody::new(messages)).unwrap();
    send.send(Bytes::from_static(b"one")).unwrap();
    let mut body = sender.send_request(request).await.unwrap().into_body();
    // Each message is answered before the next is sent.
    for message in ["one", "two", "three"] {
        if message != "one" {
            send.send(Bytes::from_static(message.as_bytes())).unwrap();
        }
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), message);
    }
    drop(send);
    let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
}

#[tokio::test]
async fn grpc_over_http1_is_told_to_upgrade() {
    let proxy = proxy_to_http2(grpc().await).await;
    let text = "POST /x HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let answer = super::ends::ask(proxy.address, text).await;
    assert!(
        status(&answer) == "426" && answer.contains("upgrade: HTTP/2.0"),
        "{answer}"
    );
}

#[tokio::test]
async fn requests_share_one_connection_to_an_http2_endpoint() {
    let (listener, address) = listen().await;
    let (counter, mut connections) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counter.send(()).unwrap();
            let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("ok")))) });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    let proxy = proxy_to_http2(address).await;
    for _ in 0..5 {
        let answer = super::ends::ask(proxy.address, &get("h")).await;
        assert!(status(&answer) == "200" && answer.ends_with("ok"), "{answer}");
    }
    connections.recv().await.unwrap();
    assert!(connections.try_recv().is_err());
}

#[tokio::test]
async fn a_stop_says_goaway_twice_and_lets_streams_end() {
    let (listener, address) = listen().await;
    let (asked, is_asked) = tokio::sync::oneshot::channel();
    let (answer, may_answer) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        super::ends::read_until(&mut stream, "\r\n\r\n").await;
        asked.send(()).unwrap();
        may_answer.await.unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await
            .unwrap();
        std::future::pending::<()>().await;
    });
    let proxy = proxy(&[address]).await;
    let mut raw = Raw::greet(proxy.address).await;
    raw.request(1, &[]).await;
    is_asked.await.unwrap();
    proxy.state.lifecycle.stop();
    proxy.stop.send(true).unwrap();
    let first = raw.until(frames::GOAWAY).await;
    assert_eq!(
        first.body[..4],
        [0x7f, 0xff, 0xff, 0xff],
        "the first names no last stream"
    );
    let ping = raw.until(frames::PING).await;
    raw.send(frames::PING, frames::ACK, 0, &ping.body).await;
    let second = raw.until(frames::GOAWAY).await;
    assert_eq!(second.body[..4], [0, 0, 0, 1], "the second names it");
    answer.send(()).unwrap();
    raw.until(frames::HEADERS).await;
    assert_eq!(raw.until(frames::DATA).await.body, b"ok");
    assert!(raw.next().await.is_none());
    tokio::time::timeout(Duration::from_secs(5), proxy.task)
        .await
        .expect("ended")
        .unwrap();
}

#[tokio::test]
async fn clients_are_sent_to_the_next_process_once_it_takes_connections() {
    let (a, _) = endpoint("alpha").await;
    let proxy = proxy(&[a]).await;
    let mut raw = Raw::greet(proxy.address).await;
    raw.request(1, &[]).await;
    raw.until(frames::DATA).await;
    proxy.state.lifecycle.set_handed_over(true);
    let first = raw.until(frames::GOAWAY).await;
    assert_eq!(first.body[..4], [0x7f, 0xff, 0xff, 0xff]);
    // What is on its way is answered, and one that comes late is told at once.
    raw.request(3, &[]).await;
    raw.until(frames::HEADERS).await;
    let mut late = Raw::greet(proxy.address).await;
    late.until(frames::GOAWAY).await;
    // The next process died: those who come now may stay.
    proxy.state.lifecycle.set_handed_over(false);
    let mut later = Raw::greet(proxy.address).await;
    for stream in [1, 3, 5] {
        later.request(stream, &[]).await;
        later.until(frames::DATA).await;
    }
}

#[tokio::test]
async fn floods_end_the_connection() {
    let (a, _) = endpoint("alpha").await;
    let limits = Limits {
        http2_errors: 20,
        ..Limits::default()
    };
    let proxy = proxy_with(&[a], limits).await;
    // CONTINUATION without an end (CVE-2024-27316).
    let mut raw = Raw::greet(proxy.address).await;
    raw.send(frames::HEADERS, 0, 1, &frames::head(&[])).await;
    let piece = frames::field("x", &"a".repeat(4000));
    assert!(
        raw.flood(200, |_| vec![Frame::new(frames::CONTINUATION, 0, 1, &piece)])
            .await,
        "CONTINUATION"
    );
    // Streams that are reset as soon as they are opened (CVE-2023-44487).
    let mut raw = Raw::greet(proxy.address).await;
    let reset = |i: u32| {
        let stream = 2 * i + 1;
        vec![
            frames::whole_request(stream),
            Frame::new(frames::RST_STREAM, 0, stream, &[0, 0, 0, 8]),
        ]
    };
    assert!(raw.flood(20_000, reset).await, "rapid reset");
    // Streams that the server has to reset for an error of the client (CVE-2025-8671).
    let mut raw = Raw::greet(proxy.address).await;
    let provoke = |i: u32| {
        let stream = 2 * i + 1;
        vec![
            frames::whole_request(stream),
            Frame::new(frames::WINDOW_UPDATE, 0, stream, &[0, 0, 0, 0]),
        ]
    };
    assert!(raw.flood(20_000, provoke).await, "MadeYouReset");
    // All the while others are served.
    assert_eq!(status(&super::ends::ask(proxy.address, &get("h")).await), "200");
}

/// A connection that is kept open and not used is the first to go, whichever protocol it speaks.
#[tokio::test]
async fn an_idle_connection_of_http2_is_as_old_as_its_last_request() {
    let (a, _) = endpoint("alpha").await;
    let limits = Limits {
        connections: 2,
        http2_look: Duration::from_millis(50),
        ..Limits::default()
    };
    let proxy = proxy_with(&[a], limits).await;
    let mut old = Raw::greet(proxy.address).await;
    old.request(1, &[]).await;
    old.until(frames::DATA).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut younger = TcpStream::connect(proxy.address).await.unwrap();
    let request = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n";
    younger.write_all(request).await.unwrap();
    super::ends::read_until(&mut younger, "body=0").await;
    // Meanwhile the old one is looked at some times.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(status(&super::ends::ask(proxy.address, &get("h")).await), "200");
    old.until(frames::GOAWAY).await;
    younger.write_all(request).await.unwrap();
    super::ends::read_until(&mut younger, "body=0").await;
}

/// RFC 8441 is not offered, so a client that asks for it all the same is wrong, on that stream; so is `CONNECT` here.
#[tokio::test]
async fn extended_connect_is_refused_and_costs_its_stream_alone() {
    let (a, connections) = endpoint("alpha").await;
    let proxy = proxy(&[a]).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.stream.write_all(frames::PREFACE).await.unwrap();
    raw.send(frames::SETTINGS, 0, 0, &[]).await;
    let settings = raw.until(frames::SETTINGS).await;
    let offered = settings.body.chunks(6).any(|setting| setting[..2] == [0, 8]);
    assert!(!offered, "SETTINGS_ENABLE_CONNECT_PROTOCOL");
    raw.send(frames::SETTINGS, frames::ACK, 0, &[]).await;
    let connect = |protocol: Option<&str>| {
        let mut block = frames::field(":method", "CONNECT");
        if let Some(protocol) = protocol {
            block.extend(frames::field(":protocol", protocol));
            // http and / are in the static table.
            block.extend([0x86, 0x84]);
        }
        block.extend(frames::field(":authority", "h"));
        block
    };
    raw.send(frames::HEADERS, frames::END_HEADERS, 1, &connect(Some("websocket")))
        .await;
    let reset = raw.until(frames::RST_STREAM).await;
    assert_eq!(
        (reset.stream, &reset.body[..]),
        (1, &[0, 0, 0, 1][..]),
        "PROTOCOL_ERROR"
    );
    let flags = frames::END_HEADERS | frames::END_STREAM;
    raw.send(frames::HEADERS, flags, 3, &connect(None)).await;
    loop {
        let frame = raw.next().await.expect("the connection is open");
        if frame.stream == 3 && frame.kind == frames::DATA {
            assert!(
                frame.body.starts_with(b"405"),
                "{:?}",
                String::from_utf8_lossy(&frame.body)
            );
            break;
        }
    }
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 0);
    raw.request(5, &[]).await;
    raw.until(frames::HEADERS).await;
}

/// RFC 9218: the field is the endpoint's to read; frames of it, and of RFC 7540's priorities, change nothing.
#[tokio::test]
async fn priorities_pass_as_fields_and_are_ignored_as_frames() {
    const PRIORITY: u8 = 2;
    const PRIORITY_UPDATE: u8 = 0x10;
    let (a, _) = endpoint("alpha").await;
    let proxy = proxy(&[a]).await;
    let mut raw = Raw::greet(proxy.address).await;
    let update = [&1_u32.to_be_bytes()[..], b"u=7"].concat();
    raw.send(PRIORITY_UPDATE, 0, 0, &update).await;
    raw.send(PRIORITY, 0, 3, &[0, 0, 0, 0, 200]).await;
    raw.request(1, &[("priority", "u=1, i")]).await;
    let body = raw.until(frames::DATA).await.body;
    let text = String::from_utf8_lossy(&body);
    assert!(text.contains("\"priority\": \"u=1, i\""), "{text}");
    raw.send(PRIORITY_UPDATE, 0, 0, &update).await;
    raw.request(3, &[]).await;
    raw.until(frames::DATA).await;
}

#[tokio::test]
async fn fields_are_bounded_in_number_and_size() {
    let (a, _) = endpoint("alpha").await;
    let proxy = proxy(&[a]).await;
    let mut sender = client(&proxy).await;
    let mut many = ask("h");
    for i in 0..120 {
        many = many.header(format!("x-{i}"), "a");
    }
    let response = sender.send_request(many.body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert_eq!(response.headers()["x-landfall-reason"], "large_head");
    let long = Request::builder().uri(format!("http://h/{}", "a".repeat(17_000)));
    let response = sender.send_request(long.body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::URI_TOO_LONG);
}

#[tokio::test]
async fn clients_that_ask_for_nothing_or_take_nothing_are_closed() {
    let address = endless().await;
    let limits = Limits {
        idle: Duration::from_millis(300),
        client_stall: Duration::from_millis(300),
        http2_look: Duration::from_millis(50),
        ..Limits::default()
    };
    let proxy = proxy_with(&[address], limits).await;
    let mut idle = Raw::greet(proxy.address).await;
    idle.until(frames::GOAWAY).await;
    let mut raw = Raw::greet(proxy.address).await;
    raw.request(1, &[]).await;
    raw.until(frames::HEADERS).await;
    // Nothing is ever taken from here on: no WINDOW_UPDATE. First the stream ends, then, with nothing else on it, the connection.
    raw.until(frames::RST_STREAM).await;
    raw.until(frames::GOAWAY).await;
    while raw.next().await.is_some() {}
    while proxy.state.counters.requests.value() != 0 {
        tokio::task::yield_now().await;
    }
}

/// The kind is that of haproxy/haproxy#308 and varnishcache/varnish-cache#2549: a paused `<video>` beside everything else.
#[tokio::test]
async fn a_stream_that_its_client_pauses_ends_alone() {
    let (a, _) = endpoint("alpha").await;
    let endless = endless().await;
    let limits = Limits {
        client_stall: Duration::from_millis(300),
        http2_look: Duration::from_millis(50),
        ..Limits::default()
    };
    // Both are endpoints of one route; which has which stream shows in the answer.
    let proxy = proxy_with(&[a, endless], limits).await;
    let mut raw = Raw::greet(proxy.address).await;
    // The connection's window is wide, the streams' are never opened.
    raw.send(frames::WINDOW_UPDATE, 0, 0, &100_000_000_u32.to_be_bytes())
        .await;
    let mut paused = None;
    for stream in (1..20).step_by(2) {
        raw.request(stream, &[]).await;
        loop {
            let frame = raw.next().await.expect("the connection is open");
            let ends = frame.kind == frames::DATA && frame.flags & frames::END_STREAM != 0;
            if frame.stream == stream && (ends || frame.kind == frames::DATA && frame.body.len() > 8000) {
                paused = (!ends).then_some(stream);
                break;
            }
        }
        if paused.is_some() {
            break;
        }
    }
    let paused = paused.expect("one of them is endless");
    let reset = raw.until(frames::RST_STREAM).await;
    assert_eq!(
        (reset.stream, &reset.body[..]),
        (paused, &[0, 0, 0, 8][..]),
        "CANCEL, and that stream"
    );
    while proxy.state.counters.requests.value() != 0 {
        tokio::task::yield_now().await;
    }
    // The endless one has ended with its only connection; the other answers on.
    raw.request(21, &[]).await;
    loop {
        let frame = raw.next().await.expect("the connection goes on");
        if frame.stream == 21 && frame.kind == frames::HEADERS {
            break;
        }
    }
}

/// RFC 9110, 8.6 and 6.5.1: a length where no body can be, and trailers that end at a hop, would make the client give the answer up.
#[tokio::test]
async fn answers_of_http1_endpoints_are_fit_for_http2() {
    for (answer, wanted) in [
        (&b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\nX-A: 1\r\n\r\n"[..], 204),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: a\r\n\r\n1\r\nx\r\n0\r\nConnection: a\r\nKeep-Alive: 5\r\nTransfer-Encoding: x\r\nUpgrade: y\r\nB: 1\r\n\r\n",
            200,
        ),
    ] {
        let (a, _) = super::ends::raw_endpoint(answer, true).await;
        let proxy = proxy(&[a]).await;
        let mut sender = client(&proxy).await;
        let response = sender.send_request(ask("h").body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(response.status(), wanted);
        assert!(!response.headers().contains_key("content-length"));
        let body = response.into_body().collect().await.expect("a whole answer");
        let trailers = body.trailers().cloned().unwrap_or_default();
        assert_eq!(trailers.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["b"][..usize::from(wanted == 200)]);
    }
}
