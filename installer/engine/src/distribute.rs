//! Uploads blobs to nodes: asks which ones a node has, and sends the others in the order in which steps need them.

use crate::context::CancelToken;
use crate::emitter::EventEmitter;
use crate::fleet::Sessions;
use crate::session::NodeSession;
use landfall_bundle::{Bundle, Verified};
use landfall_core::action::Action;
use landfall_core::event::EventKind;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::name::{Digest, NodeName};
use landfall_core::plan::Step;
use landfall_core::wire::Request;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Blobs sent side by side to one node: the second hides the wait for the first one's fsync.
const PARALLEL_UPLOADS: usize = 2;

/// Receives the results of uploads.
pub trait Arrival: Sync {
    /// Called when a blob is in the node's store.
    fn arrived(&self, node: &NodeName, digest: Digest);
    /// Called when an upload to the node failed.
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

/// Sends every node the blobs that its steps need, and returns the bytes sent to each. Blocks until all uploads are done or have failed.
pub fn push(
    bundle: &Bundle<Verified>,
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
    bundle: &Bundle<Verified>,
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
    order.retain(|digest| !there.contains(digest));
    let digests = order.iter().copied().collect();
    let parts: BTreeMap<Digest, u64> = session.ask(&Request::PartialBlobs { digests })?;
    let mut missing = Vec::new();
    for digest in order {
        let entry = bundle.index().blob(&digest).ok_or_else(|| {
            Diagnosis::new(Code::BundleMissing, format!("the bundle has no blob {digest}"))
                .next("build the bundle again; `landfall bundle verify FILE` names what is wrong with it")
        })?;
        let there = parts.get(&digest).copied().filter(|bytes| *bytes < entry.size_bytes);
        missing.push((digest, there.unwrap_or(0)..entry.size_bytes));
    }
    let bytes = missing.iter().map(|(_, range)| range.end - range.start).sum();
    emitter.emit(Some(session.name()), EventKind::PushPlanned { bytes });
    missing.reverse();
    let queue = Mutex::new(missing);
    let workers = [(); PARALLEL_UPLOADS];
    let results = crate::fleet::each(&workers, |()| {
        loop {
            if cancel.is_cancelled() {
                return Ok(());
            }
            let next = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
            let Some((digest, range)) = next else {
                return Ok(());
            };
            let send = |range: Range<u64>| send(bundle, session, &digest, range, emitter, sent);
            let resumes = range.start > 0;
            match send(range.clone()) {
                // The node's part of the blob was damaged, as after a power cut, and the node has deleted it.
                Err(diagnosis) if resumes && diagnosis.code == Code::BundleDigest => send(0..range.end)?,
                sent => sent?,
            }
            arrival.arrived(session.name(), digest);
        }
    });
    results.into_iter().collect()
}

/// Sends the bytes of a blob that are in `range`, up to its end.
fn send(
    bundle: &Bundle<Verified>,
    session: &NodeSession,
    digest: &Digest,
    range: Range<u64>,
    emitter: &EventEmitter,
    sent: &AtomicU64,
) -> Result<(), Diagnosis> {
    let mut blob = bundle.blob(digest)?;
    std::io::copy(&mut blob.by_ref().take(range.start), &mut std::io::sink()).map_err(|e| bundle.blob_fault(e))?;
    let mut counted = Counted {
        inner: blob,
        session,
        emitter,
        sent,
        unreported: 0,
        fault: None,
    };
    let request = Request::PutBlob {
        digest: *digest,
        size_bytes: range.end,
        from_bytes: range.start,
    };
    let put = session.ask_with(&request, Some(&mut counted), &mut |_| {});
    if let Some(fault) = counted.fault.take() {
        // The node only knows that the blob is too short.
        return Err(bundle.blob_fault(fault));
    }
    let () = put?;
    counted.report();
    Ok(())
}

/// Counts the bytes that are sent and emits progress events.
struct Counted<'a, R> {
    inner: R,
    session: &'a NodeSession,
    emitter: &'a EventEmitter,
    sent: &'a AtomicU64,
    unreported: u64,
    /// Why the blob could not be read to its end.
    fault: Option<std::io::Error>,
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
        let read = match self.inner.read(buffer) {
            Ok(read) => read,
            Err(error) => {
                let kind = error.kind();
                self.fault = Some(error);
                return Err(kind.into());
            }
        };
        self.sent.fetch_add(read as u64, Ordering::Relaxed);
        self.unreported += read as u64;
        // One event per 4 MiB keeps a bar smooth without flooding the sink.
        if self.unreported >= 4 * 1024 * 1024 {
            self.report();
        }
        Ok(read)
    }
}
