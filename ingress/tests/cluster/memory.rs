//! What clients make the process hold: the program's own memory, as the kernel counts it, beside clients that ask for much and take nothing.
//!
//! The kinds are those of CVE-2019-9517 (windows opened wide, nothing read), hyperium/hyper#2718 (send buffers per stream), and of HPACK
//! tables that make large heads of few bytes.

use super::harness::{Proxy, until};
use super::{cluster, ready};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

const CLIENTS: usize = 8;
pub const MIB: u64 = 1024 * 1024;
/// RFC 9113, 6.9.2.
const WIDEST: u32 = (1 << 31) - 1;

/// The process's own resident memory in bytes. Pages of its program file do not count: how many of them are resident says what ran
/// and how much memory the machine had left, not what clients hold.
pub fn memory(proxy: &Proxy) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

/// The most that it is within the next seconds.
async fn most(proxy: &Proxy, seconds: u32) -> u64 {
    let mut most = 0;
    for _ in 0..seconds * 10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        most = most.max(memory(proxy));
    }
    most
}

/// An endpoint that answers everything with 3 MB; with a body it reads the head and then nothing.
pub async fn large() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let body = vec![b'v'; 3_000_000];
        while let Ok((mut stream, _)) = listener.accept().await {
            let body = body.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 1024];
                let read = stream.read(&mut buffer).await.unwrap_or(0);
                if buffer[..read].starts_with(b"POST") || buffer.windows(9).any(|part| part == b"/silence ") {
                    std::future::pending::<()>().await;
                }
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n")
                    .await;
                let _ = stream.write_all(&body).await;
            });
        }
    });
    address
}

fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), body].concat()
}

/// A whole request without a body.
pub fn request(stream: u32, head: &[u8]) -> Vec<u8> {
    frame(1, 5, stream, head)
}

/// A field without a place in the table, or with one.
fn field(name: &str, value: &str, indexed: bool) -> Vec<u8> {
    let mut bytes = vec![if indexed { 0x40 } else { 0 }];
    for text in [name, value] {
        match u8::try_from(text.len()) {
            Ok(length) if length < 127 => bytes.push(length),
            _ => {
                bytes.push(127);
                let mut rest = text.len() - 127;
                while rest >= 128 {
                    bytes.push(u8::try_from(rest % 128).unwrap() | 128);
                    rest /= 128;
                }
                bytes.push(u8::try_from(rest).unwrap());
            }
        }
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// A head for this path; GET, or POST.
pub fn head(post: bool, path: &str) -> Vec<u8> {
    let method = if post { 0x83 } else { 0x82 };
    let mut bytes = vec![method, 0x86];
    bytes.extend(field(":path", path, false));
    bytes.extend(field(":authority", "test.nginx.com", false));
    bytes
}

/// A connection of HTTP/2 whose client opens every window, and whose kernel takes little.
async fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let settings = [&[0, 4][..], &WIDEST.to_be_bytes()].concat();
    let opened = (WIDEST - 65_535).to_be_bytes();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&frame(4, 0, 0, &settings)).await.unwrap();
    stream.write_all(&frame(8, 0, 0, &opened)).await.unwrap();
    stream
}

/// Clients that have sent this, and read nothing.
pub async fn clients(proxy: &Proxy, frames: impl Fn(u32) -> Vec<u8>, streams: u32) -> Vec<TcpStream> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut stream = connect(proxy.http).await;
        for number in 0..streams {
            stream.write_all(&frames(2 * number + 1)).await.unwrap();
        }
        clients.push(stream);
    }
    clients
}

async fn each_costs_at_most(mebibytes: u64, frames: impl Fn(u32) -> Vec<u8>, streams: u32) {
    let api = cluster(&[large().await]).await;
    let proxy = ready(&api).await;
    until("an answer", || async { proxy.status("test.nginx.com").await == 200 }).await;
    let before = memory(&proxy);
    let held = clients(&proxy, frames, streams).await;
    let each = most(&proxy, 3).await.saturating_sub(before) / CLIENTS as u64;
    assert!(each <= mebibytes * MIB, "{} KiB each", each / 1024);
    // Others are served meanwhile.
    assert_eq!(proxy.status("test.nginx.com").await, 200);
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_open_every_window_and_read_nothing_hold_little() {
    each_costs_at_most(4, |stream| request(stream, &head(false, "/large")), 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_an_endpoint_does_not_take_hold_little() {
    let upload = |stream| {
        let mut bytes = frame(1, 4, stream, &head(true, "/upload"));
        if stream == 1 {
            (0..3).for_each(|_| bytes.extend(frame(0, 0, stream, &[b'u'; 16_000])));
        }
        bytes
    };
    each_costs_at_most(4, upload, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_of_many_references_hold_little() {
    // One entry of 3,000 bytes in the table, then references to it: 20 in each head.
    let references = |stream| {
        let mut block = head(false, "/silence");
        if stream == 1 {
            block.extend(field("x-large", &"a".repeat(3000), true));
        }
        block.extend([0xbe; 20]);
        request(stream, &block)
    };
    each_costs_at_most(4, references, 100).await;
}
