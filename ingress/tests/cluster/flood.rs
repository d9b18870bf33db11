//! A flood of connections from few addresses, beside clients that read nothing: the node goes on serving others, and its memory is bounded.
//!
//! The kinds are those of slowloris (heads that never end), of connections that say nothing, and of HTTP/2 connections without a request.
//! `LANDFALL_FLOOD` says how many connections there are; the long tests have 20,000, of which a process that may have as many files admits
//! not quite half.

use super::cluster;
use super::harness::{Proxy, program, until};
use super::memory::{MIB, clients, head, large, memory, request};
use landfall_test_ingress::program::Launch;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Connections when nothing else is said.
const USUAL: usize = 2_000;
const ADDRESSES: usize = 4;
/// Connections of all addresses that are opened at once; fewer than a listener's queue holds.
const WAVE: usize = 400;
/// Longest time for all of it.
const PATIENCE: Duration = Duration::from_secs(300);
/// What each kind sends. None of it is a whole request.
const KINDS: [&[u8]; 3] = [
    b"",
    b"GET / HTTP/1.1\r\nHost: test.nginx.com\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
];
/// What an idle connection over HTTP/2 counts for in the proxy's budgets; others count for 28 KiB. Which of the kinds have to give way
/// depends on the order in which they arrive, so all that stay may be of this one.
const EACH: u64 = 36 * 1024;

/// A connection from the address with this number that sends its kind and then nothing.
async fn open(to: SocketAddr, number: usize) -> Option<TcpStream> {
    let last = u8::try_from(number % ADDRESSES).unwrap() + 2;
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into()).unwrap();
    let mut stream = socket.connect(to).await.unwrap();
    // It may have had to go already.
    let sent = stream.write_all(KINDS[number % KINDS.len()]).await;
    sent.is_ok().then_some(stream)
}

/// Whether the other side has not closed it.
fn is_open(stream: &TcpStream) -> bool {
    let mut bytes = [0; 256];
    loop {
        match stream.try_read(&mut bytes) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_from_four_addresses_stops_nobody() {
    let count = std::env::var("LANDFALL_FLOOD").map_or(USUAL, |text| text.parse().unwrap());
    timeout(PATIENCE, flood(count)).await.expect("the flood's end in time");
}

async fn flood(count: usize) {
    // Both sides of these connections are open files, one of them here.
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let files = u64::try_from(count).unwrap();
    let api = cluster(&[large().await]).await;
    let proxy = Proxy::start_launch(Launch::new(program().as_ref()).open_files(files, files), &api);
    until("an answer", || async { proxy.status("test.nginx.com").await == 200 }).await;
    let bound = proxy.metric("connections_limit").await;
    assert!(bound < files / 2, "{bound} connections with {files} files");
    let before = memory(&proxy);
    let readers = clients(&proxy, |stream| request(stream, &head(false, "/large")), 100).await;

    let mut held = Vec::new();
    let mut most = 0;
    for first in (0..count).step_by(WAVE) {
        let wave = (first..count.min(first + WAVE)).map(|number| open(proxy.http, number));
        held.extend(futures(wave).await);
        held.retain(is_open);
        assert_eq!(proxy.status("test.nginx.com").await, 200, "after {first} connections");
        most = most.max(memory(&proxy));
    }
    let room = bound * EACH + readers.len() as u64 * 4 * MIB;
    let grown = most.saturating_sub(before);
    assert!(grown <= room, "{} MiB more, {} allowed", grown / MIB, room / MIB);
    assert!(proxy.metric("connections").await <= bound);
    assert!(held.len() as u64 > bound / 2, "only {} are open", held.len());
    drop((held, readers));
    until("the flood's connections to be gone", || async {
        proxy.metric("connections").await < 16
    })
    .await;
    assert_eq!(proxy.status("test.nginx.com").await, 200);
}

/// All that come of these, at once.
async fn futures(
    all: impl Iterator<Item = impl Future<Output = Option<TcpStream>> + Send + 'static>,
) -> Vec<TcpStream> {
    let tasks: Vec<_> = all.map(tokio::spawn).collect();
    let mut streams = Vec::new();
    for task in tasks {
        streams.extend(task.await.unwrap());
    }
    streams
}
