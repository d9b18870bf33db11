//! The client next to hyper's: what it takes as a whole answer, hyper takes for the same.

use super::*;
use crate::limits;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use landfall_ingress_http::protocol::Protocol;
use std::future::poll_fn;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Longer than any exchange here.
const PATIENCE: Duration = Duration::from_secs(10);

/// Status, fields in order of their names, and the body with its trailers.
type Whole = (u16, Vec<(String, Vec<u8>)>, Vec<u8>);

fn fields(headers: &hyper::HeaderMap) -> Vec<(String, Vec<u8>)> {
    let pairs = headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
    let mut fields: Vec<_> = pairs.collect();
    fields.sort();
    fields
}

/// Answers one connection with these bytes, and ends it.
async fn endpoint(listener: &TcpListener, raw: &[u8]) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    // The other side may have seen enough already.
    let _ = stream.write_all(raw).await;
    let _ = stream.shutdown().await;
    let _ = stream.read_to_end(&mut head).await;
}

async fn by_us(to: SocketAddr, method: &str) -> Option<Whole> {
    let idle = Arc::new(Idle::new(limits::usual()));
    let destination = Destination {
        address: to,
        protocol: Protocol::Http1,
        tls: None,
    };
    let waits = Waits {
        connect: PATIENCE,
        answer: PATIENCE,
        send: PATIENCE,
    };
    let request = Request::builder().method(method).uri("/").header("host", "h");
    let request = request.body(Upload::empty()).unwrap();
    let (head, mut body) = idle
        .send(&destination, request, &waits, Over::Kept, None)
        .await
        .ok()?
        .into_parts();
    if head.status == hyper::StatusCode::SWITCHING_PROTOCOLS {
        return Some((101, fields(&head.headers), Vec::new()));
    }
    let mut data = Vec::new();
    while let Some(frame) = poll_fn(|context| body.poll_frame(context)).await {
        match frame.ok()?.into_data() {
            Ok(bytes) => data.extend_from_slice(&bytes),
            Err(frame) => data.extend(format!("{:?}", fields(frame.trailers_ref()?)).bytes()),
        }
    }
    Some((head.status.as_u16(), fields(&head.headers), data))
}

async fn by_hyper(to: SocketAddr, method: &str) -> Option<Whole> {
    let stream = TcpStream::connect(to).await.unwrap();
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.allow_spaces_after_header_name_in_responses(true);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.ok()?;
    let driven = tokio::spawn(connection.with_upgrades());
    let request = Request::builder().method(method).uri("/").header("host", "h");
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let whole = async {
        let (head, mut body) = sender.send_request(request).await.ok()?.into_parts();
        if head.status == hyper::StatusCode::SWITCHING_PROTOCOLS {
            return Some((101, fields(&head.headers), Vec::new()));
        }
        let mut data = Vec::new();
        while let Some(frame) = body.frame().await {
            match frame.ok()?.into_data() {
                Ok(bytes) => data.extend_from_slice(&bytes),
                Err(frame) => data.extend(format!("{:?}", fields(frame.trailers_ref()?)).bytes()),
            }
        }
        Some((head.status.as_u16(), fields(&head.headers), data))
    };
    let whole = whole.await;
    driven.abort();
    whole
}

/// What we and hyper make of the same bytes.
async fn both(raw: &[u8], method: &str) -> (Option<Whole>, Option<Whole>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let ours = timeout(PATIENCE, async {
        tokio::join!(by_us(to, method), endpoint(&listener, raw)).0
    });
    let ours = ours.await.expect("our exchange ends");
    let theirs = timeout(PATIENCE, async {
        tokio::join!(by_hyper(to, method), endpoint(&listener, raw)).0
    });
    (ours, theirs.await.expect("hyper's exchange ends"))
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

mod fuzz {
    use super::*;
    use crate::fuzz::fuzz;

    #[test]
    fn what_is_taken_for_a_whole_answer_is_the_same_to_hyper() {
        let runtime = runtime();
        fuzz("answer", |raw| {
            for method in ["GET", "HEAD"] {
                let (ours, theirs) = runtime.block_on(both(raw, method));
                if let Some(ours) = ours {
                    assert_eq!(Some(ours), theirs, "{method}");
                }
            }
        });
    }
}

#[test]
fn plain_answers_are_taken_as_hyper_takes_them() {
    let runtime = runtime();
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\nA: c\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: t\r\n\r\n2\r\nhi\r\n0\r\nT: u\r\n\r\n",
        "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end",
        "HTTP/1.1 204 No Content\r\nA: ü\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 12\r\nETag: \"x\"\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: l\r\n\r\nHTTP/1.1 500 \r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 599\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ];
    for raw in answers {
        let (ours, theirs) = runtime.block_on(both(raw.as_bytes(), "GET"));
        assert!(ours.is_some() && ours == theirs, "{raw:?}: {ours:?} {theirs:?}");
    }
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_belong_to_no_later_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = Destination {
        address: listener.local_addr().unwrap(),
        protocol: Protocol::Http1,
        tls: None,
    };
    let idle = Arc::new(Idle::new(limits::usual()));
    let waits = Waits {
        connect: PATIENCE,
        answer: PATIENCE,
        send: PATIENCE,
    };
    let ask = async || {
        let request = Request::builder().uri("/").header("host", "h").body(Upload::empty());
        let mut answer = idle
            .send(&to, request.unwrap(), &waits, Over::Kept, None)
            .await
            .unwrap();
        while poll_fn(|context| answer.body_mut().poll_frame(context)).await.is_some() {}
        answer.status().as_u16()
    };
    let serve = async {
        let two = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n";
        let one = b"HTTP/1.1 201 OK\r\nContent-Length: 0\r\n\r\n";
        endpoint(&listener, two).await;
        endpoint(&listener, one).await;
    };
    let asked = async {
        let statuses = (ask().await, ask().await);
        // Ends the connection that is kept.
        idle.sweep(&BTreeSet::new());
        statuses
    };
    let (statuses, ()) = timeout(PATIENCE, async { tokio::join!(asked, serve) }).await.unwrap();
    assert_eq!(statuses, (200, 201));
}
