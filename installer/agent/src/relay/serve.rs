//! The listener from which other nodes take blobs. One thread waits for connections; each has a thread of its own.

use super::{ALIVE_EVERY, BUFFER, HANDSHAKE, IDLE, LOOK_EVERY, MOST_LINE, tls};
use crate::agent::Agent;
use crate::arriving::{Arriving, Ready};
use crate::blobs;
use landfall_core::layout::RELAY_PORT;
use landfall_core::name::Digest;
use landfall_core::relay::{RelayAnswer, RelayAsk, RelayListen, RelayListening};
use landfall_core::wire::mux::{read_json_line, write_json_line};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Connections that are served at one time; more are closed at once. The operator gives a node two to feed.
const MOST_CONNECTIONS: usize = 64;

/// How long a blob is waited for of which nothing comes yet: the operator tells giver and taker at the same time, and the giver may have to
/// connect to a source of its own first.
const BEGIN: Duration = Duration::from_secs(10);

/// An open listener. It is closed, and what it serves is cut off, when this is dropped.
#[derive(Debug)]
pub struct Listener {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // It ends within one look; what it could say is a bug of ours, which must not end this thread too.
            let _ = thread.join();
        }
    }
}

/// How long a transfer may stand still, and how often it says that it does not.
#[derive(Debug, Clone, Copy)]
struct Limits {
    idle: Duration,
    alive_every: Duration,
}

impl Limits {
    const USUAL: Self = Self {
        idle: IDLE,
        alive_every: ALIVE_EVERY,
    };
}

fn write_piece(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(bytes)
}

#[derive(Debug)]
struct Shared {
    token: Digest,
    config: Arc<ServerConfig>,
    arriving: Arc<Arriving>,
    directory: PathBuf,
    connections: AtomicUsize,
    is_closed: AtomicBool,
}

/// Opens the listener that is asked for, with a key of its own.
pub fn listen(agent: &Agent, asked: &RelayListen) -> io::Result<(RelayListening, Listener)> {
    let address = SocketAddr::from((asked.address, RELAY_PORT));
    let listener = agent.host.network().listen(address)?;
    listener.set_nonblocking(true)?;
    let (key, config) = tls::listener()?;
    let shared = Arc::new(Shared {
        token: Digest::of(asked.token.as_bytes()),
        config,
        arriving: Arc::clone(agent.arriving()),
        directory: agent.host.state("blobs"),
        connections: AtomicUsize::new(0),
        is_closed: AtomicBool::new(false),
    });
    let accepting = Arc::clone(&shared);
    let thread = thread::Builder::new()
        .name("relay".to_owned())
        .spawn(move || accept(&listener, &accepting))?;
    let listener = Listener {
        shared,
        thread: Some(thread),
    };
    Ok((RelayListening { key }, listener))
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.is_closed.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((stream, _)) => begin(stream, shared),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => await_connection(listener),
            // A connection broke off before it was taken, or files have run out.
            Err(_) => thread::sleep(LOOK_EVERY),
        }
    }
}

/// Blocks until somebody connects, [`LOOK_EVERY`] at most.
fn await_connection(listener: &TcpListener) {
    let timeout = Timespec::try_from(LOOK_EVERY).expect("a fifth of a second is a time");
    // An error is seen by the accept that follows.
    let _ = poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&timeout));
}

fn begin(stream: TcpStream, shared: &Arc<Shared>) {
    if shared.connections.fetch_add(1, Ordering::Relaxed) >= MOST_CONNECTIONS {
        shared.connections.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    let of_thread = Arc::clone(shared);
    let work = move || {
        // Whoever does not speak as agreed is cut off without a word; who waits for bytes sees the connection end.
        let _ = of_thread.serve(stream);
        of_thread.connections.fetch_sub(1, Ordering::Relaxed);
    };
    if thread::Builder::new()
        .name("relay-serve".to_owned())
        .spawn(work)
        .is_err()
    {
        shared.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(HANDSHAKE))?;
        stream.set_write_timeout(Some(HANDSHAKE))?;
        let connection = ServerConnection::new(Arc::clone(&self.config)).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, stream);
        let ask: Option<RelayAsk> = read_json_line(&mut BufReader::new(Read::by_ref(&mut stream).take(MOST_LINE)))?;
        let Some(ask) = ask.filter(|ask| Digest::of(ask.token.as_bytes()) == self.token) else {
            return Err(io::ErrorKind::PermissionDenied.into());
        };
        let file = match self.await_begin(&ask.digest) {
            true => blobs::open(&self.directory, &ask.digest)?,
            false => None,
        };
        let Some(file) = file else {
            write_json_line(&mut stream, &RelayAnswer::Absent)?;
            return stream.flush();
        };
        write_json_line(&mut stream, &RelayAnswer::Follows)?;
        stream.sock.set_write_timeout(Some(IDLE))?;
        self.send(&file, &ask, &mut stream, Limits::USUAL)?;
        stream.conn.send_close_notify();
        stream.flush()
    }

    /// Waits until a blob is there or comes, [`BEGIN`] at most. Says whether it does.
    fn await_begin(&self, digest: &Digest) -> bool {
        let end = Instant::now() + BEGIN;
        while !self.is_closed.load(Ordering::SeqCst) && Instant::now() < end {
            if self.arriving.await_begin(&self.directory, digest, LOOK_EVERY) {
                return true;
            }
        }
        false
    }

    /// Sends a blob from `from_bytes` to its end. Blocks until it has come here as a whole, has stopped to come, or the listener closes.
    fn send(&self, file: &File, ask: &RelayAsk, to: &mut impl Write, limits: Limits) -> io::Result<()> {
        let (mut at, mut since) = (ask.from_bytes, Instant::now());
        let mut said = since;
        let mut buffer = vec![0u8; BUFFER];
        loop {
            if self.is_closed.load(Ordering::SeqCst) || since.elapsed() > limits.idle {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let ready = self.arriving.wait_beyond(&self.directory, &ask.digest, at, LOOK_EVERY);
            let (end, is_whole) = match ready {
                Ready::Upto(end) => (end, false),
                Ready::Whole => (file.metadata()?.len(), true),
                Ready::Gone => return Err(io::ErrorKind::NotFound.into()),
            };
            while at < end && !self.is_closed.load(Ordering::SeqCst) {
                let length = usize::try_from(end - at).map_or(BUFFER, |left| left.min(BUFFER));
                let read = file.read_at(&mut buffer[..length], at)?;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                write_piece(to, &buffer[..read])?;
                at += read as u64;
                (since, said) = (Instant::now(), Instant::now());
            }
            if is_whole && at >= end {
                return Ok(());
            }
            let last = self.arriving.last(&ask.digest).filter(|last| *last > said);
            if let Some(last) = last {
                since = last;
                if said.elapsed() >= limits.alive_every {
                    write_piece(to, &[])?;
                    to.flush()?;
                    said = Instant::now();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(directory: &std::path::Path) -> Shared {
        let (_, config) = tls::listener().unwrap();
        Shared {
            token: Digest::of(b"token"),
            config,
            arriving: Arc::default(),
            directory: directory.to_owned(),
            connections: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
        }
    }

    /// What is sent of a blob of which nothing is whole yet: bytes of it come for so long, then no more.
    fn sent(comes: Duration) -> (Vec<u8>, io::ErrorKind, Duration) {
        let directory = tempfile::tempdir().unwrap();
        let shared = shared(directory.path());
        let digest = Digest::of(b"blob");
        shared.arriving.set(&digest, 0);
        let ask = RelayAsk {
            token: "token".to_owned(),
            digest,
            from_bytes: 0,
        };
        let limits = Limits {
            idle: Duration::from_millis(900),
            alive_every: Duration::from_millis(300),
        };
        let (mut bytes, start) = (Vec::new(), Instant::now());
        let file = tempfile::tempfile().unwrap();
        let error = thread::scope(|scope| {
            scope.spawn(|| {
                while start.elapsed() < comes {
                    shared.arriving.touch(&digest);
                    thread::sleep(Duration::from_millis(50));
                }
            });
            shared.send(&file, &ask, &mut bytes, limits).unwrap_err()
        });
        (bytes, error.kind(), start.elapsed())
    }

    #[test]
    fn a_blob_that_comes_slowly_keeps_the_transfer_alive_and_one_that_does_not_come_ends_it() {
        let (bytes, error, took) = sent(Duration::from_millis(2_500));
        assert!(bytes.len() >= 3 * 4 && bytes.iter().all(|byte| *byte == 0), "{bytes:?}");
        assert_eq!(error, io::ErrorKind::TimedOut);
        assert!(took >= Duration::from_millis(3_200), "{took:?}");
        let (bytes, error, _) = sent(Duration::ZERO);
        assert_eq!((bytes.len(), error), (0, io::ErrorKind::TimedOut));
    }
}
