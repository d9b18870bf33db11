//! Many streams over one byte channel, with flow control for each, so that no stream can hold up another.
//!
//! A frame is `kind u8 · stream u32 · length u32 · payload` (big endian). Each direction of a stream may have at most [`WINDOW`] bytes
//! under way that the reader has not taken; the reader's `read` returns credit.
//!
//! | frame | who may send it | payload, at most |
//! |---|---|---|
//! | OPEN | the operator | a request, 16 MiB |
//! | DATA | both | 128 KiB, and within the window |
//! | CREDIT | both | 4 bytes |
//! | FIN | both | nothing |
//! | RESET | both | the reason, 4 KiB |
//! | PING | the operator | nothing |
//! | PONG | the agent | what it works on, 4 KiB |
//!
//! Anything else ends the channel. So a node that is in other hands can neither open streams on the operator's machine nor fill its memory:
//! what it may send is bounded for each stream, and the operator alone makes streams.
//!
//! INVARIANT: [`Mux::pump`] never waits for a stream's reader, because the window bounds what can be queued; so frames for
//! other streams, credits and heartbeats always get through.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Bytes that may be under way per stream and direction. 1 MiB keeps a 1 Gbit/s line with 5 ms round trip busy.
pub const WINDOW: usize = 1024 * 1024;
/// Largest payload of a data frame.
pub const MAX_PAYLOAD: usize = 128 * 1024;
/// Largest request: a step with its action, or all steps of a node. The plan of a control plane has 1 MB.
const MAX_OPEN: usize = 16 * 1024 * 1024;
/// Largest text of a reset or of a sign of life.
const MAX_TEXT: usize = 4 * 1024;
/// Largest JSON line of an answer: a program's standard output (16 MiB at most, see the agent) with its escapes.
pub const MAX_LINE: usize = 32 * 1024 * 1024;
/// Most streams at once. A run has some tens: four steps and two blobs for each node, and a tunnel for each connection to the API.
const MAX_STREAMS: usize = 1024;

const OPEN: u8 = 1;
const DATA: u8 = 2;
const CREDIT: u8 = 3;
const FIN: u8 = 4;
const RESET: u8 = 5;
const PING: u8 = 6;
const PONG: u8 = 7;

/// Which end of the channel this is.
pub enum Role {
    /// Opens streams and asks for signs of life.
    Operator,
    /// Takes streams; with a sign of life it says what it works on, in at most 4 KiB.
    Agent(Box<dyn Fn() -> String + Send + Sync>),
}

/// One end of the channel. Share it through its `Arc`.
pub struct Mux {
    role: Role,
    writer: Mutex<Box<dyn Write + Send>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    streams: BTreeMap<u32, Half>,
    opened: VecDeque<(u32, Vec<u8>)>,
    next_id: u32,
    frames_received: u64,
    peer_works_on: String,
    closed: Option<String>,
}

struct Half {
    inbox: VecDeque<u8>,
    peer_finished: bool,
    reset: Option<String>,
    send_credit: usize,
    unreturned: usize,
    /// When the peer last sent something for this stream, or could be sent something.
    moved: Instant,
}

impl Half {
    fn new() -> Self {
        Self {
            inbox: VecDeque::new(),
            peer_finished: false,
            reset: None,
            send_credit: WINDOW,
            unreturned: 0,
            moved: Instant::now(),
        }
    }
}

impl Mux {
    /// Makes one end that writes to `writer`; some thread must run [`Mux::pump`] with the reading side.
    pub fn new(role: Role, writer: Box<dyn Write + Send>) -> Arc<Self> {
        Arc::new(Self {
            role,
            writer: Mutex::new(writer),
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
        })
    }

    /// Reads frames until the channel ends, then wakes everybody. Blocks for the life of the connection.
    pub fn pump(self: &Arc<Self>, mut reader: impl Read) -> io::Result<()> {
        let result = self.pump_frames(&mut reader);
        let reason = match &result {
            Ok(()) => "the connection ended".to_owned(),
            Err(error) => format!("the connection broke: {error}"),
        };
        self.close(&reason);
        result
    }

    /// Ends everything on this side: readers and writers of all streams get an error with `reason`.
    pub fn close(&self, reason: &str) {
        self.lock().closed.get_or_insert_with(|| reason.to_owned());
        self.changed.notify_all();
    }

    fn pump_frames(self: &Arc<Self>, reader: &mut impl Read) -> io::Result<()> {
        let mut payload = Vec::new();
        loop {
            let mut head = [0u8; 9];
            match reader.read_exact(&mut head) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
            let stream = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
            let length = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) as usize;
            // Before anything is set aside for it.
            if length > self.most(head[0])? {
                return Err(invalid("a frame is larger than allowed"));
            }
            payload.resize(length, 0);
            reader.read_exact(&mut payload)?;
            self.take_frame(head[0], stream, &payload)?;
        }
    }

    /// Returns the largest payload that the peer may send in a frame of this kind, or refuses the kind.
    fn most(&self, kind: u8) -> io::Result<usize> {
        match (kind, &self.role) {
            (OPEN, Role::Agent(_)) => Ok(MAX_OPEN),
            (PING, Role::Agent(_)) | (FIN, _) => Ok(0),
            (PONG, Role::Operator) | (RESET, _) => Ok(MAX_TEXT),
            (DATA, _) => Ok(MAX_PAYLOAD),
            (CREDIT, _) => Ok(4),
            (OPEN | PING | PONG, _) => Err(invalid("the peer sent a frame that is not for its end of the channel")),
            _ => Err(invalid("a frame has an unknown kind")),
        }
    }

    fn take_frame(&self, kind: u8, id: u32, payload: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        state.frames_received += 1;
        if let Some(half) = state.streams.get_mut(&id) {
            half.moved = Instant::now();
        }
        match kind {
            OPEN => {
                if state.streams.len() >= MAX_STREAMS {
                    drop(state);
                    return self.write_frame(RESET, id, b"too many streams are open");
                }
                if state.streams.insert(id, Half::new()).is_some() {
                    return Err(invalid("a stream was opened twice"));
                }
                state.opened.push_back((id, payload.to_vec()));
            }
            // Frames for a stream that this side has dropped already are late, not wrong.
            DATA => {
                if let Some(half) = state.streams.get_mut(&id) {
                    if half.inbox.len() + payload.len() > WINDOW {
                        return Err(invalid("the peer sent more than its window"));
                    }
                    half.inbox.extend(payload);
                }
            }
            CREDIT => {
                let bytes: [u8; 4] = payload
                    .try_into()
                    .map_err(|_| invalid("a credit frame has a wrong size"))?;
                if let Some(half) = state.streams.get_mut(&id) {
                    half.send_credit = half
                        .send_credit
                        .saturating_add(u32::from_be_bytes(bytes) as usize)
                        .min(WINDOW);
                }
            }
            FIN => {
                if let Some(half) = state.streams.get_mut(&id) {
                    half.peer_finished = true;
                }
            }
            RESET => {
                if let Some(half) = state.streams.get_mut(&id) {
                    half.reset = Some(String::from_utf8_lossy(payload).into_owned());
                }
            }
            PING => {
                drop(state);
                let text = match &self.role {
                    Role::Agent(works_on) => works_on(),
                    Role::Operator => String::new(),
                };
                // Only the operator pings, so only the agent's pump ever writes: two pumps cannot wait for each other.
                return self.write_frame(PONG, 0, &text.as_bytes()[..text.len().min(MAX_TEXT)]);
            }
            PONG => state.peer_works_on = String::from_utf8_lossy(payload).into_owned(),
            _ => return Err(invalid("a frame has an unknown kind")),
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write_frame(&self, kind: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let mut frame = Vec::with_capacity(9 + payload.len());
        frame.push(kind);
        frame.extend(stream.to_be_bytes());
        frame.extend((payload.len() as u32).to_be_bytes());
        frame.extend(payload);
        let mut writer = self.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        writer.write_all(&frame)?;
        writer.flush()
    }

    /// Opens a stream with a header.
    pub fn open(self: &Arc<Self>, header: &[u8]) -> io::Result<Stream> {
        let id = {
            let mut state = self.lock();
            if let Some(reason) = &state.closed {
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, reason.clone()));
            }
            state.next_id += 1;
            let id = state.next_id;
            state.streams.insert(id, Half::new());
            id
        };
        let stream = Stream {
            mux: Arc::clone(self),
            id,
            finished: false,
            limit: Limit::Never,
        };
        self.write_frame(OPEN, id, header)?;
        Ok(stream)
    }

    /// Waits for the peer to open a stream; `None` when the channel has ended.
    pub fn accept(self: &Arc<Self>) -> Option<(Vec<u8>, Stream)> {
        let mut state = self.lock();
        loop {
            if let Some((id, header)) = state.opened.pop_front() {
                return Some((
                    header,
                    Stream {
                        mux: Arc::clone(self),
                        id,
                        finished: false,
                        limit: Limit::Never,
                    },
                ));
            }
            if state.closed.is_some() {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// Asks the peer for a sign of life; the answer shows in [`Mux::frames_received`].
    pub fn ping(&self) -> io::Result<()> {
        self.write_frame(PING, 0, &[])
    }

    /// Counts frames received so far; a watchdog that sees no growth after a ping knows the peer is gone.
    pub fn frames_received(&self) -> u64 {
        self.lock().frames_received
    }

    /// Returns what the agent worked on when it last gave a sign of life, a line each; empty when it worked on nothing.
    pub fn peer_works_on(&self) -> String {
        self.lock().peer_works_on.clone()
    }

    /// Returns why the channel ended, if it has.
    pub fn closed(&self) -> Option<String> {
        self.lock().closed.clone()
    }
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// When reads and writes of a stream stop waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Never.
    Never,
    /// At this time.
    At(Instant),
    /// When the peer has neither sent nor taken anything on this stream for so long.
    Silence(Duration),
}

impl Limit {
    fn end(self, half: Option<&Half>) -> Option<Instant> {
        match self {
            Self::Never => None,
            Self::At(end) => Some(end),
            Self::Silence(longest) => half.map(|half| half.moved + longest),
        }
    }
}

/// Waits for a change until the stream's limit. The error of one that is over has the kind `TimedOut`.
fn wait<'a>(mux: &'a Mux, state: MutexGuard<'a, State>, id: u32, limit: Limit) -> io::Result<MutexGuard<'a, State>> {
    let Some(end) = limit.end(state.streams.get(&id)) else {
        return Ok(mux
            .changed
            .wait(state)
            .unwrap_or_else(std::sync::PoisonError::into_inner));
    };
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let waited = mux.changed.wait_timeout(state, left);
    Ok(waited.unwrap_or_else(std::sync::PoisonError::into_inner).0)
}

/// One two-way stream. Dropping it before [`Stream::finish`] tells the peer that this side no longer reads or writes.
pub struct Stream {
    mux: Arc<Mux>,
    id: u32,
    finished: bool,
    limit: Limit,
}

impl Stream {
    /// Sets when reads and writes of this stream stop waiting; readers made later take it over. Their error then has the kind `TimedOut`.
    pub fn set_limit(&mut self, limit: Limit) {
        self.limit = limit;
    }

    /// Says that no more bytes will be written; reading goes on.
    pub fn finish(&mut self) -> io::Result<()> {
        if self.finished {
            return Ok(());
        }
        self.finished = true;
        self.mux.write_frame(FIN, self.id, &[])
    }

    /// Returns a second handle that only reads; the stream's own handle should then only write, and must outlive it.
    pub fn reader(&self) -> StreamReader {
        StreamReader {
            mux: Arc::clone(&self.mux),
            id: self.id,
            limit: self.limit,
        }
    }
}

/// The reading half of a [`Stream`].
pub struct StreamReader {
    mux: Arc<Mux>,
    id: u32,
    limit: Limit,
}

impl StreamReader {
    /// Sets when reads stop waiting; see [`Stream::set_limit`].
    pub fn set_limit(&mut self, limit: Limit) {
        self.limit = limit;
    }
}

fn read_from(mux: &Mux, id: u32, limit: Limit, buffer: &mut [u8]) -> io::Result<usize> {
    let mut state = mux.lock();
    loop {
        let closed = state.closed.clone();
        let half = state
            .streams
            .get_mut(&id)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        if !half.inbox.is_empty() || buffer.is_empty() {
            let taken = half.inbox.read(buffer)?;
            half.unreturned += taken;
            // Credit goes back in large pieces: a frame for every small read would double the traffic.
            let credit = if half.unreturned >= WINDOW / 4 {
                std::mem::take(&mut half.unreturned)
            } else {
                0
            };
            drop(state);
            if credit > 0 {
                mux.write_frame(CREDIT, id, &(credit as u32).to_be_bytes())?;
            }
            return Ok(taken);
        }
        if let Some(reason) = &half.reset {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, reason.clone()));
        }
        if half.peer_finished {
            return Ok(0);
        }
        if let Some(reason) = closed {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, reason));
        }
        state = wait(mux, state, id, limit)?;
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_from(&self.mux, self.id, self.limit, buffer)
    }
}

impl Read for StreamReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_from(&self.mux, self.id, self.limit, buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let allowed = {
            let mut state = self.mux.lock();
            loop {
                let closed = state.closed.clone();
                let half = state
                    .streams
                    .get_mut(&self.id)
                    .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
                if let Some(reason) = &half.reset {
                    return Err(io::Error::new(io::ErrorKind::ConnectionReset, reason.clone()));
                }
                if let Some(reason) = closed {
                    return Err(io::Error::new(io::ErrorKind::BrokenPipe, reason));
                }
                if half.send_credit > 0 {
                    let allowed = bytes.len().min(half.send_credit).min(MAX_PAYLOAD);
                    half.send_credit -= allowed;
                    half.moved = Instant::now();
                    break allowed;
                }
                state = wait(&self.mux, state, self.id, self.limit)?;
            }
        };
        self.mux.write_frame(DATA, self.id, &bytes[..allowed])?;
        Ok(allowed)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let half = self.mux.lock().streams.remove(&self.id);
        let open = half.is_some_and(|h| !h.peer_finished || !h.inbox.is_empty());
        // No RESET is needed when both sides have finished; otherwise it keeps the peer from waiting for us. An error means
        // that the channel is gone, and then nobody waits.
        let _ = match (self.finished, open) {
            (true, false) => Ok(()),
            _ => self
                .mux
                .write_frame(RESET, self.id, b"the other side dropped the stream"),
        };
    }
}

/// Writes one value as a JSON line.
pub fn write_json_line(writer: &mut impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    writer.write_all(&line)
}

/// Reads one JSON line of at most [`MAX_LINE`] bytes; `None` at the end of the stream.
pub fn read_json_line<T: serde::de::DeserializeOwned>(reader: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    if reader.take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.len() > MAX_LINE {
        return Err(invalid("a line of the answer is longer than allowed"));
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
