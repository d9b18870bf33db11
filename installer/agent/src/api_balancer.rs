//! The node-local way to the API: a TCP pass-through on loopback to all API servers.
//!
//! Every connection goes to the first backend, in the order given, that says it is ready; else to the first that is there; as the last
//! resort all are tried. On a control plane its own API server is named first; workers get rotated orders, so that load spreads.
//!
//! ```text
//!            answers /readyz with 200 (or refuses to tell strangers: 401, 403)
//!   Down ─────────────────────────────────────────────────────────────────────► Ready
//!    ▲ │ accepts, but does not answer, or with another status                     │ ▲
//!    │ └──────────────────────────────► Unready ◄─────────────────────────────────┘ │
//!    └── refuses, or is silent twice ─────┘ └───────────────────────────────────────┘
//! ```
//! A backend that goes down (a power cut shows after 3 s at most) has all its connections closed, so that clients come back and
//! reach another; one that is merely not ready keeps them. INVARIANT: bytes are passed on as they are; nothing is ever sent twice.

use crate::https::Endpoint;
use crate::signal;
use rustix::net::sockopt;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Pause between two looks at a backend.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// A server on the same network accepts within milliseconds; one lost packet costs a second before the kernel sends it again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Readiness endpoint of an API server.
const READY_PATH: &str = "/readyz";
/// A connection ends when bytes that were sent stay unacknowledged for this long, in milliseconds.
const UNACKNOWLEDGED_MS: u32 = 4000;
/// Each direction's buffer; an API answer of many megabytes gains nothing from a larger one on a 1500-byte network.
const BUFFER: usize = 16 * 1024;
/// Stack of a connection's threads, whose calls are not deeply nested.
const STACK: usize = 64 * 1024;

/// What is known of a backend; the order is that of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Health {
    Ready = 0,
    Unready = 1,
    Down = 2,
}

struct Backend {
    address: SocketAddr,
    health: AtomicU8,
    connections: Mutex<BTreeMap<u64, (TcpStream, TcpStream)>>,
}

impl Backend {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            // Its state is unknown before the first probe; it is preferred to a backend that is known to be unready.
            health: AtomicU8::new(Health::Unready as u8),
            connections: Mutex::default(),
        }
    }

    fn mark(&self, health: Health) {
        let before = self.health.swap(health as u8, Ordering::SeqCst);
        if health == Health::Down && before != Health::Down as u8 {
            for (client, server) in self.lock().values() {
                let _ = client.shutdown(Shutdown::Both);
                let _ = server.shutdown(Shutdown::Both);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, (TcpStream, TcpStream)>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Probes the backend until the process ends.
    fn watch(&self) -> io::Result<()> {
        let mut endpoint = Endpoint::new(self.address)?;
        let mut silences = 0;
        loop {
            let (health, pause) = look(&mut endpoint, &mut silences);
            self.mark(health);
            thread::sleep(pause);
        }
    }
}

fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

/// Looks once, on the connection that is open or a new one, and says when to look again.
fn look(endpoint: &mut Endpoint, silences: &mut u32) -> (Health, Duration) {
    if endpoint.is_connected() {
        match endpoint.get(READY_PATH) {
            Ok(status) => return (health_of(status, silences), CHECK_EVERY),
            Err(error) if is_silence(&error) => *silences += 1,
            // The server closed an idle connection: a new one is tried.
            Err(_) => {}
        }
    }
    match endpoint.connect(CONNECT_TIMEOUT) {
        Ok(()) => match endpoint.get(READY_PATH) {
            Ok(status) => (health_of(status, silences), CHECK_EVERY),
            Err(_) => (Health::Unready, CHECK_EVERY),
        },
        // No pause: the probe has waited already. It is tried again because one packet may have been lost.
        Err(error) if is_silence(&error) => {
            *silences += 1;
            (
                if *silences >= 2 { Health::Down } else { Health::Unready },
                Duration::ZERO,
            )
        }
        // Its process or machine is down, and may come back at any time.
        Err(_) => (Health::Down, CHECK_EVERY / 4),
    }
}

fn health_of(status: u16, silences: &mut u32) -> Health {
    *silences = 0;
    if matches!(status, 200 | 401 | 403) {
        Health::Ready
    } else {
        Health::Unready
    }
}

/// Listens and balances until the process ends. Returns only when the port cannot be opened.
pub fn run(listen: SocketAddr, backends: &[SocketAddr]) -> io::Result<()> {
    let listener = TcpListener::bind(listen)?;
    signal::notify_ready();
    serve(&listener, backends)
}

/// Balances what arrives at a listener.
pub fn serve(listener: &TcpListener, backends: &[SocketAddr]) -> io::Result<()> {
    let backends: Arc<[Backend]> = backends.iter().copied().map(Backend::new).collect();
    for at in 0..backends.len() {
        let backends = Arc::clone(&backends);
        // Without TLS no backend counts as ready; connections then go to any backend that accepts them.
        thread::Builder::new().spawn(move || backends[at].watch())?;
    }
    let numbers = Arc::new(AtomicU64::new(0));
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            // Out of file descriptors, or a client that left before it was accepted: neither ends the service.
            Err(_) => {
                thread::sleep(Duration::from_millis(20));
                continue;
            }
        };
        let (backends, numbers) = (Arc::clone(&backends), Arc::clone(&numbers));
        let work = move || pass(client, &backends, numbers.fetch_add(1, Ordering::Relaxed));
        // Without a thread the connection is closed, and the client connects again.
        let _ = thread::Builder::new().stack_size(STACK).spawn(work);
    }
}

/// Connects to the best backend that takes the connection.
fn connect(backends: &[Backend]) -> Option<(&Backend, TcpStream)> {
    let mut order: Vec<&Backend> = backends.iter().collect();
    // Stable: among equals the order given decides.
    order.sort_by_key(|b| b.health.load(Ordering::SeqCst));
    order.into_iter().find_map(|backend| {
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
    // An error ends the connection: dropping both streams closes them.
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
