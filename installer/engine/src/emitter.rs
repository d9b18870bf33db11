//! The sender of a run's events.

use crate::context::RunContext;
use landfall_core::event::{Event, EventKind, EventSink, Phase, RunCounts};
use landfall_core::explain::ExitCode;
use landfall_core::name::{NodeName, RunId};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Stamps events with the time since the run began and passes them to the sink; counts steps by their result.
#[derive(Clone)]
pub struct EventEmitter {
    began: Instant,
    sink: Arc<dyn EventSink>,
    counts: Arc<Mutex<RunCounts>>,
}

impl EventEmitter {
    /// Returns an emitter whose clock starts now.
    pub fn new(ctx: &RunContext) -> Self {
        Self {
            began: Instant::now(),
            sink: Arc::clone(&ctx.sink),
            counts: Arc::default(),
        }
    }

    /// Emits an event about a node, or about the whole run.
    pub fn emit(&self, node: Option<&NodeName>, kind: EventKind) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).add(&kind);
        self.sink.emit(Event {
            at_ms: millis(self.began),
            node: node.cloned(),
            kind,
        });
    }

    /// Emits the run's id and the number of steps that it will do or undo.
    pub fn planned(&self, run: Option<&RunId>, steps: usize) {
        if let Some(run) = run.cloned() {
            self.emit(None, EventKind::RunPlanned { run, steps });
        }
    }

    /// Emits the command's result. It is the last event.
    pub fn finished(&self, outcome: ExitCode, rolled_back: bool) {
        let kind = EventKind::RunFinished {
            outcome,
            rolled_back,
            counts: *self.counts.lock().unwrap_or_else(PoisonError::into_inner),
            duration_ms: millis(self.began),
        };
        self.emit(None, kind);
    }

    /// Runs `work` between the events that begin and end a phase.
    pub fn phase<T>(&self, phase: Phase, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        self.emit(None, EventKind::PhaseStarted { phase });
        let result = work();
        let took_ms = millis(start);
        self.emit(None, EventKind::PhaseFinished { phase, took_ms });
        result
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
