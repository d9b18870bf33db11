//! Brings blobs to nodes: asks what is there, sends what is missing, in the order in which steps need it.

use crate::context::CancelToken;
use crate::emitter::EventEmitter;
use crate::fleet::Sessions;
use crate::session::NodeSession;
use landfall_bundle::BundleFile;
use landfall_core::action::Action;
use landfall_core::event::EventKind;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::name::{Digest, NodeName};
use landfall_core::plan::Step;
use landfall_core::wire::Request;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Blobs sent side by side to one node: the second hides the wait for the first one's fsync.
const SIDE_BY_SIDE: usize = 2;

/// Whether a blob has reached a node, or failed to.
pub trait Arrival: Sync {
    /// A blob is in the node's store.
    fn arrived(&self, node: &NodeName, digest: Digest);
    /// Sending to the node failed.
    fn failed(&self, node: &NodeName, diagnosis: Diagnosis);
}

/// Returns the blobs a step reads from the node's store.
pub fn blobs_of(step: &Step) -> Vec<Digest> {
    match &step.action {
        Action::Binary { blob, .. } => vec![*blob],
        Action::Images { images } => images.iter().flat_map(|i| i.blobs.iter().copied()).collect(),
        _ => vec![],
    }
}

/// Sends to every node what its steps need. Blocks until all is sent or failed.
pub fn push(
    bundle: &BundleFile,
    sessions: &Sessions,
    steps: &BTreeMap<NodeName, Vec<Step>>,
    arrival: &dyn Arrival,
    cancel: &CancelToken,
    emitter: &EventEmitter,
) -> BTreeMap<NodeName, u64> {
    let nodes: Vec<_> = steps
        .iter()
        .filter_map(|(name, steps)| Some((sessions.get(name)?, steps)))
        .collect();
    let sent = crate::fleet::each(&nodes, |(session, steps)| {
        let sent = AtomicU64::new(0);
        if let Err(diagnosis) = push_to(bundle, session, steps, arrival, cancel, emitter, &sent) {
            arrival.failed(session.name(), diagnosis);
        }
        let bytes = sent.into_inner();
        if bytes > 0 {
            // The bytes of an interrupted blob count too.
            emitter.emit(Some(session.name()), EventKind::PushProgress { bytes });
        }
        (session.name().clone(), bytes)
    });
    sent.into_iter().collect()
}

fn push_to(
    bundle: &BundleFile,
    session: &Arc<NodeSession>,
    steps: &[Step],
    arrival: &dyn Arrival,
    cancel: &CancelToken,
    emitter: &EventEmitter,
    sent: &AtomicU64,
) -> Result<(), Diagnosis> {
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for digest in steps.iter().flat_map(blobs_of) {
        if seen.insert(digest) {
            order.push(digest);
        }
    }
    let there: BTreeSet<Digest> = session.ask(&Request::HaveBlobs { digests: seen })?;
    for digest in &there {
        arrival.arrived(session.name(), *digest);
    }
    let mut missing = Vec::new();
    for digest in order.into_iter().filter(|d| !there.contains(d)) {
        let entry = bundle.index().blob(&digest).ok_or_else(|| {
            Diagnosis::new(Code::BundleMissing, format!("the bundle has no blob {digest}"))
                .next("build the bundle again; `landfall bundle verify FILE` names what is wrong with it")
        })?;
        missing.push((digest, entry.size_bytes));
    }
    let bytes = missing.iter().map(|(_, size)| size).sum();
    emitter.emit(Some(session.name()), EventKind::PushPlanned { bytes });
    missing.reverse();
    let queue = Mutex::new(missing);
    let workers = [(); SIDE_BY_SIDE];
    let results = crate::fleet::each(&workers, |()| {
        loop {
            if cancel.is_cancelled() {
                return Ok(());
            }
            let next = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
            let Some((digest, size_bytes)) = next else {
                return Ok(());
            };
            let blob = bundle.blob(&digest)?;
            let mut counted = Counted {
                inner: blob,
                session,
                emitter,
                sent,
                unreported: 0,
            };
            let () = session.ask_with(
                &Request::PutBlob { digest, size_bytes },
                Some(&mut counted),
                &mut |_| {},
            )?;
            counted.report();
            arrival.arrived(session.name(), digest);
        }
    });
    results.into_iter().collect()
}

/// Counts the bytes that are sent and emits progress events.
struct Counted<'a, R> {
    inner: R,
    session: &'a NodeSession,
    emitter: &'a EventEmitter,
    sent: &'a AtomicU64,
    unreported: u64,
}

impl<R> Counted<'_, R> {
    fn report(&mut self) {
        self.unreported = 0;
        self.emitter.emit(
            Some(self.session.name()),
            EventKind::PushProgress {
                bytes: self.sent.load(Ordering::Relaxed),
            },
        );
    }
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.sent.fetch_add(read as u64, Ordering::Relaxed);
        self.unreported += read as u64;
        // One event per 4 MiB keeps a bar smooth without flooding the sink.
        if self.unreported >= 4 * 1024 * 1024 {
            self.report();
        }
        Ok(read)
    }
}
