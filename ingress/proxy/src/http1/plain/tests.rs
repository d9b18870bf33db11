//! The quick way next to the usual one: the same words to endpoint and client.

use super::*;
use crate::Download;
use crate::http1::answer::{self as usual, Form};
use crate::limits::Limits;
use crate::{headers, target};
use bytes::BytesMut;
use hyper::header::HeaderValue;
use hyper::{Method, Request};
use landfall_ingress_http::fields;
use landfall_ingress_http::host::host_of;
use landfall_ingress_http::request as head;
use landfall_ingress_http::response::{Parsed, Sending, parse as parse_head, write as write_head};
use landfall_ingress_upstream::Upload;

const PEER: &str = "192.0.2.7:5000";

fn client() -> Client {
    Client::new(PEER.parse().unwrap(), 80)
}

/// Lines of a head, the fields in order of their text.
fn lines(head: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(head);
    let mut lines: Vec<String> = text.split("\r\n").map(str::to_owned).collect();
    lines[1..].sort();
    lines
}

/// What the quick way makes of a request; `None` when it is not plain.
fn quick_request(raw: &[u8]) -> Option<Vec<u8>> {
    let (mut fields, mut out) = (Vec::new(), Vec::new());
    let asked = request::read(raw, &Limits::default(), &mut fields)?;
    assert_eq!(host_of(asked.authority).as_deref(), Some(asked.host));
    let origin = Scratch::new(&client()).origin.unwrap();
    asked.write(&mut out, &fields, &origin, b"n");
    Some(out)
}

/// What the usual way makes of it.
fn usual_request(raw: &[u8]) -> Vec<u8> {
    let mut buffer = BytesMut::from(raw);
    let head = head::parse(&mut buffer, &Limits::default().of_heads())
        .expect("it is fine")
        .expect("it is whole");
    let mut request = Request::from_parts(head.parts, Upload::empty());
    target::check(&request, &Limits::default()).expect("it is forwarded");
    target::host(&request).expect("it has a host");
    assert!(matches!(
        landfall_ingress_http::path::canonical(request.uri().path()),
        Ok(std::borrow::Cow::Borrowed(_))
    ));
    assert_eq!(head.framing, landfall_ingress_http::chunked::Framing::Length(0));
    assert!(crate::upgrade::UpgradeRequest::of(&request).is_none() && !head.expects_continue);
    landfall_ingress_http::claims::strip(request.headers_mut(), false, []);
    fields::settle(&mut request, || HeaderValue::from_static("n")).expect("it is settled");
    let request = headers::outgoing(request, &client(), &client(), 0);
    let (parts, _) = request.expect("it is sent on").into_parts();
    let mut out = Vec::new();
    write_head(&mut out, &parts, Sending::Nothing);
    out
}

#[test]
fn endpoints_get_the_same_request_either_way() {
    let plain = [
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "HEAD /a/b?c=d&e[]=%20 HTTP/1.1\r\nhost: a.example:8080\r\nAccept: */*\r\nUser-Agent: x\r\n\r\n",
        "GET /%C3%A4 HTTP/1.1\r\nHost: h\r\nConnection: close\r\nCookie: a=b\r\nCookie: c=d\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: Keep-Alive\r\nX-Request-ID: mine\r\nX-Custom:  v \r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nUpgrade-Insecure-Requests: 1\r\nSec-Fetch-Mode: cors\r\nTE-X: 1\r\n\r\nnext",
    ];
    for raw in plain {
        let quick = quick_request(raw.as_bytes()).unwrap_or_else(|| panic!("{raw:?} is not plain"));
        assert_eq!(lines(&quick), lines(&usual_request(raw.as_bytes())), "{raw:?}");
    }
}

#[test]
fn what_the_usual_way_would_change_or_refuse_is_not_plain() {
    let heads = [
        "POST / HTTP/1.1\r\nHost: h",
        "GET / HTTP/1.0\r\nHost: h",
        "GET /",
        "GET http://h/ HTTP/1.1\r\nHost: h",
        "GET /a/../b HTTP/1.1\r\nHost: h",
        "GET /a//b HTTP/1.1\r\nHost: h",
        "GET /%2e HTTP/1.1\r\nHost: h",
        "GET /a%2Fb HTTP/1.1\r\nHost: h",
        "GET /a;b HTTP/1.1\r\nHost: h",
        "GET /#x HTTP/1.1\r\nHost: h",
        "GET /?a\"b HTTP/1.1\r\nHost: h",
        "GET / HTTP/1.1",
        "GET / HTTP/1.1\r\nHost: ",
        "GET / HTTP/1.1\r\nHost: H",
        "GET / HTTP/1.1\r\nHost: h.",
        "GET / HTTP/1.1\r\nHost: h:x",
        "GET / HTTP/1.1\r\nHost: [::1]",
        "GET / HTTP/1.1\r\nHost: h\r\nHost: h",
        "GET / HTTP/1.1\r\nHost: h\nA: b",
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: close, x",
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket",
    ];
    let fields = [
        "Content-Length: 0",
        "Content-Type: application/grpc",
        "Expect: 100-continue",
        "Forwarded: for=1.1.1.1",
        "Front-End-Https: on",
        "Proxy: http://evil:80",
        "X-Scheme: https",
        "X.Forwarded.For: 1.1.1.1",
        "Accept.Version: 1",
        "Keep-Alive: 5",
        "Proxy-Connection: close",
        "Ssl-Client-Verify: SUCCESS",
        "TE: trailers",
        "Trailer: a",
        "Transfer-Encoding: chunked",
        "Upgrade: h2c",
        "X-Auth-Request-User: root",
        "X-Forwarded-For: 1.1.1.1",
        "X-Forwarded-Prefix: /x",
        "X-Landfall-Reason: x",
        "X-Original-URL: /x",
        "X-Real-IP: 1.1.1.1",
        "X_Real_IP: 1.1.1.1",
        "Http2-Settings: AAA",
        "X-Request-ID: ",
        "X-Request-ID: a\r\nX-Request-ID: b",
    ];
    let with_field = |field| format!("GET / HTTP/1.1\r\nHost: h\r\n{field}");
    for head in heads.into_iter().map(str::to_owned).chain(fields.map(with_field)) {
        let raw = format!("{head}\r\n\r\n");
        assert_eq!(quick_request(raw.as_bytes()), None, "{raw:?}");
    }
}

/// What the quick way makes of an answer: its head, and the bytes of its body.
fn quick_answer(raw: &[u8], head_only: bool, keep: bool) -> Option<(Vec<u8>, u64)> {
    let mut out = Vec::new();
    let answer::Read::Plain(answer) = answer::read(raw, head_only, 64 * 1024, &mut out) else {
        return None;
    };
    answer.finish(&mut out, keep);
    Some((out, answer.body))
}

/// What the usual way makes of it. The body's length is that of the fields.
fn usual_answer(raw: &[u8], head_only: bool, keep: bool) -> (Vec<u8>, u64) {
    let method = if head_only { Method::HEAD } else { Method::GET };
    let mut buffer = BytesMut::from(raw);
    let parsed = parse_head(&mut buffer, &method, 64 * 1024).expect("it is fine");
    let Some(Parsed::Final(head)) = parsed else {
        panic!("no interim answer is plain");
    };
    assert!(head.keep_alive);
    let bytes = head.length().expect("its length is known");
    let mut response = fields::incoming(Response::from_parts(head.parts, ()));
    response
        .headers_mut()
        .entry(hyper::header::SERVER)
        .or_insert(crate::OURS);
    let response = response.map(|()| Download::own(vec![b'x'; usize::try_from(bytes).unwrap().min(1 << 20)]));
    let form = Form::of_own(head_only);
    let length = match usual::length(&response, form) {
        usual::Length::Known(_) => usual::Length::Known(bytes),
        other => other,
    };
    let mut out = Vec::new();
    usual::head(&mut out, &response, form, length, keep);
    (out, bytes)
}

fn same_answer(raw: &[u8], head_only: bool, keep: bool) -> bool {
    let Some((quick, bytes)) = quick_answer(raw, head_only, keep) else {
        return false;
    };
    let (usual, length) = usual_answer(raw, head_only, keep);
    let dateless = |head: &[u8]| {
        let mut lines = lines(head);
        lines.retain(|line| !line.starts_with("date: "));
        lines
    };
    assert_eq!((dateless(&quick), bytes), (dateless(&usual), length));
    true
}

#[test]
fn clients_get_the_same_answer_either_way() {
    let plain = [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.1 204 No Content\r\nServer: s\r\nDate: d\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 9\r\n\r\n",
        "HTTP/1.1 404 Nope\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 0\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n",
        "HTTP/1.1 299 \r\nCONTENT-LENGTH: 1\r\nX-Y: \t z\r\n\r\nx",
    ];
    for raw in plain {
        for (head_only, keep) in [(false, true), (true, false)] {
            assert!(same_answer(raw.as_bytes(), head_only, keep), "{raw:?} is not plain");
        }
    }
    let others = [
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n",
        "no answer\r\n\r\n",
    ];
    for raw in others {
        assert_eq!(quick_answer(raw.as_bytes(), false, true), None, "{raw:?}");
    }
}

mod fuzz {
    use super::*;
    use crate::fuzz::fuzz;
    use hyper::HeaderMap;
    use hyper::body::{Body, Incoming};
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use std::convert::Infallible;
    use std::sync::Mutex;
    use tokio::io::{AsyncWriteExt, duplex};

    #[test]
    fn any_request_that_is_plain_is_the_same_either_way() {
        fuzz("request-head", |raw| {
            if let Some(quick) = quick_request(raw) {
                assert_eq!(lines(&quick), lines(&usual_request(raw)));
            }
        });
    }

    /// Target and fields of the one request that hyper's server reads from these bytes, and its method; `None` when it reads none.
    async fn by_hyper(raw: &[u8]) -> Option<(Method, String, HeaderMap)> {
        let (mut client, server) = duplex(raw.len() + 1024);
        client.write_all(raw).await.unwrap();
        client.shutdown().await.unwrap();
        let seen = Mutex::new(Vec::new());
        let service = service_fn(async |request: Request<Incoming>| {
            let (parts, body) = request.into_parts();
            assert!(body.is_end_stream(), "a plain request has no body");
            seen.lock()
                .unwrap()
                .push((parts.method, parts.uri.to_string(), parts.headers));
            Ok::<_, Infallible>(Response::new(String::new()))
        });
        let mut builder = http1::Builder::new();
        let served = builder.half_close(true).serve_connection(TokioIo::new(server), service);
        // What is no request to it ends it with an error.
        let _ = served.await;
        let mut seen = seen.into_inner().unwrap();
        assert!(seen.len() < 2, "one head is one request");
        seen.pop()
    }

    #[test]
    fn any_request_that_is_plain_is_the_same_to_hyper() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        fuzz("request-head", |raw| {
            let mut fields = Vec::new();
            let Some(asked) = request::read(raw, &Limits::default(), &mut fields) else {
                return;
            };
            let (method, target, headers) = runtime
                .block_on(by_hyper(&raw[..asked.length]))
                .expect("hyper takes it for a request");
            assert_eq!((method == Method::HEAD, &*target), (asked.head_only, asked.target));
            assert_eq!(headers["host"], asked.authority);
            let mut connection = headers.get_all("connection").iter();
            let keeps = connection.all(|value| value.as_bytes().eq_ignore_ascii_case(b"keep-alive"));
            assert_eq!(keeps, asked.keep_alive);
            let (mut ours, mut theirs) = (Vec::from("\r\n"), Vec::from("\r\n"));
            ours.extend_from_slice(&fields);
            for (name, value) in headers.iter().filter(|(name, _)| *name != "connection") {
                theirs.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
            }
            assert_eq!(lines(&ours), lines(&theirs));
        });
    }

    #[test]
    fn any_answer_that_is_plain_is_the_same_either_way() {
        fuzz("answer", |raw| {
            for (head_only, keep) in [(false, true), (true, false)] {
                same_answer(raw, head_only, keep);
            }
        });
    }
}
