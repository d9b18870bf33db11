//! The operator's end of a session with an agent that works on a directory.

use landfall_agent::host::Host;
use landfall_agent::session::serve_on;
use landfall_bundle::chunk_digests;
use landfall_bundle::minisign::SecretKey;
use landfall_core::bundle_index::{BlobEntry, BundleIndex, NODE_ARCHITECTURE, Variant};
use landfall_core::event::EventKind;
use landfall_core::explain::Diagnosis;
use landfall_core::journal::{Ownership, RunStart};
use landfall_core::plan::Step;
use landfall_core::trust::{KeyId, OfferedKey, TrustOffer};
use landfall_core::wire::mux::{Mux, Role, read_json_line};
use landfall_core::wire::{AGENT_BANNER, Reply, Request, StepOutcome, Welcome};
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// The operator's end of a session.
pub struct Operator {
    pub mux: Arc<Mux>,
    socket: UnixStream,
    pub agent: JoinHandle<u8>,
}

impl Operator {
    pub fn connect(root: &Path, silence: Duration) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let host = Host::under(root);
        let output = theirs.try_clone().unwrap();
        let agent = thread::spawn(move || serve_on(host, theirs, output, silence));
        let mut reader = BufReader::new(ours.try_clone().unwrap());
        let mut banner = String::new();
        reader.read_line(&mut banner).unwrap();
        assert!(banner.starts_with(AGENT_BANNER), "{banner}");
        let mux = Mux::new(Role::Operator, Box::new(ours.try_clone().unwrap()));
        let pump = Arc::clone(&mux);
        thread::spawn(move || pump.pump(reader));
        Self {
            mux,
            socket: ours,
            agent,
        }
    }

    pub fn ask_with<T: DeserializeOwned>(
        &self,
        request: &Request,
        body: &[u8],
        on_event: &mut dyn FnMut(EventKind),
    ) -> Result<(T, Vec<u8>), Diagnosis> {
        let mut stream = self.mux.open(&serde_json::to_vec(request).unwrap()).unwrap();
        let _ = stream.write_all(body);
        let _ = stream.finish();
        let mut reader = BufReader::new(stream.reader());
        loop {
            match read_json_line::<Reply>(&mut reader).unwrap().expect("an answer") {
                Reply::Event { event } => on_event(event),
                Reply::Ok { value } => {
                    let mut rest = Vec::new();
                    reader.read_to_end(&mut rest).unwrap();
                    return Ok((serde_json::from_value(value).unwrap(), rest));
                }
                Reply::Failed { diagnosis } => return Err(diagnosis),
            }
        }
    }

    pub fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Diagnosis> {
        self.ask_with(request, &[], &mut |_| {}).map(|(value, _)| value)
    }

    pub fn lease(&self, run: &str) -> Result<Welcome, Diagnosis> {
        self.ask(&Request::Lease {
            run: run.parse().unwrap(),
            owner: "ann@desk".into(),
            command: "install".into(),
            cluster: "ship".into(),
        })
    }

    /// Takes the lease for a run, and begins it under the next number.
    pub fn begin(&self, run: &str) {
        self.lease(run).unwrap();
        let own: Ownership = self.ask(&Request::Ownership).unwrap();
        let number = own.runs.iter().filter_map(|r| r.start.number).max().unwrap_or(0) + 1;
        let start = RunStart::new(run.parse().unwrap(), number, "install", "ship");
        self.ask::<()>(&Request::StartRun { start, record: None }).unwrap();
    }

    /// Lets the node check an index that holds some blobs.
    pub fn trust(&self, index: &[u8], key: &SecretKey, offer: &TrustOffer) -> Result<Option<KeyId>, Diagnosis> {
        let request = Request::TrustBundle {
            size_bytes: index.len() as u64,
            signature: Some(key.sign(index, "x").to_text()),
            trust: offer.clone(),
        };
        self.ask_with(&request, index, &mut |_| {}).map(|(value, _)| value)
    }

    pub fn run(&self, step: &Step) -> Result<StepOutcome, Diagnosis> {
        self.ask(&Request::RunStep { step: step.clone() })
    }

    pub fn hang_up(self) -> u8 {
        self.socket.shutdown(Shutdown::Both).unwrap();
        self.agent.join().unwrap()
    }
}

pub const LONG: Duration = Duration::from_secs(60);

/// An index of blobs with this content.
pub fn index(blobs: &[&[u8]]) -> Vec<u8> {
    let variant = Variant {
        architecture: NODE_ARCHITECTURE.into(),
        binaries: vec![],
        images: vec![],
    };
    let mut index = BundleIndex::new("source", "v1.37.2", "r", variant);
    let entry = |mut bytes: &[u8]| {
        let (digest, size_bytes, chunks) = chunk_digests(&mut bytes).unwrap();
        BlobEntry {
            digest,
            size_bytes,
            chunks,
        }
    };
    index.blobs = blobs.iter().map(|bytes| entry(bytes)).collect();
    index.blobs.sort_by_key(|blob| blob.digest);
    serde_json::to_vec(&index).unwrap()
}

pub fn key(number: u8) -> SecretKey {
    SecretKey::from_random(&Zeroizing::new([number; 40]))
}

/// An operator who trusts these keys.
pub fn offer(keys: &[&SecretKey]) -> TrustOffer {
    let offered = |key: &&SecretKey| OfferedKey {
        key: key.public().to_text(),
        endorsement: None,
    };
    TrustOffer {
        keys: keys.iter().map(offered).collect(),
        ..TrustOffer::default()
    }
}

pub fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("bin")).unwrap();
    std::os::unix::fs::symlink("/bin/sh", root.path().join("bin/sh")).unwrap();
    root
}

pub fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !there() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        thread::sleep(Duration::from_millis(10));
    }
}
