//! What all requests of one session share: the machine, the journal, the lease, secrets in memory, running children.

use crate::arriving::Arriving;
use crate::child::Children;
use crate::error::{AgentError, Result};
use crate::host::Host;
use crate::journal_store::{self, Durability, JournalStore};
use crate::lease::{Holder, Lease};
use landfall_core::bundle_index::{BlobEntry, BundleIndex, IndexError};
use landfall_core::cluster_record::ClusterRecord;
use landfall_core::event::EventKind;
use landfall_core::journal::repair::JournalReading;
use landfall_core::journal::{Ownership, Record, RunStart};
use landfall_core::name::{Digest, RunId, SecretId};
use landfall_core::secret::Secret;
use landfall_core::trust::{KeyId, TrustOffer};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Takes events while something runs.
pub type Emit<'a> = &'a (dyn Fn(EventKind) + Sync);

/// The agent of one session.
#[derive(Debug)]
pub struct Agent {
    /// The machine.
    pub host: Host,
    /// Running programs.
    pub children: Children,
    journal: Mutex<Option<JournalStore>>,
    lease: Mutex<Option<(Lease, Holder)>>,
    secrets: Mutex<BTreeMap<SecretId, Secret>>,
    consumed: Mutex<BTreeSet<Digest>>,
    bundle: Mutex<Option<BundleIndex>>,
    arriving: Arc<Arriving>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Agent {
    /// Makes an agent for a machine. Touches nothing.
    pub fn new(host: Host) -> Self {
        Self {
            host,
            children: Children::default(),
            journal: Mutex::default(),
            lease: Mutex::default(),
            secrets: Mutex::default(),
            consumed: Mutex::default(),
            bundle: Mutex::default(),
            arriving: Arc::default(),
        }
    }

    /// Works on the journal, which is read when it is first needed.
    pub fn journal<T>(&self, work: impl FnOnce(&mut JournalStore) -> Result<T>) -> Result<T> {
        let mut slot = lock(&self.journal);
        let store = match slot.as_mut() {
            Some(store) => store,
            None => slot.insert(JournalStore::load(self.host.state("journal.jsonl"))?),
        };
        work(store)
    }

    /// Reads the journal as far as its lines are whole. `runs` are runs that journals of other nodes hold.
    pub fn read_journal(&self, runs: &[RunStart]) -> Result<JournalReading> {
        let path = self.host.state("journal.jsonl");
        journal_store::read_whole_lines(&path, runs).map(|repair| repair.reading)
    }

    /// Replaces a damaged journal by what its whole lines say. A good one stays as it is.
    pub fn repair_journal(&self, runs: &[RunStart]) -> Result<JournalReading> {
        self.holder()?;
        self.forget_journal();
        journal_store::repair(&self.host.state("journal.jsonl"), runs)
    }

    /// Reads the journal again when it is next needed: another session may have written it before this one got the lease.
    pub fn forget_journal(&self) {
        *lock(&self.journal) = None;
    }

    /// Returns what is ours.
    pub fn ownership(&self) -> Result<Ownership> {
        self.journal(|journal| Ok(journal.own().clone()))
    }

    /// Appends a record that allows an act or ends one. The first of a run brings its own start with it.
    pub fn record(&self, record: Record, durability: Durability) -> Result<()> {
        self.journal(|journal| journal.append(&[record], durability))
    }

    /// Journals the beginning of the leased run, with the cluster as it is to be, in one write. Its number must be greater than all that
    /// this journal holds.
    pub fn start_run(&self, start: &RunStart, record: Option<&ClusterRecord>) -> Result<()> {
        if self.holder()?.run != start.run {
            let text = "the run is not the one that holds the lease";
            return Err(AgentError::Refused(text.to_owned()));
        }
        // An undo writes no record, and needs no bundle.
        if record.is_some() && lock(&self.bundle).is_none() {
            let text = "nothing may be installed before this node has checked the bundle's signature";
            return Err(AgentError::Unchecked(text.to_owned()));
        }
        self.journal(|journal| {
            let newest = journal.own().runs.iter().filter_map(|r| r.start.number).max();
            let (number, newest) = (start.number.unwrap_or(0), newest.unwrap_or(0));
            if number <= newest {
                let text = format!("the run has the number {number}, and this node's journal has {newest} already");
                return Err(AgentError::Refused(text));
            }
            let mut records = vec![Record::RunStarted(start.clone())];
            records.extend(record.map(|record| Record::Cluster(Box::new(record.clone()))));
            journal.append(&records, Durability::OnDisk)
        })
    }

    /// Journals what the cluster has become in the leased run, which must have begun in this journal.
    pub fn write_record(&self, record: &ClusterRecord) -> Result<()> {
        self.in_open_run(|_| vec![Record::Cluster(Box::new(record.clone()))])
    }

    /// Appends an intent of the leased run, which must have begun in this journal. What ends an earlier entry of the step is written
    /// with it: all or nothing.
    pub fn record_intent(&self, earlier: Vec<Record>, make: impl FnOnce(RunId) -> Record) -> Result<()> {
        self.in_open_run(|run| {
            let mut records = earlier;
            records.push(make(run));
            records
        })
    }

    fn in_open_run(&self, records: impl FnOnce(RunId) -> Vec<Record>) -> Result<()> {
        let run = self.holder()?.run;
        self.journal(|journal| {
            if journal.own().open_run().is_none_or(|open| open.run != run) {
                let text = "nothing may be changed before the start of the run was journalled";
                return Err(AgentError::Refused(text.to_owned()));
            }
            journal.append(&records(run), Durability::OnDisk)
        })
    }

    /// Takes the lease, or changes its holder when this session has it already.
    pub fn take_lease(&self, owner: &str, holder: Holder) -> Result<()> {
        let mut slot = lock(&self.lease);
        let lease = match slot.take() {
            Some((lease, _)) => lease,
            None => {
                let lease = Lease::take(&self.host, owner, &holder)?;
                self.forget_journal();
                lease
            }
        };
        *slot = Some((lease, holder));
        Ok(())
    }

    /// Returns who holds the lease in this session, or refuses.
    pub fn holder(&self) -> Result<Holder> {
        let slot = lock(&self.lease);
        let holder = slot.as_ref().map(|(_, holder)| holder.clone());
        holder.ok_or_else(|| AgentError::Refused("this request needs the node's lease first".to_owned()))
    }

    /// Gives the lease back.
    pub fn release_lease(&self) {
        *lock(&self.lease) = None;
    }

    /// Keeps a secret for later steps, in memory only.
    pub fn keep_secret(&self, id: SecretId, secret: Secret) {
        lock(&self.secrets).insert(id, secret);
    }

    /// Returns a secret that was brought.
    pub fn secret(&self, id: &SecretId) -> Option<Secret> {
        lock(&self.secrets).get(id).cloned()
    }

    /// Checks the signature of a bundle and keeps its index for this session. The keys in this node's journal decide; where it has none,
    /// those of the operator. `text` are the index's own bytes.
    pub fn trust_bundle(&self, text: &[u8], signature: Option<&str>, offer: &TrustOffer) -> Result<Option<KeyId>> {
        self.holder()?;
        let own = self.ownership()?;
        let recorded = own.record().and_then(|record| record.trust.as_ref());
        let judged = landfall_bundle::trust::judge(offer, recorded, text, signature)?;
        let unusable = |error: IndexError| AgentError::Unchecked(format!("the index of the bundle: {error}"));
        *lock(&self.bundle) = Some(BundleIndex::parse(text).map_err(unusable)?);
        Ok(judged.signer)
    }

    /// Returns what the checked bundle says of a blob.
    pub fn blob_entry(&self, digest: &Digest) -> Result<BlobEntry> {
        let slot = lock(&self.bundle);
        let entry = slot.as_ref().and_then(|index| index.blob(digest));
        entry.cloned().ok_or_else(|| {
            AgentError::Unchecked(format!(
                "the blob {digest} is in no bundle whose signature this node has checked"
            ))
        })
    }

    /// Returns which blobs come in now.
    pub fn arriving(&self) -> &Arc<Arriving> {
        &self.arriving
    }

    /// Remembers blobs that a step has used. Nothing of them goes before the run has ended: other steps may need them too.
    pub fn consume(&self, blobs: impl IntoIterator<Item = Digest>) {
        lock(&self.consumed).extend(blobs);
    }

    /// Returns the blobs that steps have used.
    pub fn consumed(&self) -> BTreeSet<Digest> {
        lock(&self.consumed).clone()
    }
}
