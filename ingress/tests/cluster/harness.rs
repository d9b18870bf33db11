//! The real program against the fake API, and small HTTP ends around it. Every wait is bounded.

use landfall_test_ingress::FakeApi;
pub use landfall_test_ingress::program::until;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longest wait for anything; one lease renewal takes 5 s.
const PATIENCE: Duration = Duration::from_secs(20);

/// The real program.
pub fn program() -> &'static str {
    env!("CARGO_BIN_EXE_landfall-ingress")
}

/// A running proxy; killed when dropped.
pub struct Proxy {
    child: Child,
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub admin: SocketAddr,
    _config: NamedTempFile,
}

impl Proxy {
    pub fn start(api: &FakeApi, pod: &str) -> Self {
        Self::start_with(api, pod, &["--http-address=127.0.0.1:0", "--admin-address=127.0.0.1:0"])
    }

    /// Starts it with these flags and waits until it says where it listens.
    pub fn start_with(api: &FakeApi, pod: &str, flags: &[&str]) -> Self {
        Self::start_program(program(), api, pod, flags)
    }

    /// Starts this program, which may be another build.
    pub fn start_program(program: &str, api: &FakeApi, pod: &str, flags: &[&str]) -> Self {
        let config = json!({ "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": { "server": format!("http://{}", api.address) } }],
            "users": [{ "name": "c", "user": {} }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "c" } }] });
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), config.to_string()).unwrap();
        let https = Some("--https-address").into_iter();
        let mut child = Command::new(program)
            .args([
                "--ingress-class=landfall",
                "--dashboard-host=ui.landfall.local",
                "--stop-delay-ms=300",
            ])
            .args(
                https
                    .filter(|flag| !flags.iter().any(|f| f.starts_with(flag)))
                    .map(|flag| format!("{flag}=127.0.0.1:0")),
            )
            .args(flags)
            .env_clear()
            .env("KUBECONFIG", file.path())
            .env("POD_NAME", pod)
            .env("POD_NAMESPACE", "kube-system")
            .env("NODE_NAME", "node-1")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let first = lines
            .by_ref()
            .inspect(|line| println!("{line}"))
            .find(|line| line.contains("listening http="));
        let first = first.expect("it says where it listens");
        let port = |name: &str| {
            let text = first.split_once(&format!("{name}=")).unwrap().1;
            let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
            SocketAddr::from((Ipv4Addr::LOCALHOST, digits.parse().unwrap()))
        };
        let (http, https, admin) = (port("http"), port("https"), port("admin"));
        // What it says later is shown with a failing test.
        std::thread::spawn(move || lines.for_each(|line| println!("{line}")));
        Self {
            child,
            http,
            https,
            admin,
            _config: file,
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

    /// Status and body of a page of the dashboard's port.
    pub async fn page(&self, path: &str) -> (u16, String) {
        fetch(self.admin, "ui.landfall.local", path).await
    }

    pub async fn ready(&self) -> bool {
        self.page("/readyz").await.0 == 200
    }

    /// A series of /metrics.
    pub async fn metric(&self, name: &str) -> u64 {
        let (_, text) = self.page("/metrics").await;
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix(&format!("landfall_ingress_{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    /// Ends it without a chance to do anything.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    pub async fn exit(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request on its own connection; status 0 when the connection is refused or says nothing.
pub async fn fetch(address: SocketAddr, host: &str, path: &str) -> (u16, String) {
    let Ok(mut stream) = TcpStream::connect(address).await else {
        return (0, String::new());
    };
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(head.as_bytes()).await;
    split(&read_all(&mut stream).await)
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
pub async fn refusing() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    listener.local_addr().unwrap()
}

pub fn class() -> Value {
    json!({ "metadata": { "name": "landfall", "annotations": { "ingressclass.kubernetes.io/is-default-class": "true" } },
        "spec": { "controller": "landfall.dev/ingress" } })
}

/// As the sample's: the Service's port by name.
pub fn ingress(name: &str, host: &str, service: &str) -> Value {
    json!({ "metadata": { "name": name, "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": { "ingressClassName": "landfall", "rules": [{ "host": host, "http": { "paths": [{
            "path": "/", "pathType": "Prefix", "backend": { "service": { "name": service, "port": { "name": "http" } } } }] } }] } })
}

pub fn service(name: &str) -> Value {
    json!({ "metadata": { "name": name, "namespace": "default" },
        "spec": { "type": "NodePort", "ports": [{ "name": "http", "port": 80, "targetPort": 80 }] } })
}

/// One slice per endpoint, for their ports differ on loopback.
pub fn slice(name: &str, service: &str, endpoint: SocketAddr) -> Value {
    json!({ "metadata": { "name": name, "namespace": "default", "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4", "ports": [{ "name": "http", "port": endpoint.port() }],
        "endpoints": [{ "addresses": [endpoint.ip()], "conditions": { "ready": true, "serving": true, "terminating": false } }] })
}

/// A pod of ours on a node.
pub fn pod(name: &str, node: &str) -> Value {
    json!({ "metadata": { "name": name, "namespace": "kube-system", "labels": { "app.kubernetes.io/name": "landfall-ingress" } },
        "status": { "hostIP": node, "conditions": [{ "type": "Ready", "status": "True" }] } })
}
