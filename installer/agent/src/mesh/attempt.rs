//! Attempts to reach listeners of peers: all at the same time, each with its deadline.

use super::DATAGRAM_HEAD;
use crate::netlink::route;
use landfall_core::mesh::{MeshPeer, MeshSeen, MeshTry, PortSeen, TOKEN_LENGTH, UdpSeen, answer};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a connection may take. The kernel sends a lost SYN again after 1 s (RFC 6298, 2.1), so one may be lost.
const CONNECT: Duration = Duration::from_millis(2500);
/// How long the answer may take: nothing else is done on the other side.
const ANSWER: Duration = Duration::from_millis(1500);
/// Attempts at one time: nine peers with nine ports each, and some to spare.
const SIDE_BY_SIDE: usize = 128;
/// Small datagrams that are sent to each peer.
const SMALL: u32 = 20;
/// Datagrams of each larger size.
const OF_EACH_SIZE: u32 = 3;
/// Pause between two datagrams, so that a burst does not fill a queue.
const BETWEEN: Duration = Duration::from_millis(2);
/// How long answers are awaited behind the last datagram: more than any round trip within a country, and than a machine that is busy.
const LAST_ANSWER: Duration = Duration::from_secs(1);
/// IPv4's header and UDP's, in bytes.
const HEADERS: u32 = 28;
/// Largest packets that are tried, in bytes: jumbo frames have 9,000; only the loopback takes more.
const LARGEST: u32 = 9216;
/// Sizes that are tried when the interface's own is lost: Ethernet, PPPoE, GRE, IPsec, WireGuard, clouds (1460: GCE), VXLAN, and what IPv4
/// and IPv6 promise.
const SIZES: [u32; 22] = [
    9001, 9000, 8950, 8900, 4000, 2000, 1500, 1492, 1480, 1476, 1460, 1450, 1440, 1430, 1420, 1412, 1400, 1380, 1350,
    1300, 1280, 576,
];

/// One attempt: a port of a peer, by their places in the request.
enum Job<'a> {
    Agent(&'a MeshPeer, u16),
    Daemon(&'a MeshPeer, u16),
    Udp(&'a MeshPeer, u16),
}

enum Came {
    Tcp(u16, PortSeen),
    Udp(UdpSeen),
}

/// Tries all peers, and returns what came of each in order. Blocks about 9 s at most for 128 attempts.
pub fn run(asked: &MeshTry) -> Vec<MeshSeen> {
    // Datagrams take longest, so they come first.
    let mut jobs: Vec<Job> = asked
        .peers
        .iter()
        .filter_map(|peer| Some(Job::Udp(peer, peer.udp?)))
        .collect();
    for peer in &asked.peers {
        jobs.extend(peer.tcp.iter().map(|port| Job::Agent(peer, *port)));
        jobs.extend(peer.daemons.iter().map(|port| Job::Daemon(peer, *port)));
    }
    let next = AtomicUsize::new(0);
    let came = Mutex::new(Vec::with_capacity(jobs.len()));
    thread::scope(|scope| {
        for _ in 0..jobs.len().min(SIDE_BY_SIDE) {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let one = attempt(asked, job);
                    came.lock().unwrap_or_else(PoisonError::into_inner).push(one);
                }
            });
        }
    });
    let mut seen: BTreeMap<&str, (BTreeMap<u16, PortSeen>, Option<UdpSeen>)> = BTreeMap::new();
    for (peer, came) in came.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let (tcp, udp) = seen.entry(peer.node.as_str()).or_default();
        match came {
            Came::Tcp(port, what) => drop(tcp.insert(port, what)),
            Came::Udp(what) => *udp = Some(what),
        }
    }
    let of_peer = |peer: &MeshPeer| {
        let (tcp, udp) = seen.remove(peer.node.as_str()).unwrap_or_default();
        let node = peer.node.clone();
        MeshSeen { node, tcp, udp }
    };
    asked.peers.iter().map(of_peer).collect()
}

/// What does not answer is tried once more: a machine that stood still for some seconds, as for a snapshot of its disk, is not to be refused for it.
fn attempt<'a>(asked: &MeshTry, job: &Job<'a>) -> (&'a MeshPeer, Came) {
    let again = |once: &dyn Fn() -> PortSeen| match once() {
        PortSeen::Silent | PortSeen::Stranger => once(),
        other => other,
    };
    match job {
        Job::Agent(peer, port) => {
            let text = answer(&asked.token, &peer.node, *port);
            let came = again(&|| tcp(peer, *port, Some((&asked.token, &text))));
            (peer, Came::Tcp(*port, came))
        }
        Job::Daemon(peer, port) => (peer, Came::Tcp(*port, again(&|| tcp(peer, *port, None)))),
        Job::Udp(peer, port) => {
            let nothing = UdpSeen {
                sent: SMALL,
                answered: 0,
                round_trip_us: None,
                mtu: 0,
                largest: 0,
            };
            // What the kernel refuses to send does not arrive either.
            let once = || udp(asked, peer, *port).unwrap_or_else(|_| nothing.clone());
            let first = once();
            let came = if first.answered == 0 { once() } else { first };
            (peer, Came::Udp(came))
        }
    }
}

/// Connects, and says the token and hears the answer where there is an agent.
fn tcp(peer: &MeshPeer, port: u16, words: Option<(&str, &str)>) -> PortSeen {
    let began = Instant::now();
    let mut stream = match TcpStream::connect_timeout(&SocketAddr::from((peer.address, port)), CONNECT) {
        Ok(stream) => stream,
        Err(error) => {
            return match error.kind() {
                ErrorKind::TimedOut | ErrorKind::WouldBlock => PortSeen::Silent,
                ErrorKind::ConnectionRefused => PortSeen::Refused,
                _ => PortSeen::Closed(error.to_string()),
            };
        }
    };
    let took_us = micros(began.elapsed());
    let Some((token, wanted)) = words else {
        return PortSeen::Open { took_us };
    };
    let mut heard = vec![0u8; wanted.len()];
    let exchange = (|| {
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        stream.write_all(token.as_bytes())?;
        stream.read_exact(&mut heard)
    })();
    match exchange {
        Ok(()) if heard == wanted.as_bytes() => PortSeen::Open { took_us },
        Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => PortSeen::Silent,
        Ok(()) | Err(_) => PortSeen::Stranger,
    }
}

/// Datagrams to one peer.
struct Datagrams<'a> {
    socket: UdpSocket,
    token: &'a str,
    wanted: String,
    /// By number: when it was sent, its size in bytes of the whole packet, and when the answer came.
    sent: Vec<(Instant, u32, Option<Duration>)>,
}

fn udp(asked: &MeshTry, peer: &MeshPeer, port: u16) -> io::Result<UdpSeen> {
    let socket = UdpSocket::bind(SocketAddr::from((asked.address, 0)))?;
    // "Don't fragment" on every packet, and no notice of what the path is thought to carry (ip(7), IP_PMTUDISC_PROBE).
    set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?;
    socket.connect(SocketAddr::from((peer.address, port)))?;
    let mtu = interface_mtu(peer.address)?.min(LARGEST);
    let mut datagrams = Datagrams {
        socket,
        token: &asked.token,
        wanted: answer(&asked.token, &peer.node, port),
        sent: vec![],
    };
    for _ in 0..SMALL {
        datagrams.send(0);
    }
    for _ in 0..OF_EACH_SIZE {
        datagrams.send(mtu);
    }
    datagrams.await_answers(mtu);
    let answered = datagrams.answered(|size| size <= HEADERS + DATAGRAM_HEAD as u32);
    if !answered.is_empty() && datagrams.answered(|size| size == mtu).is_empty() {
        for size in SIZES.into_iter().filter(|size| *size < mtu) {
            for _ in 0..OF_EACH_SIZE {
                datagrams.send(size);
            }
        }
        datagrams.await_answers(SIZES.into_iter().find(|size| *size < mtu).unwrap_or(mtu));
    }
    let mut times: Vec<Duration> = answered;
    times.sort_unstable();
    Ok(UdpSeen {
        sent: SMALL,
        answered: times.len() as u32,
        round_trip_us: times.get(times.len() / 2).copied().map(micros),
        mtu,
        largest: datagrams.largest(),
    })
}

impl Datagrams<'_> {
    /// Sends a packet of a size in all, or the smallest there is, and hears what comes meanwhile.
    fn send(&mut self, size: u32) {
        let size = size.max(HEADERS + DATAGRAM_HEAD as u32);
        let mut bytes = self.token.as_bytes().to_vec();
        bytes.extend((self.sent.len() as u32).to_be_bytes());
        bytes.resize((size - HEADERS) as usize, 0);
        self.sent.push((Instant::now(), size, None));
        // An error of an earlier packet, or one of this: both are packets that do not arrive.
        let _ = self.socket.send(&bytes);
        self.hear(Instant::now() + BETWEEN);
    }

    /// Hears answers until a time.
    fn hear(&mut self, until: Instant) {
        let mut bytes = [0u8; DATAGRAM_HEAD + 1];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.socket.set_read_timeout(Some(left)).is_err() {
                return;
            }
            match self.socket.recv(&mut bytes) {
                Ok(DATAGRAM_HEAD) => self.note(&bytes[..DATAGRAM_HEAD]),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => return,
                // What ICMP says of an earlier packet: that packet is lost.
                Err(_) => {}
            }
        }
    }

    fn note(&mut self, answer: &[u8]) {
        let (text, number) = answer.split_at(TOKEN_LENGTH);
        let number = number.try_into().map(u32::from_be_bytes).unwrap_or(u32::MAX);
        if let Some((at, _, came)) = self.sent.get_mut(number as usize)
            && self.wanted.as_bytes().starts_with(text)
        {
            came.get_or_insert(at.elapsed());
        }
    }

    /// Hears answers until everything is answered: all small ones, and one of the largest size.
    fn await_answers(&mut self, largest: u32) {
        let until = Instant::now() + LAST_ANSWER;
        while Instant::now() < until {
            let small = self.answered(|size| size <= HEADERS + DATAGRAM_HEAD as u32).len() as u32;
            if small >= SMALL && !self.answered(|size| size == largest).is_empty() {
                return;
            }
            self.hear((Instant::now() + Duration::from_millis(5)).min(until));
        }
    }

    /// Returns the round trips of those of a size that were answered.
    fn answered(&self, of_size: impl Fn(u32) -> bool) -> Vec<Duration> {
        self.sent
            .iter()
            .filter(|(_, size, _)| of_size(*size))
            .filter_map(|(.., came)| *came)
            .collect()
    }

    fn largest(&self) -> u32 {
        self.sent
            .iter()
            .filter(|(.., came)| came.is_some())
            .map(|(_, size, _)| *size)
            .max()
            .unwrap_or(0)
    }
}

/// Returns the MTU of the interface that leads to an address, in bytes.
fn interface_mtu(peer: Ipv4Addr) -> io::Result<u32> {
    let route = route::route_to(peer.into())?.ok_or(ErrorKind::NetworkUnreachable)?;
    let link = route::links()?.into_iter().find(|link| link.name == route.interface);
    link.map(|link| link.mtu)
        .filter(|mtu| *mtu > HEADERS)
        .ok_or_else(|| ErrorKind::NotFound.into())
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
