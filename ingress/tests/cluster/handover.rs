//! Listeners pass between processes of the real program: forward, back, with deaths at each step, under load without a lost request.
//!
//! Both processes are this build; `--handover-build` and `--handover-protocol` make them differ where they speak to each other. With
//! `LANDFALL_OTHER_BUILD` set to a program of another build, every second process is that one.

use crate::harness::{Proxy, endpoint, fetch, program, until};
use crate::{cluster, ready};
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use landfall_test_ingress::FakeApi;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// A node: one meeting place, one pair of ports that its processes share.
struct Node {
    api: FakeApi,
    directory: TempDir,
    http: SocketAddr,
    https: SocketAddr,
    admin: SocketAddr,
    /// Bound to these addresses, never listening: no other test of this machine gets them meanwhile.
    _reserved: [TcpSocket; 3],
    started: AtomicUsize,
}

impl Node {
    async fn new() -> Self {
        let reserved = [reserve(), reserve(), reserve()];
        let [http, https, admin] = [0, 1, 2].map(|i: usize| reserved[i].local_addr().unwrap());
        Self {
            api: cluster(&[endpoint("one").await]).await,
            directory: TempDir::new().unwrap(),
            http,
            https,
            admin,
            _reserved: reserved,
            started: AtomicUsize::new(0),
        }
    }

    /// A new process, as soon as it says that it listens; its table is built then.
    fn start(&self, more: &[&str]) -> Proxy {
        let n = self.started.fetch_add(1, Ordering::SeqCst);
        let flags = [
            format!("--http-address={}", self.http),
            format!("--https-address={}", self.https),
            format!("--admin-address={}", self.admin),
            format!("--handover-directory={}", self.directory.path().display()),
            format!("--probe-socket={}", self.probe(n).display()),
            format!("--handover-build=build-{n}"),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let other = std::env::var("LANDFALL_OTHER_BUILD").ok().filter(|_| n % 2 == 1);
        Proxy::start_program(other.as_deref().unwrap_or(program()), &self.api, "", &flags)
    }

    fn probe(&self, n: usize) -> std::path::PathBuf {
        self.directory.path().join(format!("probe-{n}.sock"))
    }

    /// The answer of `landfall-ingress probe ready` for the nth process.
    fn is_ready(&self, n: usize) -> bool {
        probe("ready", &self.probe(n))
    }

    async fn start_ready(&self) -> Proxy {
        let n = self.started.load(Ordering::SeqCst);
        let proxy = self.start(&[]);
        until("ready", || async { self.is_ready(n) }).await;
        proxy
    }

    async fn serves(&self) -> bool {
        fetch(self.http, "test.nginx.com", "/").await == (200, "one".to_owned())
    }

    /// Speaks as a new process does, up to a point.
    fn visit(&self, versions: &[u32]) -> (UnixStream, Value) {
        let mut stream = UnixStream::connect(self.directory.path().join("handover.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        say(
            &mut stream,
            &json!({ "message": "hello", "versions": versions, "build": "by hand" }),
        );
        let answer = hear(&mut stream);
        if let Some(length) = answer["state_bytes"].as_u64() {
            stream.read_exact(&mut vec![0; length as usize]).unwrap();
        }
        (stream, answer)
    }
}

/// A socket with an address that nobody else has; further sockets of this user may share it.
fn reserve() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    socket
}

fn probe(question: &str, socket: &Path) -> bool {
    let mut command = std::process::Command::new(program());
    command
        .args(["probe", question, "--socket"])
        .arg(socket)
        .env("POD_NAME", "pod-1");
    command.output().unwrap().status.success()
}

fn say(stream: &mut UnixStream, message: &Value) {
    let text = message.to_string();
    stream
        .write_all(&u32::try_from(text.len()).unwrap().to_be_bytes())
        .unwrap();
    stream.write_all(text.as_bytes()).unwrap();
}

fn hear(stream: &mut UnixStream) -> Value {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut text = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut text).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Clients that keep connections as long as they may, and clients that open one per request.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<(usize, Vec<String>)>>,
}

impl Load {
    fn start(address: SocketAddr, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let run = |n: usize| tokio::spawn(client(address, n.is_multiple_of(2), Arc::clone(&stop)));
        Self {
            clients: (0..clients).map(run).collect(),
            stop,
        }
    }

    /// Requests and what was lost.
    async fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        let (mut requests, mut lost) = (0, Vec::new());
        for client in self.clients {
            let (asked, failures) = client.await.unwrap();
            requests += asked;
            lost.extend(failures);
        }
        (requests, lost)
    }
}

async fn client(address: SocketAddr, keep: bool, stop: Arc<AtomicBool>) -> (usize, Vec<String>) {
    let (mut requests, mut lost, mut kept) = (0, Vec::new(), None);
    while !stop.load(Ordering::SeqCst) {
        requests += 1;
        match request(address, kept.take(), keep).await {
            Ok(connection) => kept = connection,
            Err(error) => lost.push(error),
        }
    }
    (requests, lost)
}

/// One request without a second try; returns the connection when it may be used again.
async fn request(address: SocketAddr, kept: Option<TcpStream>, keep: bool) -> Result<Option<TcpStream>, String> {
    let reused = kept.is_some();
    let failed = |what: &str, error: std::io::Error| format!("{what} (reused: {reused}): {error}");
    let mut stream = match kept {
        Some(stream) => stream,
        None => TcpStream::connect(address).await.map_err(|e| failed("connect", e))?,
    };
    let close = if keep { "" } else { "Connection: close\r\n" };
    let head = format!("GET / HTTP/1.1\r\nHost: test.nginx.com\r\n{close}\r\n");
    stream.write_all(head.as_bytes()).await.map_err(|e| failed("send", e))?;
    let mut answer = String::new();
    let mut buffer = [0; 2048];
    while !answer.ends_with("one") {
        match stream.read(&mut buffer).await.map_err(|e| failed("receive", e))? {
            0 => return Err(format!("ended early (reused: {reused}): {answer:?}")),
            n => answer.push_str(&String::from_utf8_lossy(&buffer[..n])),
        }
    }
    if !answer.starts_with("HTTP/1.1 200") {
        return Err(answer);
    }
    let last = !keep || answer.to_lowercase().contains("connection: close");
    Ok((!last).then_some(stream))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_while_listeners_go_forward_and_back() {
    let node = Node::new().await;
    let mut proxy = node.start_ready().await;
    let load = Load::start(node.http, 8);
    for _ in 0..4 {
        let next = node.start_ready().await;
        proxy.terminate();
        assert_eq!(proxy.exit().await.code(), Some(0));
        proxy = next;
    }
    // The last one dies without a word after another has taken over from it, and one comes that dies before it takes.
    let mut last = node.start_ready().await;
    last.kill();
    until("the one before goes on", || node.serves()).await;
    let (requests, lost) = load.end().await;
    println!("{requests} requests");
    // Only what the killed process was just answering may be lost: one request per client.
    assert!(
        lost.len() <= 8 && requests > 500,
        "{requests} requests, lost {}: {lost:?}",
        lost.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_under_load_loses_nothing() {
    let node = Node::new().await;
    let rounds = std::env::var("LANDFALL_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(3);
    let mut proxy = node.start_ready().await;
    let load = Load::start(node.http, 8);
    for _ in 0..rounds {
        let next = node.start_ready().await;
        proxy.terminate();
        assert_eq!(proxy.exit().await.code(), Some(0));
        proxy = next;
    }
    let (requests, lost) = load.end().await;
    println!("{requests} requests in {rounds} hand-overs, {} lost", lost.len());
    assert!(
        lost.is_empty() && requests > 500,
        "{requests} requests, lost {}: {lost:?}",
        lost.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_http2_are_sent_on_before_the_old_process_is_told_to_end() {
    let node = Node::new().await;
    let _old = node.start_ready().await;
    let connect = || async {
        let stream = TokioIo::new(TcpStream::connect(node.http).await.unwrap());
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        (sender, tokio::spawn(connection))
    };
    let ask = async |sender: &mut http2::SendRequest<Empty<Bytes>>| {
        let request = Request::get("http://test.nginx.com/").body(Empty::new()).unwrap();
        let body = sender.send_request(request).await.unwrap().into_body();
        assert_eq!(body.collect().await.unwrap().to_bytes(), "one");
    };
    let (mut sender, connection) = connect().await;
    ask(&mut sender).await;
    let new = node.start_ready().await;
    until("GOAWAY has ended the connection", || async { connection.is_finished() }).await;
    assert!(connection.await.unwrap().is_ok());
    let (mut sender, _connection) = connect().await;
    ask(&mut sender).await;
    // The one that took over dies; who comes then is not sent away again.
    drop(new);
    until("the old one goes on", || node.serves()).await;
    let (mut sender, connection) = connect().await;
    for _ in 0..3 {
        ask(&mut sender).await;
    }
    assert!(!connection.is_finished());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_process_takes_nothing_before_its_table_is_built() {
    let node = Node::new().await;
    let old = node.start_ready().await;
    node.api.hold("endpointslices");
    let mut early = std::process::Command::new(program());
    let new = node.started.load(Ordering::SeqCst);
    let node = Arc::new(node);
    let starting = {
        let node = Arc::clone(&node);
        // A thread of its own: one of the runtime's would keep a failed test from ending.
        std::thread::spawn(move || node.start(&[]))
    };
    until("it lives", || async { probe("live", &node.probe(new)) }).await;
    assert!(!node.is_ready(new) && node.is_ready(new - 1));
    assert_eq!(old.metric("handed_over").await, 0);
    assert!(node.serves().await);
    node.api.release("endpointslices");
    until("it took over", || async { starting.is_finished() }).await;
    let _new = starting.join().unwrap();
    until("ready", || async { node.is_ready(new) }).await;
    assert!(
        !early
            .args(["probe", "ready", "--socket", "/nothing/here"])
            .output()
            .unwrap()
            .status
            .success()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_that_dies_at_any_step_changes_nothing() {
    let node = Node::new().await;
    let _old = node.start_ready().await;
    let load = Load::start(node.http, 4);
    // After its greeting.
    let (stream, welcome) = node.visit(&[1]);
    assert_eq!(
        (&welcome["message"], &welcome["version"]),
        (&json!("welcome"), &json!(1))
    );
    let names: Vec<_> = welcome["listeners"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["name"].clone())
        .collect();
    assert!(
        names.contains(&json!("http")) && names.contains(&json!("admin")),
        "{welcome}"
    );
    drop(stream);
    // With the listeners in its hands.
    let (mut stream, _) = node.visit(&[1]);
    say(&mut stream, &json!({ "message": "take" }));
    assert_eq!(hear(&mut stream)["message"], "listeners");
    drop(stream);
    assert!(node.serves().await);
    // After it said that it serves: until it dies nobody accepts, and connections wait in the queue.
    until("the place is free", || async {
        let (mut stream, _) = node.visit(&[1]);
        say(&mut stream, &json!({ "message": "take" }));
        if hear(&mut stream)["message"] != "listeners" {
            return false;
        }
        say(&mut stream, &json!({ "message": "serving" }));
        hear(&mut stream)["message"] == "closed"
    })
    .await;
    until("the old one goes on", || node.serves()).await;
    let (requests, lost) = load.end().await;
    assert!(lost.is_empty() && requests > 0, "{requests} requests, lost: {lost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_new_process_waits_and_takes_from_the_first() {
    let node = Node::new().await;
    let _old = node.start_ready().await;
    let (mut first, _) = node.visit(&[1]);
    say(&mut first, &json!({ "message": "take" }));
    assert_eq!(hear(&mut first)["message"], "listeners");
    let (mut second, _) = node.visit(&[1]);
    say(&mut second, &json!({ "message": "take" }));
    assert_eq!(hear(&mut second)["message"], "busy");
    drop(first);
    // The real ones: both start at the same time, and in the end one of them serves.
    let node = Arc::new(node);
    let starting = [1, 2].map(|_| {
        let node = Arc::clone(&node);
        tokio::task::spawn_blocking(move || node.start(&[]))
    });
    let mut both = Vec::new();
    for one in starting {
        both.push(one.await.unwrap());
    }
    until("both are ready", || async { node.is_ready(1) && node.is_ready(2) }).await;
    assert!(node.serves().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_that_share_no_version_serve_side_by_side() {
    let node = Node::new().await;
    let mut old = node.start_ready().await;
    let (_, refused) = node.visit(&[7, 8]);
    assert_eq!(
        (&refused["message"], &refused["versions"]),
        (&json!("refused"), &json!([1]))
    );
    let _new = node.start(&["--handover-protocol=2"]);
    until("ready", || async { node.is_ready(1) }).await;
    assert!(node.is_ready(0));
    old.terminate();
    assert_eq!(old.exit().await.code(), Some(0));
    for _ in 0..20 {
        assert!(node.serves().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_left_by_a_dead_process_is_no_obstacle() {
    let node = Node::new().await;
    let mut dead = node.start_ready().await;
    dead.kill();
    assert!(!node.serves().await);
    let _next = node.start_ready().await;
    assert!(node.serves().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_restart_socket_is_closed_to_others() {
    let node = Node::new().await;
    let _proxy = node.start_ready().await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(node.directory.path()), 0o700);
    assert_eq!(mode(&node.directory.path().join("handover.sock")), 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_another_program_is_noticed() {
    let taken = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = format!("--http-address={}", taken.local_addr().unwrap());
    let output = std::process::Command::new(program())
        .args([&address, "--https-address=127.0.0.1:0", "--admin-address=127.0.0.1:0"])
        .env("KUBECONFIG", "/nothing/here")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("cannot listen on"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_restart_socket_nothing_is_handed_over() {
    let api = cluster(&[endpoint("one").await]).await;
    let proxy = ready(&api).await;
    assert_eq!(proxy.body("test.nginx.com").await, "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_good_version_of_a_bad_ingress_travels_along() {
    let node = Node::new().await;
    let mut old = node.start_ready().await;
    // Its newest version names a path that no Ingress may have; only the old process still knows the good one.
    let mut bad = node.api.get("ingresses", "default", "nginx").unwrap();
    bad["spec"]["rules"][0]["http"]["paths"][0]["path"] = json!("no-slash");
    node.api.put("ingresses", bad);
    until("the remark", || async {
        old.page("/status.json").await.1.contains("last good one")
    })
    .await;
    assert!(node.serves().await);
    let new = node.start_ready().await;
    old.terminate();
    assert_eq!(old.exit().await.code(), Some(0));
    assert!(node.serves().await && new.page("/status.json").await.1.contains("last good one"));
}
