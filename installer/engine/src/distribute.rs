//! Brings blobs to nodes: asks which ones a node has, and sends the others in the order in which steps need them. A blob that several nodes
//! need is sent to one of them, from which the others take it while it comes.

mod relay;
mod schedule;

use crate::context::CancelToken;
use crate::emitter::EventEmitter;
use crate::fleet::Sessions;
use crate::session::NodeSession;
use landfall_bundle::{Bundle, Verified};
use landfall_core::action::Action;
use landfall_core::event::EventKind;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::journal::{Entry, EntryState};
use landfall_core::name::{Digest, NodeName, StepId};
use landfall_core::observe::Observation;
use landfall_core::plan::Step;
use landfall_core::relay::RelaySource;
use landfall_core::wire::Request;
use relay::Relay;
use schedule::{Next, Schedule, Source};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Blobs that come to one node side by side: the second hides the wait for the first one's fsync.
const PARALLEL_TRANSFERS: usize = 2;

/// How often progress is reported on a slow line.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Receives the results of a push.
pub trait Arrival: Sync {
    /// Called when a blob is in the node's store.
    fn arrived(&self, node: &NodeName, digest: Digest);
    /// Called when the push to the node failed.
    fn failed(&self, node: &NodeName, diagnosis: Diagnosis);
}

/// Returns the blobs a step may read from the node's store.
pub fn blobs_of(step: &Step) -> Vec<Digest> {
    match &step.action {
        Action::Binary { blob, .. } => vec![*blob],
        Action::Images { images } => images.iter().flat_map(|i| i.blobs.iter().copied()).collect(),
        _ => vec![],
    }
}

/// What nodes were seen to lack of what their steps may read.
#[derive(Debug, Default)]
pub struct Needs {
    /// Names of the images that are missing, by step.
    missing_images: BTreeMap<StepId, BTreeSet<String>>,
}

impl Needs {
    /// Takes in what was seen on the node of a step, and the step's newest record. An interrupted step counts for nothing: what it has brought is taken
    /// back first, and is needed again.
    pub fn note(&mut self, step: &Step, entry: Option<&Entry>, seen: &Observation) {
        let is_undone_first = entry.is_some_and(|entry| entry.state != EntryState::Owned);
        if let (Observation::Images { missing }, false) = (seen, is_undone_first) {
            let missing = missing.iter().cloned().collect();
            self.missing_images.insert(step.id.clone(), missing);
        }
    }

    /// Returns the blobs that a step reads from the node's store: of images those that are missing, where that was seen.
    pub fn blobs_of(&self, step: &Step) -> Vec<Digest> {
        match (&step.action, self.missing_images.get(&step.id)) {
            (Action::Images { images }, Some(missing)) => {
                let missing = images.iter().filter(|image| missing.contains(image.reference.as_str()));
                missing.flat_map(|image| image.blobs.iter().copied()).collect()
            }
            _ => blobs_of(step),
        }
    }
}

/// Where the blobs of a run come from, and which of them it needs.
#[derive(Debug, Clone, Copy)]
pub struct Supply<'a> {
    /// Where they are.
    pub bundle: &'a Bundle<Verified>,
    /// Which ones.
    pub needs: &'a Needs,
}

/// A push to several nodes.
pub struct Push<'a> {
    /// The blobs.
    pub supply: Supply<'a>,
    /// The nodes.
    pub sessions: &'a Sessions,
    /// Addresses at which nodes take blobs of each other. A node without one neither gives nor takes any.
    pub relay: &'a BTreeMap<NodeName, IpAddr>,
    /// Receives results.
    pub arrival: &'a dyn Arrival,
    /// Set by ^C.
    pub cancel: &'a CancelToken,
    /// Events.
    pub emitter: &'a EventEmitter,
}

/// What the pushes to all nodes share.
struct Shared {
    schedule: Mutex<Schedule>,
    changed: Condvar,
    relay: Option<Relay>,
    /// Bytes that nodes took of each other.
    relayed: AtomicU64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut Schedule)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Returns the next transfer to a node. Blocks until there is one; none when nothing is left, or the run was cancelled.
    fn next(&self, node: &NodeName, cancel: &CancelToken) -> Option<(Digest, Source)> {
        let mut schedule = self.lock();
        while !cancel.is_cancelled() {
            match schedule.next(node) {
                Next::Transfer(digest, source) => return Some((digest, source)),
                Next::Done => return None,
                Next::Wait => {}
            }
            // The time-out serves ^C alone, which cannot notify the condition variable.
            let waited = self.changed.wait_timeout(schedule, Duration::from_millis(200));
            schedule = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        None
    }

    /// Makes a node's transfers, one after the other, until nothing is left, the run is cancelled or a transfer fails. A node with a failed transfer gets no
    /// more, and takes no turn from others. Blocks until then.
    fn work(
        &self,
        node: &NodeName,
        cancel: &CancelToken,
        transfer: impl Fn(&Digest, &Source) -> Result<(), Diagnosis>,
    ) -> Result<(), Diagnosis> {
        while let Some((digest, source)) = self.next(node, cancel) {
            if let Err(diagnosis) = transfer(&digest, &source) {
                // Its other transfers, and those of other nodes, must not wait for this one.
                self.update(|schedule| schedule.remove(node));
                return Err(diagnosis);
            }
        }
        Ok(())
    }
}

impl Push<'_> {
    /// Brings every node the blobs that its steps need, and returns the bytes that this machine sent to each. Blocks until all transfers are
    /// done or have failed.
    pub fn run(&self, steps: &BTreeMap<NodeName, Vec<Step>>) -> BTreeMap<NodeName, u64> {
        let nodes: Vec<_> = steps
            .iter()
            .filter_map(|(name, steps)| Some((self.sessions.get(name)?, self.blobs_in_order(steps))))
            .collect();
        let shared = Shared {
            schedule: Mutex::default(),
            changed: Condvar::new(),
            relay: self.make_relay(&nodes),
            relayed: AtomicU64::new(0),
        };
        let sent = crate::fleet::each(&nodes, |(session, digests)| {
            let name = session.name();
            let to = NodePush {
                push: self,
                shared: &shared,
                session,
                parts: Mutex::default(),
                came: AtomicU64::new(0),
                relayed: AtomicU64::new(0),
                sent: AtomicU64::new(0),
            };
            if let Err(diagnosis) = to.run(digests) {
                self.arrival.failed(name, diagnosis);
            }
            if to.came.load(Ordering::Relaxed) > 0 {
                // The bytes of an interrupted blob count too.
                to.report();
            }
            (name.clone(), to.sent.into_inner())
        });
        let relayed = shared.relayed.into_inner();
        if relayed > 0 {
            let sent: u64 = sent.iter().map(|(_, bytes)| bytes).sum();
            let (relayed, sent) = (megabytes(relayed), megabytes(sent));
            let text = format!("nodes took {relayed} MB from each other; this machine sent {sent} MB");
            self.emitter.emit(None, EventKind::Note { text });
        }
        sent.into_iter().collect()
    }

    /// Returns the blobs that steps read, each once.
    fn blobs_in_order(&self, steps: &[Step]) -> Vec<Digest> {
        let mut seen = BTreeSet::new();
        let digests = steps.iter().flat_map(|step| self.supply.needs.blobs_of(step));
        digests.filter(|digest| seen.insert(*digest)).collect()
    }

    /// Prepares listeners when a blob is needed by two nodes that may give it to each other.
    fn make_relay(&self, nodes: &[(&Arc<NodeSession>, Vec<Digest>)]) -> Option<Relay> {
        let members = nodes
            .iter()
            .filter(|(session, _)| self.relay.contains_key(session.name()));
        let mut seen = BTreeSet::new();
        let is_shared = members
            .flat_map(|(_, digests)| digests)
            .any(|digest| !seen.insert(digest));
        if !is_shared {
            return None;
        }
        match Relay::new() {
            Ok(relay) => Some(relay),
            Err(error) => {
                let text = format!("nodes do not take files from each other: no random bytes can be had: {error}");
                self.emitter.emit(None, EventKind::Note { text });
                None
            }
        }
    }
}

/// Writes bytes as millions, with one digit behind the point.
fn megabytes(bytes: u64) -> String {
    format!("{}.{}", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}

/// The push to one node.
struct NodePush<'a> {
    push: &'a Push<'a>,
    shared: &'a Shared,
    session: &'a Arc<NodeSession>,
    /// How much of blobs came before connections ended.
    parts: Mutex<BTreeMap<Digest, u64>>,
    /// Bytes that came to the node.
    came: AtomicU64,
    /// Those of them that it took from other nodes.
    relayed: AtomicU64,
    /// Those of them that this machine sent.
    sent: AtomicU64,
}

impl NodePush<'_> {
    /// Asks what is missing, and transfers it.
    fn run(&self, digests: &[Digest]) -> Result<(), Diagnosis> {
        let (session, name) = (self.session, self.session.name());
        let asked = digests.iter().copied().collect();
        let has: BTreeSet<Digest> = session.ask(&Request::HaveBlobs { digests: asked })?;
        for digest in &has {
            self.push.arrival.arrived(name, *digest);
        }
        let missing: Vec<Digest> = digests.iter().copied().filter(|digest| !has.contains(digest)).collect();
        let mut bytes = 0;
        self.look_at_parts(&missing)?;
        for digest in &missing {
            let range = self.range(digest)?;
            bytes += range.end - range.start;
        }
        self.emit(EventKind::PushPlanned { bytes });
        let can_feed = self.listen();
        self.shared
            .update(|schedule| schedule.add(name.clone(), has, missing, can_feed));
        let workers = [(); PARALLEL_TRANSFERS];
        let results = crate::fleet::each(&workers, |()| {
            self.shared.work(name, self.push.cancel, |digest, source| {
                if self.transfer(digest, source)? {
                    self.shared.update(|schedule| schedule.arrived(name, digest));
                    self.push.arrival.arrived(name, *digest);
                }
                Ok(())
            })
        });
        results.into_iter().collect()
    }

    fn emit(&self, event: EventKind) {
        self.push.emitter.emit(Some(self.session.name()), event);
    }

    fn report(&self) {
        let relayed = self.relayed.load(Ordering::Relaxed);
        let bytes = self.came.load(Ordering::Relaxed);
        self.emit(EventKind::PushProgress { bytes, relayed });
    }

    /// Opens the node's listener, and says whether it can feed others. The push goes on without: the operator sends everything.
    fn listen(&self) -> bool {
        let address = self.push.relay.get(self.session.name());
        let (Some(relay), Some(address)) = (&self.shared.relay, address) else {
            return false;
        };
        let opened = relay.open(self.session, *address);
        if let Err(error) = &opened {
            let text = format!("gives no files to other nodes: {error}");
            self.emit(EventKind::Note { text });
        }
        opened.is_ok()
    }

    /// Asks how much of these blobs came before a connection ended.
    fn look_at_parts(&self, digests: &[Digest]) -> Result<(), Diagnosis> {
        let asked = digests.iter().copied().collect();
        let found: BTreeMap<Digest, u64> = self.session.ask(&Request::PartialBlobs { digests: asked })?;
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.retain(|digest, _| !digests.contains(digest));
        parts.extend(found);
        Ok(())
    }

    /// Returns the bytes of a blob that the node lacks.
    fn range(&self, digest: &Digest) -> Result<Range<u64>, Diagnosis> {
        let entry = self.push.supply.bundle.index().blob(digest).ok_or_else(|| {
            Diagnosis::new(Code::BundleMissing, format!("the bundle has no blob {digest}"))
                .next("build the bundle again; `landfall bundle verify FILE` names what is wrong with it")
        })?;
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let there = parts.get(digest).copied().filter(|bytes| *bytes <= entry.size_bytes);
        Ok(there.unwrap_or(0)..entry.size_bytes)
    }

    /// Transfers what the node lacks of a blob. Says whether it is there now: a source that cannot give it is passed over for the next one.
    fn transfer(&self, digest: &Digest, source: &Source) -> Result<bool, Diagnosis> {
        let resumes = self.range(digest)?.start > 0;
        match self.transfer_rest(digest, source) {
            // The node's part of the blob was damaged, as after a power cut, and the node has shortened it.
            Err(error) if resumes && error.code == Code::BundleDigest => {
                self.look_at_parts(&[*digest])?;
                self.transfer_rest(digest, source)
            }
            done => done,
        }
    }

    fn transfer_rest(&self, digest: &Digest, source: &Source) -> Result<bool, Diagnosis> {
        let range = self.range(digest)?;
        let Source::Node(from) = source else {
            return self.send(digest, range).map(|()| true);
        };
        let source = self.shared.relay.as_ref().and_then(|relay| relay.source(from));
        let source = source.ok_or_else(|| Diagnosis::new(Code::Internal, format!("{from} has no listener")))?;
        match self.fetch(digest, range, source) {
            Err(error) if error.code == Code::Unreachable => {
                let why = error.causes.join(": ");
                let text = format!("{}: {why}; another node or this machine sends it", error.what);
                self.emit(EventKind::Note { text });
                self.look_at_parts(&[*digest])?;
                self.shared
                    .update(|schedule| schedule.not_fed(self.session.name(), digest));
                Ok(false)
            }
            done => done.map(|()| true),
        }
    }

    /// Has the node take the bytes of a blob that are in `range`, up to its end, from another node.
    fn fetch(&self, digest: &Digest, range: Range<u64>, source: RelaySource) -> Result<(), Diagnosis> {
        let request = Request::FetchBlob {
            digest: *digest,
            size_bytes: range.end,
            from_bytes: range.start,
            source,
        };
        let mut counted = 0;
        self.session.ask_with(&request, None, &mut |event| {
            if let EventKind::PushProgress { bytes, .. } = event {
                let more = bytes.saturating_sub(counted);
                counted = counted.max(bytes);
                self.shared.relayed.fetch_add(more, Ordering::Relaxed);
                self.relayed.fetch_add(more, Ordering::Relaxed);
                self.came.fetch_add(more, Ordering::Relaxed);
                self.report();
            }
        })
    }

    /// Sends the bytes of a blob that are in `range`, up to its end.
    fn send(&self, digest: &Digest, range: Range<u64>) -> Result<(), Diagnosis> {
        let bundle = self.push.supply.bundle;
        let mut blob = bundle.blob(digest)?;
        std::io::copy(&mut blob.by_ref().take(range.start), &mut std::io::sink()).map_err(|e| bundle.blob_fault(e))?;
        let mut counted = Counted {
            inner: blob,
            to: self,
            unreported: 0,
            reported_at: Instant::now(),
            fault: None,
        };
        let request = Request::PutBlob {
            digest: *digest,
            size_bytes: range.end,
            from_bytes: range.start,
        };
        let put = self.session.ask_with(&request, Some(&mut counted), &mut |_| {});
        if let Some(fault) = counted.fault.take() {
            // The node only knows that the blob is too short.
            return Err(bundle.blob_fault(fault));
        }
        let () = put?;
        self.report();
        Ok(())
    }
}

/// Counts the bytes that are sent and emits progress events.
struct Counted<'a, R> {
    inner: R,
    to: &'a NodePush<'a>,
    unreported: u64,
    reported_at: Instant,
    /// Why the blob could not be read to its end.
    fault: Option<std::io::Error>,
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
        self.to.sent.fetch_add(read as u64, Ordering::Relaxed);
        self.to.came.fetch_add(read as u64, Ordering::Relaxed);
        self.unreported += read as u64;
        // One event per 4 MiB, or on a slow line per second, keeps a bar smooth without flooding the sink.
        if self.unreported >= 4 * 1024 * 1024 || self.reported_at.elapsed() >= REPORT_EVERY {
            (self.unreported, self.reported_at) = (0, Instant::now());
            self.to.report();
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_core::action::Undo;
    use landfall_core::bundle_index::{Image, OCI_MANIFEST};
    use landfall_core::plan::Stage;
    use std::sync::mpsc;
    use std::thread;

    #[test]
    fn of_images_those_that_were_seen_to_be_missing_are_needed() {
        let image = |name: &str| Image {
            reference: format!("r/{name}:1").parse().unwrap(),
            manifest: Digest::of(name.as_bytes()),
            media_type: OCI_MANIFEST.to_owned(),
            manifest_size_bytes: 1,
            blobs: vec![Digest::of(name.as_bytes()), Digest::of(b"a shared layer")],
            roles: BTreeSet::new(),
        };
        let action = Action::Images {
            images: vec![image("a"), image("b")],
        };
        let step = Step::new(
            "images".parse().unwrap(),
            Stage::Images,
            "cp-1".parse().unwrap(),
            60,
            action,
        );
        let seen = |missing: &[&str]| Observation::Images {
            missing: missing.iter().map(|name| format!("r/{name}:1")).collect(),
        };
        let entry = |state| Entry {
            run: "r".parse().unwrap(),
            step: step.id.clone(),
            action: step.action.identity(),
            undo: Undo::Nothing,
            state,
            stamp: None,
            wanted: None,
        };
        let needed = |entry: Option<&Entry>, missing: &[&str]| {
            let mut needs = Needs::default();
            needs.note(&step, entry, &seen(missing));
            needs.blobs_of(&step)
        };
        let all = blobs_of(&step);
        assert_eq!(Needs::default().blobs_of(&step), all, "nothing was seen");
        assert_eq!(needed(None, &["a", "b"]), all);
        assert_eq!(needed(None, &["b"]), image("b").blobs);
        assert_eq!(needed(Some(&entry(EntryState::Owned)), &["b"]), image("b").blobs);
        assert_eq!(needed(Some(&entry(EntryState::Owned)), &[]), []);
        let interrupted = needed(Some(&entry(EntryState::Intended)), &["b"]);
        assert_eq!(interrupted, all, "what the attempt has brought is taken back first");
    }

    /// As many transfers of the operator as there may be fail at once, on a node each, while a second worker of each node waits for its turn: a switch has
    /// gone off.
    #[test]
    fn failed_transfers_give_their_turns_back() {
        const NODES: u8 = 4;
        let blob = |node: u8, number: u8| Digest::of(&[node, number]);
        let name = |node: u8| -> NodeName { format!("n-{node}").parse().unwrap() };
        let shared = Arc::new(Shared {
            schedule: Mutex::default(),
            changed: Condvar::new(),
            relay: None,
            relayed: AtomicU64::new(0),
        });
        for node in 0..NODES {
            let missing = vec![blob(node, 0), blob(node, 1)];
            shared.update(|schedule| schedule.add(name(node), BTreeSet::new(), missing, true));
        }
        let cancel = CancelToken::default();
        let (ended, ends) = mpsc::channel();
        let (fail, failing) = mpsc::channel::<()>();
        let failing = Arc::new(Mutex::new(failing));
        let start = |node: u8, begun: mpsc::Sender<()>| {
            let (shared, cancel, ended) = (Arc::clone(&shared), cancel.clone(), ended.clone());
            let failing = Arc::clone(&failing);
            thread::spawn(move || {
                let done = shared.work(&name(node), &cancel, |_, source| {
                    assert_eq!(source, &Source::Operator);
                    begun.send(()).unwrap();
                    let _ = failing.lock().unwrap().recv();
                    Err(Diagnosis::new(Code::ConnectionLost, "the switch is off"))
                });
                ended.send(done.is_err()).unwrap();
            });
        };
        let (begun, begins) = mpsc::channel();
        for node in 0..NODES {
            start(node, begun.clone());
            begins.recv().unwrap();
        }
        (0..NODES).for_each(|node| start(node, begun.clone()));
        let others = begins.recv_timeout(Duration::from_millis(500));
        assert!(others.is_err(), "the operator has no more turns");
        drop(fail);
        let ends: Vec<bool> = (0..2 * NODES)
            .map_while(|_| ends.recv_timeout(Duration::from_secs(20)).ok())
            .collect();
        cancel.cancel();
        assert_eq!(ends.len(), usize::from(2 * NODES), "some wait for ever");
        let failed = ends.iter().filter(|failed| **failed).count();
        assert!(failed >= usize::from(NODES), "{failed} have failed");
    }
}
