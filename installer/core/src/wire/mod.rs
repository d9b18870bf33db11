//! What operator and agent say to each other. The operator opens a stream per [`Request`]; on it the agent answers with
//! [`Reply`] lines (JSON, one per line), and raw bytes follow where the request says so. Framing is [`mux`]'s.

pub mod mux;

use crate::action::Undo;
use crate::event::EventKind;
use crate::explain::Diagnosis;
use crate::facts::{FactsQuery, NodeFacts};
use crate::journal::Ownership;
use crate::name::{Digest, NodeName, RunId, SecretId, StepId};
use crate::plan::Step;
use crate::verify::{ProbeResult, ProbeSpec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Version of this protocol; both sides must have the same.
pub const PROTOCOL_VERSION: u32 = 1;

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
        /// What an install installs, for the journal.
        bundle: Option<String>,
    },
    /// Gathers facts. Reply: [`NodeFacts`].
    Facts(FactsQuery),
    /// Reads the journal. Reply: [`Ownership`].
    Ownership,
    /// Checks which of these steps are satisfied. Reply: the ids of those that are.
    Check {
        /// Steps of this node.
        steps: Vec<Step>,
    },
    /// Which of these blobs are in the node's store? Reply: those that are.
    HaveBlobs {
        /// Digests asked for.
        digests: BTreeSet<Digest>,
    },
    /// A blob for the store; its bytes follow on the stream. Reply: null once it is there, checked and on disk.
    PutBlob {
        /// Its digest.
        digest: Digest,
        /// Its size.
        size_bytes: u64,
    },
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
    /// Takes back entries, newest first: all of them, or those of one run. Events; reply: [`UndoOutcome`].
    Undo {
        /// Only this run's entries, or everything.
        run: Option<RunId>,
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
    /// Probes a path into the cluster. Reply: one [`ProbeResult`] per spec, in order.
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
    /// Collects the end of the logs of kubeadm, kubelet and containerd, redacted. Reply: [`NodeLogs`].
    Logs,
}

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
    /// The run id to use: the open run's, when one was interrupted.
    pub run: RunId,
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

/// Typed answers, so that both sides name the same type.
pub type FactsReply = NodeFacts;
/// Answer to [`Request::Ownership`].
pub type OwnershipReply = Ownership;
/// Answer to [`Request::Probe`].
pub type ProbeReply = Vec<ProbeResult>;
