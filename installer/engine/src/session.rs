//! One node: the agent put in place and started over a [`Transport`], and typed requests to it.

use landfall_core::event::EventKind;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::Node;
use landfall_core::layout;
use landfall_core::name::{Digest, NodeName};
use landfall_core::transport::{RemoteChild, Transport};
use landfall_core::wire::mux::{Mux, Stream, read_json_line};
use landfall_core::wire::{AGENT_BANNER, Reply, Request};
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How often the agent is asked for a sign of life.
const PING_EVERY: Duration = Duration::from_secs(5);
/// A peer that answered nothing for so many pings is dead: 30 s covers a node that swaps or a switch that reboots.
const PINGS_UNANSWERED: u32 = 6;

/// The program that is put on nodes.
pub struct AgentProgram {
    bytes: Vec<u8>,
    digest: Digest,
}

impl AgentProgram {
    /// Reads the program. Blocks on disk.
    pub fn read(path: &Path) -> Result<Self, Diagnosis> {
        let bytes = std::fs::read(path).map_err(|error| {
            Diagnosis::new(
                Code::FileUnreadable,
                format!("the agent program {} cannot be read", path.display()),
            )
            .because(&error)
        })?;
        let digest = Digest::of(&bytes);
        Ok(Self { bytes, digest })
    }
}

/// Where the agent runs, and what it may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentPlace {
    /// A member: as root, in the state directory, kept for the next time.
    Member,
    /// An outside machine: as the login user, in a temporary directory that goes with the session.
    Visitor,
}

/// A running agent on a node.
pub struct NodeSession {
    name: NodeName,
    mux: Arc<Mux>,
    errors: Arc<Mutex<VecDeque<String>>>,
    // Dropping the transport ends the connection, so it lives as long as the session.
    transport: Mutex<Option<Box<dyn Transport>>>,
}

impl NodeSession {
    /// Puts the agent on the node, when it is not there already, and starts it. Blocks; the agent's first line is awaited 60 s.
    pub fn start(
        node: &Node,
        mut transport: Box<dyn Transport>,
        program: &AgentProgram,
        place: AgentPlace,
    ) -> Result<Arc<Self>, Diagnosis> {
        let command = match place {
            AgentPlace::Member => {
                put_program(node, transport.as_mut(), program)?;
                format!("exec {}/bin/landfall agent serve", layout::STATE_DIR)
            }
            AgentPlace::Visitor => {
                let directory = put_visitor(node, transport.as_mut(), program)?;
                // The shell stays as parent, so that the directory goes also when the agent is killed.
                format!("trap '' HUP; {directory}/landfall agent serve; rm -rf {directory}")
            }
        };
        let child = match place {
            AgentPlace::Member => transport.spawn_root(&command),
            AgentPlace::Visitor => transport.spawn(&command),
        };
        let child = child.map_err(|d| d.on(&node.name))?;
        Self::over(node.name.clone(), child, transport)
    }

    fn over(name: NodeName, child: RemoteChild, transport: Box<dyn Transport>) -> Result<Arc<Self>, Diagnosis> {
        let RemoteChild {
            stdin,
            stdout,
            stderr,
            exit: _,
        } = child;
        let errors = Arc::new(Mutex::new(VecDeque::new()));
        keep_last_lines(stderr, Arc::clone(&errors));
        let mut stdout = BufReader::with_capacity(256 * 1024, stdout);
        if let Err(seen) = await_banner(&mut stdout) {
            let mut diagnosis = Diagnosis::new(Code::AgentStart, "the agent did not start")
                .on(&name)
                .saw(seen);
            thread::sleep(Duration::from_millis(100));
            for line in lines_of(&errors) {
                diagnosis = diagnosis.saw(line);
            }
            return Err(diagnosis.next(format!(
                "log in to the node and look whether {} may hold programs",
                layout::STATE_DIR
            )));
        }
        let mux = Mux::new(stdin);
        let pump = Arc::clone(&mux);
        thread::spawn(move || pump.pump(stdout));
        heartbeat(Arc::clone(&mux));
        Ok(Arc::new(Self {
            name,
            mux,
            errors,
            transport: Mutex::new(Some(transport)),
        }))
    }

    /// Returns the node's name.
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// Says whether the connection is gone.
    pub fn is_lost(&self) -> bool {
        self.mux.closed().is_some()
    }

    /// Returns the error that says that the connection is gone.
    pub fn connection_lost(&self) -> Diagnosis {
        self.lost(&std::io::ErrorKind::UnexpectedEof.into())
    }

    /// Ends the session: the agent sees end of file and exits.
    pub fn close(&self) {
        self.mux.close("the operator is done");
        self.transport
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
    }

    /// Asks and waits for the answer.
    pub fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Diagnosis> {
        self.ask_with(request, None, &mut |_| {})
    }

    /// Asks, sends `body` behind the request, hands events on, and waits for the answer.
    pub fn ask_with<T: DeserializeOwned>(
        &self,
        request: &Request,
        body: Option<&mut dyn Read>,
        on_event: &mut dyn FnMut(EventKind),
    ) -> Result<T, Diagnosis> {
        let mut stream = self.open(request)?;
        if let Some(body) = body {
            // When the agent stops reading early it has an answer that says why: that one is the better error.
            let _ = copy(body, &mut stream);
        }
        let _ = stream.finish();
        let mut reader = BufReader::new(stream.reader());
        let value = self.await_reply(&mut reader, on_event)?;
        self.decode(value)
    }

    /// Asks for raw bytes: the answer's value, then everything until the end of the stream.
    pub fn ask_bytes(&self, request: &Request) -> Result<Vec<u8>, Diagnosis> {
        let mut stream = self.open(request)?;
        let _ = stream.finish();
        let mut reader = BufReader::new(stream.reader());
        self.await_reply(&mut reader, &mut |_| {})?;
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(|error| self.lost(&error))?;
        Ok(bytes)
    }

    /// Opens a TCP connection from the node; returns the stream for writing and a reader.
    pub fn tunnel(&self, address: &str) -> Result<(Stream, impl Read + Send + 'static), Diagnosis> {
        let stream = self.open(&Request::Tunnel {
            address: address.to_owned(),
        })?;
        let mut reader = BufReader::new(stream.reader());
        self.await_reply(&mut reader, &mut |_| {})?;
        Ok((stream, reader))
    }

    fn open(&self, request: &Request) -> Result<Stream, Diagnosis> {
        let header = serde_json::to_vec(request).expect("requests have string keys only, so they always serialise");
        self.mux.open(&header).map_err(|error| self.lost(&error))
    }

    fn await_reply(
        &self,
        reader: &mut impl BufRead,
        on_event: &mut dyn FnMut(EventKind),
    ) -> Result<serde_json::Value, Diagnosis> {
        loop {
            match read_json_line::<Reply>(reader).map_err(|error| self.lost(&error))? {
                Some(Reply::Event { event }) => on_event(event),
                Some(Reply::Ok { value }) => return Ok(value),
                Some(Reply::Failed { diagnosis }) => return Err(diagnosis.on(&self.name)),
                None => {
                    let end = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                    return Err(self.lost(&end));
                }
            }
        }
    }

    fn decode<T: DeserializeOwned>(&self, value: serde_json::Value) -> Result<T, Diagnosis> {
        serde_json::from_value(value).map_err(|error| {
            Diagnosis::new(Code::Protocol, "the agent's answer is not understood")
                .on(&self.name)
                .because(&error)
        })
    }

    fn lost(&self, error: &std::io::Error) -> Diagnosis {
        let mut diagnosis = Diagnosis::new(Code::ConnectionLost, "the connection to the agent is lost")
            .on(&self.name)
            .because(error);
        for line in lines_of(&self.errors) {
            diagnosis = diagnosis.saw(line);
        }
        diagnosis.next("look whether the node is up, then run the same command again: it continues where it stopped")
    }
}

fn copy(from: &mut dyn Read, to: &mut Stream) -> std::io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..read])?;
    }
}

fn heartbeat(mux: Arc<Mux>) {
    thread::spawn(move || {
        let (mut seen, mut unanswered) = (mux.frames_received(), 0);
        while mux.closed().is_none() {
            if mux.ping().is_err() {
                return;
            }
            thread::sleep(PING_EVERY);
            let now = mux.frames_received();
            unanswered = if now == seen { unanswered + 1 } else { 0 };
            seen = now;
            if unanswered >= PINGS_UNANSWERED {
                mux.close("the node has not answered for 30 s");
            }
        }
    });
}

fn keep_last_lines(stderr: Box<dyn Read + Send>, lines: Arc<Mutex<VecDeque<String>>>) {
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut lines = lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if lines.len() == 20 {
                lines.pop_front();
            }
            lines.push_back(line);
        }
    });
}

fn lines_of(lines: &Mutex<VecDeque<String>>) -> Vec<String> {
    lines
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .iter()
        .cloned()
        .collect()
}

/// Skips what the login shell says until the agent's own first line. A shell that says more than 64 KiB first is not normal.
fn await_banner(stdout: &mut impl BufRead) -> Result<(), String> {
    let mut seen = String::new();
    while seen.len() < 64 * 1024 {
        let mut line = Vec::new();
        match stdout.read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.starts_with(AGENT_BANNER) {
            return Ok(());
        }
        seen.push_str(&line);
    }
    Err(if seen.is_empty() {
        "no output".to_owned()
    } else {
        seen.trim_end().to_owned()
    })
}

/// Runs a shell line, feeds it `input`, and returns its standard output when it ends with status 0.
fn shell(node: &Node, what: &str, child: Result<RemoteChild, Diagnosis>, input: &[u8]) -> Result<String, Diagnosis> {
    let RemoteChild {
        mut stdin,
        mut stdout,
        mut stderr,
        mut exit,
    } = child.map_err(|d| d.on(&node.name))?;
    let errors = thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    });
    // A command that ends early closes its input: its exit status and words say more than the broken pipe.
    let _ = stdin.write_all(input).and_then(|()| stdin.flush());
    drop(stdin);
    let mut text = String::new();
    let _ = stdout.read_to_string(&mut text);
    let status = exit.wait();
    let errors = errors.join().unwrap_or_default();
    if status == Some(0) {
        return Ok(text);
    }
    Err(Diagnosis::new(Code::AgentStart, what)
        .on(&node.name)
        .saw(format!("exit status {status:?}"))
        .saw(errors.trim().to_owned()))
}

fn put_program(node: &Node, transport: &mut dyn Transport, program: &AgentProgram) -> Result<(), Diagnosis> {
    let path = format!("{}/bin/landfall", layout::STATE_DIR);
    let sum = program.digest.hex();
    let ask = format!("sha256sum {path} 2>/dev/null || echo absent");
    let found = shell(
        node,
        "the node cannot be asked for the agent",
        transport.spawn_root(&ask),
        &[],
    )?;
    if found.contains(&sum) {
        return Ok(());
    }
    // First contact: the only place where shell text touches a node. The program is renamed into place only when its hash is right.
    let put = format!(
        "umask 077 && mkdir -p {state}/bin && cat > {path}.part && \
         printf '%s  %s\\n' {sum} {path}.part | sha256sum -c - >/dev/null && chmod 700 {path}.part && mv -f {path}.part {path}",
        state = layout::STATE_DIR
    );
    shell(
        node,
        "the agent could not be put on the node",
        transport.spawn_root(&put),
        &program.bytes,
    )?;
    Ok(())
}

fn put_visitor(node: &Node, transport: &mut dyn Transport, program: &AgentProgram) -> Result<String, Diagnosis> {
    let sum = program.digest.hex();
    let put = format!(
        "umask 077 && d=$(mktemp -d \"${{TMPDIR:-/tmp}}/landfall.XXXXXX\") && cat > \"$d/landfall\" && \
         printf '%s  %s\\n' {sum} \"$d/landfall\" | sha256sum -c - >/dev/null && chmod 700 \"$d/landfall\" && echo \"$d\""
    );
    let directory = shell(
        node,
        "the temporary agent could not be put on the machine",
        transport.spawn(&put),
        &program.bytes,
    )?;
    let directory = directory.lines().last().unwrap_or_default().trim().to_owned();
    let plain = directory.starts_with('/')
        && directory
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
    if plain {
        return Ok(directory);
    }
    Err(
        Diagnosis::new(Code::AgentStart, "the machine made no usable temporary directory")
            .on(&node.name)
            .saw(directory),
    )
}
