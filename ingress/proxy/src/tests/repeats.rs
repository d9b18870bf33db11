//! What is sent again, and how often at most: requests that an endpoint refused, did not answer, or may have seen.
//!
//! The kinds are those of kubernetes/ingress-nginx#9332 (one request goes through all kept connections), grpc/grpc-go#262 and
//! dotnet/aspnetcore#17484 (streams refused above a limit), and RFC 9113, 8.7.

use super::ends::{Running, ask, dead, endpoint, get, listen, proxy, proxy_with, proxy_with_annotations, status};
use super::frames::{self, Raw};
use super::http2::{client, client_of};
use crate::limits::Limits;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use landfall_ingress_balance::limits::{REPEATS, RETRIES_PER_HUNDRED, RETRIES_PER_SECOND, RETRIES_SAVED};
use serde_json::json;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// What an endpoint of HTTP/2 does with a stream.
#[derive(Clone, Copy, PartialEq)]
enum Does {
    Answers,
    Refuses,
    /// Says that the stream before was the last one that it took, and closes.
    Leaves,
}

/// An endpoint of HTTP/2 that does so with each stream, by its place on its connection; counts streams.
async fn http2_endpoint(does: fn(usize) -> Does) -> (SocketAddr, Arc<AtomicUsize>) {
    let (listener, address) = listen().await;
    let streams = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&streams);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                let mut raw = Raw::accept(stream).await;
                let (mut place, mut last) = (0, 0);
                while let Some(frame) = raw.next().await {
                    if frame.kind != frames::HEADERS {
                        continue;
                    }
                    counter.fetch_add(1, Ordering::SeqCst);
                    match does(place) {
                        // `:status: 200` is in the static table.
                        Does::Answers => {
                            let flags = frames::END_HEADERS | frames::END_STREAM;
                            raw.send(frames::HEADERS, flags, frame.stream, &[0x88]).await;
                        }
                        Does::Refuses => raw.send(frames::RST_STREAM, 0, frame.stream, &[0, 0, 0, 7]).await,
                        Does::Leaves => {
                            let body = [u32::to_be_bytes(last), [0; 4]].concat();
                            raw.send(frames::GOAWAY, 0, 0, &body).await;
                            return;
                        }
                    }
                    (place, last) = (place + 1, frame.stream);
                }
            });
        }
    });
    (address, streams)
}

/// Waits for what happens at once.
async fn soon(what: &str, happened: impl Fn() -> bool) {
    let wait = async {
        while !happened() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), wait).await;
    waited.unwrap_or_else(|_| panic!("waited for {what}"));
}

async fn statuses(address: SocketAddr, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(status(&ask(address, &get("h")).await).to_owned());
    }
    all
}

fn over_http2() -> serde_json::Value {
    json!({ "nginx.ingress.kubernetes.io/backend-protocol": "GRPC" })
}

#[tokio::test]
async fn a_refused_stream_is_repeated_within_the_bound_also_on_a_kept_connection() {
    let (only, streams) = http2_endpoint(|place| if place == 0 { Does::Answers } else { Does::Refuses }).await;
    let proxy = proxy_with_annotations(&[only], over_http2(), Limits::default()).await;
    assert_eq!(statuses(proxy.address, 1).await, ["200"]);
    // A new connection takes its first stream.
    assert_eq!(statuses(proxy.address, 1).await, ["200"]);
    assert_eq!(streams.load(Ordering::SeqCst), 3);
    let (never, streams) = http2_endpoint(|_| Does::Refuses).await;
    let proxy = proxy_with_annotations(&[never], over_http2(), Limits::default()).await;
    assert_eq!(statuses(proxy.address, 1).await, ["502"]);
    assert_eq!(streams.load(Ordering::SeqCst), 1 + REPEATS);
}

#[tokio::test]
async fn a_refused_stream_goes_to_another_endpoint_first() {
    let (never, refused) = http2_endpoint(|_| Does::Refuses).await;
    let (always, _) = http2_endpoint(|_| Does::Answers).await;
    let proxy = proxy_with_annotations(&[never, always], over_http2(), Limits::default()).await;
    assert_eq!(statuses(proxy.address, 20).await, ["200"; 20]);
    assert!(
        refused.load(Ordering::SeqCst) <= 20,
        "each request is refused once at most"
    );
}

#[tokio::test]
async fn requests_above_the_last_stream_of_a_goaway_get_a_new_connection() {
    let (only, streams) = http2_endpoint(|place| if place == 0 { Does::Answers } else { Does::Leaves }).await;
    let proxy = proxy_with_annotations(&[only], over_http2(), Limits::default()).await;
    assert_eq!(statuses(proxy.address, 10).await, ["200"; 10]);
    assert!(streams.load(Ordering::SeqCst) < 20);
}

/// An endpoint that keeps connections until it is told to be bad; then it reads requests and closes. Counts requests since.
async fn turning() -> (SocketAddr, Arc<AtomicBool>, Arc<AtomicUsize>) {
    let (listener, address) = listen().await;
    let (bad, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let told = (Arc::clone(&bad), Arc::clone(&seen));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (bad, seen) = told.clone();
            tokio::spawn(async move {
                while let Ok(1..) = stream.read(&mut [0; 4096]).await {
                    if bad.load(Ordering::SeqCst) {
                        seen.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, bad, seen)
}

#[tokio::test]
async fn a_request_that_ends_its_connection_does_not_go_through_all_kept_ones() {
    for quick in [true, false] {
        let (only, bad, seen) = turning().await;
        let limits = Limits {
            quick,
            ..Limits::default()
        };
        let proxy = proxy_with(&[only], limits).await;
        let warm = join_all((0..20).map(|_| async { ask(proxy.address, &get("h")).await })).await;
        assert!(warm.iter().all(|answer| status(answer) == "200"));
        bad.store(true, Ordering::SeqCst);
        assert_eq!(statuses(proxy.address, 1).await, ["502"], "quick: {quick}");
        assert_eq!(
            seen.load(Ordering::SeqCst),
            2,
            "quick: {quick}: the kept connection, and one new one"
        );
    }
}

#[tokio::test]
async fn repeats_of_all_requests_have_one_budget() {
    let asked = 2 * RETRIES_SAVED as usize;
    let (only, streams) = http2_endpoint(|_| Does::Refuses).await;
    let proxy = proxy_with_annotations(&[only], over_http2(), Limits::default()).await;
    let start = std::time::Instant::now();
    assert!(
        statuses(proxy.address, asked)
            .await
            .iter()
            .all(|status| status == "502")
    );
    let earned = asked / 5 + RETRIES_PER_SECOND as usize * (1 + start.elapsed().as_secs() as usize);
    let repeats = streams.load(Ordering::SeqCst) - asked;
    assert!(
        repeats <= RETRIES_SAVED as usize + earned,
        "{repeats} repeats of {asked} requests"
    );
}

#[tokio::test]
async fn refused_connections_are_outside_the_budget() {
    let (alpha, _) = endpoint("alpha").await;
    let proxy = proxy(&[dead(), alpha]).await;
    let asked = 3 * RETRIES_SAVED as usize;
    assert!(
        statuses(proxy.address, asked)
            .await
            .iter()
            .all(|status| status == "200")
    );
}

/// nginx tries the next one on `error`, `timeout` and `invalid_header`, and on the statuses it is told.
#[tokio::test]
async fn what_proxy_next_upstream_lists_is_sent_again_within_the_bounds() {
    let (alpha, _) = endpoint("alpha").await;
    let limits = Limits {
        answer: Duration::from_millis(200),
        ..Limits::default()
    };
    for (listed, answer, keeps, alone) in [
        ("error", &b""[..], false, "502"),
        ("invalid_header", b"nonsense\r\n\r\n", false, "502"),
        ("timeout", b"", true, "504"),
        (
            "http_403",
            b"HTTP/1.1 403 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            false,
            "403",
        ),
        (
            "http_404",
            b"HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            false,
            "404",
        ),
        (
            "http_429",
            b"HTTP/1.1 429 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            false,
            "429",
        ),
    ] {
        let (bad, asked) = super::ends::raw_endpoint(answer, keeps).await;
        let annotations = json!({ "nginx.ingress.kubernetes.io/proxy-next-upstream": listed });
        let both = proxy_with_annotations(&[bad, alpha], annotations.clone(), limits.clone()).await;
        for _ in 0..20 {
            let answer = ask(both.address, &get("h")).await;
            assert_eq!(status(&answer), "200", "{listed}: {answer}");
            if asked.load(Ordering::SeqCst) > 0 {
                break;
            }
        }
        assert!(asked.load(Ordering::SeqCst) > 0, "{listed}: it was asked first once");
        // Nobody else is there, and a body, or a method that acts, is sent once.
        let (bad, asked) = super::ends::raw_endpoint(answer, keeps).await;
        let only = proxy_with_annotations(&[bad], annotations.clone(), limits.clone()).await;
        assert_eq!(status(&ask(only.address, &get("h")).await), alone, "{listed}");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{listed}");
        let two = proxy_with_annotations(&[bad, bad], annotations, limits.clone()).await;
        let post = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
        assert_eq!(status(&ask(two.address, post).await), alone, "{listed}");
        assert_eq!(asked.load(Ordering::SeqCst), 2, "{listed}");
    }
    // Not without the annotation.
    let (bad, asked) = super::ends::raw_endpoint(b"", false).await;
    let usual = proxy_with_annotations(&[bad], json!({}), limits).await;
    assert_eq!(status(&ask(usual.address, &get("h")).await), "502");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// Fails unless so many requests are all answered although one of two endpoints never does, and that one gets few of them.
async fn must_be_left_out(does: fn(usize) -> Does, requests: usize) {
    let (never, seen) = http2_endpoint(does).await;
    let (always, _) = http2_endpoint(|_| Does::Answers).await;
    let proxy = proxy_with_annotations(&[never, always], over_http2(), Limits::default()).await;
    assert_eq!(statuses(proxy.address, requests).await, vec!["200"; requests]);
    let seen = seen.load(Ordering::SeqCst);
    assert!((1..100).contains(&seen), "{seen} seen");
}

/// With half of the endpoints refusing, half of all requests would need a repeat, which the budget does not pay for.
#[tokio::test]
async fn an_endpoint_that_refuses_all_streams_is_left_out() {
    must_be_left_out(|_| Does::Refuses, 1000).await;
}

/// The same of one that says GOAWAY to the first request of each connection.
#[tokio::test]
async fn an_endpoint_that_leaves_at_every_request_is_left_out() {
    must_be_left_out(|_| Does::Leaves, 300).await;
}

/// An endpoint of HTTP/2 that answers with the body that it got.
async fn echo() -> (SocketAddr, Arc<AtomicUsize>) {
    let (listener, address) = listen().await;
    let streams = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&streams);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let counter = Arc::clone(&counter);
            let service = service_fn(move |request: Request<Incoming>| {
                counter.fetch_add(1, Ordering::SeqCst);
                async move {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    Ok::<_, Infallible>(Response::new(Full::new(body)))
                }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, streams)
}

/// Status and body of a call with this body.
async fn call(proxy: &Running, body: &str) -> (u16, String) {
    let mut sender = client(proxy).await;
    let request = Request::post("http://h/service/Method").header("content-type", "application/grpc");
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// RFC 9113, 8.7: whatever the method is, and with a body too.
#[tokio::test]
async fn a_refused_call_with_a_small_body_is_made_elsewhere_and_a_large_one_is_not() {
    let (never, refused) = http2_endpoint(|_| Does::Refuses).await;
    let (good, _) = echo().await;
    let body: String = ('a'..='z').cycle().take(40_000).collect();
    let proxy = proxy_with_annotations(&[never, good], over_http2(), Limits::default()).await;
    for _ in 0..20 {
        assert_eq!(call(&proxy, &body).await, (200, body.clone()));
    }
    let text = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 40000\r\nConnection: close\r\n\r\n{body}");
    let answer = ask(proxy.address, &text).await;
    assert!(
        status(&answer) == "200" && answer.ends_with(&body),
        "from a client of HTTP/1"
    );
    assert!(refused.load(Ordering::SeqCst) > 0, "it was asked first now and then");
    let kept = || proxy.proxy.registry.held("127.0.0.1".parse().unwrap());
    soon("nothing to be kept", || kept() == 0).await;

    let (never, refused) = http2_endpoint(|_| Does::Refuses).await;
    let only = proxy_with_annotations(&[never], over_http2(), Limits::default()).await;
    assert_eq!(call(&only, &body).await.0, 502);
    assert_eq!(refused.load(Ordering::SeqCst), 1 + REPEATS);
    assert_eq!(call(&only, &body.repeat(3)).await.0, 502);
    assert_eq!(refused.load(Ordering::SeqCst), 2 + REPEATS, "too large to be kept");
}

#[tokio::test]
async fn a_call_above_the_last_stream_of_a_goaway_gets_a_new_connection_with_its_body() {
    let (only, streams) = http2_endpoint(|place| if place == 0 { Does::Answers } else { Does::Leaves }).await;
    let proxy = proxy_with_annotations(&[only], over_http2(), Limits::default()).await;
    for _ in 0..10 {
        assert_eq!(call(&proxy, "message").await.0, 200);
    }
    assert!(streams.load(Ordering::SeqCst) > 10);
}

/// What the client sends after the refusal follows what it sent before.
#[tokio::test]
async fn a_refused_call_goes_on_elsewhere_with_what_is_still_to_come_of_its_body() {
    let (never, refused) = http2_endpoint(|_| Does::Refuses).await;
    let (good, streams) = echo().await;
    let proxy = proxy_with_annotations(&[never, good], over_http2(), Limits::default()).await;
    let mut goes = 0;
    while refused.load(Ordering::SeqCst) == 0 {
        goes += 1;
        assert!(goes < 30, "it is asked first now and then");
        let before = streams.load(Ordering::SeqCst);
        let mut sender = client_of(&proxy).await;
        let (more, mut parts) = mpsc::unbounded_channel::<Bytes>();
        let body = futures_util::stream::poll_fn(move |context| {
            let part = parts.poll_recv(context);
            part.map(|part| part.map(|part| Ok::<_, Infallible>(Frame::data(part))))
        });
        let request = Request::post("http://h/x").body(StreamBody::new(body)).unwrap();
        more.send(Bytes::from_static(b"first,")).unwrap();
        let answer = tokio::spawn(sender.send_request(request));
        soon("the call", || streams.load(Ordering::SeqCst) > before).await;
        more.send(Bytes::from_static(b"second")).unwrap();
        drop(more);
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "first,second");
    }
}

/// `proxy-next-upstream-tries: 1` is one endpoint, on whichever way the request goes.
#[tokio::test]
async fn refused_connections_are_tries() {
    for quick in [true, false] {
        let limits = Limits {
            quick,
            ..Limits::default()
        };
        let (alpha, _) = endpoint("alpha").await;
        let annotations = json!({ "nginx.ingress.kubernetes.io/proxy-next-upstream-tries": "1" });
        let proxy = proxy_with_annotations(&[dead(), alpha], annotations, limits).await;
        let mut refused = 0;
        for _ in 0..40 {
            refused += usize::from(statuses(proxy.address, 1).await == ["502"]);
        }
        // Two in a row, and it is left out.
        assert!((1..10).contains(&refused), "quick: {quick}: {refused}");
    }
}

/// A request pays into the budget once, also when an endpoint took no connection.
#[tokio::test]
async fn a_refused_connection_pays_for_no_second_part_of_a_repeat() {
    let asked = 300;
    for quick in [true, false] {
        let limits = Limits {
            quick,
            ..Limits::default()
        };
        let proxy = proxy_with(&[dead()], limits).await;
        let backend = Arc::clone(&proxy.state.routes().find("h", "/x").unwrap().backend);
        while backend.may_retry() {}
        let start = std::time::Instant::now();
        assert_eq!(statuses(proxy.address, asked).await, vec!["502"; asked]);
        let mut earned = 0;
        while backend.may_retry() {
            earned += 1;
        }
        let by_time = RETRIES_PER_SECOND as usize * (1 + start.elapsed().as_secs() as usize);
        let by_requests = asked * RETRIES_PER_HUNDRED as usize / 100;
        assert!(
            (by_requests..=by_requests + by_time).contains(&earned),
            "quick: {quick}: {earned} for {asked} requests"
        );
    }
}
