//! A small resolver for probes and for asking whether a DNS server works: one question, A or NS, over UDP or TCP.

use crate::deadline::left;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// Record type of IPv4 addresses.
pub const TYPE_A: u16 = 1;
/// Record type of name servers.
const TYPE_NS: u16 = 2;

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Response code.
    pub rcode: u8,
    /// IPv4 addresses among the answers.
    pub addresses: Vec<Ipv4Addr>,
    /// Whether the answer was cut off, so that TCP must be asked.
    truncated: bool,
}

/// Returns the usual name of a response code.
pub fn rcode_name(rcode: u8) -> String {
    match rcode {
        0 => "NOERROR".to_owned(),
        1 => "FORMERR".to_owned(),
        2 => "SERVFAIL".to_owned(),
        3 => "NXDOMAIN".to_owned(),
        4 => "NOTIMP".to_owned(),
        5 => "REFUSED".to_owned(),
        other => format!("RCODE{other}"),
    }
}

/// What a resolver file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolverFile {
    /// Servers in order.
    pub servers: Vec<IpAddr>,
    /// Search list.
    pub search: Vec<String>,
    /// Names with so many dots are tried as they are first.
    pub ndots: usize,
}

impl ResolverFile {
    /// Reads the text of a resolver file; unknown words are passed over.
    pub fn parse(text: &str) -> Self {
        let mut file = Self {
            servers: vec![],
            search: vec![],
            ndots: 1,
        };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => file.servers.extend(words.next().and_then(|w| w.parse::<IpAddr>().ok())),
                Some("search" | "domain") => file.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    let ndots = words.filter_map(|w| w.strip_prefix("ndots:")?.parse().ok()).next_back();
                    file.ndots = ndots.unwrap_or(file.ndots);
                }
                _ => {}
            }
        }
        file
    }

    /// Returns the full names to try for a name, in order, as resolvers do.
    pub fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let searched = self
            .search
            .iter()
            .map(|domain| format!("{name}.{}", domain.trim_end_matches('.')));
        if name.matches('.').count() >= self.ndots {
            std::iter::once(name.to_owned()).chain(searched).collect()
        } else {
            searched.chain(std::iter::once(name.to_owned())).collect()
        }
    }
}

/// Asks a server for the root's name servers over UDP and returns its response code. A cut-off answer will do. Blocks until `deadline` at most.
pub fn rcode_of_root(server: SocketAddr, deadline: Instant) -> io::Result<u8> {
    let question = question(".", TYPE_NS)?;
    ask_udp(server, &question, deadline).map(|answer| answer.rcode)
}

/// Asks one server one question. Over UDP a truncated answer is asked for again over TCP. Blocks until `deadline` at most.
pub fn ask(server: SocketAddr, name: &str, kind: u16, tcp: bool, deadline: Instant) -> io::Result<Answer> {
    let question = question(name, kind)?;
    if tcp {
        return ask_tcp(server, &question, deadline);
    }
    let answer = ask_udp(server, &question, deadline)?;
    if answer.truncated {
        ask_tcp(server, &question, deadline)
    } else {
        Ok(answer)
    }
}

fn question(name: &str, kind: u16) -> io::Result<Vec<u8>> {
    let mut id = [0u8; 2];
    rustix::rand::getrandom(&mut id[..], rustix::rand::GetRandomFlags::empty())?;
    encode(u16::from_be_bytes(id), name, kind)
}

fn ask_udp(server: SocketAddr, question: &[u8], deadline: Instant) -> io::Result<Answer> {
    let any: SocketAddr = if server.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        "[::]:0".parse().map_err(io::Error::other)?
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    let mut buffer = [0u8; 4096];
    loop {
        socket.send(question)?;
        // A lost datagram is sent again, as resolvers do, only sooner.
        let resend_at = Instant::now() + Duration::from_secs(1);
        loop {
            let wait = left(deadline)?.min(resend_at.saturating_duration_since(Instant::now()));
            if wait.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(wait))?;
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    if let Some(answer) = decode(question, &buffer[..length]) {
                        return Ok(answer);
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn ask_tcp(server: SocketAddr, question: &[u8], deadline: Instant) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&server, left(deadline)?)?;
    stream.set_read_timeout(Some(left(deadline)?))?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat())?;
    let mut size = [0u8; 2];
    stream.read_exact(&mut size)?;
    let mut bytes = vec![0u8; usize::from(u16::from_be_bytes(size))];
    stream.read_exact(&mut bytes)?;
    decode(question, &bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the DNS answer is malformed"))
}

fn encode(id: u16, name: &str, kind: u16) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(64);
    out.extend(id.to_be_bytes());
    // One question, recursion desired.
    out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.').filter(|l| !l.is_empty()) {
        let length = u8::try_from(label.len()).ok().filter(|l| *l < 64);
        out.push(length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a label of the name is too long"))?);
        out.extend(label.as_bytes());
    }
    out.push(0);
    out.extend(kind.to_be_bytes());
    out.extend([0, 1]);
    Ok(out)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// Returns the position behind a name, which may end in a pointer.
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            pointer if pointer & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += usize::from(length) + 1,
        }
    }
}

/// Reads an answer; `None` when it is malformed or belongs to another question.
fn decode(question: &[u8], bytes: &[u8]) -> Option<Answer> {
    let flags = u16_at(bytes, 2)?;
    if bytes.get(..2)? != question.get(..2)? || flags & 0x8000 == 0 {
        return None;
    }
    let mut at = 12;
    for _ in 0..u16_at(bytes, 4)? {
        at = skip_name(bytes, at)? + 4;
    }
    let mut addresses = Vec::new();
    for _ in 0..u16_at(bytes, 6)? {
        let head = skip_name(bytes, at)?;
        let (kind, length) = (u16_at(bytes, head)?, usize::from(u16_at(bytes, head + 8)?));
        let data = bytes.get(head + 10..head + 10 + length)?;
        if kind == TYPE_A {
            addresses.push(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?));
        }
        at = head + 10 + length;
    }
    Some(Answer {
        rcode: (flags & 15) as u8,
        addresses,
        truncated: flags & 0x0200 != 0,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An answer to `question` with these addresses.
    pub(crate) fn reply(question: &[u8], rcode: u8, addresses: &[Ipv4Addr]) -> Vec<u8> {
        let mut out = question.to_vec();
        out[2] = 0x81;
        out[3] = 0x80 | rcode;
        out[7] = addresses.len() as u8;
        for address in addresses {
            out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
            out.extend(address.octets());
        }
        out
    }

    #[test]
    fn answers_are_read_and_damage_is_no_answer() {
        let question = encode(7, "a.example.", TYPE_A).unwrap();
        let bytes = reply(&question, 0, &[Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)]);
        assert_eq!(decode(&question, &bytes).unwrap().addresses.len(), 2);
        for cut in 0..bytes.len() {
            assert_eq!(decode(&question, &bytes[..cut]), None, "cut at {cut}");
        }
        assert_eq!(
            decode(&question, &reply(&encode(8, "a.example", TYPE_A).unwrap(), 0, &[])),
            None,
            "another id"
        );
        assert_eq!(
            rcode_name(decode(&question, &reply(&question, 3, &[])).unwrap().rcode),
            "NXDOMAIN"
        );
        assert!(encode(1, &"x".repeat(64), TYPE_A).is_err());
    }

    #[test]
    fn search_lists_are_applied_as_resolvers_do() {
        let file = ResolverFile::parse(
            "nameserver 10.96.0.10\nsearch ns.svc.cluster.local svc.cluster.local\noptions ndots:5\n",
        );
        assert_eq!(file.candidates("nginx")[0], "nginx.ns.svc.cluster.local");
        assert_eq!(file.candidates("nginx").last().unwrap(), "nginx");
        assert_eq!(file.candidates("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
        assert_eq!(file.candidates("full.name."), ["full.name"]);
        assert_eq!(ResolverFile::parse("").ndots, 1);
    }
}
