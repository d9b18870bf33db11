//! Load and backend. All of it runs on the one thread of the benchmark, so nothing but the proxy competes for the proxy's core.
//!
//! *Closed loop*: every worker sends its next request after the answer; it measures CPU per request. *Open loop*: requests start at fixed times,
//! independently of earlier ones, and each is timed from its scheduled start, so that a stall counts for all requests that had to wait (no
//! coordinated omission).

use anyhow::{Context, Result, anyhow, bail, ensure};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// A backend that answers every request (without a body) with the same bytes, over kept connections.
pub(super) async fn backend(body: Vec<u8>) -> Result<SocketAddr> {
    let listener = TcpListener::bind("0.0.0.0:0").await?;
    let port = listener.local_addr()?.port();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let answer: Arc<[u8]> = [head.as_bytes(), &body].concat().into();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&answer)));
        }
    });
    Ok(SocketAddr::from(([127, 0, 0, 1], port)))
}

async fn serve(mut stream: TcpStream, answer: Arc<[u8]>) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::with_capacity(4096);
    while let Ok(1..) = stream.read_buf(&mut buffer).await {
        while let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            buffer.drain(..end + 4);
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
    }
}

/// What one worker does again and again.
#[derive(Clone)]
pub(super) enum Work {
    /// GET over a kept HTTP/1.1 connection; over TLS where there is a configuration.
    Http1(Option<Arc<rustls::ClientConfig>>),
    /// GET over an HTTP/2 connection (prior knowledge) that this many workers share.
    Http2(usize),
    /// A connection with a full TLS handshake, then its end.
    Handshake(Arc<rustls::ClientConfig>),
}

/// Where the load goes.
#[derive(Clone)]
pub(super) struct Aim {
    pub(super) address: SocketAddr,
    /// Hosts that are asked by turns.
    pub(super) hosts: Arc<[String]>,
    /// Bytes of a right answer's body.
    pub(super) body: usize,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

enum Worker {
    Http1 {
        stream: Box<dyn Stream>,
        buffer: Vec<u8>,
        requests: Vec<Vec<u8>>,
        turn: usize,
        body: usize,
    },
    Http2 {
        sender: http2::SendRequest<Empty<Bytes>>,
        uri: hyper::Uri,
        body: usize,
    },
    Handshake(SocketAddr, TlsConnector, rustls::pki_types::ServerName<'static>),
}

async fn tcp(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("connect to {address}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn workers(aim: &Aim, work: &Work, count: usize) -> Result<Vec<Worker>> {
    let name = rustls::pki_types::ServerName::try_from(aim.hosts[0].clone())?;
    let mut workers = Vec::new();
    let mut shared: Option<http2::SendRequest<Empty<Bytes>>> = None;
    for number in 0..count {
        workers.push(match work {
            Work::Http1(tls) => {
                let stream = tcp(aim.address).await?;
                let stream: Box<dyn Stream> = match tls {
                    Some(config) => Box::new(
                        TlsConnector::from(Arc::clone(config))
                            .connect(name.clone(), stream)
                            .await?,
                    ),
                    None => Box::new(stream),
                };
                let hosts = aim.hosts.iter().skip(number).step_by(count);
                let request = |host: &String| {
                    format!("GET /a/path?q=1 HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n")
                };
                let mut requests: Vec<_> = hosts.map(|host| request(host).into_bytes()).collect();
                if requests.is_empty() {
                    requests.push(request(&aim.hosts[0]).into_bytes());
                }
                Worker::Http1 {
                    stream,
                    buffer: Vec::with_capacity(96 * 1024),
                    requests,
                    turn: 0,
                    body: aim.body,
                }
            }
            Work::Http2(sharing) => {
                if number % sharing == 0 {
                    let stream = TokioIo::new(tcp(aim.address).await?);
                    let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
                    tokio::spawn(connection);
                    shared = Some(sender);
                }
                let sender = shared.clone().context("the first worker opens a connection")?;
                let uri = format!("http://{}/a/path?q=1", aim.hosts[0]).parse()?;
                Worker::Http2 {
                    sender,
                    uri,
                    body: aim.body,
                }
            }
            Work::Handshake(config) => {
                Worker::Handshake(aim.address, TlsConnector::from(Arc::clone(config)), name.clone())
            }
        });
    }
    Ok(workers)
}

impl Worker {
    async fn once(&mut self) -> Result<()> {
        match self {
            Self::Http1 {
                stream,
                buffer,
                requests,
                turn,
                body,
            } => {
                *turn = (*turn + 1) % requests.len();
                stream.write_all(&requests[*turn]).await?;
                answer(stream, buffer, *body).await
            }
            Self::Http2 { sender, uri, body } => {
                let request = hyper::Request::get(uri.clone())
                    .header("user-agent", "bench")
                    .body(Empty::new())?;
                sender.ready().await?;
                let response = sender.send_request(request).await?;
                let status = response.status();
                let length = response.into_body().collect().await?.to_bytes().len();
                ensure!(status == 200 && length == *body, "{status} with {length} bytes");
                Ok(())
            }
            Self::Handshake(address, connector, name) => {
                let mut stream = connector.connect(name.clone(), tcp(*address).await?).await?;
                let (_, session) = stream.get_ref();
                ensure!(
                    session.handshake_kind() == Some(rustls::HandshakeKind::Full),
                    "not a full handshake"
                );
                // A peer may have closed first.
                let _ = stream.shutdown().await;
                Ok(())
            }
        }
    }
}

/// Reads one answer and checks its status and size.
async fn answer(stream: &mut Box<dyn Stream>, buffer: &mut Vec<u8>, body: usize) -> Result<()> {
    buffer.clear();
    let head = loop {
        ensure!(stream.read_buf(buffer).await? > 0, "the connection ended");
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
    };
    if !buffer.starts_with(b"HTTP/1.1 200") {
        bail!("{}", String::from_utf8_lossy(&buffer[..head]));
    }
    while buffer.len() < head + body {
        ensure!(stream.read_buf(buffer).await? > 0, "the connection ended within a body");
    }
    ensure!(
        buffer.len() == head + body,
        "{} bytes of a body, not {body}",
        buffer.len() - head
    );
    Ok(())
}

/// Runs a closed loop; returns the number of answers and the time.
pub(super) async fn closed(aim: &Aim, work: &Work, count: usize, time: Duration) -> Result<(usize, Duration)> {
    let workers = workers(aim, work, count).await?;
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for mut worker in workers {
        tasks.spawn(async move {
            let mut done = 0_usize;
            while start.elapsed() < time {
                worker.once().await?;
                done += 1;
            }
            anyhow::Ok(done)
        });
    }
    let mut done = 0;
    while let Some(result) = tasks.join_next().await {
        done += result??;
    }
    Ok((done, start.elapsed()))
}

/// Starts `rate` requests per second for `time`; returns what each took, in milliseconds.
pub(super) async fn open(aim: &Aim, work: &Work, count: usize, rate: u32, time: Duration) -> Result<Vec<f64>> {
    let mut tasks = JoinSet::new();
    let mut senders = Vec::new();
    for mut worker in workers(aim, work, count).await? {
        let (sender, mut due) = mpsc::unbounded_channel::<Instant>();
        senders.push(sender);
        tasks.spawn(async move {
            let mut took = Vec::new();
            while let Some(intended) = due.recv().await {
                worker.once().await?;
                took.push(intended.elapsed().as_secs_f64() * 1000.0);
            }
            anyhow::Ok(took)
        });
    }
    let total = (time.as_secs_f64() * f64::from(rate)) as u32;
    let pacer = std::thread::spawn(move || pace(&senders, rate, total));
    let mut took = Vec::new();
    while let Some(result) = tasks.join_next().await {
        took.extend(result??);
    }
    pacer.join().map_err(|_| anyhow!("the pacer broke off"))?;
    Ok(took)
}

/// Tells the workers by turns when to start. A thread of its own, for the runtime's timers are no finer than a millisecond; it is on
/// the load's core as well.
fn pace(senders: &[mpsc::UnboundedSender<Instant>], rate: u32, total: u32) {
    let step = Duration::from_secs(1) / rate;
    let start = Instant::now();
    for number in 0..total {
        let due = start + step * number;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // A worker that failed is found by its result.
        let _ = senders[number as usize % senders.len()].send(due);
    }
}
