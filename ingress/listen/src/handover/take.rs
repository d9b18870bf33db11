//! The new process's side: asks who is there, and takes its listeners once the table is built.

use super::wire::{Message, receive, receive_listeners, receive_state, send};
use super::{Named, RestartSocket, check_user};
use landfall_ingress_telemetry::log;
use rustix::net::sockopt::socket_acceptconn;
use std::io::{self, Error, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::Instant;

/// Longest time in which a process that was there is asked again. Another new process may be in between, which takes a second.
const PATIENCE: Duration = Duration::from_secs(15);
/// The same when nobody answers at all: it is dead, or another is about to take its name.
const ABSENCE: Duration = Duration::from_millis(500);
/// Pause before it is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// The process that has the listeners.
#[derive(Debug)]
pub struct Predecessor {
    /// What it would hand over.
    pub listeners: Vec<Named>,
    /// Last good versions of objects, as the process that keeps them packs them.
    pub state: Vec<u8>,
    build: String,
}

/// Listeners that both processes have, until [`Offer::confirm`] says that the old one may stop.
#[derive(Debug)]
pub struct Offer {
    stream: UnixStream,
    listeners: Vec<(Named, TcpListener)>,
}

/// The connection by which the old process knows that this one lives.
#[derive(Debug)]
pub struct Link {
    _stream: UnixStream,
}

impl Predecessor {
    /// Asks who is there. `None` when nobody is, or nobody with whom one can speak; the log says which.
    pub async fn greet(restart_socket: &RestartSocket) -> Option<Self> {
        match hello(restart_socket).await {
            Ok(Some((_, predecessor))) => {
                log(&format!(
                    "hand-over: build {} has the listeners; they are taken once the table is built",
                    predecessor.build
                ));
                Some(predecessor)
            }
            Ok(None) => None,
            Err(error) if absent(&error) => None,
            Err(error) => {
                log(&format!("hand-over: {error}; listening beside whoever is there"));
                None
            }
        }
    }

    /// Whether it has a listener for this address; port 0 takes any port of that name.
    pub fn has(&self, name: &str, address: SocketAddr) -> bool {
        self.listeners.iter().any(|named| fits(named, name, address))
    }

    /// Takes the listeners. `None` when the process is gone by now, or does not give them within 15 s.
    pub async fn take(&self, restart_socket: &RestartSocket) -> Option<Offer> {
        let mut end = Instant::now() + PATIENCE;
        loop {
            let why = match ask(restart_socket).await {
                Ok(Ok(offer)) => return Some(offer),
                Ok(Err(why)) => why,
                Err(error) => {
                    if absent(&error) {
                        end = end.min(Instant::now() + ABSENCE);
                    }
                    error.to_string()
                }
            };
            if Instant::now() >= end {
                log(&format!("hand-over: {why}; listening by ourselves"));
                return None;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Nobody has the name, or whoever had it is dead.
fn absent(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}

fn fits(named: &Named, name: &str, address: SocketAddr) -> bool {
    named.name == name
        && named.address.ip() == address.ip()
        && (address.port() == 0 || address.port() == named.address.port())
}

/// `None` when no version fits, which is logged.
async fn hello(restart_socket: &RestartSocket) -> io::Result<Option<(UnixStream, Predecessor)>> {
    let mut stream = UnixStream::connect(restart_socket.socket()).await?;
    check_user(&stream)?;
    let hello = Message::Hello {
        versions: restart_socket.versions.clone(),
        build: restart_socket.build.clone(),
    };
    send(&mut stream, &hello).await?;
    match receive(&mut stream).await? {
        Message::Welcome {
            build,
            listeners,
            state_bytes,
            ..
        } => {
            let state = receive_state(&mut stream, state_bytes).await?;
            let predecessor = Predecessor {
                listeners,
                state,
                build,
            };
            Ok(Some((stream, predecessor)))
        }
        Message::Refused { versions, build } => {
            log(&format!(
                "hand-over: build {build} speaks versions {versions:?}, not {:?}; listening beside it",
                restart_socket.versions
            ));
            Ok(None)
        }
        other => Err(unexpected(&other)),
    }
}

fn unexpected(message: &Message) -> Error {
    Error::new(ErrorKind::InvalidData, format!("unexpected answer {message:?}"))
}

/// The inner error says why the other does not give them now.
async fn ask(restart_socket: &RestartSocket) -> io::Result<Result<Offer, String>> {
    let Some((mut stream, _)) = hello(restart_socket).await? else {
        return Ok(Err("another build is there by now".to_owned()));
    };
    send(&mut stream, &Message::Take).await?;
    let (message, fds) = receive_listeners(&mut stream).await?;
    let names = match message {
        Message::Listeners { listeners } => listeners,
        Message::Busy { why } => return Ok(Err(why)),
        other => return Err(unexpected(&other)),
    };
    if names.len() != fds.len() {
        return Err(Error::new(ErrorKind::InvalidData, "names and listeners do not match"));
    }
    let listeners = names
        .into_iter()
        .zip(fds)
        .map(|(named, fd)| Ok((named.clone(), checked(&named, fd)?)));
    Ok(Ok(Offer {
        listeners: listeners.collect::<io::Result<_>>()?,
        stream,
    }))
}

/// A listener of TCP where it says it is; all else would be accepted on in vain.
fn checked(named: &Named, fd: OwnedFd) -> io::Result<TcpListener> {
    let listens = socket_acceptconn(&fd)?;
    let listener = TcpListener::from(fd);
    if listens && listener.local_addr()? == named.address {
        return Ok(listener);
    }
    let text = format!("what came as {} is no listener on {}", named.name, named.address);
    Err(Error::new(ErrorKind::InvalidData, text))
}

impl Offer {
    /// The listener for this address, if there is one.
    pub fn listener(&mut self, name: &str, address: SocketAddr) -> Option<TcpListener> {
        let place = self
            .listeners
            .iter()
            .position(|(named, _)| fits(named, name, address))?;
        Some(self.listeners.swap_remove(place).1)
    }

    /// Says that connections are taken here, and waits until the old process takes no more. One that dies meanwhile takes none either.
    pub async fn confirm(self) -> Link {
        let mut stream = self.stream;
        let said = async {
            send(&mut stream, &Message::Serving).await?;
            receive(&mut stream).await
        };
        match said.await {
            Ok(Message::Closed) => log("hand-over: connections are taken here now"),
            Ok(other) => log(&format!("hand-over: {}", unexpected(&other))),
            Err(error) => log(&format!("hand-over: the old process ended meanwhile: {error}")),
        }
        Link { _stream: stream }
    }
}
