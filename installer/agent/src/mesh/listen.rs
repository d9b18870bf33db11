//! Listeners on the node's own address. One thread waits for all of them; each connection is answered by a thread of its own.

use super::DATAGRAM_HEAD;
use landfall_core::mesh::{MeshListen, MeshListening, TOKEN_LENGTH, answer};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a connection may take to send the token, and to be closed by its other end: a machine may stand still for a second or two.
const CONNECTION: Duration = Duration::from_secs(3);
/// Connections that are answered at one time; more are closed at once. A cluster of 100 nodes that tries one port makes fewer.
const MOST_CONNECTIONS: usize = 256;
/// The longest that listeners stay open, whatever is asked.
const LONGEST: Duration = Duration::from_secs(60);
/// Largest datagram there is.
const LARGEST: usize = 65_535;

/// Open listeners. They are closed when this is dropped.
#[derive(Debug)]
pub struct Listeners {
    /// The other end wakes the thread when this one is closed.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Listeners {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It ends at once; what it could say is a bug of ours, which must not end this thread too.
            let _ = thread.join();
        }
    }
}

struct Open {
    asked: MeshListen,
    tcp: Vec<(u16, TcpListener)>,
    udp: Option<(u16, UdpSocket)>,
    connections: Arc<AtomicUsize>,
}

/// Opens what is asked for, as far as it can be opened.
pub fn open(asked: &MeshListen) -> io::Result<(MeshListening, Listeners)> {
    let mut said = MeshListening::default();
    let mut open = Open {
        asked: asked.clone(),
        tcp: vec![],
        udp: None,
        connections: Arc::default(),
    };
    for port in &asked.tcp {
        let listener = TcpListener::bind(SocketAddr::from((asked.address, *port)));
        match listener.and_then(|l| l.set_nonblocking(true).map(|()| l)) {
            Ok(listener) => open.tcp.push((*port, listener)),
            Err(error) => drop(said.tcp_failed.insert(*port, error.to_string())),
        }
    }
    if let Some(port) = asked.udp {
        let socket = UdpSocket::bind(SocketAddr::from((asked.address, port)));
        match socket.and_then(|s| s.set_nonblocking(true).map(|()| s)) {
            Ok(socket) => open.udp = Some((port, socket)),
            Err(error) => said.udp_failed = Some(error.to_string()),
        }
    }
    let (stop, stopped) = UnixStream::pair()?;
    let deadline = Instant::now() + Duration::from_millis(asked.limit_ms).min(LONGEST);
    let thread = thread::Builder::new()
        .name("mesh".to_owned())
        .spawn(move || open.serve(&stopped, deadline))?;
    let listeners = Listeners {
        stop: Some(stop),
        thread: Some(thread),
    };
    Ok((said, listeners))
}

impl Open {
    /// Answers until the other end of `stopped` is closed, or the deadline.
    fn serve(&self, stopped: &UnixStream, deadline: Instant) {
        let mut datagram = vec![0u8; LARGEST];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(timeout) = Timespec::try_from(left) else { return };
            let mut waits = vec![PollFd::new(stopped, PollFlags::IN)];
            waits.extend(
                self.tcp
                    .iter()
                    .map(|(_, listener)| PollFd::new(listener, PollFlags::IN)),
            );
            waits.extend(self.udp.iter().map(|(_, socket)| PollFd::new(socket, PollFlags::IN)));
            match poll(&mut waits, Some(&timeout)) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) | Ok(0) => return,
                Ok(_) => {}
            }
            if !waits[0].revents().is_empty() {
                return;
            }
            for (port, listener) in &self.tcp {
                while let Ok((stream, _)) = listener.accept() {
                    self.answer(*port, stream);
                }
            }
            if let Some((port, socket)) = &self.udp {
                while let Ok((length, from)) = socket.recv_from(&mut datagram) {
                    if let Some(reply) = self.reply(*port, &datagram[..length]) {
                        // A reply that is lost is what is measured.
                        let _ = socket.send_to(&reply, from);
                    }
                }
            }
        }
    }

    fn answer(&self, port: u16, stream: TcpStream) {
        if self.connections.fetch_add(1, Ordering::Relaxed) >= MOST_CONNECTIONS {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let (token, text) = (
            self.asked.token.clone(),
            answer(&self.asked.token, &self.asked.node, port),
        );
        let connections = Arc::clone(&self.connections);
        let work = move || {
            // Whoever does not speak as agreed is cut off without a word.
            let _ = answer_one(stream, &token, &text);
            connections.fetch_sub(1, Ordering::Relaxed);
        };
        if thread::Builder::new()
            .name("mesh-answer".to_owned())
            .spawn(work)
            .is_err()
        {
            self.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Answers a datagram that begins with the token, by as many bytes as its head has: never by more than came.
    fn reply(&self, port: u16, datagram: &[u8]) -> Option<Vec<u8>> {
        let number = datagram.strip_prefix(self.asked.token.as_bytes())?.get(..4)?;
        let text = answer(&self.asked.token, &self.asked.node, port);
        let mut reply = text.as_bytes().get(..TOKEN_LENGTH)?.to_vec();
        reply.extend(number);
        debug_assert_eq!(reply.len(), DATAGRAM_HEAD);
        Some(reply)
    }
}

fn answer_one(mut stream: TcpStream, token: &str, text: &str) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(CONNECTION))?;
    stream.set_write_timeout(Some(CONNECTION))?;
    let mut sent = [0u8; TOKEN_LENGTH];
    stream.read_exact(&mut sent)?;
    if sent == token.as_bytes() {
        stream.write_all(text.as_bytes())?;
        // The other end closes first and keeps the connection's TIME_WAIT, so that this port is free at once for a daemon.
        if stream.read(&mut sent)? > 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(())
}
