//! Names outside the cluster, which only URLs of annotations have: asked of the cluster's DNS (`--cluster-dns`), for a static program has
//! no resolver of its own.
//!
//! INVARIANT: an address that an annotation may not name is no answer. Each is checked when it is learnt, as a literal is, so a name that
//! leads into the cluster, today or later (DNS rebinding), leads nowhere.

#[cfg(test)]
mod fuzz;
mod message;

use message::{Answer, Kind};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// Longest wait for one answer, and how often it is asked for: datagrams get lost. glibc waits 5 s, in which clients have left.
const PATIENCE: Duration = Duration::from_millis(1500);
const TRIES: usize = 2;
/// Shortest and longest time for which an answer is good, whatever it says itself.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// How long an answer is still used when the server does not answer (RFC 8767 proposes days; who changed it meant it).
const STALE: Duration = Duration::from_secs(300);
/// Largest answer over UDP; no more is offered.
const DATAGRAM: usize = 512;
/// Addresses of one name that are used.
const MOST_ADDRESSES: usize = 8;
/// Names that are remembered. They come from annotations, not from clients.
const MOST_NAMES: usize = 1024;

/// Says whether an annotation may name an address.
pub type Admits = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Asks for addresses, and remembers them as long as they are good.
pub struct Resolver {
    server: SocketAddr,
    admits: Admits,
    ids: RandomState,
    known: Mutex<HashMap<Box<str>, Arc<Entry>>>,
}

/// One name; whoever holds the lock asks, and the others wait for what it learns.
type Entry = tokio::sync::Mutex<Option<Known>>;

#[derive(Debug)]
struct Known {
    at: Instant,
    lasts: Duration,
    addresses: Arc<[IpAddr]>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl Resolver {
    /// Asks this server; takes only addresses that annotations may name.
    pub fn new(server: SocketAddr, admits: Admits) -> Self {
        Self {
            server,
            admits,
            ids: RandomState::new(),
            known: Mutex::default(),
        }
    }

    /// The addresses of a name that may be used; none when there is no such name, no server that answers, or nothing else than addresses
    /// that are refused. Waits at most twice [`PATIENCE`] for each kind, both at once.
    pub async fn addresses(&self, name: &str) -> Arc<[IpAddr]> {
        let entry = self.entry(name);
        let mut known = entry.lock().await;
        if let Some(known) = &*known
            && known.at.elapsed() < known.lasts
        {
            return Arc::clone(&known.addresses);
        }
        match self.look_up(name).await {
            Some((addresses, lasts)) => {
                let addresses = Arc::from(addresses);
                *known = Some(Known {
                    at: Instant::now(),
                    lasts,
                    addresses: Arc::clone(&addresses),
                });
                addresses
            }
            None => {
                let stale = known.as_ref().filter(|known| known.at.elapsed() < known.lasts + STALE);
                stale.map_or_else(|| Arc::from([]), |known| Arc::clone(&known.addresses))
            }
        }
    }

    fn entry(&self, name: &str) -> Arc<Entry> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = known.get(name) {
            return Arc::clone(entry);
        }
        if known.len() >= MOST_NAMES {
            // Names that annotations had once; those in use are learnt anew with the next request.
            known.clear();
        }
        Arc::clone(known.entry(name.into()).or_default())
    }

    /// Addresses of both families, IPv4 first; `None` when the server answers neither question.
    async fn look_up(&self, name: &str) -> Option<(Vec<IpAddr>, Duration)> {
        let both = tokio::join!(self.ask(name, Kind::A), self.ask(name, Kind::Aaaa));
        let answers = [both.0, both.1];
        let lasts = answers.iter().flatten().map(|(_, seconds)| *seconds).min()?;
        let found = answers.into_iter().flatten().flat_map(|(addresses, _)| addresses);
        let usable = found.filter(|address| (self.admits)(*address));
        let lasts = Duration::from_secs(lasts.into()).clamp(SHORTEST, LONGEST);
        Some((usable.take(MOST_ADDRESSES).collect(), lasts))
    }

    async fn ask(&self, name: &str, kind: Kind) -> Option<(Vec<IpAddr>, u32)> {
        for attempt in 0..TRIES {
            // Nobody who does not see the question can guess it: this and the port.
            let id = self.ids.hash_one((name, kind as u8, attempt, Instant::now())) as u16;
            let question = message::question(id, name, kind)?;
            let answer = timeout(PATIENCE, self.exchange(&question, kind)).await;
            if let Ok(Some(Answer::Addresses(addresses, lasts))) = answer {
                return Some((addresses, lasts));
            }
        }
        None
    }

    /// Over UDP, and when the answer does not fit, over TCP.
    async fn exchange(&self, question: &[u8], kind: Kind) -> Option<Answer> {
        let any: IpAddr = match self.server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await.ok()?;
        // From then on the kernel takes datagrams of the server alone.
        socket.connect(self.server).await.ok()?;
        socket.send(question).await.ok()?;
        let mut bytes = [0; DATAGRAM];
        loop {
            let length = socket.recv(&mut bytes).await.ok()?;
            match message::answer(question, &bytes[..length], kind) {
                Some(Answer::Truncated) => return self.exchange_over_tcp(question, kind).await,
                Some(answer) => return Some(answer),
                // A late answer to another question: the right one may follow, until patience ends. A refusal ends it too.
                None if bytes[..length].starts_with(&question[..2]) => return None,
                None => {}
            }
        }
    }

    /// Each message has its length before it (RFC 1035, 4.2.2).
    async fn exchange_over_tcp(&self, question: &[u8], kind: Kind) -> Option<Answer> {
        let mut stream = TcpStream::connect(self.server).await.ok()?;
        let length = u16::try_from(question.len()).ok()?;
        let framed = [&length.to_be_bytes()[..], question].concat();
        stream.write_all(&framed).await.ok()?;
        let length = stream.read_u16().await.ok()?;
        let mut bytes = vec![0; length.into()];
        stream.read_exact(&mut bytes).await.ok()?;
        message::answer(question, &bytes, kind)
    }
}

#[cfg(test)]
pub(crate) mod tests;
