//! The session with one node: uploads and starts the agent over a [`Transport`], and sends it typed requests.

mod first_contact;
mod last_lines;

pub use first_contact::ContactClock;
use first_contact::{RunningAgent, start_agent, start_temporary_agent};
use landfall_bundle::own_parts::AgentProgram;
use landfall_core::event::EventKind;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::Node;
use landfall_core::name::NodeName;
use landfall_core::transport::Transport;
use landfall_core::wire::mux::{Limit, MAX_LINE, Mux, Role, Stream, read_json_line};
use landfall_core::wire::{FileSize, Patience, Reply, Request};
use last_lines::LastLines;
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Interval of the heartbeat.
const PING_EVERY: Duration = Duration::from_secs(5);
/// An agent that leaves so many pings unanswered counts as dead: 30 s cover a node that swaps or a switch that reboots.
const PINGS_UNANSWERED: u32 = 6;

/// Where the agent runs, and what it may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentPlace {
    /// A member: as root, in the state directory, kept for the next time.
    Member,
    /// An outside machine: as the login user, in a temporary directory that is removed at the end of the session.
    External,
}

/// A running agent on a node.
pub struct NodeSession {
    name: NodeName,
    mux: Arc<Mux>,
    errors: LastLines,
    // Dropping the transport ends the connection, so it lives as long as the session.
    transport: Mutex<Option<Box<dyn Transport>>>,
}

impl NodeSession {
    /// Puts the agent on the node, when it is not there already, and starts it. Blocks for the upload, and for the login shell and sudo.
    pub fn start(
        node: &Node,
        mut transport: Box<dyn Transport>,
        program: &AgentProgram,
        place: AgentPlace,
        clock: &ContactClock,
    ) -> Result<Arc<Self>, Diagnosis> {
        let agent = match place {
            AgentPlace::Member => start_agent(node, transport.as_mut(), program, clock),
            AgentPlace::External => start_temporary_agent(node, transport.as_mut(), program, clock),
        };
        let RunningAgent { stdin, stdout, errors } = agent?;
        let mux = Mux::new(Role::Operator, stdin);
        let pump = Arc::clone(&mux);
        thread::spawn(move || pump.pump(stdout));
        heartbeat(Arc::clone(&mux));
        Ok(Arc::new(Self {
            name: node.name.clone(),
            mux,
            errors,
            transport: Mutex::new(Some(transport)),
        }))
    }

    /// Returns the node's name.
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// Says whether the connection is lost.
    pub fn is_lost(&self) -> bool {
        self.mux.closed().is_some()
    }

    /// Returns the error of a lost connection.
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

    /// Sends a request and returns the answer. Blocks as long as the request allows ([`Request::patience`]) at most.
    pub fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Diagnosis> {
        self.ask_with(request, None, &mut |_| {})
    }

    /// Sends a request and then `body`, passes the agent's events to `on_event`, and returns the answer. Blocks like [`Self::ask`].
    pub fn ask_with<T: DeserializeOwned>(
        &self,
        request: &Request,
        body: Option<&mut dyn Read>,
        on_event: &mut dyn FnMut(EventKind),
    ) -> Result<T, Diagnosis> {
        let mut stream = self.open(request)?;
        if let Some(body) = body {
            // An agent that stops reading early answers with the reason, which is the error to report.
            let _ = copy(body, &mut stream);
        }
        let _ = stream.finish();
        let mut reader = BufReader::new(stream.reader());
        let value = self.await_reply(request, &mut reader, on_event)?;
        self.decode(value)
    }

    /// Requests a file: the agent sends its size and then as many raw bytes. Blocks like [`Self::ask`].
    pub fn ask_bytes(&self, request: &Request) -> Result<Vec<u8>, Diagnosis> {
        let mut stream = self.open(request)?;
        let _ = stream.finish();
        let mut reader = BufReader::new(stream.reader());
        let value = self.await_reply(request, &mut reader, &mut |_| {})?;
        let FileSize { size_bytes } = self.decode(value)?;
        let limit = MAX_LINE as u64;
        let mut bytes = Vec::with_capacity(usize::try_from(size_bytes.min(limit)).unwrap_or(MAX_LINE));
        let read = reader.take(size_bytes.min(limit)).read_to_end(&mut bytes);
        match read {
            Ok(read) if read as u64 == size_bytes => Ok(bytes),
            Ok(_) => Err(Diagnosis::new(Code::Protocol, "the agent's answer is not as long as it says").on(&self.name)),
            Err(error) => Err(self.unanswered(request, &error)),
        }
    }

    /// Opens a TCP connection from the node; returns the stream for writing and a reader. The connection has no deadline.
    pub fn tunnel(&self, address: &str) -> Result<(Stream, impl Read + Send + 'static), Diagnosis> {
        let request = Request::Tunnel {
            address: address.to_owned(),
        };
        let mut stream = self.open(&request)?;
        let mut reader = BufReader::new(stream.reader());
        self.await_reply(&request, &mut reader, &mut |_| {})?;
        // The two ends of the connection decide how long it lasts.
        stream.set_limit(Limit::Never);
        reader.get_mut().set_limit(Limit::Never);
        Ok((stream, reader))
    }

    /// Asks for something that lasts as long as the stream that is returned with the answer.
    pub fn hold<T: DeserializeOwned>(&self, request: &Request) -> Result<(T, Stream), Diagnosis> {
        let stream = self.open(request)?;
        let mut reader = BufReader::new(stream.reader());
        let value = self.await_reply(request, &mut reader, &mut |_| {})?;
        Ok((self.decode(value)?, stream))
    }

    fn open(&self, request: &Request) -> Result<Stream, Diagnosis> {
        let header = serde_json::to_vec(request).expect("requests have string keys only, so they always serialise");
        let mut stream = self.mux.open(&header).map_err(|error| self.lost(&error))?;
        stream.set_limit(match request.patience() {
            Patience::Total(total) => Limit::At(Instant::now() + total),
            Patience::Silence(longest) => Limit::Silence(longest),
        });
        Ok(stream)
    }

    fn await_reply(
        &self,
        request: &Request,
        reader: &mut impl BufRead,
        on_event: &mut dyn FnMut(EventKind),
    ) -> Result<serde_json::Value, Diagnosis> {
        loop {
            match read_json_line::<Reply>(reader).map_err(|error| self.unanswered(request, &error))? {
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

    /// Returns the error of a missing answer: the deadline has passed, or the connection is lost.
    fn unanswered(&self, request: &Request, error: &std::io::Error) -> Diagnosis {
        if error.kind() != std::io::ErrorKind::TimedOut {
            return self.lost(error);
        }
        let waited = match request.patience() {
            Patience::Total(total) => format!("the node did not answer within {} s", total.as_secs()),
            Patience::Silence(longest) => format!("nothing has moved for {} s", longest.as_secs()),
        };
        let what = format!("{waited}: {}", request.name());
        let diagnosis = Diagnosis::new(Code::RequestDeadline, what).on(&self.name);
        let seen = self.mux.peer_works_on();
        let lines = seen.lines().map(|line| format!("its agent works on: {line}"));
        lines.fold(diagnosis, Diagnosis::saw)
    }

    fn lost(&self, error: &std::io::Error) -> Diagnosis {
        let mut diagnosis = Diagnosis::new(Code::ConnectionLost, "the connection to the agent is lost")
            .on(&self.name)
            .because(error);
        for line in self.errors.lines() {
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
    let pings = Arc::clone(&mux);
    // The pings have a thread of their own, because a ping blocks when the peer reads no more bytes, and the other thread must detect that.
    thread::spawn(move || {
        while pings.closed().is_none() && pings.ping().is_ok() {
            thread::sleep(PING_EVERY);
        }
    });
    thread::spawn(move || {
        let (mut seen, mut unanswered) = (mux.frames_received(), 0);
        while mux.closed().is_none() {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The agent of this session sends its banner, reads everything and answers nothing but pings.
    #[test]
    fn a_request_that_is_not_answered_names_the_node_and_what_was_asked() {
        let (left, right) = std::os::unix::net::UnixStream::pair().unwrap();
        let agent = Mux::new(
            Role::Agent(Box::new(|| "checking 7 steps, for 61 s\n".to_owned())),
            Box::new(right.try_clone().unwrap()),
        );
        thread::spawn(move || agent.pump(right));
        let mux = Mux::new(Role::Operator, Box::new(left.try_clone().unwrap()));
        let pump = Arc::clone(&mux);
        thread::spawn(move || pump.pump(left));
        mux.ping().unwrap();
        while mux.frames_received() == 0 {
            thread::yield_now();
        }
        let session = NodeSession {
            name: "cp-1".parse().unwrap(),
            mux,
            errors: LastLines::default(),
            transport: Mutex::new(None),
        };
        let request = Request::Observe { steps: vec![] };
        let mut stream = session.open(&request).unwrap();
        stream.set_limit(Limit::At(Instant::now() + Duration::from_millis(50)));
        let error = session
            .await_reply(&request, &mut BufReader::new(stream.reader()), &mut |_| {})
            .unwrap_err();
        assert_eq!(
            (error.code, error.node.unwrap().as_str()),
            (Code::RequestDeadline, "cp-1")
        );
        assert!(error.what.contains("looking at what 0 steps"), "{}", error.what);
        assert!(error.saw[0].contains("checking 7 steps, for 61 s"), "{:?}", error.saw);
    }
}
