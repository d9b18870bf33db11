//! The protocol between operator and agent, version 2: requests, replies, and the frames that carry them.

use crate::must_be_all;
use landfall_core::mesh::{MeshListening, MeshSeen, PortSeen};
use landfall_core::wire::mux::{Mux, Role};
use landfall_core::wire::{PROTOCOL_VERSION, Reply, Request};
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

const LINES: &str = include_str!("../../../../tests/fixtures/formats/wire-2.jsonl");
const FRAMES: &str = include_str!("../../../../tests/fixtures/formats/wire-2-frames.hex");

fn request_kind(request: &Request) -> &'static str {
    match request {
        Request::Lease { .. } => "lease",
        Request::StartRun { .. } => "start-run",
        Request::WriteRecord { .. } => "write-record",
        Request::Facts(_) => "facts",
        Request::Ownership => "ownership",
        Request::ReadJournal { .. } => "read-journal",
        Request::RepairJournal { .. } => "repair-journal",
        Request::Observe { .. } => "observe",
        Request::TrustBundle { .. } => "trust-bundle",
        Request::HaveBlobs { .. } => "have-blobs",
        Request::PartialBlobs { .. } => "partial-blobs",
        Request::PutBlob { .. } => "put-blob",
        Request::FetchBlob { .. } => "fetch-blob",
        Request::RelayListen(_) => "relay-listen",
        Request::PutSecret { .. } => "put-secret",
        Request::ReadSecret { .. } => "read-secret",
        Request::RunStep { .. } => "run-step",
        Request::Intent { .. } => "intent",
        Request::Done { .. } => "done",
        Request::UndoStep { .. } => "undo-step",
        Request::FinishRun { .. } => "finish-run",
        Request::Tidy => "tidy",
        Request::Tunnel { .. } => "tunnel",
        Request::MeshListen(_) => "mesh-listen",
        Request::MeshTry(_) => "mesh-try",
        Request::Probe { .. } => "probe",
        Request::ProbeInContainer { .. } => "probe-in-container",
        Request::Etcdctl { .. } => "etcdctl",
        Request::Certificates => "certificates",
        Request::NodeHealth => "node-health",
        Request::Logs => "logs",
    }
}

fn reply_kind(reply: &Reply) -> &'static str {
    match reply {
        Reply::Event { .. } => "event",
        Reply::Ok { .. } => "ok",
        Reply::Failed { .. } => "failed",
    }
}

#[test]
fn every_request_and_reply_is_written_as_it_was_read() {
    assert_eq!(PROTOCOL_VERSION, 2, "another version has files of its own");
    let (requests, replies): (Vec<&str>, Vec<&str>) = LINES.lines().partition(|line| line.contains("{\"request\":"));
    let requests: Vec<(&str, Request)> = requests
        .into_iter()
        .map(|line| {
            (
                line,
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")),
            )
        })
        .collect();
    for (line, request) in &requests {
        assert_eq!(&serde_json::to_string(request).unwrap(), line);
    }
    must_be_all(requests.iter().map(|(_, request)| request_kind(request)), 31);
    let replies: Vec<(&str, Reply)> = replies
        .into_iter()
        .map(|line| {
            (
                line,
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")),
            )
        })
        .collect();
    for (line, reply) in &replies {
        assert_eq!(&serde_json::to_string(reply).unwrap(), line);
    }
    must_be_all(replies.iter().map(|(_, reply)| reply_kind(reply)), 3);
}

#[test]
fn what_nodes_see_of_each_other_is_written_as_it_was_read() {
    let values = LINES
        .lines()
        .filter_map(|line| match serde_json::from_str::<Reply>(line) {
            Ok(Reply::Ok { value }) => Some(value),
            _ => None,
        });
    let values: Vec<serde_json::Value> = values.collect();
    let listening = values.iter().filter(|value| value.get("tcp_failed").is_some());
    let read: Vec<MeshListening> = listening
        .clone()
        .map(|v| serde_json::from_value(v.clone()).unwrap())
        .collect();
    assert_eq!(
        read.iter()
            .map(|r| serde_json::to_value(r).unwrap())
            .collect::<Vec<_>>(),
        listening.cloned().collect::<Vec<_>>()
    );
    assert_eq!(read.len(), 1);
    let seen = values.iter().filter(|value| value.is_array());
    let read: Vec<Vec<MeshSeen>> = seen
        .clone()
        .map(|v| serde_json::from_value(v.clone()).unwrap())
        .collect();
    assert_eq!(
        read.iter()
            .map(|r| serde_json::to_value(r).unwrap())
            .collect::<Vec<_>>(),
        seen.cloned().collect::<Vec<_>>()
    );
    let ports = read.iter().flatten().flat_map(|seen| seen.tcp.values());
    let kind = |port: &PortSeen| match port {
        PortSeen::Open { .. } => "open",
        PortSeen::Silent => "silent",
        PortSeen::Refused => "refused",
        PortSeen::Closed(_) => "closed",
        PortSeen::Stranger => "stranger",
    };
    must_be_all(ports.map(kind), 5);
}

#[test]
fn a_request_of_a_newer_version_is_no_request() {
    assert!(serde_json::from_str::<Request>(r#"{"request":"something-new"}"#).is_err());
}

/// Returns the bytes of one direction of the golden frames.
fn frames(direction: usize) -> Vec<u8> {
    let part = FRAMES
        .split('#')
        .filter(|part| !part.is_empty())
        .nth(direction)
        .unwrap();
    let digits: String = part.lines().skip(1).collect();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// A channel that keeps what is written.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn frames_are_written_and_read_as_ever() {
    let (sent, answered) = (Kept::default(), Kept::default());
    let operator = Mux::new(Role::Operator, Box::new(sent.clone()));
    let mut asking = operator.open(br#"{"request":"tidy"}"#).unwrap();
    asking.write_all(b"body").unwrap();
    asking.finish().unwrap();
    operator.ping().unwrap();
    assert_eq!(*sent.0.lock().unwrap(), frames(0));

    let agent = Mux::new(
        Role::Agent(Box::new(|| "tidying, for 1 s\n".to_owned())),
        Box::new(answered.clone()),
    );
    let mut request = frames(0);
    // A frame without payload has nine bytes.
    let ping = request.split_off(request.len() - 9);
    let (mut to_agent, from_operator) = std::os::unix::net::UnixStream::pair().unwrap();
    let pump = Arc::clone(&agent);
    let pumping = std::thread::spawn(move || pump.pump(from_operator));
    to_agent.write_all(&request).unwrap();
    let (header, mut stream) = agent.accept().unwrap();
    assert_eq!(header, br#"{"request":"tidy"}"#);
    let mut body = String::new();
    stream.reader().read_to_string(&mut body).unwrap();
    assert_eq!(body, "body");
    stream.write_all(b"{\"reply\":\"ok\",\"value\":null}\n").unwrap();
    stream.finish().unwrap();
    to_agent.write_all(&ping).unwrap();
    drop(to_agent);
    pumping.join().unwrap().unwrap();
    assert_eq!(*answered.0.lock().unwrap(), frames(1));
}
