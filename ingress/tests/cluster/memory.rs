//! What clients make the process hold: the program's own memory, as the kernel counts it, beside clients that ask for much and take nothing.
//!
//! The kinds are those of CVE-2019-9517 (windows opened wide, nothing read), hyperium/hyper#2718 (send buffers per stream), and of HPACK
//! tables that make large heads of few bytes.

use super::harness::{Proxy, program, service, until};
use super::{cluster, ready};
use bytes::Bytes;
use landfall_test_ingress::program::Launch;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use std::future::{pending, poll_fn};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

const CLIENTS: usize = 8;
/// Streams that one connection may have at once.
const STREAMS: usize = 100;
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

/// A client that sends bodies on all streams that it may have, as fast as its windows allow; `sent` counts bytes.
fn uploads(to: SocketAddr, sent: Arc<AtomicU64>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let stream = TcpStream::connect(to).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        let mut streams = JoinSet::new();
        streams.spawn(async move { drop(connection.await) });
        for _ in 0..STREAMS {
            sender = sender.ready().await.unwrap();
            let request = hyper::Request::post("http://test.nginx.com/upload").body(()).unwrap();
            let (answer, mut body) = sender.send_request(request, false).unwrap();
            let sent = Arc::clone(&sent);
            streams.spawn(async move {
                let _answer = answer;
                loop {
                    body.reserve_capacity(16_000);
                    let Some(Ok(room)) = poll_fn(|context| body.poll_capacity(context)).await else {
                        return;
                    };
                    let part = Bytes::from(vec![b'u'; room.min(16_000)]);
                    sent.fetch_add(part.len() as u64, Ordering::Relaxed);
                    if body.send_data(part, false).is_err() {
                        return;
                    }
                }
            });
        }
        while streams.join_next().await.is_some() {}
    })
}

/// Uploads on all streams of some connections to an endpoint that takes nothing of them.
async fn uploads_cost_at_most(mebibytes: u64, endpoint: SocketAddr, protocol: Option<&str>) {
    let api = cluster(&[endpoint]).await;
    if let Some(protocol) = protocol {
        let mut service = service("nginx");
        service["spec"]["ports"][0]["appProtocol"] = json!(protocol);
        api.put("services", service);
    }
    let proxy = ready(&api).await;
    let sent = Arc::new(AtomicU64::new(0));
    // What the first ones cost is the program's own.
    let first = uploads(proxy.http, Arc::default());
    tokio::time::sleep(Duration::from_secs(2)).await;
    first.abort();
    let _ = first.await;
    let before = memory(&proxy);
    let clients: Vec<_> = (0..CLIENTS).map(|_| uploads(proxy.http, Arc::clone(&sent))).collect();
    let each = most(&proxy, 6).await.saturating_sub(before) / CLIENTS as u64;
    let sent = sent.load(Ordering::Relaxed);
    assert!(
        each <= mebibytes * MIB,
        "{} KiB each, {} MiB sent",
        each / 1024,
        sent / MIB
    );
    assert!(clients.iter().all(|client| !client.is_finished()), "a connection ended");
    assert!(sent > CLIENTS as u64 * MIB, "only {sent} bytes were sent");
    clients.iter().for_each(JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_an_endpoint_does_not_take_hold_little() {
    uploads_cost_at_most(4, large().await, None).await;
}

/// An endpoint of HTTP/2 that opens every window, and reads nothing.
async fn deaf() -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(64).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let settings = [&[0, 4][..], &WIDEST.to_be_bytes()].concat();
                let opened = (WIDEST - 65_535).to_be_bytes();
                let frames = [frame(4, 0, 0, &settings), frame(8, 0, 0, &opened)].concat();
                let _ = stream.write_all(&frames).await;
                pending::<()>().await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_an_endpoint_of_http2_does_not_take_hold_little() {
    uploads_cost_at_most(4, deaf().await, Some("kubernetes.io/h2c")).await;
}

/// An endpoint that answers every connection with 400 KB. It has them once.
async fn shared() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let body = Bytes::from(vec![b'v'; 400_000]);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let body = body.clone();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 1024]).await;
                let head = b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n";
                let _ = stream.write_all(head).await;
                let _ = stream.write_all(&body).await;
            });
        }
    });
    address
}

/// All connections of one address have one bound, over HTTP/1 too. `LANDFALL_READERS` says how many there are; with 6,000 large buffers for
/// all of them would be twice what an address may hold.
#[tokio::test(flavor = "multi_thread")]
async fn readers_of_http1_that_read_nothing_hold_what_their_address_may() {
    const ALL: u64 = 256 * MIB;
    /// What a connection with large buffers counts for, and what its task has more in a build without optimisation.
    const EACH: u64 = (28 + 72 + 16) * 1024;
    let readers = std::env::var("LANDFALL_READERS").map_or(400, |text| text.parse().unwrap());
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let api = cluster(&[shared().await]).await;
    let files = readers * 3 + 1024;
    let proxy = Proxy::start_launch(Launch::new(program().as_ref()).open_files(files, files), &api);
    until("an answer", || async { proxy.status("test.nginx.com").await == 200 }).await;
    let before = memory(&proxy);
    let mut held = Vec::new();
    for _ in 0..readers {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(proxy.http).await.unwrap();
        let request = b"GET /large HTTP/1.1\r\nHost: test.nginx.com\r\n\r\n";
        stream.write_all(request).await.unwrap();
        held.push(stream);
    }
    let all = most(&proxy, 5).await.saturating_sub(before);
    let bound = ALL.min(readers * EACH);
    assert!(all <= bound, "{} MiB for {readers}, {} allowed", all / MIB, bound / MIB);
    // Others are served meanwhile.
    assert_eq!(proxy.status("test.nginx.com").await, 200);
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
