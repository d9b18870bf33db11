//! Trying paths into the cluster: HTTP, plain or over TLS, and DNS, by code of our own so that a probe behaves the same on the operator's machine, on
//! nodes and in containers of a few megabytes.

use crate::deadline::{Until, left};
use crate::dns::{self, ResolverFile};
use crate::{http, https};
use landfall_core::verify::{ProbeResult, ProbeSpec, Scheme};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of a body that are reported.
const BODY_BYTES: usize = 4096;
/// Bytes of a body that are read at most; our targets answer with a few hundred.
const MAX_BODY: usize = 1024 * 1024;
/// Probes side by side: enough to hide time-outs, few enough for a small machine.
const SIDE_BY_SIDE: usize = 32;

/// Tries all, side by side, and returns the results in order. Blocks until the longest time-out at most (times groups of 32).
pub fn run(probes: &[ProbeSpec]) -> Vec<ProbeResult> {
    let mut results = Vec::with_capacity(probes.len());
    for group in probes.chunks(SIDE_BY_SIDE) {
        thread::scope(|scope| {
            let handles: Vec<_> = group.iter().map(|probe| scope.spawn(move || try_one(probe))).collect();
            results.extend(
                handles
                    .into_iter()
                    .map(|h| h.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))),
            );
        });
    }
    results
}

/// Reads a JSON list of probes, tries them, and writes the JSON list of results: what `landfall agent probe` does in a container.
pub fn serve(mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    let mut text = Vec::new();
    input.read_to_end(&mut text)?;
    let probes: Vec<ProbeSpec> = serde_json::from_slice(&text)?;
    serde_json::to_writer(&mut output, &run(&probes))?;
    output.flush()
}

fn took(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn try_one(probe: &ProbeSpec) -> ProbeResult {
    let began = Instant::now();
    let result = match probe {
        ProbeSpec::Http {
            scheme,
            address,
            host,
            path,
            timeout_ms,
        } => {
            let deadline = began + Duration::from_millis(*timeout_ms);
            get(*scheme, address, host, path, deadline).map(|(status, body)| ProbeResult::Http {
                status,
                body,
                took_ms: took(began),
            })
        }
        ProbeSpec::Dns {
            name,
            server,
            tcp,
            timeout_ms,
        } => {
            let deadline = began + Duration::from_millis(*timeout_ms);
            look_up(name, server.as_deref(), *tcp, deadline).map(|answer| ProbeResult::Dns {
                rcode: dns::rcode_name(answer.rcode),
                addresses: answer.addresses.iter().map(ToString::to_string).collect(),
                took_ms: took(began),
            })
        }
    };
    result.unwrap_or_else(|error| ProbeResult::Failed {
        kind: kind_of(&error).to_owned(),
        text: error.to_string(),
        took_ms: took(began),
    })
}

fn kind_of(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused",
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "timeout",
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkDown => {
            "unreachable"
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => "reset",
        io::ErrorKind::NotFound => "no-name",
        _ => "other",
    }
}

fn get(scheme: Scheme, address: &str, host: &str, path: &str, deadline: Instant) -> io::Result<(u16, String)> {
    if [host, path]
        .iter()
        .any(|text| text.bytes().any(|b| b.is_ascii_control() || b == b' '))
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the host or path holds blanks or control characters",
        ));
    }
    let address = resolve(address, deadline)?;
    let stream = TcpStream::connect_timeout(&address, left(deadline)?)?;
    let stream = Until { stream, deadline };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: landfall-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    match scheme {
        Scheme::Http => exchange(stream, &request),
        Scheme::Https => exchange(https::unchecked(host, stream)?, &request),
    }
}

fn exchange(mut stream: impl Read + Write, request: &str) -> io::Result<(u16, String)> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let answer = http::read_answer(&mut stream, MAX_BODY)?;
    let body = &answer.body[..answer.body.len().min(BODY_BYTES)];
    Ok((answer.status, String::from_utf8_lossy(body).into_owned()))
}

fn no_name(name: &str, why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("the name {name} has no address: {why}"),
    )
}

/// Turns `address:port` or `name:port` into an address: the hosts file first, then the servers of the resolver file.
fn resolve(text: &str, deadline: Instant) -> io::Result<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let wrong = || {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{text} is neither address:port nor name:port"),
        )
    };
    let (name, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let hosts = crate::files::text("/etc/hosts");
    let in_hosts = hosts.lines().find_map(|line| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        words.any(|w| w.eq_ignore_ascii_case(name)).then_some(address)
    });
    if let Some(address) = in_hosts {
        return Ok((address, port).into());
    }
    let answer = look_up(name, None, false, deadline)?;
    match answer.addresses.first() {
        Some(address) => Ok((*address, port).into()),
        None => Err(no_name(name, &dns::rcode_name(answer.rcode))),
    }
}

/// Asks for a name's addresses as resolvers do: search list by dots, servers in order. A question to `server` is asked as it is.
fn look_up(name: &str, server: Option<&str>, tcp: bool, deadline: Instant) -> io::Result<dns::Answer> {
    let file = ResolverFile::parse(&crate::files::text("/etc/resolv.conf"));
    let (servers, names) = match server {
        Some(text) => {
            let wrong = |_| io::Error::new(io::ErrorKind::InvalidInput, format!("{text} is no address:port"));
            (
                vec![text.parse::<SocketAddr>().map_err(wrong)?],
                vec![name.trim_end_matches('.').to_owned()],
            )
        }
        None => (
            file.servers.iter().map(|s| (*s, 53).into()).collect(),
            file.candidates(name),
        ),
    };
    if servers.is_empty() {
        return Err(no_name(name, "/etc/resolv.conf names no server"));
    }
    let mut last = None;
    for name in names {
        let answer = ask_servers(&servers, &name, tcp, deadline)?;
        if answer.rcode == 0 && !answer.addresses.is_empty() {
            return Ok(answer);
        }
        // SERVFAIL and its like say nothing about the other names of the list; the first answer of that kind is still the one to tell.
        if last.as_ref().is_none_or(|l: &dns::Answer| l.rcode == 3) {
            last = Some(answer);
        }
    }
    last.ok_or_else(|| no_name(name, "there is no name to ask for"))
}

fn ask_servers(servers: &[SocketAddr], name: &str, tcp: bool, deadline: Instant) -> io::Result<dns::Answer> {
    let mut failure = io::Error::from(io::ErrorKind::TimedOut);
    for (at, server) in servers.iter().enumerate() {
        // Each server gets its share of the time that is left.
        let share = left(deadline)? / (servers.len() - at) as u32;
        match dns::ask(*server, name, dns::TYPE_A, tcp, Instant::now() + share) {
            Ok(answer) => return Ok(answer),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener, UdpSocket};

    fn serve_once(answer: &'static [u8]) -> String {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0u8; 4096];
            let _ = stream.read(&mut buffer);
            stream.write_all(answer).unwrap();
        });
        address
    }

    /// The same over TLS, with a certificate that nobody vouches for.
    fn serve_tls_once(answer: &'static [u8]) -> String {
        let certificate = include_bytes!("../tests/data/test-only-certificate.der")
            .to_vec()
            .into();
        let key =
            rustls::pki_types::PrivateKeyDer::Pkcs8(include_bytes!("../tests/data/test-only-key.der").to_vec().into());
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let (tcp, _) = listener.accept().unwrap();
            let connection = rustls::ServerConnection::new(config.into()).unwrap();
            let mut tls = rustls::StreamOwned::new(connection, tcp);
            let _ = tls.read(&mut [0u8; 4096]);
            tls.write_all(answer).unwrap();
        });
        address
    }

    fn probe(address: String, timeout_ms: u64) -> ProbeResult {
        probe_by(Scheme::Http, address, timeout_ms)
    }

    fn probe_by(scheme: Scheme, address: String, timeout_ms: u64) -> ProbeResult {
        let spec = ProbeSpec::Http {
            scheme,
            address,
            host: "test.nginx.com".into(),
            path: "/".into(),
            timeout_ms,
        };
        run(&[spec]).remove(0)
    }

    #[test]
    fn answers_of_every_framing_are_read() {
        for answer in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..],
            b"HTTP/1.1 200 OK\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
        ] {
            let result = probe(serve_once(answer), 2000);
            assert!(
                matches!(&result, ProbeResult::Http { status: 200, body, .. } if body == "hello"),
                "{result:?}"
            );
        }
    }

    #[test]
    fn hosts_are_reached_over_tls_whatever_their_certificate() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        let result = probe_by(Scheme::Https, serve_tls_once(answer), 5000);
        assert!(
            matches!(&result, ProbeResult::Http { status: 200, body, .. } if body == "hello"),
            "{result:?}"
        );
        let plain = probe_by(Scheme::Https, serve_once(answer), 5000);
        assert!(
            matches!(&plain, ProbeResult::Failed { kind, .. } if kind == "other"),
            "{plain:?}"
        );
    }

    #[test]
    fn failures_say_their_kind() {
        let kind = |result: ProbeResult| match result {
            ProbeResult::Failed { kind, .. } => kind,
            other => panic!("{other:?}"),
        };
        let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string();
        assert_eq!(kind(probe(closed, 1000)), "refused");
        let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert_eq!(kind(probe(silent.local_addr().unwrap().to_string(), 200)), "timeout");
        assert_eq!(
            kind(probe(
                serve_once(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"),
                1000
            )),
            "reset"
        );
        assert_eq!(kind(probe("nonsense".into(), 1000)), "other");
    }

    #[test]
    fn a_dns_server_is_asked_over_both_protocols() {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).unwrap();
        thread::spawn(move || {
            let mut buffer = [0u8; 512];
            let (length, from) = udp.recv_from(&mut buffer).unwrap();
            udp.send_to(
                &dns::tests::reply(&buffer[..length], 0, &[Ipv4Addr::new(10, 0, 0, 1)]),
                from,
            )
            .unwrap();
        });
        thread::spawn(move || {
            let (mut stream, _) = tcp.accept().unwrap();
            let mut size = [0u8; 2];
            stream.read_exact(&mut size).unwrap();
            let mut question = vec![0u8; usize::from(u16::from_be_bytes(size))];
            stream.read_exact(&mut question).unwrap();
            let reply = dns::tests::reply(&question, 3, &[]);
            stream.write_all(&(reply.len() as u16).to_be_bytes()).unwrap();
            stream.write_all(&reply).unwrap();
        });
        let ask = |tcp| ProbeSpec::Dns {
            name: "a.b".into(),
            server: Some(address.to_string()),
            tcp,
            timeout_ms: 2000,
        };
        let results = run(&[ask(false), ask(true)]);
        assert!(
            matches!(&results[0], ProbeResult::Dns { rcode, addresses, .. } if rcode == "NOERROR" && addresses == &["10.0.0.1"])
        );
        assert!(
            matches!(&results[1], ProbeResult::Dns { rcode, addresses, .. } if rcode == "NXDOMAIN" && addresses.is_empty())
        );
    }
}
