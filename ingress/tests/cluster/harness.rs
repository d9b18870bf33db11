//! The real program against the fake API, and small HTTP ends around it. Every wait is bounded.

use landfall_test_ingress::FakeApi;
pub use landfall_test_ingress::client::fetch;
pub use landfall_test_ingress::objects::{class, ingress, pod, service, slice};
pub use landfall_test_ingress::program::until;
use landfall_test_ingress::program::{Launch, PATIENCE, Program};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// The real program.
pub fn program() -> &'static str {
    env!("CARGO_BIN_EXE_landfall-ingress")
}

/// A running proxy, and where it listens; killed when dropped.
pub struct Proxy {
    program: Program,
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub admin: SocketAddr,
}

impl Deref for Proxy {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.program
    }
}

impl DerefMut for Proxy {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.program
    }
}

impl Proxy {
    pub fn start(api: &FakeApi, pod: &str) -> Self {
        Self::start_with(api, pod, &[])
    }

    /// Starts it with these flags and waits until it says where it listens.
    pub fn start_with(api: &FakeApi, pod: &str, flags: &[&str]) -> Self {
        Self::start_program(program(), api, pod, flags)
    }

    /// Starts this program, which may be another build.
    pub fn start_program(program: &str, api: &FakeApi, pod: &str, flags: &[&str]) -> Self {
        let launch = Launch::new(Path::new(program)).pod(pod);
        let launch = flags.iter().fold(launch, |launch, flag| launch.argument(*flag));
        Self::start_launch(launch, api)
    }

    /// Starts it as told.
    pub fn start_launch(launch: Launch, api: &FakeApi) -> Self {
        let program = launch.start(api);
        let (http, https, admin) = (program.http(), program.https(), program.admin());
        Self {
            program,
            http,
            https,
            admin,
        }
    }

    /// The status of a request for this host.
    pub async fn status(&self, host: &str) -> u16 {
        fetch(self.http, host, "/").await.0
    }

    /// The body of a request for this host.
    pub async fn body(&self, host: &str) -> String {
        fetch(self.http, host, "/").await.1
    }

    /// A series of /metrics that counts, and has to be there.
    pub async fn metric(&self, name: &str) -> u64 {
        let value = self.program.metric(name).await;
        value.unwrap_or_else(|| panic!("no {name}")) as u64
    }
}

pub async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    let _ = read.expect("an answer in time");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Status and body of an answer.
pub fn split(answer: &str) -> (u16, String) {
    let status = answer.get(9..12).and_then(|s| s.parse().ok()).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
}

/// An endpoint that answers each request with its name, once the body is there, and closes.
pub async fn endpoint(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut seen = String::new();
                let mut buffer = [0; 4096];
                while !whole(&seen) {
                    match stream.read(&mut buffer).await {
                        Ok(read) if read > 0 => seen.push_str(&String::from_utf8_lossy(&buffer[..read])),
                        _ => return,
                    }
                }
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{name}",
                    name.len()
                );
                let _ = stream.write_all(head.as_bytes()).await;
            });
        }
    });
    address
}

/// Head and as many bytes as it promises have come.
fn whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .to_lowercase()
        .lines()
        .find_map(|l| l.strip_prefix("content-length: ").and_then(|n| n.parse().ok()));
    body.len() >= length.unwrap_or(0)
}

/// An address that refuses connections.
pub fn refusing() -> SocketAddr {
    // Bound and never listening; kept for as long as the process lasts, or another test gets the port and answers.
    let socket = Box::leak(Box::new(TcpSocket::new_v4().unwrap()));
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    socket.local_addr().unwrap()
}
