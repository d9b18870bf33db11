//! Streams of HTTP/2 to endpoints: how many one connection carries, and how their end reaches the other side.

use super::ends::{Running, listen, proxy_with_annotations, read_until};
use super::http2::client;
use crate::limits::Limits;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Longest wait for what happens at once.
const SOON: Duration = Duration::from_secs(10);

/// An endpoint that takes so many streams for each connection. `/watch` begins an answer that does not end by itself; when its stream
/// ends, why is sent on. Others end at once. The second result counts its connections.
async fn few_streams(streams: u32) -> (SocketAddr, Arc<AtomicUsize>, mpsc::UnboundedReceiver<h2::Reason>) {
    let (listener, address) = listen().await;
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let (tell, ends) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut builder = h2::server::Builder::new();
                builder.max_concurrent_streams(streams);
                let mut connection = builder.handshake::<_, Bytes>(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let watch = request.uri().path() == "/watch";
                    let mut sending = respond.send_response(hyper::Response::new(()), !watch).unwrap();
                    let tell = tell.clone();
                    tokio::spawn(async move {
                        // The request's own body is kept open with it.
                        let _body = request;
                        if watch && let Ok(reason) = std::future::poll_fn(|context| sending.poll_reset(context)).await {
                            let _ = tell.send(reason);
                        }
                    });
                }
            });
        }
    });
    (address, connections, ends)
}

fn ask(path: &str) -> Request<Full<Bytes>> {
    let request = Request::builder().method("POST").uri(format!("http://h{path}"));
    let request = request
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    request.body(Full::default()).unwrap()
}

async fn call(sender: &mut SendRequest<Full<Bytes>>, path: &str) -> Response<Incoming> {
    let answer = timeout(SOON, sender.send_request(ask(path))).await;
    answer.unwrap().unwrap()
}

async fn proxy_to(endpoint: SocketAddr) -> Running {
    let annotations = json!({ "nginx.ingress.kubernetes.io/backend-protocol": "GRPC" });
    proxy_with_annotations(&[endpoint], annotations, Limits::default()).await
}

/// RFC 9113, 5.1.2: one client's long calls must not keep others waiting.
#[tokio::test]
async fn a_second_connection_carries_what_an_endpoint_takes_no_more_of_on_the_first() {
    let (address, connections, _ends) = few_streams(2).await;
    let proxy = proxy_to(address).await;
    let mut sender = client(&proxy).await;
    // The endpoint says how many it takes with its first answer at the latest.
    let first = call(&mut sender, "/unary").await;
    assert_eq!(first.status(), StatusCode::OK);
    drop(first.into_body().collect().await);
    let mut watches = Vec::new();
    for number in 0..5 {
        let watch = timeout(SOON, sender.send_request(ask("/watch"))).await;
        watches.push(
            watch
                .unwrap_or_else(|_| panic!("call {number} waits for another"))
                .unwrap(),
        );
    }
    let last = timeout(SOON, sender.send_request(ask("/unary")))
        .await
        .expect("no wait")
        .unwrap();
    assert_eq!(last.status(), StatusCode::OK);
    assert_eq!(connections.load(Ordering::SeqCst), 3, "two streams on each");
}

#[tokio::test]
async fn a_call_that_its_client_cancels_is_cancelled_at_the_endpoint() {
    let (address, connections, mut ends) = few_streams(100).await;
    let proxy = proxy_to(address).await;
    let mut sender = client(&proxy).await;
    let watch = call(&mut sender, "/watch").await;
    let other = call(&mut sender, "/watch").await;
    drop(watch);
    assert_eq!(timeout(SOON, ends.recv()).await.unwrap(), Some(h2::Reason::CANCEL));
    // The other call on the same connection goes on.
    assert!(timeout(Duration::from_millis(200), ends.recv()).await.is_err());
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    drop(other);
}

/// Why a stream ends is told on: that somebody wants no more is no error of anybody.
#[tokio::test]
async fn a_cancelled_upload_and_a_cancelled_answer_are_told_on_as_such() {
    let (address, _, mut ends) = few_streams(100).await;
    let proxy = proxy_to(address).await;
    let mut sender = super::http2::client_of(&proxy).await;
    let (more, mut parts) = mpsc::unbounded_channel::<Bytes>();
    more.send(Bytes::from_static(b"part")).unwrap();
    let body = futures_util::stream::poll_fn(move |context| {
        let part = parts.poll_recv(context);
        part.map(|part| part.map(|part| Ok::<_, std::convert::Infallible>(hyper::body::Frame::data(part))))
    });
    let request = Request::post("http://h/watch").header("content-type", "application/grpc");
    let request = request.body(http_body_util::StreamBody::new(body)).unwrap();
    let watch = timeout(SOON, sender.send_request(request)).await.unwrap().unwrap();
    drop((watch, sender));
    drop(more);
    assert_eq!(timeout(SOON, ends.recv()).await.unwrap(), Some(h2::Reason::CANCEL));

    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_request, mut respond))) = connection.accept().await {
            let mut sending: h2::SendStream<Bytes> = respond.send_response(Response::new(()), false).unwrap();
            sending.send_data(Bytes::from_static(b"part"), false).unwrap();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                sending.send_reset(h2::Reason::CANCEL);
            });
        }
    });
    let proxy = proxy_to(address).await;
    let mut sender = client(&proxy).await;
    let answer = call(&mut sender, "/x").await;
    let error = timeout(SOON, answer.into_body().collect()).await.unwrap().unwrap_err();
    let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    assert_eq!(cause.and_then(h2::Error::reason), Some(h2::Reason::CANCEL), "{error:?}");
}

/// An endpoint whose answers on `/endless` never end, and whose others are short. The second result counts the parts that it gave.
async fn endless_and_short() -> (SocketAddr, Arc<AtomicUsize>) {
    let (listener, address) = listen().await;
    let given = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&given);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            let answer = move |request: Request<Incoming>| {
                let counted = Arc::clone(&counted);
                let parts = if request.uri().path() == "/endless" {
                    usize::MAX
                } else {
                    1
                };
                let parts = (0..parts).map(move |_| {
                    counted.fetch_add(1, Ordering::SeqCst);
                    Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[b'v'; 16_384])))
                });
                let body = StreamBody::new(futures_util::stream::iter(parts));
                async move { Ok::<_, Infallible>(Response::new(body)) }
            };
            let served = http2::Builder::new(TokioExecutor::new());
            tokio::spawn(async move { served.serve_connection(TokioIo::new(stream), service_fn(answer)).await });
        }
    });
    (address, given)
}

/// All requests to an endpoint of HTTP/2 share connections, each of which has one window.
#[tokio::test]
async fn clients_that_read_nothing_keep_no_other_from_the_same_endpoint() {
    const READ_NOTHING: usize = 8;
    let (address, given) = endless_and_short().await;
    let proxy = proxy_to(address).await;
    let mut stalled = Vec::new();
    for _ in 0..READ_NOTHING {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream
            .write_all(b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n")
            .await
            .unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        stalled.push(stream);
    }
    // Until all buffers on their way are full.
    let mut before = 0;
    while before != given.load(Ordering::SeqCst) {
        before = given.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let mut other = TcpStream::connect(proxy.address).await.unwrap();
    other
        .write_all(b"GET /short HTTP/1.1\r\nHost: h\r\n\r\n")
        .await
        .unwrap();
    let answer = timeout(SOON, read_until(&mut other, "vvv")).await;
    assert!(answer.is_ok(), "it waits for those who read nothing");
}
