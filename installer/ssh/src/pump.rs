//! One thread per connection moves bytes between the session's channels and ordinary sockets.
//!
//! INVARIANT: no other thread uses the session and its channels (libssh2 frees channels without the session's lock).
//! Callers hold the other ends of Unix socket pairs, whose buffers give back-pressure in both directions.

use crate::refusal;
use crate::start::{Shell, Terminal};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::transport::{RemoteChild, RemoteExit};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ssh2::{BlockDirections, Channel, ErrorCode, Session};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Size of a buffer in bytes; libssh2 itself splits writes into packets of 32 KiB.
const BUFFER_BYTES: usize = 256 * 1024;
/// Interval of keepalives, which request an answer.
pub const KEEPALIVE: Duration = Duration::from_secs(KEEPALIVE_S as u64);
const KEEPALIVE_S: u32 = 5;
/// A server that sends nothing for so long, not even answers to keepalives, counts as dead. Behind a jump host TCP cannot detect that.
pub const DEAD_AFTER: Duration = Duration::from_secs(30);
/// Longest sleep without an event; a keepalive is late by this at most.
const TICK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// What a session with a terminal says that it is: no program writes sequences for it.
const TERMINAL_TYPE: &str = "dumb";
/// libssh2's code for "would block".
const EAGAIN: ErrorCode = ErrorCode::Session(-37);

/// A handle to the thread. Dropping it ends the connection.
pub struct Pump {
    requests: Sender<Request>,
    wake: UnixStream,
}

enum Request {
    /// Run a command line.
    Exec(String, Terminal, Sender<Result<RemoteChild, Diagnosis>>),
    /// Open a TCP connection from the server to a host and port.
    Forward(String, u16, Sender<Result<UnixStream, Diagnosis>>),
}

struct Exit(Receiver<Option<i32>>);

impl RemoteExit for Exit {
    fn wait(&mut self) -> Option<i32> {
        self.0.recv().ok().flatten()
    }
}

impl Pump {
    /// Starts the thread with a logged-in session.
    ///
    /// `socket` is the session's own socket; the thread shuts it down when it ends.
    pub fn start(session: Session, socket: OwnedFd) -> io::Result<Self> {
        let (wake, woken) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        let (requests, inbox) = channel();
        thread::Builder::new().name("ssh".to_owned()).spawn(move || {
            session.set_blocking(false);
            session.set_keepalive(true, KEEPALIVE_S);
            let mut thread = Thread {
                session,
                socket,
                woken,
                inbox,
                children: Vec::new(),
                last_keepalive: Instant::now(),
                last_heard: Instant::now(),
            };
            // The children are dropped with the thread, so their readers see end of file and their waiters get no status.
            let _ = thread.run();
            let _ = rustix::net::shutdown(&thread.socket, rustix::net::Shutdown::Both);
        })?;
        Ok(Self { requests, wake })
    }

    /// Opens a connection from the server to `host`. Blocks until it is open.
    pub fn forward(&mut self, host: &str, port: u16) -> Result<UnixStream, Diagnosis> {
        self.request(|answer| Request::Forward(host.to_owned(), port, answer))
    }

    fn request<T>(&mut self, request: impl FnOnce(Sender<Result<T, Diagnosis>>) -> Request) -> Result<T, Diagnosis> {
        let lost = || Diagnosis::new(Code::ConnectionLost, "the SSH connection is lost");
        let (answer, answered) = channel();
        self.requests.send(request(answer)).map_err(|_| lost())?;
        self.wake.write_all(&[1]).map_err(|e| lost().because(&e))?;
        answered.recv().map_err(|_| lost())?
    }
}

impl Shell for Pump {
    fn spawn(&mut self, line: &str, terminal: Terminal) -> Result<RemoteChild, Diagnosis> {
        self.request(|answer| Request::Exec(line.to_owned(), terminal, answer))
    }
}

struct Thread {
    session: Session,
    socket: OwnedFd,
    woken: UnixStream,
    inbox: Receiver<Request>,
    children: Vec<Child>,
    last_keepalive: Instant,
    last_heard: Instant,
}

impl Thread {
    fn run(&mut self) -> Result<(), io::Error> {
        loop {
            // A server gives the number of a channel that it has closed to the next one. So none is opened before the close of every other has arrived:
            // libssh2 would send what is left of the old one, such as its end of input, to the new one.
            if self.children.iter().all(|child| !child.closing) {
                match self.inbox.try_recv() {
                    Ok(Request::Exec(command, terminal, answer)) => {
                        let _ = answer.send(self.start(&command, terminal));
                        continue;
                    }
                    Ok(Request::Forward(host, port, answer)) => {
                        let _ = answer.send(self.start_forward(&host, port));
                        continue;
                    }
                    Err(TryRecvError::Disconnected) if self.children.is_empty() => return Ok(()),
                    Err(_) => {}
                }
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
                moved |= child.step()? || child.finished;
            }
            self.children.retain(|child| !child.finished);
            if moved {
                self.last_heard = Instant::now();
            } else {
                self.sleep()?;
            }
        }
    }

    /// Opens a channel and starts the command.
    fn start(&mut self, command: &str, terminal: Terminal) -> Result<RemoteChild, Diagnosis> {
        let mut has_terminal = Ok(());
        let opened = self.blocking(|session| {
            let mut channel = session.channel_session()?;
            if terminal == Terminal::With {
                has_terminal = channel.request_pty(TERMINAL_TYPE, None, None);
            }
            if has_terminal.is_ok() {
                channel.exec(command)?;
            }
            Ok(channel)
        });
        let refused = |error: &dyn std::error::Error| {
            Diagnosis::new(Code::ConnectionLost, "the server did not start a command").saw(error.to_string())
        };
        let channel = opened.map_err(|error| {
            refused(&error)
                .next("look into the server's own log; sshd counts sessions (MaxSessions) and may force a command")
        })?;
        has_terminal.map_err(|error| refusal::no_terminal(&format!("the server refused it: {error}")))?;
        let (child, remote) = Child::new(channel, terminal).map_err(|error| refused(&error))?;
        self.children.push(child);
        Ok(remote)
    }

    /// Opens a channel that leads to another machine.
    fn start_forward(&mut self, host: &str, port: u16) -> Result<UnixStream, Diagnosis> {
        let refused = |error: &dyn std::error::Error| {
            Diagnosis::new(Code::Unreachable, format!("the jump host opened no connection to {host} port {port}"))
                .saw(error.to_string())
                .next("look whether the jump host can reach that address, and whether its sshd forwards (AllowTcpForwarding, PermitOpen)")
        };
        let channel = self
            .blocking(|session| session.channel_direct_tcpip(host, port, None))
            .map_err(|error| refused(&error))?;
        let (child, stream) = Child::forward(channel).map_err(|error| refused(&error))?;
        self.children.push(child);
        Ok(stream)
    }

    /// Runs `work` with a blocking session. It blocks for the session's time-out at most, and all other channels wait meanwhile.
    fn blocking<T>(&mut self, work: impl FnOnce(&Session) -> Result<T, ssh2::Error>) -> Result<T, ssh2::Error> {
        self.session.set_blocking(true);
        // With keepalives a blocking wait of libssh2 ends as timed out when the next one is due (libssh2 1.11, _libssh2_wait_socket).
        self.session.set_keepalive(true, 0);
        let result = work(&self.session);
        self.session.set_keepalive(true, KEEPALIVE_S);
        self.session.set_blocking(false);
        self.last_heard = Instant::now();
        result
    }

    fn sleep(&mut self) -> io::Result<()> {
        let mut wanted = PollFlags::IN;
        if matches!(
            self.session.block_directions(),
            BlockDirections::Outbound | BlockDirections::Both
        ) {
            wanted |= PollFlags::OUT;
        }
        let mut fds = vec![
            PollFd::new(&self.socket, wanted),
            PollFd::new(&self.woken, PollFlags::IN),
        ];
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
        if fds[0].revents().contains(PollFlags::IN) {
            self.last_heard = Instant::now();
        } else if self.last_heard.elapsed() > DEAD_AFTER {
            return Err(io::Error::from(ErrorKind::TimedOut));
        }
        let mut bytes = [0u8; 64];
        // The bytes only wake this thread; their number has no meaning. End of file means that the handle was dropped.
        if matches!((&self.woken).read(&mut bytes), Ok(0)) {
            return Err(io::Error::from(ErrorKind::NotConnected));
        }
        Ok(())
    }
}

/// The command's standard input: bytes that were read from the caller and not yet sent.
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

/// An output of the command: bytes that were received and not yet given to the caller.
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

    /// Copies bytes from the channel to the caller without blocking; returns whether any were copied.
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
                // The reader has closed its end: further output is discarded, so that the command does not stall.
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

/// Returns two connected sockets: the pump's, which never blocks, and the caller's.
pub(crate) fn pair() -> io::Result<(UnixStream, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    for end in [&ours, &theirs] {
        // The kernel may give less (net.core.wmem_max), which only costs speed.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(end, BUFFER_BYTES);
    }
    Ok((ours, theirs))
}

struct Child {
    channel: Channel,
    terminal: Terminal,
    stdin: Input,
    stdout: Output,
    stderr: Output,
    exit: Sender<Option<i32>>,
    buffer: Vec<u8>,
    closing: bool,
    finished: bool,
}

impl Child {
    fn new(channel: Channel, terminal: Terminal) -> io::Result<(Self, RemoteChild)> {
        let (stdin, their_stdin) = pair()?;
        let (stdout, their_stdout) = pair()?;
        let (stderr, their_stderr) = pair()?;
        let (exit, exited) = std::sync::mpsc::channel();
        let mut child = Self::over(channel, stdin, Output::new(stdout), Output::new(stderr), exit);
        child.terminal = terminal;
        let remote = RemoteChild {
            stdin: Box::new(their_stdin),
            stdout: Box::new(their_stdout),
            stderr: Box::new(their_stderr),
            exit: Box::new(Exit(exited)),
        };
        Ok((child, remote))
    }

    /// A channel whose two directions are one socket; it has no standard error and no exit status.
    fn forward(channel: Channel) -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = pair()?;
        let mut stderr = Output::new(ours.try_clone()?);
        stderr.gone = true;
        let (exit, _nobody_waits) = std::sync::mpsc::channel();
        Ok((
            Self::over(channel, ours.try_clone()?, Output::new(ours), stderr, exit),
            theirs,
        ))
    }

    fn over(channel: Channel, stdin: UnixStream, stdout: Output, stderr: Output, exit: Sender<Option<i32>>) -> Self {
        Self {
            channel,
            terminal: Terminal::Without,
            stdin: Input {
                socket: stdin,
                pending: Vec::new(),
                sent: 0,
                ended: false,
                eof_sent: false,
            },
            stdout,
            stderr,
            exit,
            buffer: vec![0; BUFFER_BYTES],
            closing: false,
            finished: false,
        }
    }

    /// Moves what can be moved without blocking; returns whether anything was. A channel that closes is only closed.
    fn step(&mut self) -> io::Result<bool> {
        if self.closing {
            self.close()?;
            return Ok(false);
        }
        let mut moved = self.feed()?;
        moved |= self.stdout.step(&mut self.channel, &mut self.buffer)?;
        let mut errors = self.channel.stderr();
        moved |= self.stderr.step(&mut errors, &mut self.buffer)?;
        let drained = self.stdout.pending.is_empty() && self.stderr.pending.is_empty();
        // A terminal has no end of input: it hangs up.
        let hangs_up = self.terminal == Terminal::With;
        let abandoned = self.stdin.ended && (hangs_up || self.stdout.gone && self.stderr.gone);
        if (self.channel.eof() && drained) || abandoned {
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
            // The reader sees end of file at once; the exit status follows.
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
