//! The events of a command. Renderers, logs and reports get nothing else from the engine.
//!
//! The events of one command, in order:
//! ```text
//! RunStarted ─ Warning* ─ PhaseStarted … PhaseFinished (phases may hold Connected, Found, Push*, Step*, Undone, Residue, Note)
//!    └─ RunPlanned, once it is known what will change ─ … ─ Verified? ─ Error* ─ RunFinished
//! ```
//! What is known at the start is in [`EventKind::RunStarted`]. The run's id and the number of its steps are known only after the nodes'
//! journals were read and the plan was made, so they come with [`EventKind::RunPlanned`]; a command that is refused before never has them.
//!
//! A stream is complete when it ends with [`EventKind::RunFinished`]. [`crate::report::Report`] is the fold of a stream.
//! Agents send kinds of events over the wire too, so a kind is never removed while the protocol version stays.

use crate::bundle_index::BundleIndex;
use crate::explain::{Diagnosis, ExitCode};
use crate::finding::Finding;
use crate::name::{Digest, NodeName, RunId, StepId};
use crate::plan::Stage;
use crate::trust::KeyId;
use crate::verify::VerifyReport;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One event of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds since the run began (monotonic).
    pub at_ms: u64,
    /// The node, when one is concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// Kinds of events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// A command begins. Always the first event.
    RunStarted {
        /// The command.
        command: Command,
        /// Name of the cluster.
        cluster: String,
        /// The bundle, for commands that take one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bundle: Option<BundleSummary>,
        /// The members of the inventory, in its order.
        nodes: Vec<NodeName>,
    },
    /// The nodes are leased and the plan is made. Emitted again when a failed install is rolled back.
    RunPlanned {
        /// The run's id, as the journals of the nodes record it. A run that continues an interrupted one has that run's id.
        run: RunId,
        /// How many steps will be done, or undone.
        steps: usize,
    },
    /// A command has ended. Always the last event.
    RunFinished {
        /// Its exit code.
        outcome: ExitCode,
        /// Whether everything that this run did was undone because a step failed.
        rolled_back: bool,
        /// Numbers of steps by result.
        counts: RunCounts,
        /// How long the command took, in milliseconds.
        duration_ms: u64,
    },
    /// Something that the user should know and that does not fail the run.
    Warning {
        /// The text.
        text: String,
    },
    /// A finding of preflight. One that refuses the run is also emitted as an `Error` at the run's end.
    Found {
        /// What it found.
        finding: Finding,
    },
    /// An error of the run. Each one is emitted once, before the run's end; a failed step is also emitted as `StepFailed` at once.
    Error {
        /// What went wrong.
        diagnosis: Diagnosis,
    },
    /// Verify has probed every path. When it did so several times, the last report counts.
    Verified {
        /// What it saw.
        report: VerifyReport,
    },
    /// A phase of the whole run begins.
    PhaseStarted {
        /// Which.
        phase: Phase,
    },
    /// It ended.
    PhaseFinished {
        /// Which.
        phase: Phase,
        /// How long it took, in milliseconds.
        took_ms: u64,
    },
    /// A node is logged in and its agent answers.
    Connected,
    /// How many bytes the node needs in all.
    PushPlanned {
        /// Bytes that are missing on the node.
        bytes: u64,
    },
    /// Bytes that came so far, from the operator or from other nodes.
    PushProgress {
        /// Bytes.
        bytes: u64,
        /// How many of them came from other nodes.
        #[serde(default, skip_serializing_if = "is_zero")]
        relayed: u64,
    },
    /// A step begins to act.
    StepStarted {
        /// The step.
        step: StepId,
        /// Its stage.
        stage: Stage,
        /// One line for people.
        text: String,
    },
    /// A step waits; emitted again when the reason changes.
    StepWaiting {
        /// The step.
        step: StepId,
        /// What it waits for and what was last seen.
        text: String,
    },
    /// A step ended well.
    StepFinished {
        /// The step.
        step: StepId,
        /// Its stage.
        stage: Stage,
        /// Whether it changed something.
        changed: bool,
        /// How long it took, in milliseconds.
        took_ms: u64,
    },
    /// A step failed.
    StepFailed {
        /// The step.
        step: StepId,
        /// Its stage.
        stage: Stage,
        /// What went wrong.
        diagnosis: Diagnosis,
    },
    /// Something was undone.
    Undone {
        /// The step that was undone.
        step: StepId,
        /// How long it took, in milliseconds.
        took_ms: u64,
    },
    /// Something could not be undone.
    Residue {
        /// The step.
        step: StepId,
        /// What is left.
        text: String,
    },
    /// A remark for people.
    Note {
        /// The text.
        text: String,
    },
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)*
        }
        impl $name {
            /// Returns the word, as it is written in JSON.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// A command that contacts machines.
    Command {
        /// Install the cluster, or bring it to what is wanted, and verify it.
        Install = "install",
        /// Show what `install` would do.
        Plan = "plan",
        /// Check the machines.
        Preflight = "preflight",
        /// Try every path into the cluster.
        Verify = "verify",
        /// Show what is installed.
        Status = "status",
        /// Show what the nodes' journals hold.
        Journal = "journal",
        /// Make damaged journals of their whole lines.
        JournalRepair = "journal-repair",
        /// Undo one run.
        Rollback = "rollback",
        /// Undo everything.
        Uninstall = "uninstall",
        /// Fetch an admin kubeconfig.
        Kubeconfig = "kubeconfig",
        /// Show where the dashboard is, and its login.
        Dashboard = "dashboard",
        /// Bring blobs to the nodes ahead of an install, or take them away again.
        Push = "push",
        /// Let the ingress proxy read Secrets.
        IngressAllow = "ingress-allow",
    }
}

words! {
    /// A phase of a command, for the whole fleet. The words are part of the report's format.
    Phase {
        /// Log in to all machines and start the agents.
        Connect = "connect",
        /// Ask the nodes what they are like.
        Facts = "facts",
        /// Judge the facts.
        Preflight = "preflight",
        /// Make the plan and find out which steps are satisfied.
        Plan = "plan",
        /// Let the nodes try to reach each other.
        Mesh = "mesh",
        /// Hash the blobs that will be sent.
        CheckBundle = "check-bundle",
        /// Send blobs and run steps.
        Execute = "execute",
        /// Take steps back.
        Undo = "undo",
        /// Try every path into the cluster.
        Verify = "verify",
    }
}

/// A bundle, as events and reports name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BundleSummary {
    /// The file, as the user named it.
    pub path: String,
    /// Digest of its index, which names every blob.
    pub index_digest: Digest,
    /// Version of Kubernetes inside.
    pub kubernetes: String,
    /// Recipe by which it was built.
    pub recipe: String,
    /// Id of the trusted key that signed it. `None` when `--allow-unsigned` let it pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<KeyId>,
}

impl BundleSummary {
    /// Describes a bundle by its index.
    pub fn new(path: String, index_digest: Digest, index: &BundleIndex, signed_by: Option<&KeyId>) -> Self {
        Self {
            path,
            index_digest,
            kubernetes: index.kubernetes_version.clone(),
            recipe: index.recipe.clone(),
            signed_by: signed_by.cloned(),
        }
    }
}

/// Numbers of steps by result, counted from events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCounts {
    /// Steps that changed something.
    pub changed: usize,
    /// Steps that found all as wanted when they ran. (Steps that were satisfied at planning time are not run and not counted.)
    pub unchanged: usize,
    /// Steps that failed.
    pub failed: usize,
    /// Steps that were undone.
    pub undone: usize,
    /// Steps that could not be undone.
    pub residue: usize,
}

impl RunCounts {
    /// Counts one event.
    pub fn add(&mut self, kind: &EventKind) {
        match kind {
            // A step of an undo emits `Undone` for each entry that was undone.
            EventKind::StepFinished { stage: Stage::Undo, .. } => {}
            EventKind::StepFinished { changed: true, .. } => self.changed += 1,
            EventKind::StepFinished { changed: false, .. } => self.unchanged += 1,
            EventKind::StepFailed { .. } => self.failed += 1,
            EventKind::Undone { .. } => self.undone += 1,
            EventKind::Residue { .. } => self.residue += 1,
            _ => {}
        }
    }
}

/// Where events go. Called from many threads; must not block for long.
pub trait EventSink: Send + Sync {
    /// Takes one event.
    fn emit(&self, event: Event);
}

// serde hands over a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}
