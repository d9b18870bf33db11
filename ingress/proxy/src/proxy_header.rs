//! The PROXY protocol, versions 1 and 2, as HAProxy specifies it: who asked, told by a trusted peer in front of the first byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Longest version 1 header; the specification counts it out.
const V1_LONGEST: usize = 107;
/// Largest version 2 header that is taken: addresses take 52 bytes, the rest is for what balancers like to add.
const V2_LONGEST: usize = 16 + 2048;
const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Pause before looking again at a header that came in pieces, which balancers avoid.
const PIECES: Duration = Duration::from_millis(5);

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProxyHeader {
    /// Who asked; an unspecified address when somebody did whose address has no such form.
    pub(super) source: SocketAddr,
    /// What was asked.
    pub(super) destination: SocketAddr,
}

impl ProxyHeader {
    const UNKNOWN: Self = Self {
        source: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        destination: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
    };
}

/// It begins like a header and is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// More bytes are needed.
    Partial,
    /// There is no header.
    Absent,
    /// Its length, and what it tells: nothing when the balancer speaks for itself, as in health checks.
    Header(usize, Option<ProxyHeader>),
}

/// Takes a header from the front of a connection, waiting for it at most so long; not a byte more. `Ok(None)` when there is none or it
/// tells nothing.
pub(super) async fn take(stream: &TcpStream, longest: Duration) -> Result<Option<ProxyHeader>, Malformed> {
    let looking = async {
        let mut buffer = vec![0; V2_LONGEST];
        loop {
            let seen = stream.peek(&mut buffer).await.map_err(|_| Malformed)?;
            match parse(&buffer[..seen])? {
                Parsed::Absent => return Ok(None),
                Parsed::Header(length, told) => {
                    consume(stream, length).await?;
                    return Ok(told);
                }
                // The other side closed within the header.
                Parsed::Partial if seen == 0 => return Err(Malformed),
                Parsed::Partial => sleep(PIECES).await,
            }
        }
    };
    timeout(longest, looking).await.unwrap_or(Err(Malformed))
}

/// Reads what was looked at before.
async fn consume(stream: &TcpStream, length: usize) -> Result<(), Malformed> {
    let mut rest = vec![0; length];
    let mut left = length;
    while left > 0 {
        let read = stream
            .async_io(Interest::READABLE, || stream.try_read(&mut rest[..left]))
            .await;
        match read {
            Ok(read) if read > 0 => left -= read,
            _ => return Err(Malformed),
        }
    }
    Ok(())
}

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    if bytes.starts_with(V2) {
        return version_2(bytes);
    }
    if bytes.starts_with(V1) {
        return version_1(bytes);
    }
    let begins = V1.starts_with(bytes) || V2.starts_with(bytes);
    Ok(if begins { Parsed::Partial } else { Parsed::Absent })
}

fn version_1(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let seen = &bytes[..bytes.len().min(V1_LONGEST)];
    let Some(end) = seen.windows(2).position(|pair| pair == b"\r\n") else {
        return if seen.len() < V1_LONGEST {
            Ok(Parsed::Partial)
        } else {
            Err(Malformed)
        };
    };
    let line = std::str::from_utf8(&seen[V1.len()..end]).map_err(|_| Malformed)?;
    let mut words = line.split(' ');
    let family = words.next().ok_or(Malformed)?;
    if family == "UNKNOWN" {
        return Ok(Parsed::Header(end + 2, Some(ProxyHeader::UNKNOWN)));
    }
    let mut word = || words.next().ok_or(Malformed);
    let (source, destination) = (word()?, word()?);
    let (source_port, destination_port) = (port(word()?)?, port(word()?)?);
    let told = match family {
        "TCP4" => ProxyHeader {
            source: (source.parse::<Ipv4Addr>().map_err(|_| Malformed)?, source_port).into(),
            destination: (
                destination.parse::<Ipv4Addr>().map_err(|_| Malformed)?,
                destination_port,
            )
                .into(),
        },
        "TCP6" => ProxyHeader {
            source: (source.parse::<Ipv6Addr>().map_err(|_| Malformed)?, source_port).into(),
            destination: (
                destination.parse::<Ipv6Addr>().map_err(|_| Malformed)?,
                destination_port,
            )
                .into(),
        },
        _ => return Err(Malformed),
    };
    if words.next().is_some() {
        return Err(Malformed);
    }
    Ok(Parsed::Header(end + 2, Some(told)))
}

fn port(text: &str) -> Result<u16, Malformed> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().ok_or(Malformed)
}

fn version_2(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let Some((head, rest)) = bytes.split_at_checked(16) else {
        return Ok(Parsed::Partial);
    };
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if head[12] >> 4 != 2 || 16 + length > V2_LONGEST {
        return Err(Malformed);
    }
    let Some(body) = rest.get(..length) else {
        return Ok(Parsed::Partial);
    };
    let local = match head[12] & 15 {
        0 => true,
        1 => false,
        _ => return Err(Malformed),
    };
    let told = match head[13] {
        _ if local => None,
        0x11 => Some(addresses::<4>(body)?),
        0x21 => Some(addresses::<16>(body)?),
        // UDP, Unix sockets and what is not specified: somebody asked, and it was not the balancer.
        _ => Some(ProxyHeader::UNKNOWN),
    };
    Ok(Parsed::Header(16 + length, told))
}

fn addresses<const N: usize>(body: &[u8]) -> Result<ProxyHeader, Malformed>
where
    IpAddr: From<[u8; N]>,
{
    let part = |from: usize| {
        body.get(from..from + N)
            .and_then(|bytes| <[u8; N]>::try_from(bytes).ok())
    };
    let port = |from: usize| {
        body.get(from..from + 2)
            .map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    let (source, destination) = (part(0).ok_or(Malformed)?, part(N).ok_or(Malformed)?);
    let (from, to) = (port(2 * N).ok_or(Malformed)?, port(2 * N + 2).ok_or(Malformed)?);
    Ok(ProxyHeader {
        source: (IpAddr::from(source), from).into(),
        destination: (IpAddr::from(destination), to).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(source: &str, destination: &str) -> Option<ProxyHeader> {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        Some(ProxyHeader { source, destination })
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [V2, &[command, family], &length, body].concat()
    }

    #[test]
    fn both_versions_are_read_and_every_beginning_of_them_waits() {
        let four = [&[1, 2, 3, 4, 5, 6, 7, 8][..], &[0x10, 0, 0, 80]].concat();
        let six = [&[0; 15][..], &[1], &[0; 15], &[2], &[0, 9, 1, 187]].concat();
        let with_more = [&four[..], b"\x03\0\x01x"].concat();
        let cases = [
            (
                b"PROXY TCP4 1.2.3.4 5.6.7.8 4096 80\r\n".to_vec(),
                told("1.2.3.4:4096", "5.6.7.8:80"),
            ),
            (b"PROXY TCP6 ::1 ::2 9 443\r\n".to_vec(), told("[::1]:9", "[::2]:443")),
            (b"PROXY UNKNOWN whatever\r\n".to_vec(), Some(ProxyHeader::UNKNOWN)),
            (v2(0x21, 0x11, &four), told("1.2.3.4:4096", "5.6.7.8:80")),
            (v2(0x21, 0x21, &six), told("[::1]:9", "[::2]:443")),
            (v2(0x21, 0x11, &with_more), told("1.2.3.4:4096", "5.6.7.8:80")),
            (v2(0x20, 0, &[]), None),
            (v2(0x21, 0x31, &[0; 216]), Some(ProxyHeader::UNKNOWN)),
        ];
        for (header, wanted) in cases {
            for end in 0..header.len() {
                assert_eq!(parse(&header[..end]), Ok(Parsed::Partial), "{header:?} {end}");
            }
            let more = [&header[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse(&more), Ok(Parsed::Header(header.len(), wanted)), "{header:?}");
        }
        assert_eq!(parse(b"GET / HTTP/1.1\r\n"), Ok(Parsed::Absent));
        assert_eq!(parse(b"PRI * HTTP/2.0\r\n"), Ok(Parsed::Absent));
    }

    #[test]
    fn what_begins_like_a_header_and_is_none_is_refused() {
        let long = [V1, &[b'a'; V1_LONGEST]].concat();
        let cases = [
            b"PROXY TCP4 1.2.3.4 5.6.7.8 4096\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 5.6.7.8 4096 80 1\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 80\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::2 1 80\r\n".to_vec(),
            b"PROXY UDP4 1.2.3.4 5.6.7.8 1 80\r\n".to_vec(),
            b"PROXY  TCP4 1.2.3.4 5.6.7.8 1 80\r\n".to_vec(),
            long,
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 12]),
            v2(0x21, 0x11, &[0; V2_LONGEST]),
        ];
        for header in cases {
            assert_eq!(parse(&header), Err(Malformed), "{:?}", String::from_utf8_lossy(&header));
        }
    }
}
