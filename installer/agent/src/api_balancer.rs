//! The node-local way to the API: a TCP pass-through on loopback to all API servers.
//!
//! Every connection goes to the first healthy backend in the order given; on a control plane that is its own API server when it is named
//! first, and workers get rotated orders, so that load spreads. When no backend is known to be healthy all are tried. A backend is taken out
//! at once when it refuses, and after two time-outs in a row when it is silent (a power cut: 3 s at most); then every connection to
//! it is closed, so that clients come back and reach another. INVARIANT: bytes are passed on as they are; nothing is ever sent twice.

use crate::signal;
use rustix::net::sockopt;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Pause between two looks at a backend.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// A server on the same network accepts within milliseconds; one lost packet costs a second before the kernel sends it again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Sent bytes that nobody acknowledges for so long end a connection, in milliseconds.
const UNACKNOWLEDGED_MS: u32 = 4000;
/// Each direction's buffer; an API answer of many megabytes gains nothing from a larger one on a 1500-byte network.
const BUFFER: usize = 16 * 1024;
/// Stack of a connection's threads, which call nothing deep.
const STACK: usize = 64 * 1024;

struct Backend {
    address: SocketAddr,
    healthy: AtomicBool,
    connections: Mutex<BTreeMap<u64, (TcpStream, TcpStream)>>,
}

impl Backend {
    fn mark(&self, healthy: bool) {
        if self.healthy.swap(healthy, Ordering::SeqCst) && !healthy {
            for (client, server) in self.lock().values() {
                let _ = client.shutdown(Shutdown::Both);
                let _ = server.shutdown(Shutdown::Both);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, (TcpStream, TcpStream)>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) {
        let mut silent = 0;
        loop {
            match TcpStream::connect_timeout(&self.address, CONNECT_TIMEOUT) {
                Ok(_) => {
                    silent = 0;
                    self.mark(true);
                    thread::sleep(CHECK_EVERY);
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => {
                    // The next look follows at once: this one waited already.
                    silent += 1;
                    if silent >= 2 {
                        self.mark(false);
                    }
                }
                Err(_) => {
                    silent = 0;
                    self.mark(false);
                    // Its process is gone, its machine is there: it may be back any moment.
                    thread::sleep(CHECK_EVERY / 4);
                }
            }
        }
    }
}

/// Listens and balances for ever. Returns only when the port cannot be had.
pub fn run(listen: SocketAddr, backends: &[SocketAddr]) -> io::Result<()> {
    let listener = TcpListener::bind(listen)?;
    signal::notify_ready();
    serve(&listener, backends)
}

/// Balances what arrives at a listener.
pub fn serve(listener: &TcpListener, backends: &[SocketAddr]) -> io::Result<()> {
    let backends: Arc<[Backend]> = backends
        .iter()
        .map(|address| Backend {
            address: *address,
            healthy: AtomicBool::new(false),
            connections: Mutex::default(),
        })
        .collect();
    for at in 0..backends.len() {
        let backends = Arc::clone(&backends);
        thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || backends[at].watch())?;
    }
    let numbers = Arc::new(AtomicU64::new(0));
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            // Out of file descriptors, or a client that left before it was greeted: neither ends the service.
            Err(_) => {
                thread::sleep(Duration::from_millis(20));
                continue;
            }
        };
        let (backends, numbers) = (Arc::clone(&backends), Arc::clone(&numbers));
        let work = move || pass(client, &backends, numbers.fetch_add(1, Ordering::Relaxed));
        // Without a thread the client's connection is closed, and it comes again.
        let _ = thread::Builder::new().stack_size(STACK).spawn(work);
    }
}

/// Connects to the first backend that takes the connection: healthy ones first.
fn connect(backends: &[Backend]) -> Option<(&Backend, TcpStream)> {
    let healthy = |b: &&Backend| b.healthy.load(Ordering::SeqCst);
    let first = backends.iter().filter(healthy);
    let rest = backends.iter().filter(|b| !healthy(b));
    first.chain(rest).find_map(|backend| {
        Some((
            backend,
            TcpStream::connect_timeout(&backend.address, CONNECT_TIMEOUT).ok()?,
        ))
    })
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(1))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(1))?;
    sockopt::set_tcp_keepcnt(stream, 3)?;
    sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MS)?;
    Ok(())
}

fn pass(client: TcpStream, backends: &[Backend], number: u64) {
    let Some((backend, server)) = connect(backends) else {
        return;
    };
    // Closing both is all that can be done about an error here, and happens by dropping them.
    let Ok(()) = tune(&client).and_then(|()| tune(&server)) else {
        return;
    };
    let (Ok(client2), Ok(server2), Ok(client3), Ok(server3)) = (
        client.try_clone(),
        server.try_clone(),
        client.try_clone(),
        server.try_clone(),
    ) else {
        return;
    };
    backend.lock().insert(number, (client3, server3));
    thread::scope(|scope| {
        let upward = thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, move || copy(client2, server2));
        match upward {
            Ok(_) => copy(server, client),
            Err(_) => {
                let _ = client.shutdown(Shutdown::Both);
            }
        }
    });
    backend.lock().remove(&number);
}

/// Copies one direction and passes its end on; an error ends both.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0u8; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Ok(read) if to.write_all(&buffer[..read]).is_ok() => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => {
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
                return;
            }
        }
    }
}
