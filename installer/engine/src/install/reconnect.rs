//! Retries an install whose connections are lost. Each attempt does what the user's next install would do: it is a run with its own number that
//! continues the one before, so it needs no knowledge of how far a node came.

use super::InstallRun;
use crate::context::{InstallOptions, Until};
use crate::fleet;
use landfall_core::event::EventKind;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::name::{NodeName, RunId};
use landfall_core::verify::CellOutcome;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Pause before the first attempt; each further one waits twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Errors that a later attempt may not meet.
const TRANSIENT: [Code; 5] = [
    Code::ConnectionLost,
    Code::Unreachable,
    Code::LoginRefused,
    Code::AgentStart,
    // The agent has not noticed yet that its connection is lost, so it still holds the lease.
    Code::Locked,
];

/// The state of the retries.
pub(super) struct Reconnect {
    limit: Duration,
    /// When a step was last done or a byte sent.
    progress: Instant,
    pause: Duration,
    attempts: u32,
    /// Changes and sent bytes of all attempts when the last one ended.
    done: (usize, u64),
    /// Nodes that the first attempt reached.
    had: BTreeSet<NodeName>,
}

impl Reconnect {
    /// Returns the state before the first attempt. A plan file allows only one: it describes the state before its run, so a second attempt would
    /// have to refuse it.
    pub(super) fn new(options: &InstallOptions) -> Self {
        let once = options.plan_file.is_some() || options.until == Until::Plan;
        Self {
            limit: if once { Duration::ZERO } else { options.reconnect },
            progress: Instant::now(),
            pause: FIRST_PAUSE,
            attempts: 0,
            done: (0, 0),
            had: BTreeSet::new(),
        }
    }
}

impl InstallRun<'_> {
    /// Returns the errors of nodes that the first attempt reached and this one does not.
    pub(super) fn check_known_nodes(&self) -> Result<(), Vec<Diagnosis>> {
        let had = |d: &&Diagnosis| d.node.as_ref().is_some_and(|name| self.reconnect.had.contains(name));
        let missing: Vec<Diagnosis> = self.outcome.absent.iter().filter(had).cloned().collect();
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }

    /// Says whether a failed attempt is retried, after the pause before the next one. Blocks for [`LONGEST_PAUSE`] at most.
    pub(super) fn should_retry(&mut self) -> bool {
        let lost: Vec<NodeName> = self.lost_nodes();
        let done = (self.outcome.changes, self.outcome.bytes_sent.values().sum());
        let reconnect = &mut self.reconnect;
        if reconnect.attempts == 0 {
            reconnect.had = self.sessions.keys().cloned().collect();
        }
        if done != reconnect.done {
            (reconnect.done, reconnect.progress, reconnect.pause) = (done, Instant::now(), FIRST_PAUSE);
        }
        let left = reconnect.limit.saturating_sub(reconnect.progress.elapsed());
        // A run without changes ends with what its verify has seen.
        let failed = self.begun || !self.outcome.errors.is_empty();
        if lost.is_empty() || left.is_zero() || !failed || self.ctx.cancel.is_cancelled() {
            return false;
        }
        let (pause, names) = (reconnect.pause.min(left), lost.iter().map(NodeName::as_str));
        let text = format!(
            "no connection to {}; connecting again in {} s, and giving up after {} s without progress",
            names.collect::<Vec<_>>().join(", "),
            pause.as_secs(),
            left.as_secs()
        );
        (reconnect.attempts, reconnect.pause) = (reconnect.attempts + 1, (reconnect.pause * 2).min(LONGEST_PAUSE));
        self.emitter.emit(None, EventKind::Note { text });
        self.ctx.cancel.sleep(pause);
        if self.ctx.cancel.is_cancelled() {
            return false;
        }
        self.prepare_retry();
        true
    }

    /// Returns the nodes whose connection ended in this attempt, also before anything was changed, or that a retry could not reach. Empty when nothing
    /// failed. A machine that the first attempt never reached is none of them.
    fn lost_nodes(&self) -> Vec<NodeName> {
        let red = self.outcome.verify.as_ref().map_or(0, |v| v.count(CellOutcome::Fail));
        if self.outcome.errors.is_empty() && red == 0 {
            return vec![];
        }
        let ended = self.sessions.values().filter(|session| session.is_lost());
        let mut nodes: BTreeSet<NodeName> = ended.map(|session| session.name().clone()).collect();
        // A connection that takes nothing more is lost before its other direction has ended.
        let first = self.reconnect.attempts == 0;
        let transient = |e: &&Diagnosis| e.code == Code::ConnectionLost || !first && TRANSIENT.contains(&e.code);
        let errors = self.outcome.errors.iter().filter(transient);
        nodes.extend(errors.filter_map(|e| e.node.clone()));
        nodes.into_iter().collect()
    }

    /// Closes the attempt's sessions and prepares the next attempt, which has a run id of its own.
    fn prepare_retry(&mut self) {
        self.undo_ephemeral();
        fleet::close(&self.outside);
        fleet::close(&self.sessions);
        self.failed = None;
        self.cluster = crate::cluster::Cluster::default();
        self.ctx.run = attempt_id(&self.runs[0], self.reconnect.attempts);
        self.runs.push(self.ctx.run.clone());
        // Changes and sent bytes are counted over all attempts.
        let before = std::mem::take(&mut self.outcome);
        (self.outcome.changes, self.outcome.bytes_sent) = (before.changes, before.bytes_sent);
    }
}

fn attempt_id(first: &RunId, attempt: u32) -> RunId {
    let id = format!("{first}-again{attempt}").parse();
    id.expect("an id of ours is far shorter than 64 characters, and digits and letters may follow")
}
