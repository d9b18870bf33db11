//! What operator and agent say to each other. The operator opens a stream per [`Request`]; on it the agent answers with
//! [`Reply`] lines (JSON, one per line), and raw bytes follow where the request says so. Framing is [`mux`]'s.

pub mod mux;

use crate::action::Undo;
use crate::cluster_record::ClusterRecord;
use crate::event::EventKind;
use crate::explain::Diagnosis;
use crate::facts::FactsQuery;
use crate::journal::{ROLLED_BACK, RunStart, UNDONE};
use crate::mesh::{MeshListen, MeshTry};
use crate::name::{Digest, NodeName, RunId, SecretId, StepId};
use crate::plan::Step;
use crate::relay::{RelayListen, RelaySource};
use crate::trust::TrustOffer;
use crate::verify::ProbeSpec;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// Version of this protocol; both sides must have the same.
pub const PROTOCOL_VERSION: u32 = 2;

/// First line of the agent on its standard output, before any frame, so that shell noise can be told from the protocol.
pub const AGENT_BANNER: &str = "LANDFALL-AGENT";

/// What the operator asks. Each opens one stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// Takes the lease of the node and says who is there. Reply: [`Welcome`]. Without it only facts and probes are answered.
    Lease {
        /// The run that wants it.
        run: RunId,
        /// Who: user and host of the operator.
        owner: String,
        /// Which command.
        command: String,
        /// Name of the cluster; a node that belongs to another one refuses.
        cluster: String,
    },
    /// Journals that the leased run begins to change something, and what the cluster is to be. Needed before the first intent. Reply: null.
    StartRun {
        /// The run.
        start: RunStart,
        /// The cluster; an undo writes none.
        record: Option<Box<ClusterRecord>>,
    },
    /// Journals what the cluster has become. Reply: null.
    WriteRecord {
        /// The cluster.
        record: Box<ClusterRecord>,
    },
    /// Gathers facts. Reply: [`NodeFacts`](crate::facts::NodeFacts).
    Facts(FactsQuery),
    /// Reads the journal. Reply: [`Ownership`](crate::journal::Ownership).
    Ownership,
    /// Reads the journal as far as its lines are whole, also a damaged one. Reply:
    /// [`JournalReading`](crate::journal::repair::JournalReading).
    ReadJournal {
        /// Runs that journals of other nodes hold.
        runs: Vec<RunStart>,
    },
    /// Replaces a damaged journal by what its whole lines say, and keeps it beside the new one. Needs the lease. Reply as for
    /// [`Request::ReadJournal`], with the place where it is kept.
    RepairJournal {
        /// Runs that journals of other nodes hold.
        runs: Vec<RunStart>,
    },
    /// Looks at what these steps are about. Reply: [`crate::observe::Observations`].
    Observe {
        /// Steps of this node.
        steps: Vec<Step>,
    },
    /// The index of the bundle, in its own bytes, which follow on the stream. The node checks its signature before it takes in a blob or a
    /// run that installs; the cluster's record, where its journal has one, says by which keys. Reply: the id of the key, or null.
    TrustBundle {
        /// Size of the index.
        size_bytes: u64,
        /// The signature, in minisign's form.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signature: Option<String>,
        /// What the operator trusts.
        trust: TrustOffer,
    },
    /// Which of these blobs are in the node's store? Reply: those that are.
    HaveBlobs {
        /// Digests asked for.
        digests: BTreeSet<Digest>,
    },
    /// How much of each of these blobs came before a connection ended? Reply: bytes by digest, without those of which there is nothing.
    PartialBlobs {
        /// Digests asked for.
        digests: BTreeSet<Digest>,
    },
    /// A blob for the store; its bytes follow on the stream. Reply: null once it is there, checked and on disk.
    PutBlob {
        /// Its digest.
        digest: Digest,
        /// Its size.
        size_bytes: u64,
        /// How many of its first bytes are there already, as [`Request::PartialBlobs`] says, and do not follow.
        #[serde(default, skip_serializing_if = "is_zero")]
        from_bytes: u64,
    },
    /// Takes a blob for the store from another node. Events while it comes: [`EventKind::PushProgress`] with the bytes of this request so
    /// far. Reply: null once it is there, checked and on disk. A source that cannot give it is [`Code::Unreachable`](crate::explain::Code).
    FetchBlob {
        /// Its digest.
        digest: Digest,
        /// Its size.
        size_bytes: u64,
        /// How many of its first bytes are there already.
        #[serde(default, skip_serializing_if = "is_zero")]
        from_bytes: u64,
        /// Who gives it.
        source: RelaySource,
    },
    /// Opens a listener from which other nodes take blobs. Reply: [`RelayListening`](crate::relay::RelayListening); it closes when this
    /// stream ends.
    RelayListen(RelayListen),
    /// A secret for later steps, kept in memory only; its bytes follow on the stream. Reply: null.
    PutSecret {
        /// Its name.
        id: SecretId,
        /// Its size.
        size_bytes: u64,
    },
    /// Reads a file of ours that holds a secret (under /etc/kubernetes only). Reply: [`FileSize`], then the raw bytes.
    ReadSecret {
        /// Absolute path.
        path: String,
    },
    /// Runs one step: check, intent, act, check again, done. Events while it runs; reply: [`StepOutcome`].
    RunStep {
        /// The step.
        step: Step,
    },
    /// Journals the intent of a step that the operator carries out itself. Reply: null.
    Intent {
        /// The step.
        step: StepId,
        /// Digest of its action.
        action: Digest,
        /// How it is taken back.
        undo: Undo,
    },
    /// Journals that such a step is done. Reply: null.
    Done {
        /// The step.
        step: StepId,
    },
    /// Takes back the newest entry of one step, for instance one that was interrupted. Reply: [`UndoOutcome`].
    UndoStep {
        /// The step.
        step: StepId,
    },
    /// Journals the end of the run, if it changed anything here. Reply: null.
    FinishRun {
        /// How it ended.
        outcome: String,
    },
    /// Removes blobs that no step needs any more, and, when nothing is ours, the whole state directory. Reply: null.
    Tidy,
    /// Opens a TCP connection from the node. Reply: null, then raw bytes both ways.
    Tunnel {
        /// `address:port`.
        address: String,
    },
    /// Opens listeners for peers. Reply: [`MeshListening`](crate::mesh::MeshListening); they close when this stream ends.
    MeshListen(MeshListen),
    /// Tries the listeners of peers. Reply: one [`MeshSeen`](crate::mesh::MeshSeen) per peer, in order.
    MeshTry(MeshTry),
    /// Probes a path into the cluster. Reply: one [`ProbeResult`](crate::verify::ProbeResult) per spec, in order.
    Probe {
        /// What to try.
        probes: Vec<ProbeSpec>,
    },
    /// Probes from inside a container on this node. Reply as for [`Request::Probe`].
    ProbeInContainer {
        /// Container id as containerd knows it.
        container: String,
        /// What to try.
        probes: Vec<ProbeSpec>,
    },
    /// Runs `etcdctl` inside this node's etcd container with its own certificates. Reply: [`CommandOutput`].
    Etcdctl {
        /// The member of the cluster that is asked: the node on which the agent runs.
        node: NodeName,
        /// Arguments after the endpoint and certificate flags.
        args: Vec<String>,
    },
    /// Asks kubeadm when this control plane's certificates end. Reply: [`CertificateAge`] of each.
    Certificates,
    /// Looks whether units run and kernel settings hold as the journal wants. Reply: [`NodeHealth`](crate::health::NodeHealth).
    NodeHealth,
    /// Collects the end of the logs of kubeadm, kubelet and containerd, redacted. Reply: [`NodeLogs`].
    Logs,
}

impl Request {
    /// Names the request for people: its kind, and the step when there is one. Nothing of it is secret.
    pub fn name(&self) -> String {
        let step = |verb: &str, step: &StepId| format!("{verb} the step {step}");
        match self {
            Self::Lease { .. } => "taking the lease".to_owned(),
            Self::Facts(_) => "gathering facts".to_owned(),
            Self::Ownership | Self::ReadJournal { .. } => "reading the journal".to_owned(),
            Self::RepairJournal { .. } => "repairing the journal".to_owned(),
            Self::StartRun { .. } => "recording the start of the run".to_owned(),
            Self::WriteRecord { .. } => "recording what the cluster is".to_owned(),
            Self::Observe { steps } => format!("looking at what {} steps are about", steps.len()),
            Self::TrustBundle { .. } => "checking the bundle's signature".to_owned(),
            Self::HaveBlobs { .. } | Self::PartialBlobs { .. } => "looking which blobs are there".to_owned(),
            Self::PutBlob { digest, .. } => format!("taking in the blob {digest}"),
            Self::FetchBlob { digest, source, .. } => format!("taking the blob {digest} from {}", source.node),
            Self::RelayListen(_) => "listening for nodes that need blobs".to_owned(),
            Self::PutSecret { .. } => "taking in a secret".to_owned(),
            Self::ReadSecret { path } => format!("reading {path}"),
            Self::RunStep { step: which } => step("running", &which.id),
            Self::Intent { step: which, .. } => step("recording the intent of", which),
            Self::Done { step: which } => step("recording the end of", which),
            Self::UndoStep { step: which } => step("taking back", which),
            Self::FinishRun { .. } => "recording the end of the run".to_owned(),
            Self::Tidy => "removing what is no longer needed".to_owned(),
            Self::Tunnel { address } => format!("connecting to {address}"),
            Self::MeshListen(_) => "listening for its peers".to_owned(),
            Self::MeshTry(asked) => format!("trying {} peers", asked.peers.len()),
            Self::Probe { probes } => format!("trying {} probes", probes.len()),
            Self::ProbeInContainer { probes, .. } => format!("trying {} probes in a container", probes.len()),
            Self::Etcdctl { .. } => "asking etcd".to_owned(),
            Self::Certificates => "asking kubeadm for certificates".to_owned(),
            Self::NodeHealth => "looking how the node is".to_owned(),
            Self::Logs => "collecting logs".to_owned(),
        }
    }

    /// Returns how long the answer is waited for. What the agent does for a request has limits of its own, which are named here; a minute on top
    /// is for a machine that swaps. A blob may take as long as it needs on the line that there is, as long as it moves.
    pub fn patience(&self) -> Patience {
        let seconds = match self {
            Self::PutBlob { .. } | Self::FetchBlob { .. } => return Patience::Silence(BLOB_SILENCE),
            // Children of a killed agent are given 10 s to end.
            Self::Lease { .. } | Self::Facts(_) | Self::Etcdctl { .. } | Self::Certificates => 60,
            Self::Ownership | Self::ReadJournal { .. } | Self::RepairJournal { .. } => 0,
            Self::TrustBundle { .. }
            | Self::HaveBlobs { .. }
            | Self::PartialBlobs { .. }
            | Self::PutSecret { .. }
            | Self::ReadSecret { .. } => 0,
            Self::StartRun { .. }
            | Self::WriteRecord { .. }
            | Self::Intent { .. }
            | Self::Done { .. }
            | Self::Tunnel { .. } => 0,
            // What an undo removed is put on disk first, with all that others have not put there yet.
            Self::FinishRun { outcome } if matches!(outcome.as_str(), UNDONE | ROLLED_BACK) => 600,
            Self::Tidy => 600,
            Self::FinishRun { .. } => 0,
            Self::MeshListen(asked) => asked.limit_ms.div_ceil(1000),
            // Some seconds; the agent's own limits stand in its module `mesh`.
            Self::MeshTry(_) => 0,
            // systemd once and the logs of a few units.
            Self::NodeHealth => 60,
            // 24 logs, and twice journalctl with 20 s.
            Self::Logs => 60,
            // A program without its stamp is hashed again: some hundred megabytes on a slow disk.
            Self::Observe { .. } => 240,
            Self::RelayListen(_) => 0,
            // An interrupted attempt is taken back first, and what programs wrote is put on disk at the end.
            Self::RunStep { step } => step.deadline_s + UNDO_S,
            Self::UndoStep { .. } => UNDO_S,
            Self::Probe { probes } | Self::ProbeInContainer { probes, .. } => {
                let longest = probes.iter().map(ProbeSpec::timeout_ms).max().unwrap_or(0);
                longest.saturating_mul(probes.len() as u64).div_ceil(1000).min(600)
            }
        };
        Patience::Total(Duration::from_secs(seconds.saturating_add(60)))
    }
}

/// How long a blob may stand still: what came of it before a connection ended is hashed again, and a slow disk takes it in at the end. Who is gone is
/// noticed by the pings, within 30 s.
const BLOB_SILENCE: Duration = Duration::from_secs(300);

/// How long the answer to a request is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// So long in all.
    Total(Duration),
    /// As long as something moves: the peer takes what is sent, or says something, at least this often.
    Silence(Duration),
}

// serde hands over a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

/// Seconds in which a step is taken back: units have 30 s to stop, processes 10, mounts and groups some seconds each.
const UNDO_S: u64 = 300;

/// How long a certificate lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateAge {
    /// kubeadm's name of it, for instance `apiserver`.
    pub name: String,
    /// Whole days left; negative when it has ended.
    pub days_left: i64,
}

/// What the agent answers on a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// Something happened; more follows.
    Event {
        /// What.
        event: EventKind,
    },
    /// The answer; last line unless raw bytes follow.
    Ok {
        /// Depends on the request.
        value: serde_json::Value,
    },
    /// It failed; last line.
    Failed {
        /// Why.
        diagnosis: Diagnosis,
    },
}

/// Answer to [`Request::Lease`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`PROTOCOL_VERSION`] of the agent.
    pub protocol: u32,
    /// Version of landfall.
    pub version: String,
}

/// Size of what follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSize {
    /// Bytes.
    pub size_bytes: u64,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepOutcome {
    /// Whether anything was changed.
    pub changed: bool,
    /// What a step that takes back could not take back, each a readable line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub residue: Vec<String>,
}

/// How an undo ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoOutcome {
    /// Entries taken back.
    pub undone: usize,
    /// What could not be taken back, each a readable line.
    pub residue: Vec<String>,
}

/// Output of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandOutput {
    /// Exit status; `None` when a signal ended it.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Ends of logs by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLogs {
    /// File name and text.
    pub files: Vec<(String, String)>,
}
