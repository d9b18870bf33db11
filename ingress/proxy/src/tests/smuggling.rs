//! Requests that two parsers could read in two ways: raw bytes in, and what a raw endpoint then gets to see.
//!
//! Each row is one attack. What must hold for all of them: the endpoint sees at most as many requests as the row says, and never one
//! whose target holds `smuggled`.

use super::ends::{listen, proxy, status};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An endpoint that writes down every byte and answers each head once its body is there, by the simplest of readers: a length, or
/// chunks until an empty one.
async fn naive() -> (std::net::SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let (listener, address) = listen().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let all = Arc::clone(&all);
            tokio::spawn(async move {
                let mut text = String::new();
                let mut buffer = [0; 4096];
                while let Ok(read) = stream.read(&mut buffer).await {
                    if read == 0 {
                        return;
                    }
                    all.lock().unwrap().extend_from_slice(&buffer[..read]);
                    text.push_str(&String::from_utf8_lossy(&buffer[..read]));
                    while let Some(rest) = one_request(&text) {
                        text = rest;
                        let _ = stream
                            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                            .await;
                    }
                }
            });
        }
    });
    (address, seen)
}

fn one_request(text: &str) -> Option<String> {
    let (head, rest) = text.split_once("\r\n\r\n")?;
    let lower = head.to_lowercase();
    if lower.contains("transfer-encoding: chunked") {
        return rest.split_once("0\r\n\r\n").map(|(_, rest)| rest.to_owned());
    }
    let length = lower
        .split("content-length: ")
        .nth(1)
        .and_then(|l| l.lines().next()?.trim().parse().ok());
    rest.get(length.unwrap_or(0)..).map(str::to_owned)
}

/// `heads` is how many requests the endpoint may see, `wanted` the status that the first answer has; empty when none is due.
async fn attack(text: &[u8], heads: usize, wanted: &str) {
    let (endpoint, seen) = naive().await;
    let proxy = proxy(&[endpoint]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(text).await.unwrap();
    // All that is sent is answered or refused by now; what never becomes whole is cut off by the client's end.
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(Ok(read)) = tokio::time::timeout(Duration::from_millis(150), stream.read(&mut buffer)).await {
        if read == 0 {
            break;
        }
        answer.extend_from_slice(&buffer[..read]);
    }
    drop(stream);
    let shown = String::from_utf8_lossy(text).into_owned();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert_eq!(status(&answer), wanted, "{shown:?}: {answer}");
    let seen = String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
    assert!(
        seen.matches(" HTTP/1.1\r\n").count() <= heads,
        "{shown:?} became {seen:?}"
    );
    for line in seen.lines() {
        assert!(
            !(line.contains("smuggled") && line.contains("HTTP/")),
            "{shown:?} became {seen:?}"
        );
    }
    if wanted == "400" {
        assert!(answer.contains("connection: close"), "{shown:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{shown:?}: {answer}");
    }
}

const SECOND: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

#[tokio::test]
async fn nothing_is_ever_read_as_two_requests() {
    let post = |fields: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n{body}");
    let second = SECOND;
    let framings = [
        // CL.TE and TE.CL, in both orders and spellings.
        post(
            "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
            &format!("0\r\n\r\n{second}"),
        ),
        post(
            "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
            &format!("5c\r\n{second}\r\n0\r\n\r\n"),
        ),
        post(
            "transfer-encoding: Chunked\r\ncontent-length: 0\r\n",
            &format!("0\r\n\r\n{second}"),
        ),
        // TE.TE: codings that one side takes and the other does not.
        post("Transfer-Encoding: xchunked\r\n", second),
        post("Transfer-Encoding: chunked, identity\r\n", second),
        post("Transfer-Encoding: identity\r\n", second),
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", second),
        post("Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n", second),
        post("Transfer-Encoding:\x0bchunked\r\n", second),
        post("Transfer-Encoding : chunked\r\n", second),
        post("Transfer-Encoding\t: chunked\r\n", second),
        post(" Transfer-Encoding: chunked\r\n", second),
        post("X: y\r\n Transfer-Encoding: chunked\r\n", second),
        post("X: y\nTransfer-Encoding: chunked\r\n", second),
        post("X: y\rTransfer-Encoding: chunked\r\n", second),
        post("Transfer-Encoding: \"chunked\"\r\n", second),
        post("Transfer-Encoding: chunked;q=1\r\n", second),
        // CL.CL and lengths that are read in several ways.
        post("Content-Length: 0\r\nContent-Length: 40\r\n", second),
        post("Content-Length: 0, 40\r\n", second),
        post("Content-Length: 0\r\ncontent-length: 0\r\n", second),
        post("Content-Length: +0\r\n", second),
        post("Content-Length: -0\r\n", second),
        post("Content-Length: 0x0\r\n", second),
        post("Content-Length: 0 0\r\n", second),
        post("Content-Length: 18446744073709551616\r\n", second),
        post("Content-Length : 0\r\n", second),
        // Line ends.
        format!("POST / HTTP/1.1\nHost: h\nContent-Length: 0\n\n{second}"),
        format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\n\r\n{second}"),
        format!("GET / HTTP/1.1\r\nHost: h\r\nX: \0\r\n\r\n{second}"),
        // HTTP/1.0 has no codings.
        format!("POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{second}"),
    ];
    let attacks = framings.iter().map(|text| attack(text.as_bytes(), 0, "400"));
    futures_util::future::join_all(attacks).await;
}

#[tokio::test]
async fn bodies_that_are_none_end_the_connection() {
    let post = |body: &str| format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{body}{SECOND}");
    // The first piece is on its way to the endpoint when the rest turns out to be none, so the head may have been sent.
    let bodies = [
        "1\nx\r\n0\r\n\r\n",
        "1\r\nxy\r\n0\r\n\r\n",
        "1;\n\r\nx\r\n0\r\n\r\n",
        "-1\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        "g\r\n",
    ];
    for body in bodies {
        attack(post(body).as_bytes(), 1, "400").await;
    }
}

#[tokio::test]
async fn fields_that_only_some_servers_know_reach_none() {
    // A length in a name that CGI-like servers read as Content-Length; it is dropped, and what follows is a request of its own.
    let text = format!("GET / HTTP/1.1\r\nHost: h\r\nContent_Length: 37\r\nTransfer_Encoding: chunked\r\n\r\n{SECOND}");
    let (endpoint, seen) = naive().await;
    let proxy = proxy(&[endpoint]).await;
    let answer = super::ends::ask(
        proxy.address,
        &text.replace("/smuggled HTTP/1.1\r\n", "/next HTTP/1.1\r\nConnection: close\r\n"),
    )
    .await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
    let seen = String::from_utf8_lossy(&seen.lock().unwrap()).to_lowercase();
    assert!(
        !seen.contains("content_length") && !seen.contains("transfer_encoding"),
        "{seen}"
    );
}

#[tokio::test]
async fn no_byte_passes_for_an_upgrade_that_the_endpoint_did_not_agree_to() {
    for annotations in ["websocket", "h2c", "HTTP/2.0", "websocket, h2c"] {
        let text = format!(
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nUpgrade: {annotations}\r\n\r\n\
             PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        );
        let (endpoint, seen) = naive().await;
        let proxy = proxy(&[endpoint]).await;
        let answer = super::ends::ask(proxy.address, &text).await;
        // The endpoint's 200 is an answer; what follows is read as HTTP/1, which it is not.
        assert_eq!(status(&answer), "200", "{annotations}: {answer}");
        assert!(answer.contains("HTTP/1.1 400"), "{annotations}: {answer}");
        let seen = String::from_utf8_lossy(&seen.lock().unwrap()).to_lowercase();
        assert!(
            !seen.contains("pri *") && !seen.contains("http2-settings"),
            "{annotations}: {seen}"
        );
        assert_eq!(
            seen.contains("upgrade: websocket\r\n"),
            annotations == "websocket",
            "{annotations}: {seen}"
        );
        assert!(!seen.contains("h2c"), "{annotations}: {seen}");
    }
}

#[tokio::test]
async fn a_body_that_nobody_read_ends_the_connection() {
    let (endpoint, seen) = naive().await;
    let proxy = proxy(&[endpoint]).await;
    let text = format!(
        "POST / HTTP/1.1\r\nHost: nobody\r\nContent-Length: {}\r\n\r\n{SECOND}",
        SECOND.len()
    );
    let answer = super::ends::ask(proxy.address, &text).await;
    assert_eq!(status(&answer), "404", "{answer}");
    assert!(
        answer.contains("connection: close") && answer.matches("HTTP/1.1 ").count() == 1,
        "{answer}"
    );
    assert_eq!(seen.lock().unwrap().len(), 0);
}
