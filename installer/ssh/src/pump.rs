//! One thread per connection moves bytes between the session's channels and ordinary sockets.
//!
//! INVARIANT: the session and its channels are touched by this thread alone (libssh2 frees channels without the session's lock).
//! The outside holds the other ends of Unix socket pairs, whose buffers give back-pressure both ways.

use landfall_core::explain::{Code, Diagnosis};
use landfall_core::transport::{RemoteChild, RemoteExit};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ssh2::{BlockDirections, Channel, ErrorCode, Session};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes moved at once: libssh2 cuts writes into packets of 32 KiB itself.
const PIECE: usize = 256 * 1024;
/// Pause between keepalives; the socket's user time-out turns unanswered ones into a dead connection.
const KEEPALIVE: Duration = Duration::from_secs(KEEPALIVE_S as u64);
const KEEPALIVE_S: u32 = 5;
/// Longest sleep without an event; bounds how late a keepalive is.
const TICK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// libssh2's code for "would block".
const EAGAIN: ErrorCode = ErrorCode::Session(-37);

/// A handle on the thread. Dropping it ends the connection.
pub struct Pump {
    orders: Sender<Order>,
    wake: UnixStream,
}

struct Order {
    command: String,
    answer: Sender<Result<RemoteChild, Diagnosis>>,
}

struct Exit(Receiver<Option<i32>>);

impl RemoteExit for Exit {
    fn wait(&mut self) -> Option<i32> {
        self.0.recv().ok().flatten()
    }
}

impl Pump {
    /// Takes a logged-in session over.
    pub fn start(session: Session, tcp: TcpStream) -> io::Result<Self> {
        let (wake, woken) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        let (orders, inbox) = channel();
        thread::Builder::new().name("ssh".to_owned()).spawn(move || {
            session.set_blocking(false);
            session.set_keepalive(true, KEEPALIVE_S);
            let mut thread = Thread {
                session,
                tcp,
                woken,
                inbox,
                children: Vec::new(),
                last_keepalive: Instant::now(),
            };
            // However it ends, the children are dropped with it: their readers see the end, their waiters no status.
            let _ = thread.run();
            let _ = thread.tcp.shutdown(Shutdown::Both);
        })?;
        Ok(Self { orders, wake })
    }

    /// Starts a command line. Blocks until the server accepted it.
    pub fn spawn(&mut self, command: &str) -> Result<RemoteChild, Diagnosis> {
        let lost = || Diagnosis::new(Code::ConnectionLost, "the SSH connection is lost");
        let (answer, answered) = channel();
        self.orders
            .send(Order {
                command: command.to_owned(),
                answer,
            })
            .map_err(|_| lost())?;
        self.wake.write_all(&[1]).map_err(|e| lost().because(&e))?;
        answered.recv().map_err(|_| lost())?
    }
}

struct Thread {
    session: Session,
    tcp: TcpStream,
    woken: UnixStream,
    inbox: Receiver<Order>,
    children: Vec<Child>,
    last_keepalive: Instant,
}

impl Thread {
    fn run(&mut self) -> Result<(), io::Error> {
        loop {
            match self.inbox.try_recv() {
                Ok(order) => {
                    let result = self.start(&order.command);
                    let _ = order.answer.send(result);
                    continue;
                }
                Err(TryRecvError::Disconnected) if self.children.is_empty() => return Ok(()),
                Err(_) => {}
            }
            if self.last_keepalive.elapsed() >= KEEPALIVE {
                match self.session.keepalive_send() {
                    Ok(_) => self.last_keepalive = Instant::now(),
                    Err(error) if error.code() == EAGAIN => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let mut moved = false;
            for child in &mut self.children {
                moved |= child.step()?;
            }
            self.children.retain(|child| !child.finished);
            if !moved {
                self.sleep()?;
            }
        }
    }

    /// Opens a channel and starts the command. The session blocks meanwhile, up to its own time-out; other children wait for that one
    /// round trip.
    fn start(&mut self, command: &str) -> Result<RemoteChild, Diagnosis> {
        self.session.set_blocking(true);
        // With keepalives a blocking wait of libssh2 ends as timed out when the next one is due (libssh2 1.11, _libssh2_wait_socket).
        self.session.set_keepalive(true, 0);
        let opened = self.session.channel_session().and_then(|mut channel| {
            channel.exec(command)?;
            Ok(channel)
        });
        self.session.set_keepalive(true, KEEPALIVE_S);
        self.session.set_blocking(false);
        let refused = |error: &dyn std::error::Error| {
            Diagnosis::new(Code::ConnectionLost, "the server did not start a command").saw(error.to_string())
        };
        let channel = opened.map_err(|error| refused(&error))?;
        let (child, remote) = Child::new(channel).map_err(|error| refused(&error))?;
        self.children.push(child);
        Ok(remote)
    }

    fn sleep(&mut self) -> io::Result<()> {
        let mut wanted = PollFlags::IN;
        if matches!(
            self.session.block_directions(),
            BlockDirections::Outbound | BlockDirections::Both
        ) {
            wanted |= PollFlags::OUT;
        }
        let mut fds = vec![PollFd::new(&self.tcp, wanted), PollFd::new(&self.woken, PollFlags::IN)];
        for child in &self.children {
            if child.stdin.wants_more() {
                fds.push(PollFd::new(&child.stdin.socket, PollFlags::IN));
            }
            for output in [&child.stdout, &child.stderr] {
                if !output.pending.is_empty() && !output.gone {
                    fds.push(PollFd::new(&output.socket, PollFlags::OUT));
                }
            }
        }
        poll(&mut fds, Some(&TICK))?;
        let mut bytes = [0u8; 64];
        // The bytes only wake this thread; their number has no meaning. End of file: the handle was dropped.
        if matches!((&self.woken).read(&mut bytes), Ok(0)) {
            return Err(io::Error::from(ErrorKind::NotConnected));
        }
        Ok(())
    }
}

/// Bytes on their way into the command.
struct Input {
    socket: UnixStream,
    pending: Vec<u8>,
    sent: usize,
    ended: bool,
    eof_sent: bool,
}

impl Input {
    fn wants_more(&self) -> bool {
        !self.ended && self.sent == self.pending.len()
    }
}

/// Bytes on their way out of the command.
struct Output {
    socket: UnixStream,
    pending: Vec<u8>,
    sent: usize,
    gone: bool,
}

impl Output {
    fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            pending: Vec::new(),
            sent: 0,
            gone: false,
        }
    }

    /// Moves bytes from the channel towards the reader; says whether any moved.
    fn step(&mut self, from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
        let mut moved = false;
        if self.pending.is_empty() {
            match from.read(buffer) {
                Ok(0) => {}
                Ok(read) => {
                    moved = true;
                    self.pending.extend_from_slice(&buffer[..read]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if self.gone {
            self.pending.clear();
            self.sent = 0;
            return Ok(moved);
        }
        if !self.pending.is_empty() {
            match self.socket.write(&self.pending[self.sent..]) {
                Ok(written) => {
                    moved = true;
                    self.sent += written;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The reader is gone: the output is dropped, so that the command does not stall.
                Err(_) => self.gone = true,
            }
            if self.sent == self.pending.len() {
                self.pending.clear();
                self.sent = 0;
            }
        }
        Ok(moved)
    }
}

struct Child {
    channel: Channel,
    stdin: Input,
    stdout: Output,
    stderr: Output,
    exit: Sender<Option<i32>>,
    buffer: Vec<u8>,
    closing: bool,
    finished: bool,
}

impl Child {
    fn new(channel: Channel) -> io::Result<(Self, RemoteChild)> {
        let pair = || -> io::Result<(UnixStream, UnixStream)> {
            let (ours, theirs) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            for end in [&ours, &theirs] {
                // The kernel may give less (net.core.wmem_max); what counts is that one piece does not take many turns.
                let _ = rustix::net::sockopt::set_socket_send_buffer_size(end, PIECE);
            }
            Ok((ours, theirs))
        };
        let (stdin, their_stdin) = pair()?;
        let (stdout, their_stdout) = pair()?;
        let (stderr, their_stderr) = pair()?;
        let (exit, exited) = std::sync::mpsc::channel();
        let child = Self {
            channel,
            stdin: Input {
                socket: stdin,
                pending: Vec::new(),
                sent: 0,
                ended: false,
                eof_sent: false,
            },
            stdout: Output::new(stdout),
            stderr: Output::new(stderr),
            exit,
            buffer: vec![0; PIECE],
            closing: false,
            finished: false,
        };
        let remote = RemoteChild {
            stdin: Box::new(their_stdin),
            stdout: Box::new(their_stdout),
            stderr: Box::new(their_stderr),
            exit: Box::new(Exit(exited)),
        };
        Ok((child, remote))
    }

    fn step(&mut self) -> io::Result<bool> {
        let mut moved = self.feed()?;
        moved |= self.stdout.step(&mut self.channel, &mut self.buffer)?;
        let mut errors = self.channel.stderr();
        moved |= self.stderr.step(&mut errors, &mut self.buffer)?;
        let drained = self.stdout.pending.is_empty() && self.stderr.pending.is_empty();
        let abandoned = self.stdout.gone && self.stderr.gone && self.stdin.ended;
        if (self.channel.eof() && drained) || abandoned || self.closing {
            self.close()?;
        }
        Ok(moved)
    }

    fn feed(&mut self) -> io::Result<bool> {
        let mut moved = false;
        if self.stdin.wants_more() {
            match self.stdin.socket.read(&mut self.buffer) {
                Ok(0) => self.stdin.ended = true,
                Ok(read) => {
                    moved = true;
                    self.stdin.pending.clear();
                    self.stdin.pending.extend_from_slice(&self.buffer[..read]);
                    self.stdin.sent = 0;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => self.stdin.ended = true,
            }
        }
        if self.stdin.sent < self.stdin.pending.len() {
            match self.channel.write(&self.stdin.pending[self.stdin.sent..]) {
                Ok(written) => {
                    moved = true;
                    self.stdin.sent += written;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The command closed its input. Its output and exit status are still read.
                Err(_) if self.channel.eof() => self.stdin.sent = self.stdin.pending.len(),
                Err(error) => return Err(error),
            }
        } else if self.stdin.ended && !self.stdin.eof_sent {
            match self.channel.send_eof() {
                Ok(()) => {
                    moved = true;
                    self.stdin.eof_sent = true;
                }
                Err(error) if error.code() == EAGAIN => {}
                Err(_) if self.channel.eof() => self.stdin.eof_sent = true,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(moved)
    }

    /// Exit status comes only after both sides closed (`close`, then `wait_close`).
    fn close(&mut self) -> io::Result<()> {
        if !self.closing {
            self.closing = true;
            // The reader sees the end at once; the status follows.
            let _ = self.stdout.socket.shutdown(Shutdown::Both);
            let _ = self.stderr.socket.shutdown(Shutdown::Both);
        }
        for result in [self.channel.close(), self.channel.wait_close()] {
            match result {
                Ok(()) => {}
                Err(error) if error.code() == EAGAIN => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        let signalled = self.channel.exit_signal().is_ok_and(|s| s.exit_signal.is_some());
        let status = if signalled {
            None
        } else {
            self.channel.exit_status().ok()
        };
        let _ = self.exit.send(status);
        self.finished = true;
        Ok(())
    }
}
