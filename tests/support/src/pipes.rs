//! The transport to a machine that is a directory: the engine's own shell commands run for real, with the state directory under the
//! machine's root, and the agent is a process at the other end of pipes.

use landfall_core::explain::{Code, Diagnosis};
use landfall_core::layout;
use landfall_core::name::NodeName;
use landfall_core::transport::{RemoteChild, RemoteExit, Transport};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Environment variable by which a node's agent is told how long a file may get, in bytes, before the kernel kills it.
pub const FILE_LIMIT: &str = "LANDFALL_SIM_FILE_LIMIT";

/// Environment variable by which a node's agent is told that a write beyond the limit fails, as on a full disk, and does not kill it.
pub const FULL_DISK: &str = "LANDFALL_SIM_FULL_DISK";

/// Environment variable by which a node's agent is told how many seconds its clock is behind.
pub const CLOCK_BEHIND: &str = "LANDFALL_SIM_CLOCK_BEHIND_S";

/// How long a file of an agent may get.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileLimit {
    pub(crate) bytes: u64,
    pub(crate) full_disk: bool,
}

/// What was sent to the agents of a machine, and where the connection is to end.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Bytes that were sent, over all connections.
    pub(crate) sent: u64,
    /// How many had been sent at the end of each write.
    pub(crate) ends: Vec<u64>,
    /// After how many the connection ends, once for each.
    pub(crate) cuts: BTreeSet<u64>,
    /// Which bytes arrive with their lowest bit changed, once for each, counted as `sent` is.
    pub(crate) flips: BTreeSet<u64>,
    /// How often each kind of request was sent, by its name on the wire.
    pub(crate) requests: BTreeMap<String, usize>,
}

impl Traffic {
    /// Counts the request that begins with bytes that are written now: the channel writes each frame at once.
    fn count_request(&mut self, bytes: &[u8]) {
        const BEGIN: &[u8] = br#"{"request":""#;
        // Behind the frame's few bytes of its own.
        let start = &bytes[..bytes.len().min(128)];
        if let Some(at) = start.windows(BEGIN.len()).position(|window| window == BEGIN) {
            let name = start[at + BEGIN.len()..]
                .split(|b| *b == b'"')
                .next()
                .unwrap_or_default();
            *self
                .requests
                .entry(String::from_utf8_lossy(name).into_owned())
                .or_default() += 1;
        }
    }

    /// Returns what arrives of bytes that are written now.
    fn arriving<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let mut bytes = Cow::Borrowed(bytes);
        let flips: Vec<u64> = self
            .flips
            .range(self.sent..self.sent + bytes.len() as u64)
            .copied()
            .collect();
        for at in flips {
            bytes.to_mut()[(at - self.sent) as usize] ^= 1;
        }
        bytes
    }
}

/// Faults of a machine and of the connection to it.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) limit: Option<FileLimit>,
    /// How far the machine's clock is behind.
    pub(crate) clock_behind: Duration,
    /// How long each write to the machine takes.
    pub(crate) delay: Duration,
    /// What is sent to agents there.
    pub(crate) traffic: Arc<Mutex<Traffic>>,
}

/// The way to an agent's standard input; taken away when the connection ends.
type Line = Arc<Mutex<Option<ChildStdin>>>;

/// An agent that runs.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) name: NodeName,
    pub(crate) child: Child,
    pub(crate) line: Line,
}

/// All agents that were started.
pub(crate) type Agents = Arc<Mutex<Vec<Agent>>>;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection to one machine. Dropping it ends the input of all that it started.
#[derive(Debug)]
pub struct Pipes {
    name: NodeName,
    root: String,
    way: Way,
    agents: Agents,
    lines: Vec<Line>,
}

impl Pipes {
    pub(crate) fn new(name: &NodeName, root: &Path, way: Way, agents: &Agents) -> Self {
        Self {
            name: name.clone(),
            root: root.display().to_string(),
            way,
            agents: Arc::clone(agents),
            lines: Vec::new(),
        }
    }

    fn start(&mut self, command: &str) -> io::Result<RemoteChild> {
        let text = command.replace(layout::STATE_DIR, &format!("{}{}", self.root, layout::STATE_DIR));
        // The shell changes the directory itself: then the test's process, which is large, need not be copied first.
        let text = format!("cd /\n{text}");
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", &text])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(limit) = self.way.limit {
            shell.env(FILE_LIMIT, limit.bytes.to_string());
            if limit.full_disk {
                shell.env(FULL_DISK, "1");
            }
        }
        shell.env(CLOCK_BEHIND, self.way.clock_behind.as_secs().to_string());
        let mut child = shell.spawn()?;
        let missing = || io::Error::from(ErrorKind::BrokenPipe);
        let line = Arc::new(Mutex::new(Some(child.stdin.take().ok_or_else(missing)?)));
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        self.lines.push(Arc::clone(&line));
        let is_agent = text.ends_with(" agent serve");
        let exit: Box<dyn RemoteExit> = if is_agent {
            lock(&self.agents).push(Agent {
                name: self.name.clone(),
                child,
                line: Arc::clone(&line),
            });
            Box::new(Unasked)
        } else {
            Box::new(Ended(child))
        };
        Ok(RemoteChild {
            stdin: Box::new(Input {
                line,
                delay: self.way.delay,
                traffic: is_agent.then(|| Arc::clone(&self.way.traffic)),
            }),
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
            exit,
        })
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        for line in &self.lines {
            lock(line).take();
        }
    }
}

impl Transport for Pipes {
    fn spawn(&mut self, command: &str) -> Result<RemoteChild, Diagnosis> {
        self.start(command)
            .map_err(|error| Diagnosis::new(Code::Unreachable, "the machine starts no program").because(&error))
    }

    fn spawn_root(&mut self, command: &str) -> Result<RemoteChild, Diagnosis> {
        self.spawn(command)
    }
}

/// The writing end of a line; broken once the line is taken away, closed when it is dropped.
struct Input {
    line: Line,
    /// How long each write takes.
    delay: Duration,
    /// Counts what goes to an agent.
    traffic: Option<Arc<Mutex<Traffic>>>,
}

impl Write for Input {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.delay.is_zero() {
            thread::sleep(self.delay);
        }
        let mut line = lock(&self.line);
        let pipe = line.as_mut().ok_or(ErrorKind::BrokenPipe)?;
        let Some(traffic) = &self.traffic else {
            return pipe.write(bytes);
        };
        let mut traffic = lock(traffic);
        let left = traffic.cuts.first().map(|at| at.saturating_sub(traffic.sent));
        let allowed = left.map_or(bytes.len(), |left| bytes.len().min(left as usize));
        let bytes = traffic.arriving(&bytes[..allowed]);
        let sent = pipe.write(&bytes)?;
        traffic.count_request(&bytes[..sent]);
        traffic.sent += sent as u64;
        let rest = traffic.sent;
        traffic.flips.retain(|at| *at >= rest);
        let at = traffic.sent;
        traffic.ends.push(at);
        if traffic.cuts.remove(&at) {
            line.take();
        }
        Ok(sent)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        lock(&self.line).take();
    }
}

/// The end of a program that was started here.
struct Ended(Child);

impl RemoteExit for Ended {
    fn wait(&mut self) -> Option<i32> {
        self.0.wait().ok()?.code()
    }
}

/// The end of an agent, which the fleet waits for and the engine never asks about.
struct Unasked;

impl RemoteExit for Unasked {
    fn wait(&mut self) -> Option<i32> {
        None
    }
}
