//! All nodes of a run: connected side by side, asked side by side.

use crate::run::RunContext;
use crate::session::{AgentPlace, AgentProgram, NodeSession};
use landfall_core::event::{Event, EventKind, Phase, RunCounts};
use landfall_core::explain::{Code, Diagnosis, ExitCode};
use landfall_core::inventory::Node;
use landfall_core::journal::Ownership;
use landfall_core::name::{NodeName, RunId};
use landfall_core::wire::{PROTOCOL_VERSION, Request, Welcome};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

/// Stamps events with the time since the run began and passes them to the sink; counts steps by how they came out.
#[derive(Clone)]
pub struct EventEmitter {
    began: Instant,
    sink: Arc<dyn landfall_core::event::EventSink>,
    counts: Arc<Mutex<RunCounts>>,
}

impl EventEmitter {
    /// Starts the run's clock.
    pub fn new(ctx: &RunContext) -> Self {
        Self {
            began: Instant::now(),
            sink: Arc::clone(&ctx.sink),
            counts: Arc::default(),
        }
    }

    /// Says something about a node or the whole run.
    pub fn emit(&self, node: Option<&NodeName>, kind: EventKind) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).add(&kind);
        self.sink.emit(Event {
            at_ms: millis(self.began),
            node: node.cloned(),
            kind,
        });
    }

    /// Says which run this is and how many steps it will do or take back.
    pub fn planned(&self, run: Option<&RunId>, steps: usize) {
        if let Some(run) = run.cloned() {
            self.emit(None, EventKind::RunPlanned { run, steps });
        }
    }

    /// Says how the command came out. Nothing is said afterwards.
    pub fn finished(&self, outcome: ExitCode, rolled_back: bool) {
        let kind = EventKind::RunFinished {
            outcome,
            rolled_back,
            counts: *self.counts.lock().unwrap_or_else(PoisonError::into_inner),
            duration_ms: millis(self.began),
        };
        self.emit(None, kind);
    }

    /// Runs `work` as a phase.
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

/// Sessions by node name.
pub type Sessions = BTreeMap<NodeName, Arc<NodeSession>>;

/// Connects to all machines at once. Returns the sessions that stand and what went wrong with the others.
pub fn connect(
    nodes: &[&Node],
    place: AgentPlace,
    ctx: &RunContext,
    emitter: &EventEmitter,
) -> (Sessions, Vec<Diagnosis>) {
    let program = match AgentProgram::read(&ctx.agent_program) {
        Ok(program) => program,
        Err(diagnosis) => return (Sessions::new(), vec![diagnosis]),
    };
    let results = each(nodes, |node| {
        let transport = ctx.connector.connect(node).map_err(|d| d.on(&node.name))?;
        let session = NodeSession::start(node, transport, &program, place)?;
        emitter.emit(Some(&node.name), EventKind::Connected);
        Ok(session)
    });
    let mut sessions = Sessions::new();
    let mut errors = Vec::new();
    for (node, result) in nodes.iter().zip(results) {
        match result {
            Ok(session) => {
                sessions.insert(node.name.clone(), session);
            }
            Err(diagnosis) => errors.push(diagnosis),
        }
    }
    (sessions, errors)
}

/// Runs `work` for every item on a thread of its own and returns the results in order.
pub fn each<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let work = &work;
        let handles: Vec<_> = items.iter().map(|item| scope.spawn(move || work(item))).collect();
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// Takes the lease of every node, or says why not.
pub fn lease(sessions: &Sessions, command: &str, cluster: &str, ctx: &RunContext) -> Result<(), Vec<Diagnosis>> {
    let request = Request::Lease {
        run: ctx.run.clone(),
        owner: ctx.owner.clone(),
        command: command.to_owned(),
        cluster: cluster.to_owned(),
    };
    let welcomes: BTreeMap<NodeName, Welcome> = ask_all(sessions, |_| request.clone())?;
    let errors: Vec<Diagnosis> = welcomes
        .iter()
        .filter_map(|(name, welcome)| other_protocol(name, welcome))
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Says that an agent speaks another version of the protocol.
fn other_protocol(name: &NodeName, welcome: &Welcome) -> Option<Diagnosis> {
    (welcome.protocol != PROTOCOL_VERSION).then(|| {
        Diagnosis::new(Code::Protocol, "the agent speaks another protocol version")
            .on(name)
            .saw(format!("agent {}, this landfall {PROTOCOL_VERSION}", welcome.protocol))
    })
}

/// Asks every node the same and returns the answers by name, or all errors.
pub fn ask_all<T: serde::de::DeserializeOwned + Send>(
    sessions: &Sessions,
    request: impl Fn(&NodeName) -> Request + Sync,
) -> Result<BTreeMap<NodeName, T>, Vec<Diagnosis>> {
    let list: Vec<_> = sessions.values().collect();
    let results = each(&list, |session| session.ask::<T>(&request(session.name())));
    let mut answers = BTreeMap::new();
    let mut errors = Vec::new();
    for (session, result) in list.iter().zip(results) {
        match result {
            Ok(answer) => {
                answers.insert(session.name().clone(), answer);
            }
            Err(diagnosis) => errors.push(diagnosis),
        }
    }
    if errors.is_empty() { Ok(answers) } else { Err(errors) }
}

/// Takes landfall's state away again from nodes where nothing is ours. Nodes that another run holds are left alone.
pub fn leave_nothing(sessions: &Sessions) {
    let list: Vec<_> = sessions.values().collect();
    // A node that is lost by now keeps its state directory: the next run finds and reports it.
    each(&list, |session| {
        let own = session.ask::<Ownership>(&Request::Ownership);
        if own.is_ok_and(|own| own.is_empty()) {
            let _: Result<(), Diagnosis> = session.ask(&Request::Tidy);
        }
    });
}

/// Ends all sessions.
pub fn close(sessions: &Sessions) {
    for session in sessions.values() {
        session.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_of_a_newer_protocol_is_refused_with_what_to_do() {
        let node = "cp-1".parse().unwrap();
        let welcome = |protocol| Welcome {
            protocol,
            version: "9.0.0".to_owned(),
        };
        assert_eq!(other_protocol(&node, &welcome(PROTOCOL_VERSION)), None);
        let error = other_protocol(&node, &welcome(PROTOCOL_VERSION + 1)).unwrap();
        assert_eq!((error.code, error.node.as_ref()), (Code::Protocol, Some(&node)));
        assert_eq!(error.saw, ["agent 3, this landfall 2"]);
        assert!(error.next[0].contains("the same version of landfall"), "{error:?}");
    }
}
