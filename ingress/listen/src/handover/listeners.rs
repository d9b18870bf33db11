//! Listeners as accept loops see them: listeners that all open, pass to another process, come back, or close together.
//!
//! ```text
//! Open ──successor serves──> Handed ──close──> Closed
//!  │ ^──successor died─────────┘                 ^
//!  └──close──> Closing ──queue is empty──────────┘
//! ```
//!
//! INVARIANT: a listener's queue belongs to its open file, which both processes hold. A listener that does not accept loses nothing as long
//! as one of them still does.

use crate::handover::Named;
use landfall_ingress_telemetry::log;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch::{Receiver, Sender, channel};
use tokio::time::{Instant, timeout, timeout_at};

/// Connections that wait in the kernel; it cuts this to `net.core.somaxconn`, which is 4096 too.
const QUEUE: u32 = 4096;
/// A closing listener has emptied its queue when nothing came for so long; a connection in the queue is there at once.
const QUIET: Duration = Duration::from_millis(10);
/// Longest time for that; under load it is never quiet.
const EMPTYING: Duration = Duration::from_millis(200);

/// The listener that stays open until the process ends, unless another has it.
const LASTING: &str = "admin";

/// What all listeners do at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ListenerState {
    Open,
    Handed,
    Closing(Instant),
    Closed,
}

/// All listeners of this process.
#[derive(Debug)]
pub struct Listeners {
    gate: Sender<ListenerState>,
    /// Held by every listener that [`Listeners::close`] waits for.
    closing: Sender<()>,
    /// A second handle to each listener, from which copies are handed on.
    kept: Mutex<Vec<(Named, std::net::TcpListener)>>,
}

impl Default for Listeners {
    fn default() -> Self {
        Self {
            gate: channel(ListenerState::Open).0,
            closing: channel(()).0,
            kept: Mutex::default(),
        }
    }
}

impl Listeners {
    /// Makes a listener of a listener.
    pub fn listener(&self, name: &str, listener: std::net::TcpListener) -> io::Result<Listener> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let named = Named {
            name: name.to_owned(),
            address,
        };
        let kept = (named, listener.try_clone()?);
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
        Ok(Listener {
            listener: TcpListener::from_std(listener)?,
            gate: self.gate.subscribe(),
            closing: (name != LASTING).then(|| self.closing.subscribe()),
            address,
        })
    }

    /// Copies of all listeners, to be sent.
    pub(super) fn copies(&self) -> io::Result<Vec<(Named, OwnedFd)>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter()
            .map(|(named, listener)| Ok((named.clone(), listener.try_clone()?.into())))
            .collect()
    }

    /// What would be handed on.
    pub(super) fn names(&self) -> Vec<Named> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().map(|(named, _)| named.clone()).collect()
    }

    /// Connections are taken here.
    pub(super) fn are_open(&self) -> bool {
        *self.gate.borrow() == ListenerState::Open
    }

    /// Another process takes connections from now on. Says whether this one did until now.
    pub(super) fn hand_over(&self) -> bool {
        self.turn(ListenerState::Open, ListenerState::Handed)
    }

    /// The other process is gone. Says whether connections are taken here again.
    pub(super) fn take_back(&self) -> bool {
        self.turn(ListenerState::Handed, ListenerState::Open)
    }

    fn turn(&self, from: ListenerState, to: ListenerState) -> bool {
        self.gate.send_if_modified(|gate| {
            let turns = *gate == from;
            if turns {
                *gate = to;
            }
            turns
        })
    }

    /// No more connections, but for the dashboard's, which is asked to the end: those that are handed over are left to the other process, others are taken until their queue is empty.
    /// Waits until all listeners have ended, a fifth of a second at most.
    pub async fn close(&self) {
        let end = Instant::now() + EMPTYING;
        self.gate.send_modify(|gate| {
            *gate = match *gate {
                ListenerState::Open => ListenerState::Closing(end),
                ListenerState::Handed => ListenerState::Closed,
                other => other,
            };
        });
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if timeout(EMPTYING * 2, self.closing.closed()).await.is_err() {
            log("a listener is still busy");
        }
    }
}

/// One listener.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    gate: Receiver<ListenerState>,
    /// `None` for a listener that stays open to the end.
    closing: Option<Receiver<()>>,
    address: SocketAddr,
}

impl Listener {
    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the next connection that is this process's to serve. `None` when there will be none any more. May be given up at any
    /// time: a connection that was not returned is still in the queue.
    pub async fn accept(&mut self) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        loop {
            let gate = *self.gate.borrow_and_update();
            match gate {
                ListenerState::Closing(_) if self.closing.is_none() => return Some(self.listener.accept().await),
                ListenerState::Open => tokio::select! {
                    accepted = self.listener.accept() => return Some(accepted),
                    // The sender is gone only when the process ends.
                    changed = self.gate.changed() => changed.ok()?,
                },
                ListenerState::Handed => self.gate.changed().await.ok()?,
                ListenerState::Closing(end) if end <= Instant::now() => return None,
                ListenerState::Closing(end) => {
                    let quiet = end.min(Instant::now() + QUIET);
                    return timeout_at(quiet, self.listener.accept()).await.ok();
                }
                ListenerState::Closed => return None,
            }
        }
    }
}

/// An address that is taken, but on which nothing listens yet: clients are refused, and so go elsewhere, until there is a table.
#[derive(Debug)]
pub struct Reserved {
    /// Which listener it will be.
    pub name: &'static str,
    socket: TcpSocket,
}

impl Reserved {
    /// Takes an address, beside other processes of this user that did it in the same way. Two of ours that cannot speak with each other
    /// can so follow each other; another program that has the port is still noticed.
    pub fn bind(name: &'static str, address: SocketAddr) -> Result<Self, String> {
        let bind = || {
            let socket = if address.is_ipv4() {
                TcpSocket::new_v4()?
            } else {
                TcpSocket::new_v6()?
            };
            socket.set_reuseaddr(true)?;
            socket.set_reuseport(true)?;
            socket.bind(address)?;
            Ok(socket)
        };
        let socket = bind().map_err(|error: io::Error| format!("cannot listen on {address}: {error}"))?;
        Ok(Self { name, socket })
    }

    /// The port, also when the kernel chose it.
    pub fn port(&self) -> u16 {
        self.socket.local_addr().map_or(0, |address| address.port())
    }

    /// Lets clients come.
    pub fn listen(self, listeners: &Listeners) -> Result<Listener, String> {
        let name = self.name;
        let listener = self.socket.listen(QUEUE).and_then(TcpListener::into_std);
        let listener = listener.and_then(|listener| listeners.listener(name, listener));
        listener.map_err(|error| format!("cannot listen for {name}: {error}"))
    }
}

#[cfg(any(test, feature = "testing"))]
impl From<TcpListener> for Listener {
    /// A listener of its own that is always open.
    fn from(listener: TcpListener) -> Self {
        let (sender, gate) = channel(ListenerState::Open);
        // Kept for the length of the test.
        std::mem::forget(sender);
        let address = listener.local_addr().expect("a bound listener has an address");
        Self {
            listener,
            gate,
            closing: None,
            address,
        }
    }
}
