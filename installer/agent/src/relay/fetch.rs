//! Takes a blob from another node, as the operator would send it.

use super::{HANDSHAKE, IDLE, LENGTH, LOOK_EVERY, MOST_LINE, tls};
use crate::agent::{Agent, Emit};
use crate::blobs;
use crate::error::AgentError;
use landfall_core::event::EventKind;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::layout::RELAY_PORT;
use landfall_core::name::Digest;
use landfall_core::relay::{RelayAnswer, RelayAsk, RelaySource};
use landfall_core::wire::mux::{read_json_line, write_json_line};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::time::{Duration, Instant};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How often progress is said: after so many bytes, and on a slow line after so long.
const REPORT_BYTES: u64 = 4 * 1024 * 1024;
const REPORT_EVERY: Duration = Duration::from_secs(2);

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Takes the bytes of a blob that are in `range` from another node. Blocks until all have come; nothing for 30 s ends it. What `source` cannot
/// give, or gives damaged, is [`Code::Unreachable`]: what came before stays for the next source.
pub fn fetch(
    agent: &Agent,
    digest: &Digest,
    range: Range<u64>,
    source: &RelaySource,
    emit: Emit<'_>,
) -> Result<(), Diagnosis> {
    // Before anybody is asked for something that would be refused.
    agent
        .holder()
        .and_then(|_| agent.blob_entry(digest))
        .map_err(|error| error.diagnosis())?;
    let no_use = |error: io::Error| {
        let what = format!(
            "{} ({}:{RELAY_PORT}) does not give the blob {digest}",
            source.node, source.address
        );
        Diagnosis::new(Code::Unreachable, what).because(&error)
    };
    let ask = RelayAsk {
        token: source.token.clone(),
        digest: *digest,
        from_bytes: range.start,
    };
    let stream = open(agent, &ask, source).map_err(no_use)?;
    let mut incoming = Incoming {
        agent,
        digest,
        stream,
        length: Vec::new(),
        piece: 0,
        left: range.end.saturating_sub(range.start),
        came: 0,
        reported: 0,
        reported_at: Instant::now(),
        since: Instant::now(),
        fault: None,
        emit,
    };
    let start = range.start;
    let put = blobs::put(agent, digest, range, &mut incoming);
    match (put, incoming.fault.take()) {
        (Ok(()), _) => Ok(()),
        (Err(_), Some(fault)) => Err(no_use(fault)),
        // Where what was here before is shortened, it may have been that.
        (Err(error @ AgentError::WrongDigest { .. }), None) if blobs::part_bytes(agent, digest) >= start => {
            Err(no_use(io::Error::new(io::ErrorKind::InvalidData, error)))
        }
        (Err(error), None) => Err(error.diagnosis()),
    }
}

fn open(agent: &Agent, ask: &RelayAsk, source: &RelaySource) -> io::Result<BufReader<Tls>> {
    let address = SocketAddr::from((source.address, RELAY_PORT));
    let config = tls::client(&source.key)?;
    let tcp = agent.host.network().connect(address, CONNECT)?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(HANDSHAKE))?;
    tcp.set_write_timeout(Some(HANDSHAKE))?;
    let name = ServerName::IpAddress(address.ip().into());
    let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, tcp);
    write_json_line(&mut stream, ask)?;
    stream.flush()?;
    // The giver may have to wait for the blob's begin.
    stream.sock.set_read_timeout(Some(IDLE))?;
    let mut reader = BufReader::new(stream);
    match read_json_line(&mut reader.by_ref().take(MOST_LINE))? {
        Some(RelayAnswer::Follows) => {}
        Some(RelayAnswer::Absent) => return Err(io::Error::new(io::ErrorKind::NotFound, "it has nothing of it")),
        None => return Err(io::ErrorKind::UnexpectedEof.into()),
    }
    reader.get_ref().sock.set_read_timeout(Some(LOOK_EVERY))?;
    Ok(reader)
}

/// The bytes as they come. It remembers why they ended, because who reads them sees too few bytes alone.
struct Incoming<'a> {
    agent: &'a Agent,
    digest: &'a Digest,
    stream: BufReader<Tls>,
    /// What has come of the next piece's length.
    length: Vec<u8>,
    /// How many bytes of the piece are still to come.
    piece: usize,
    left: u64,
    came: u64,
    reported: u64,
    reported_at: Instant,
    since: Instant,
    fault: Option<io::Error>,
    emit: Emit<'a>,
}

impl Incoming<'_> {
    /// Reads bytes of the blob. Blocks until some come, the session ends, or nothing has come for [`IDLE`], not even an empty piece.
    fn bytes(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece == 0 {
            let mut length = [0; LENGTH];
            let missing = LENGTH - self.length.len();
            let read = self.wait(&mut length[..missing])?;
            self.length.extend_from_slice(&length[..read]);
            if let Ok(length) = <[u8; LENGTH]>::try_from(self.length.as_slice()) {
                self.length.clear();
                self.piece = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
                self.since = Instant::now();
                self.agent.arriving().touch(self.digest);
            }
        }
        let most = buffer.len().min(self.piece);
        let read = self.wait(&mut buffer[..most])?;
        self.piece -= read;
        Ok(read)
    }

    /// Reads what there is.
    fn wait(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if self.agent.children.is_stopping() {
                        return Err(io::Error::other("the operator is gone"));
                    }
                    if self.since.elapsed() > IDLE {
                        return Err(io::Error::new(io::ErrorKind::TimedOut, "nothing has come for 30 s"));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}

impl Read for Incoming<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if length == 0 {
            return Ok(0);
        }
        let read = match self.bytes(&mut buffer[..length]) {
            Ok(read) => read,
            Err(error) => {
                let kind = error.kind();
                self.fault = Some(error);
                return Err(kind.into());
            }
        };
        self.since = Instant::now();
        self.left -= read as u64;
        self.came += read as u64;
        let is_due = self.came - self.reported >= REPORT_BYTES || self.reported_at.elapsed() >= REPORT_EVERY;
        if is_due || self.left == 0 {
            (self.reported, self.reported_at) = (self.came, Instant::now());
            (self.emit)(EventKind::PushProgress {
                bytes: self.came,
                relayed: self.came,
            });
        }
        Ok(read)
    }
}
