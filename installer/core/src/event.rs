//! What happens during a run, as renderers and reports see it. The only channel from the engine to the user.

use crate::explain::Diagnosis;
use crate::name::{NodeName, StepId};
use crate::plan::Stage;
use serde::{Deserialize, Serialize};

/// One thing that happened.
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
    /// A phase of the whole run begins: `connect`, `facts`, `preflight`, `plan`, `push`, `execute`, `verify`, …
    PhaseStarted {
        /// Its name.
        phase: String,
    },
    /// It ended.
    PhaseFinished {
        /// Its name.
        phase: String,
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
    /// Bytes sent so far.
    PushProgress {
        /// Bytes sent.
        bytes: u64,
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
    /// A step waits; said again while it does.
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
        /// Whether it changed something, or all was as wanted.
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
    /// Something was taken back.
    Undone {
        /// The step that was undone.
        step: StepId,
        /// How long it took, in milliseconds.
        took_ms: u64,
    },
    /// Something could not be taken back.
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

/// Where events go. Called from many threads; must not block for long.
pub trait EventSink: Send + Sync {
    /// Takes one event.
    fn emit(&self, event: Event);
}
